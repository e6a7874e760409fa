# host_open_files PROC | host_written_files PROC
# Regular files that a process has open for writing, each once, the 400 changed last: size, allocated bytes, and who.
host_written_files() {
  found=$(awk -F '\t' -v proc="$1" '
    $1 == "hidden" { hidden = $2; next }
    $3 ~ /^\/(dev|proc|sys)\// || $3 ~ /\(deleted\)$/ || ($3 in seen) { next }
    { file = proc "/" $1 "/fdinfo/" $2; flags = ""
      while ((getline line < file) > 0) if (line ~ /^flags:/) { split(line, word, /[ \t]+/); flags = word[2]; break }
      close(file)
      mode = substr(flags, length(flags)) % 4
      if (flags == "" || (mode != 1 && mode != 2)) next
      seen[$3] = 1; print proc "/" $1 "/fd/" $2 "\t" $1 "\t" $3 }
    END { print "hidden\t" hidden "\t" }')
  {
    printf '%s\n' "$found" | sed 's/^/open\t/'
    printf '%s\n' "$found" | grep -v '^hidden' | cut -f 1 | xargs stat -L -c 'stat	%F	%s	%b	%Y	%n' -- 2>/dev/null |
      grep '^stat	regular' | sort -t '	' -k 5,5nr -k 3,3nr | head -n 400
    printf '%s\n' "$found" | grep -v '^hidden' | cut -f 2 | sort -u | sed "s|.*|$1/&/cmdline|" |
      xargs head -c 300 /dev/null 2>/dev/null | tr '\000\t' '  ' | sed 's/^/text\t/'
  } | awk -F '\t' '
    BEGIN { print "path\tbytes\tallocated_bytes\tmodified_at\tpid\tcommand" }
    $1 == "open" && $2 == "hidden" { hidden = $3; next }
    $1 == "open" { pid[$2] = $3; path[$2] = $4; next }
    $1 == "stat" { n++; link[n] = $6; size[n] = $3; blocks[n] = $4; changed[n] = $5; next }
    $1 == "text" && $2 ~ /^==> .*\/cmdline <==$/ { who = $2; sub(/\/cmdline <==$/, "", who); sub(/.*\//, "", who); next }
    $1 == "text" { if (length(name[who]) < 300) name[who] = name[who] (name[who] == "" ? "" : " ") $2 }
    END {
      for (i = 1; i <= n; i++) {
        title = name[pid[link[i]]]; gsub(/ +$/, "", title)
        printf "%s\t%s\t%.0f\t%s\t%s\t%s\n", path[link[i]], size[i], blocks[i] * 512, changed[i], pid[link[i]], title
      }
      if (hidden == "") { print "the open files could not be listed" > "/dev/stderr"; exit 3 }
      if (hidden > 0) { print "the open files of " hidden " processes of other users are hidden" > "/dev/stderr"; exit 3 }
    }'
}
