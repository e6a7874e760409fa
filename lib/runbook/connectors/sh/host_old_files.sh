# host_open_files PROC | host_old_files HOURS PATH...
# Files under the paths that nobody changed for HOURS, 500 at most, the largest first, and whether one has them open;
# that stays empty where open files of other users are hidden.
host_old_files() {
  hours=$1
  shift
  printf 'path\tbytes\tmodified_at\topen\n'
  [ $# -gt 0 ] || return 0
  {
    cat
    find "$@" -xdev -type f -mmin +"$((hours * 60))" -exec stat -c 'file	%b	%Y	%n' -- {} + 2>/dev/null |
      sort -t '	' -k 2,2nr | head -n 500
  } | awk -F '\t' '
    $1 == "hidden" { hidden = $2; next }
    $1 != "file" { open[$3] = 1; next }
    { printf "%s\t%.0f\t%s\t%s\n", $4, $2 * 512, $3, (($4 in open) ? "yes" : (hidden == 0 && hidden != "" ? "no" : "")) }'
}
