# host_directories LIMIT PATH...
# The largest directories under the paths, each on its path's filesystem alone, and the bytes of their files that were
# changed within the last hour.
host_directories() {
  limit=$1
  shift
  printf 'path\tbytes\tchanged_bytes_per_hour\n'
  [ $# -gt 0 ] || return 0
  {
    du -kx -- "$@" 2>/dev/null | sort -rn | head -n "$limit"
    find "$@" -xdev -type f -mmin -60 -exec stat -c 'file	%b	%n' -- {} + 2>/dev/null
  } | awk -F '\t' '
    $1 != "file" { order[++n] = $2; size[$2] = $1; next }
    {
      path = $3
      while (sub(/\/[^\/]*$/, "", path)) {
        at = path == "" ? "/" : path
        if (at in size) changed[at] += $2 * 512
      }
    }
    END { for (i = 1; i <= n; i++) printf "%s\t%.0f\t%.0f\n", order[i], size[order[i]] * 1024, changed[order[i]] }'
}
