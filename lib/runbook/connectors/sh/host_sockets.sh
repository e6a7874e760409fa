# host_sockets PROC
# Listening TCP sockets as the kernel writes them, how often a full queue of theirs dropped a connection since boot, and
# who holds them: the first process, how many, their state (one letter where they agree), age, processor time, open
# files. A holder that is hidden from us stays empty.
host_sockets() {
  [ -r "$1/net/tcp" ] || { echo "$1/net/tcp cannot be read" >&2; return 127; }
  overflows=$(awk '$1 == "TcpExt:" { if (!n) { n = split($0, name, " ") } else for (i = 2; i <= n; i++)
    if (name[i] == "ListenOverflows") print $i }' "$1/net/netstat" 2>/dev/null)
  printf 'local\twaiting\tbacklog\toverflows\tpid\tprocesses\tstate\tage_seconds\tcpu_seconds\topen_files\topen_files_limit\tcommand\n'
  if [ "$1" != /proc ] || ! command -v ss >/dev/null 2>&1; then
    cat "$1/net/tcp" "$1/net/tcp6" 2>/dev/null | awk -v o="$overflows" \
      '$4 == "0A" { split($5, queue, ":"); printf "hex:%s\t%s\t\t%s\t\t\t\t\t\t\t\t\n", $2, "hex:" queue[2], o }'
    return
  fi
  listening=$(ss -ltnpH 2>/dev/null)
  pids=$(printf '%s\n' "$listening" | grep -o 'pid=[0-9]*' | cut -d = -f 2 | sort -un)
  set -- /dev/null
  for pid in $pids; do set -- "$@" "/proc/$pid/cmdline"; done
  {
    for pid in $pids; do
      if [ -r "/proc/$pid/fd" ]; then
        open=0
        for file in "/proc/$pid/fd"/*; do open=$((open + 1)); done
        printf 'open %s %s\n' "$pid" "$open"
      fi
    done
    head -c 300 "$@" 2>/dev/null | tr '\000\t' '  '
    printf '\n==> sockets <==\n%s\n' "$listening"
  } | TICKS=$(getconf CLK_TCK 2>/dev/null || echo 100) awk -v o="$overflows" '
    function first_line(file,   line) { line = ""; getline line < file; close(file); return line }
    function limit(file,   line, word, found) {
      found = ""
      while ((getline line < file) > 0)
        if (line ~ /^Max open files/) { split(line, word, / +/); found = word[4] }
      close(file)
      return found
    }
    BEGIN { split(first_line("/proc/uptime"), uptime, " ") }
    at == "" && /^open [0-9]+ [0-9]+$/ { open[$2] = $3; next }
    $0 == "==> sockets <==" { at = "sockets"; next }
    /^==> \/.* <==$/ { at = $2; sub(/\/cmdline$/, "", at); sub(/.*\//, "", at); next }
    at != "sockets" { if (at != "" && $0 != "" && !(at in title)) { title[at] = $0; sub(/ +$/, "", title[at]) }; next }
    $4 == "" { next }
    {
      rest = $0; count = 0; pid = state = age = cpu = ""
      while (match(rest, /pid=[0-9]+/)) {
        one = substr(rest, RSTART + 4, RLENGTH - 4) + 0; rest = substr(rest, RSTART + RLENGTH)
        if (seen[one] == NR) continue
        seen[one] = NR; line = first_line("/proc/" one "/stat")
        if (line == "") continue
        sub(/.*\) /, "", line); split(line, field, " ")
        state = !count++ ? field[1] : state == field[1] ? state : "mixed"
        cpu = sprintf("%.2f", cpu + (field[12] + field[13]) / ENVIRON["TICKS"])
        if (pid == "" || one < pid) { pid = one; age = sprintf("%.1f", uptime[1] - field[20] / ENVIRON["TICKS"]) }
      }
      printf "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", $4, $2, $3, o, pid, count ? count : "", state, age, cpu, \
        open[pid], pid == "" ? "" : limit("/proc/" pid "/limits"), title[pid]
    }'
}
