# host_open_files PROC | host_deleted_files PROC
# Files that have no name any more and hold their blocks because a process has them open; each file once.
host_deleted_files() {
  printf 'pid\tcommand\tpath\tbytes\tmount\n'
  {
    sed 's/^/open\t/' | grep -e '(deleted)$' -e '^open	hidden' | while IFS='	' read -r tag pid descriptor path; do
      case "$path" in /memfd:* | /SYSV* | /dev/zero* | /\[aio\]* | /anon_hugepage*) continue ;; esac
      held=
      [ "$pid" = hidden ] || held=$(ls -iskL "$1/$pid/fd/$descriptor" 2>/dev/null | awk '{ print $1 "\t" $2 }')
      name=
      [ "$pid" = hidden ] || name=$({ tr '\000\t\n' '   ' < "$1/$pid/cmdline"; } 2>/dev/null | cut -c 1-300)
      printf '%s\t%s\t%s\t%s\t%s\n' "$pid" "$descriptor" "${held:-	}" "$name" "$path"
    done
    awk '{ print "mount\t" $2 }' "$1/mounts"
  } | awk -F '\t' '
    $1 == "mount" { mounts[++m] = $2; next }
    $1 == "hidden" { hidden = $2; next }
    $4 == "" { next }
    { path = $6; sub(/ \(deleted\)$/, "", path)
      if (seen[$3 " " path]++) next
      n++; pid[n] = $1; bytes[n] = $4; name[n] = $5; file[n] = path }
    END {
      for (i = 1; i <= n; i++) {
        best = "/"
        for (j = 1; j <= m; j++)
          if (index(file[i], mounts[j] "/") == 1 && length(mounts[j]) > length(best)) best = mounts[j]
        printf "%s\t%s\t%s\t%.0f\t%s\n", pid[i], name[i], file[i], bytes[i] * 1024, best
      }
      if (hidden == "") { print "the open files could not be listed" > "/dev/stderr"; exit 3 }
      if (hidden > 0) {
        print "the open files of " hidden " processes of other users are hidden" > "/dev/stderr"
        exit 3
      }
    }'
}
