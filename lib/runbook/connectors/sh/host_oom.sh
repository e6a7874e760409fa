# host_oom PROC [LOG]
# One row a process that the kernel killed for want of memory, from the kernel's log (or from LOG, which holds one), with
# the seconds since. A log that no longer reaches back to the boot says so: what is missing from it is not known.
host_oom() {
  [ -r "$1/uptime" ] || { echo "$1/uptime cannot be read" >&2; return 127; }
  host_oom_lines=
  if [ -n "${2:-}" ]; then
    host_oom_lines=$(cat -- "$2") || return 127
  elif [ "$1" = /proc ]; then
    host_oom_lines=$(dmesg 2>/dev/null)
    [ -n "$host_oom_lines" ] ||
      host_oom_lines=$(journalctl -k -b -o short-monotonic --no-pager -n 20000 2>/dev/null | grep '\[ *[0-9]*\.[0-9]*\]')
  fi
  # Who may not read it is shown nothing, by journalctl without any complaint; a kernel is never that silent.
  [ -n "$host_oom_lines" ] || { echo 'the kernel log may not be read (dmesg, journalctl -k)' >&2; return 127; }
  read -r up _ < "$1/uptime"
  printf '%s\n' "$host_oom_lines" | UPTIME=$up awk '
    function after(text, key,   rest) {
      if (!match(text, key)) return ""
      rest = substr(text, RSTART + RLENGTH); sub(/[ ,:()].*/, "", rest)
      return rest
    }
    BEGIN { print "age_seconds\tpid\tcommand\trss_bytes\tcgroup\tconstraint"; first = "" }
    {
      at = ""
      if (match($0, /\[ *[0-9]+\.[0-9]+\]/)) { at = substr($0, RSTART + 1, RLENGTH - 2); gsub(/ /, "", at) }
      if (first == "" && at != "") first = at
    }
    /oom-kill:constraint=/ {
      constraint = after($0, "constraint="); where = after($0, "oom_memcg=")
    }
    / killed as a result of limit of / { constraint = "CONSTRAINT_MEMCG"; where = after($0, "as a result of limit of ") }
    /Killed process [0-9]+/ {
      pid = after($0, "Killed process ")
      command = $0; sub(/.*Killed process [0-9]+,? *\(/, "", command)
      if (!sub(/\),? +total-vm:.*/, "", command)) sub(/\).*/, "", command)
      rss = after($0, "anon-rss:"); sub(/kB$/, "", rss)
      if ($0 ~ /[Mm]emory cgroup out of memory/) constraint = "CONSTRAINT_MEMCG"
      else if (constraint == "") constraint = "CONSTRAINT_NONE"
      printf "%s\t%s\t%s\t%s\t%s\t%s\n", at == "" ? "" : sprintf("%.1f", ENVIRON["UPTIME"] - at), pid, command, \
        rss == "" ? "" : sprintf("%.0f", rss * 1024), constraint == "CONSTRAINT_MEMCG" ? where : "", constraint
      constraint = ""; where = ""
    }
    END { if (first == "" || first > 60) { print "the kernel log begins " (first == "" ? "at no known time" : sprintf("%.0f s after the boot", first)) > "/dev/stderr"; exit 3 } }'
}
