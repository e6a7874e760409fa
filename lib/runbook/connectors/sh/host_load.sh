# host_load PROC
# Load, processors, the seconds since boot, and the time of all processors since then, in ticks: all of it, and idle.
host_load() {
  [ -r "$1/loadavg" ] || { echo "$1/loadavg cannot be read" >&2; return 127; }
  read -r load_1 _ _ runnable _ < "$1/loadavg"
  boot=
  [ -r "$1/uptime" ] && read -r boot _ < "$1/uptime"
  cores=$(grep -c '^cpu[0-9]' "$1/stat" 2>/dev/null)
  ticks=$(awk '$1 == "cpu" && NF > 5 { for (n = 2; n <= 9; n++) all += $n; printf "%.0f\t%.0f", all, $5 + $6; exit }' "$1/stat" 2>/dev/null)
  printf 'cores\tload_1\trunnable\tboot_seconds\tall_ticks\tidle_ticks\n'
  printf '%s\t%s\t%s\t%s\t%s\n' "$cores" "$load_1" "${runnable%%/*}" "$boot" "${ticks:-	}"
}
