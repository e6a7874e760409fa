# log_lines SINCE RECENT LOG
# Lines of the last 20 MB of LOG that are not older than SINCE, each as: time, tab, 1 (not older than RECENT) or 0,
# tab, line. Times are ISO 8601 in UTC, or seconds or milliseconds since 1970 under "time", "timestamp" or "ts"; a line
# without one, of a stack trace say, is as old as the line before it.
log_lines() {
  [ -f "$3" ] && [ -r "$3" ] || { echo "$3 cannot be read" >&2; return 1; }
  tail -c 20000000 -- "$3" | SINCE=$1 RECENT=$2 SINCE_EPOCH=$(date -u -d "$1" +%s 2>/dev/null || echo 0) \
    RECENT_EPOCH=$(date -u -d "$2" +%s 2>/dev/null || echo 0) awk '
    BEGIN { since = substr(ENVIRON["SINCE"], 1, 19); recent = substr(ENVIRON["RECENT"], 1, 19) }
    {
      if (match($0, /[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9]/)) {
        at = substr($0, RSTART, RLENGTH); sub(/ /, "T", at); fresh = at >= since; now = at >= recent
      } else if (match($0, /"(time|timestamp|ts)": *[0-9]+/)) {
        at = substr($0, RSTART, RLENGTH); sub(/.*: */, "", at); if (length(at) > 10) at = substr(at, 1, 10)
        fresh = at + 0 >= ENVIRON["SINCE_EPOCH"] + 0; now = at + 0 >= ENVIRON["RECENT_EPOCH"] + 0
      }
      if (fresh) { line = $0; gsub(/\t/, " ", line); printf "%s\t%d\t%s\n", at, now, line }
    }'
}
