# host_open_files PROC
# Every open file of every process that we may see: pid, descriptor, path; then the number of processes we may not see.
host_open_files() {
  for dir in "$1"/[0-9]*; do
    [ -r "$dir/fd" ] || continue
    printf 'pid %s\n' "${dir##*/}"
    ls -l "$dir/fd" 2>/dev/null
  done | awk '
    $1 == "pid" { pid = $2; next }
    { at = index($0, " -> /"); if (!at) next
      path = substr($0, at + 4); n = split(substr($0, 1, at - 1), word, " "); gsub(/\t/, " ", path)
      print pid "\t" word[n] "\t" path }'
  hidden=0
  for dir in "$1"/[0-9]*; do
    [ -r "$dir/fd" ] || [ ! -d "$dir" ] || hidden=$((hidden + 1))
  done
  printf 'hidden\t%s\t\n' "$hidden"
}
