# host_places PROC LOGS TMPS PATH...
# How much lies in each place: the first LOGS of the paths are the application's logs, the next TMPS temporary
# directories, then the places where a host keeps logs, the journal, images and dumps. Each on its own filesystem alone,
# within a limit of time; "complete" is no where something could not be looked into.
host_places() {
  proc=$1 logs=$2 tmps=$3
  shift 3
  [ -r "$proc/mounts" ] || { echo "$proc/mounts cannot be read" >&2; return 127; }
  printf 'kind\tpath\tbytes\tmount\tcomplete\n'
  for path in "$@"; do
    kind=other
    if [ "$logs" -gt 0 ]; then kind=log logs=$((logs - 1)); elif [ "$tmps" -gt 0 ]; then kind=tmp tmps=$((tmps - 1)); fi
    host_place "$kind" "$path"
  done
  host_place log /var/log --exclude=/var/log/journal
  for path in /var/log/journal /run/log/journal; do host_place journal "$path"; done
  for path in /var/lib/docker/overlay2 /var/lib/docker/volumes /var/lib/containerd /var/lib/containers/storage; do host_place image "$path"; done
  for path in /var/lib/systemd/coredump /var/crash /var/core; do host_place core "$path"; done
  for path in /var/cache /var/spool; do host_place cache "$path"; done
}
host_place() {
  kind=$1 path=$2
  shift 2
  [ -e "$path" ] || return 0
  limit=
  command -v timeout >/dev/null 2>&1 && limit='timeout 4'
  whole=yes
  bytes=$($limit du -xsk "$@" -- "$path" 2>/dev/null) || whole=no
  bytes=$(printf '%s\n' "$bytes" | awk 'NR == 1 && $1 != "" { printf "%.0f", $1 * 1024 }')
  mount=$(df -P -- "$path" 2>/dev/null | awk 'NR == 2 { m = $6; for (i = 7; i <= NF; i++) m = m " " $i; print m }')
  printf '%s\t%s\t%s\t%s\t%s\n' "$kind" "$path" "$bytes" "$mount" "$whole"
}
