# host_memory PROC
# One row of a host's memory from PROC/meminfo and PROC/vmstat, in bytes; a cell is empty where the kernel does not say.
host_memory() {
  [ -r "$1/meminfo" ] || { echo "$1/meminfo cannot be read" >&2; return 127; }
  awk -v vmstat="$1/vmstat" -v overcommit="$1/sys/vm/overcommit_memory" '
    BEGIN {
      names = "MemTotal MemAvailable MemFree Cached AnonPages Shmem SUnreclaim SwapTotal SwapFree HugePages_Total " \
        "HugePages_Free Hugepagesize Committed_AS CommitLimit"
      n = split(names, name, " ")
      while ((getline line < vmstat) > 0) { split(line, word, " "); stat[word[1]] = word[2] }
      if ((getline mode < overcommit) <= 0) mode = ""
    }
    { key = $1; sub(/:$/, "", key); value[key] = $3 == "kB" ? sprintf("%.0f", $2 * 1024) : $2 }
    END {
      refaults = stat["workingset_refault"]
      if ("workingset_refault_file" in stat)
        refaults = sprintf("%.0f", stat["workingset_refault_anon"] + stat["workingset_refault_file"])
      print "total_bytes\tavailable_bytes\tfree_bytes\tcached_bytes\tanonymous_bytes\tshmem_bytes\tslab_unreclaimable_bytes\t" \
        "swap_total_bytes\tswap_free_bytes\thugepages_total\thugepages_free\thugepage_bytes\tcommitted_bytes\t" \
        "commit_limit_bytes\toom_kills\tmajor_faults\trefaults\tswapped_in\tswapped_out\tovercommit_mode"
      for (i = 1; i <= n; i++) printf "%s\t", value[name[i]]
      printf "%s\t%s\t%s\t%s\t%s\t%s\n", stat["oom_kill"], stat["pgmajfault"], refaults, stat["pswpin"], stat["pswpout"], mode
    }' "$1/meminfo"
}
