# host_load PROC
# Load, processors and the seconds since boot, one row.
host_load() {
  [ -r "$1/loadavg" ] || { echo "$1/loadavg cannot be read" >&2; return 127; }
  read -r load_1 _ _ runnable _ < "$1/loadavg"
  boot=
  [ -r "$1/uptime" ] && read -r boot _ < "$1/uptime"
  cores=$(grep -c '^cpu[0-9]' "$1/stat" 2>/dev/null)
  printf 'cores\tload_1\trunnable\tboot_seconds\n%s\t%s\t%s\t%s\n' "$cores" "$load_1" "${runnable%%/*}" "$boot"
}
