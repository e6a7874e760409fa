# host_hidden_files PROC PATH...
# What lies on a filesystem of PATH below the mount point of another one, where nobody sees it. Looked at in a mount
# namespace of its own, which ends with this look and changes nothing outside it; where that is not permitted the cell
# of the bytes stays empty. One row a mount point.
host_hidden_files() {
  proc=$1
  shift
  [ -r "$proc/mounts" ] || { echo "$proc/mounts cannot be read" >&2; return 127; }
  printf 'mount\tpath\tbytes\n'
  for on in "$@"; do
    awk -v on="$on" '
      { at = $2; gsub(/\\040/, " ", at); gsub(/\\011/, " ", at); gsub(/\\134/, "\\", at) }
      on == "/" ? at != "/" && at !~ /^\/(proc|sys|dev)(\/|$)/ : index(at, on "/") == 1 { print at }' "$proc/mounts" |
      sort -u | head -n 40 | while read -r at; do
        bytes=
        if [ "$proc" = /proc ] && [ "$(id -u)" = 0 ] && command -v unshare >/dev/null 2>&1 && [ -d /mnt ]; then
          bytes=$(unshare -m --propagation private sh -c '
            mount --bind "$1" /mnt 2>/dev/null || exit 1
            below=${2#"$1"}; below=${below#/}
            [ -e "/mnt/$below" ] || { echo 0; exit 0; }
            [ "$(stat -c %d -- "/mnt/$below")" = "$(stat -c %d -- /mnt)" ] || { echo 0; exit 0; }
            du -xsk -- "/mnt/$below" 2>/dev/null | awk "NR == 1 { printf \"%.0f\", \$1 * 1024 }"' sh "$on" "$at" 2>/dev/null)
        fi
        printf '%s\t%s\t%s\n' "$on" "$at" "$bytes"
      done
  done
}
