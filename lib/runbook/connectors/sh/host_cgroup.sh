# host_cgroup CGROUPS [PATH]
# Memory, CPU and process numbers of the cgroup PATH under the mount CGROUPS; without PATH of every cgroup that has a
# limit of memory or a quota of processor time, or has been short of memory. The version is that of the hierarchy that
# holds the memory controller: a mount of version 2 may lack it. In version 1 each controller has a hierarchy of its own,
# and a cgroup with a quota need not be in that of memory.
host_cgroup() {
  case "${2:-}" in *..*) echo "not the path of a cgroup: $2" >&2; return 2 ;; esac
  host_cgroup_version=1 host_cgroup_base=$1/memory
  for mount in "$1" "$1/unified"; do
    if grep -qw memory "$mount/cgroup.controllers" 2>/dev/null; then
      host_cgroup_version=2 host_cgroup_base=$mount
      break
    fi
  done
  [ -d "$host_cgroup_base" ] || { echo "no memory controller of cgroups under $1" >&2; return 127; }
  given=${2:-}
  given=${given#"$1"}; given=${given#/}
  [ -z "$given" ] || [ -d "$host_cgroup_base/$given" ] || [ -d "$1/cpu/$given" ] || { echo "no cgroup $2" >&2; return 2; }
  if [ -n "$given" ]; then
    printf './%s\n' "$given"
  else
    for place in "$host_cgroup_base" "$1/cpu"; do
      [ -d "$place" ] && (cd "$place" && find . -maxdepth 8 -type d 2>/dev/null | head -n 3000)
      [ $host_cgroup_version = 1 ] || break
    done | sort -u
  fi | ROOT=$1 BASE=$host_cgroup_base VERSION=$host_cgroup_version GIVEN=$given awk '
    function first(file,   line) { line = ""; if ((getline line < file) <= 0) line = ""; close(file); return line }
    function keyed(file, key,   line, word, found) {
      found = ""
      while ((getline line < file) > 0) { split(line, word, " "); if (word[1] == key) found = word[2] }
      close(file)
      return found
    }
    function of_v1(controller, path, file,   value) {
      value = first(ENVIRON["ROOT"] "/" controller path "/" file)
      return value
    }
    function total(file, names,   line, word, found) {
      found = ""
      while ((getline line < file) > 0) {
        split(line, word, " ")
        if (index(" " names " ", " " word[1] " ")) found = sprintf("%.0f", found + word[2])
      }
      close(file)
      return found
    }
    function full(file,   line, found) {
      found = ""
      while ((getline line < file) > 0) if (line ~ /^full avg10=/) { found = line; sub(/^full avg10=/, "", found); sub(/ .*/, "", found) }
      close(file)
      return found
    }
    BEGIN {
      two = ENVIRON["VERSION"] == 2; base = ENVIRON["BASE"]
      print "version\tpath\tusage_bytes\tlimit_bytes\tinactive_file_bytes\tmax_events\toom_kills\tcpu_periods\t" \
        "cpu_throttled\tcpu_quota_us\tcpu_period_us\tpids\tpids_limit\tanonymous_bytes\tshmem_bytes\tmajor_faults\trefaults\t" \
        "pressure_full_avg10"
    }
    {
      here = substr($0, 2); path = here == "" ? "/" : here; dir = base here
      if (two) {
        usage = first(dir "/memory.current"); limit = first(dir "/memory.max")
        inactive = keyed(dir "/memory.stat", "inactive_file")
        max = keyed(dir "/memory.events", "max"); kills = keyed(dir "/memory.events", "oom_kill")
        periods = keyed(dir "/cpu.stat", "nr_periods"); throttled = keyed(dir "/cpu.stat", "nr_throttled")
        split(first(dir "/cpu.max") " ", quota, " ")
        pids = first(dir "/pids.current"); most = first(dir "/pids.max")
        anonymous = keyed(dir "/memory.stat", "anon"); shmem = keyed(dir "/memory.stat", "shmem")
        faults = keyed(dir "/memory.stat", "pgmajfault"); pressure = full(dir "/memory.pressure")
        refaults = total(dir "/memory.stat", "workingset_refault workingset_refault_anon workingset_refault_file")
      } else {
        usage = first(dir "/memory.usage_in_bytes"); limit = first(dir "/memory.limit_in_bytes")
        inactive = keyed(dir "/memory.stat", "total_inactive_file")
        max = first(dir "/memory.failcnt"); kills = keyed(dir "/memory.oom_control", "oom_kill")
        cpu = ENVIRON["ROOT"] "/cpu" here "/cpu.stat"
        periods = keyed(cpu, "nr_periods"); throttled = keyed(cpu, "nr_throttled")
        quota[1] = of_v1("cpu", here, "cpu.cfs_quota_us"); quota[2] = of_v1("cpu", here, "cpu.cfs_period_us")
        pids = of_v1("pids", here, "pids.current"); most = of_v1("pids", here, "pids.max")
        anonymous = keyed(dir "/memory.stat", "total_rss"); shmem = keyed(dir "/memory.stat", "total_shmem")
        faults = keyed(dir "/memory.stat", "total_pgmajfault"); pressure = ""
        refaults = total(dir "/memory.stat", "total_workingset_refault_anon total_workingset_refault_file")
      }
      if (limit == "max" || limit + 0 >= 1e18) limit = "none"
      if (quota[1] == "max" || quota[1] == "-1") quota[1] = "none"
      if (most == "max") most = "none"
      if (usage == "" && !(quota[1] + 0 > 0)) next
      bounded = (limit != "none" && limit != "") || quota[1] + 0 > 0
      if (ENVIRON["GIVEN"] == "" && !bounded && !(kills > 0) && !(max > 0)) next
      printf "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t", ENVIRON["VERSION"], path, usage, limit, inactive, \
        max, kills, periods, throttled, quota[1], quota[2], pids, most
      printf "%s\t%s\t%s\t%s\t%s\n", anonymous, shmem, faults, refaults, pressure
    }'
}
