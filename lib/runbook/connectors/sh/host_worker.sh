# host_worker_started PROC PID...
# Each of these processes and what tells it from every other of its number: its start in ticks since boot, and the boot.
host_worker_started() {
  host_worker_proc=$1
  shift
  printf 'pid\tstarted\tboot\n'
  for pid in "$@"; do
    host_worker_at=$(host_worker_ticks "$host_worker_proc" "$pid")
    [ -z "$host_worker_at" ] ||
      printf '%s\t%s\t%s\n' "$pid" "$host_worker_at" "$(cat "$host_worker_proc/sys/kernel/random/boot_id" 2>/dev/null)"
  done
}
# The name of a program may hold spaces, brackets and lines: what follows the last bracket is numbers.
host_worker_ticks() {
  { tail -n 1 "$1/$2/stat" | sed 's/.*) //' | cut -d ' ' -f 20; } 2>/dev/null
}
# host_worker_restart PROC PID STARTED BOOT ARGV...
# Runs ARGV if process PID still is the one that began then; PID 0 = there is none. In a session of its own: what it
# starts does not end with the one who asked.
host_worker_restart() {
  host_worker_proc=$1 pid=$2 started=$3 boot=$4
  shift 4
  if [ "$pid" != 0 ]; then
    if [ "$(host_worker_ticks "$host_worker_proc" "$pid")" != "$started" ] ||
      [ "$(cat "$host_worker_proc/sys/kernel/random/boot_id" 2>/dev/null)" != "$boot" ]; then
      echo 'another process by now'
      exit 75
    fi
  fi
  command -v setsid >/dev/null || { echo 'setsid is not installed' >&2; exit 127; }
  exec setsid -f -w "$@"
}
