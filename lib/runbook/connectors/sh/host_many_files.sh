# host_many_files PATH...
# The directories with the most files under the paths, each on its path's filesystem alone, 20 at most.
host_many_files() {
  printf 'path\tfiles\n'
  [ $# -gt 0 ] || return 0
  limit=
  command -v timeout >/dev/null 2>&1 && limit='timeout 8'
  $limit find "$@" -xdev 2>/dev/null | awk '
    { sub(/\/[^\/]*$/, ""); files[$0 == "" ? "/" : $0]++ }
    END { for (at in files) printf "%d\t%s\n", files[at], at }' | sort -rn | head -n 20 |
    awk -F '\t' '{ printf "%s\t%s\n", $2, $1 }'
}
