# host_processes PROC [PATTERN]
# One row a process whose command line matches PATTERN. What belongs to another user and is hidden from us stays empty.
# Who asks is left out. The proportional share costs a walk through the page tables, so only the 300 largest are asked for it.
host_processes() {
  [ -d "$1/1" ] || [ -r "$1/uptime" ] || { echo "$1 cannot be read" >&2; return 127; }
  own=0 asker=0
  [ "$1" = /proc ] && own=$$ asker=$PPID
  {
    for dir in "$1"/[0-9]*; do
      pid=${dir##*/} open=
      if [ -r "$dir/fd" ]; then
        set -- "$1" "${2:-}" "$dir"/fd/*
        open=$(($# - 2))
        [ "$open" -eq 1 ] && [ "${3##*/}" = '*' ] && open=0
        set -- "$1" "${2:-}"
      fi
      printf 'open %s %s\n' "$pid" "$open"
    done
    head -c 600 /dev/null "$1"/[0-9]*/cmdline 2>/dev/null | tr '\000\t' '  '
  } | PROC=$1 PATTERN=${2:-} OWN=$own ASKER=$asker TICKS=$(getconf CLK_TCK 2>/dev/null || echo 100) awk '
    function kilobytes(file, into,   line, word) {
      while ((getline line < file) > 0) {
        split(line, word, /[: \t]+/)
        if (!(word[1] in into)) into[word[1]] = word[2]
      }
      close(file)
    }
    function bytes(value) { return value == "" ? "" : sprintf("%.0f", value * 1024) }
    # In the hierarchy of the memory controller, else in that of version 2; the path itself may hold colons.
    function cgroup(file,   line, found, controllers, path) {
      found = ""
      while ((getline line < file) > 0) {
        path = line; sub(/^[^:]*:[^:]*:/, "", path)
        controllers = line; sub(/^[^:]*:/, "", controllers); sub(/:.*/, "", controllers)
        if (index("," controllers ",", ",memory,")) { found = path; break }
        if (controllers == "") found = path
      }
      close(file)
      return found
    }
    function limit(file,   line, word, found) {
      found = ""
      while ((getline line < file) > 0)
        if (line ~ /^Max open files/) { split(line, word, / +/); found = word[4] }
      close(file)
      return found
    }
    BEGIN { proc = ENVIRON["PROC"]; getline line < (proc "/uptime"); split(line, uptime, " ") }
    /^open [0-9]+ [0-9]*$/ && pid == "" { open[$2] = $3; pids[++count] = $2; next }
    /^==> .*\/cmdline <==$/ { pid = $0; sub(/\/cmdline <==$/, "", pid); sub(/.*\//, "", pid); next }
    pid == "" { pid = " " }
    { if (length(command[pid]) < 300) command[pid] = command[pid] (command[pid] == "" ? "" : " ") $0 }
    END {
      for (i = 1; i <= count; i++) {
        file = proc "/" pids[i] "/stat"; line = ""
        if ((getline line < file) <= 0) { close(file); continue }
        close(file)
        split("", status); kilobytes(proc "/" pids[i] "/status", status)
        rest = line; sub(/.*\) /, "", rest); split(rest, field, " ")
        title = command[pids[i]]; gsub(/ +$/, "", title)
        if (title == "" && !("VmRSS" in status) && field[1] != "Z") continue
        if (title == "") { title = line; sub(/^[^(]*\(/, "[", title); sub(/\)[^)]*$/, "]", title) }
        if (ENVIRON["OWN"] > 0 && (pids[i] == ENVIRON["OWN"] || field[2] == ENVIRON["OWN"] || pids[i] == ENVIRON["ASKER"]))
          continue
        if (ENVIRON["PATTERN"] != "" && title !~ ENVIRON["PATTERN"]) continue
        p = ++kept; id[p] = pids[i]; parent[p] = field[2]; state[p] = field[1]; name[p] = title
        age[p] = uptime[1] == "" ? "" : sprintf("%.0f", uptime[1] - field[20] / ENVIRON["TICKS"])
        cpu[p] = sprintf("%.2f", (field[12] + field[13]) / ENVIRON["TICKS"]); threads[p] = field[18]
        rss[p] = status["VmRSS"]; anonymous[p] = status["RssAnon"]; most[p] = limit(proc "/" pids[i] "/limits")
        group[p] = cgroup(proc "/" pids[i] "/cgroup")
      }
      print "pid\tparent\tstate\tage_seconds\trss_bytes\tpss_bytes\tanonymous_bytes\tcpu_seconds\tthreads\t" \
        "open_files\topen_files_limit\tcgroup\tcommand"
      for (p = 1; p <= kept; p++) {
        bigger = 0
        if (kept > 300) for (q = 1; q <= kept; q++) if (rss[q] + 0 > rss[p] + 0) bigger++
        split("", rollup)
        if (bigger < 300 && rss[p] != "") kilobytes(proc "/" id[p] "/smaps_rollup", rollup)
        if (anonymous[p] == "") anonymous[p] = rollup["Anonymous"]
        printf "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id[p], parent[p], state[p], age[p], bytes(rss[p]), \
          bytes(rollup["Pss"]), bytes(anonymous[p]), cpu[p], threads[p], open[id[p]], most[p], group[p], name[p]
      }
    }'
}
