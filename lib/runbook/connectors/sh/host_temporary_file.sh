# host_temporary_file PROC ROOT PATH [DEVICE INODE BYTES MODIFIED_AT]
# One row about a file below the directory ROOT: which it is, and what keeps it from being deleted. With what it was, it
# is deleted if it is that still, and nothing keeps it: a regular file with one name on ROOT's own filesystem, no link on
# the way to it, that no process has open or mapped. From here on its directory is the one that was looked at.
host_temporary_file() {
  proc=$1 root=${2%/} path=$3
  shift 3
  dir=${path%/*}
  printf 'device\tinode\tbytes\tmodified_at\tkept_by\n'
  [ "$(cd -P -- "$root" 2>/dev/null && pwd -P)" = "$root" ] || { printf '\t\t\t\t%s\n' 'its root is no directory, or a link'; return; }
  cd -P -- "$dir" 2>/dev/null && [ "$(pwd -P)" = "$dir" ] || { printf '\t\t\t\t%s\n' 'its directory is gone, or a link leads there'; return; }
  case "$dir/" in "$root"/*) ;; *) printf '\t\t\t\t%s\n' 'it is outside'; return ;; esac
  name=./${path##*/}
  seen=$(stat -c '%d %i %s %Y' -- "$name" 2>/dev/null)
  kept=$(host_temporary_file_kept "$proc" "$root" "$name")
  if [ -z "$kept" ] && [ $# -gt 0 ]; then
    if [ "$(stat -c '%d %i %s %Y' -- "$name" 2>/dev/null)" != "$*" ]; then
      kept='it is another file, or was written since'
    elif rm -f -- "$name" 2>/dev/null && [ ! -e "$name" ]; then
      kept=
    else
      kept='it may not be deleted'
    fi
  fi
  set -- $seen
  printf '%s\t%s\t%s\t%s\t%s\n' "${1:-}" "${2:-}" "${3:-}" "${4:-}" "$kept"
}
# host_temporary_file_kept PROC ROOT NAME
# Why the file NAME of this directory must not be deleted; empty when it may.
host_temporary_file_kept() {
  if [ -L "$3" ]; then echo 'it is a link'; return; fi
  if [ ! -e "$3" ]; then echo 'it is gone'; return; fi
  if [ ! -f "$3" ]; then echo 'it is no regular file'; return; fi
  if [ "$(stat -c %h -- "$3")" != 1 ]; then echo 'it has other names'; return; fi
  if [ "$(stat -c %d -- "$3")" != "$(stat -c %d -- "$2")" ]; then echo 'it is on another filesystem'; return; fi
  hidden=0
  for one in "$1"/[0-9]*; do
    [ -r "$one/fd" ] && [ -r "$one/maps" ] || [ ! -d "$one" ] || hidden=$((hidden + 1))
  done
  if [ "$hidden" -gt 0 ]; then echo "the open files of $hidden processes of other users are hidden"; return; fi
  if find "$1"/[0-9]*/fd -mindepth 1 -maxdepth 1 -exec stat -L -c '%d %i' -- {} + 2>/dev/null |
    grep -qxF -- "$(stat -c '%d %i' -- "$3")"; then
    echo 'a process has it open'
    return
  fi
  if cat "$1"/[0-9]*/maps 2>/dev/null | INODE=$(stat -c %i -- "$3") awk '
    $5 == ENVIRON["INODE"] { found = 1 } END { exit !found }'; then
    echo 'a process has it mapped'
  fi
}
