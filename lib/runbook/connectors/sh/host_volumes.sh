# host_volumes
# Thin pools and snapshots of LVM that can fill up behind a filesystem, in percent of their data. No row where there is
# no LVM; a cell stays empty where lvs is not there or may not be asked.
host_volumes() {
  printf 'kind\tname\tdata_percent\n'
  found=
  for uuid in /sys/block/dm-*/dm/uuid; do
    [ -r "$uuid" ] && read -r id < "$uuid" && case "$id" in LVM-*) found=yes ;; esac
  done
  [ -n "$found" ] || return 0
  lvs --noheadings --separator '	' -o lv_attr,vg_name,lv_name,data_percent 2>/dev/null | awk -F '\t' '
    { gsub(/^ +/, "", $1); kind = $1 ~ /^t/ ? "thin pool" : $1 ~ /^[sS]/ ? "snapshot" : "" }
    kind != "" { printf "%s\t%s/%s\t%s\n", kind, $2, $3, $4; n++ }
    { any = 1 }
    END { if (!any) printf "unknown\tLVM\t\n" }'
}
