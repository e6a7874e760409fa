# host_disk PROC [MOUNT]
# One row a mounted filesystem: size and inodes from df, type and options from PROC/mounts, and whether it is the one that
# holds MOUNT, any path that is there. A filesystem of another host is not asked for its size unless it does: one that
# does not answer would hold up all the others.
host_disk() {
  [ -r "$1/mounts" ] || { echo "$1/mounts cannot be read" >&2; return 127; }
  given=${2:-}
  limit=
  command -v timeout >/dev/null 2>&1 && limit='timeout 5'
  {
    awk '{ print "mount", $0 }' "$1/mounts"
    if [ -n "$given" ]; then
      $limit df -P -k -- "$given" 2>/dev/null | sed '1d; s/^/holds /; p; s/^holds/blocks/'
      $limit df -P -i -- "$given" 2>/dev/null | sed '1d; s/^/inodes /'
    fi
    awk '
      $3 !~ /^(nfs|nfs4|cifs|smb3|smbfs|fuse.sshfs|9p|ceph|glusterfs|fuse.glusterfs|afs|autofs)$/ { print $2 }
    ' "$1/mounts" | host_disk_df
  } | awk '
    function plain(text) {
      gsub(/\\040/, " ", text); gsub(/\\011/, " ", text); gsub(/\\012/, " ", text); gsub(/\\134/, "\\", text)
      return text
    }
    BEGIN {
      OFS = "\t"; far = "^(nfs|nfs4|cifs|smb3|smbfs|fuse.sshfs|9p|ceph|glusterfs|fuse.glusterfs|afs)$"
      print "filesystem", "mount", "type", "size_bytes", "used_bytes", "available_bytes", "inodes", "inodes_used",
        "options", "holds"
    }
    $1 == "mount" { at = plain($3); from[at] = plain($2); type[at] = $4; options[at] = $5; order[++n] = at; next }
    $1 == "holds" { held[tail(6)] = "yes"; next }
    $1 == "blocks" { at = tail(6); size[at] = $3; used[at] = $4; free[at] = $5; next }
    $1 == "inodes" { at = tail(6); all[at] = $3; taken[at] = $4; next }
    function tail(first,   i, text) {
      text = $(first + 1)
      for (i = first + 2; i <= NF; i++) text = text " " $i
      return text
    }
    END {
      for (i = 1; i <= n; i++) {
        at = order[i]
        if (seen[at]++ || size[at] == 0 && size[at] != "") continue
        if (size[at] == "" && type[at] !~ far) continue
        print from[at], at, type[at], kb(size[at]), kb(used[at]), kb(free[at]), all[at], taken[at], options[at], held[at]
      }
    }
    function kb(value) { return value == "" ? "" : sprintf("%.0f", value * 1024) }'
}
host_disk_df() {
  while read -r where; do
    where=$(printf '%b' "$(printf '%s' "$where" | sed 's/\\\([0-7][0-7][0-7]\)/\\0\1/g')")
    set -- "$@" "$where"
  done
  [ $# -gt 0 ] || return 0
  df -P -k -- "$@" 2>/dev/null | sed '1d; s/^/blocks /'
  df -P -i -- "$@" 2>/dev/null | sed '1d; s/^/inodes /'
}
