# host_pressure PROC
# Pressure stall information, a row for each resource and scope: shares of the time that work waited for it, percent.
host_pressure() {
  [ -r "$1/pressure/memory" ] || { echo "no pressure stall information on this host" >&2; return 127; }
  printf 'resource\tscope\tavg10\tavg60\ttotal_microseconds\n'
  for resource in cpu memory io; do
    [ -r "$1/pressure/$resource" ] || continue
    while read -r scope avg10 avg60 _ total; do
      printf '%s\t%s\t%s\t%s\t%s\n' "$resource" "$scope" "${avg10#*=}" "${avg60#*=}" "${total#*=}"
    done < "$1/pressure/$resource" || { echo "pressure of $resource cannot be read" >&2; return 3; }
  done
}
