# disk_table [PATH…]
# A table of the filesystems that hold these paths, or of all: bytes and inodes, under a head, separated by tabs. Media
# that are full by nature are left out. Paths and mounts are data: nothing here is run through a shell a second time.
disk_table() {
  for path in "$@"; do [ -e "$path" ] && set -- "$@" "$path"; shift; done
  printf 'filesystem\tmount\tsize_kb\tused_kb\tavailable_kb\tused_percent\tinodes_percent\n'
  {
    df -P -k -x squashfs -x iso9660 -x erofs -x devtmpfs "$@" 2>/dev/null
    echo INODES
    df -P -i -x squashfs -x iso9660 -x erofs -x devtmpfs "$@" 2>/dev/null
  } | awk '
    /^INODES$/ { inodes = 1; next }
    /^Filesystem/ { next }
    { mount = $6; for (i = 7; i <= NF; i++) mount = mount " " $i; percent = $5; sub(/%/, "", percent) }
    !inodes && !(mount in size) && $2 > 0 {
      order[++n] = mount; size[mount] = $2; used[mount] = $3; left[mount] = $4; full[mount] = percent; device[mount] = $1
    }
    inodes { if (percent ~ /^[0-9]+$/) files[mount] = percent }
    END {
      for (i = 1; i <= n; i++) {
        m = order[i]
        printf "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", device[m], m, size[m], used[m], left[m], full[m], files[m]
      }
    }'
}
