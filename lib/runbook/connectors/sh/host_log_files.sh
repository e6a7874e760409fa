# host_open_files PROC | host_log_files PROC PATH...
# The largest files under the paths, 200 at most, with the process that has each open for writing.
host_log_files() {
  proc=$1
  shift
  printf 'path\tbytes\tmodified_at\twriter_pid\twriter_command\n'
  [ $# -gt 0 ] || return 0
  {
    cat
    find "$@" -xdev -type f -size +0 -exec stat -c 'file	%b	%Y	%n' -- {} + 2>/dev/null | sort -t '	' -k 2,2nr | head -n 200
  } | awk -F '\t' -v proc="$proc" '
    function writes(pid, fd,   line, word, mode) {
      mode = ""
      while ((getline line < (proc "/" pid "/fdinfo/" fd)) > 0)
        if (line ~ /^flags:/) { split(line, word, /[ \t]+/); mode = substr(word[2], length(word[2])) }
      close(proc "/" pid "/fdinfo/" fd)
      return mode == "" || mode % 4 == 1 || mode % 4 == 2
    }
    $1 == "hidden" { hidden = $2; next }
    $1 != "file" { if (!($3 in holders)) holders[$3] = ""; holders[$3] = holders[$3] $1 " " $2 ";"; next }
    {
      writer = ""; n = split(holders[$4], holder, ";")
      for (i = 1; i < n && writer == ""; i++) { split(holder[i], one, " "); if (writes(one[1], one[2])) writer = one[1] }
      printf "%s\t%.0f\t%s\t%s\t%s\n", $4, $2 * 512, $3, writer, writer == "" ? "" : title(writer)
    }
    function title(pid,   line, file) {
      file = proc "/" pid "/cmdline"; line = ""
      "tr \"\\000\\t\\n\" \"   \" < " file | getline line
      close("tr \"\\000\\t\\n\" \"   \" < " file)
      return substr(line, 1, 300)
    }
    END { if (hidden == "") { print "the open files could not be listed" > "/dev/stderr"; exit 3 }
      if (hidden > 0) { print "the open files of " hidden " processes of other users are hidden" > "/dev/stderr"; exit 3 } }'
}
