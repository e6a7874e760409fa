# host_large_files PATH...
# The largest files under the paths (from 64 kB on), each on its path's filesystem alone, 300 at most; what was not
# done within its limit of time ends as partial.
host_large_files() {
  printf 'path\tbytes\tmodified_at\n'
  [ $# -gt 0 ] || return 0
  limit=
  command -v timeout >/dev/null 2>&1 && limit='timeout 8'
  $limit find "$@" -xdev -type f -size +127 -exec stat -c 'file	%b	%Y	%n' -- {} + 2>/dev/null | tr -d '\r' |
    awk -F '\t' '$1 == "file" { printf "%.0f\t%s\t%s\n", $2 * 512, $3, $4 }' | sort -rn | head -n 300 |
    awk -F '\t' '{ printf "%s\t%s\t%s\n", $3, $1, $2 }'
}
