# host_sockets PROC
# Listening TCP sockets as the kernel writes them, and how often a full queue of theirs dropped a connection since boot.
host_sockets() {
  [ -r "$1/net/tcp" ] || { echo "$1/net/tcp cannot be read" >&2; return 127; }
  overflows=$(awk '$1 == "TcpExt:" { if (!n) { n = split($0, name, " ") } else for (i = 2; i <= n; i++)
    if (name[i] == "ListenOverflows") print $i }' "$1/net/netstat" 2>/dev/null)
  printf 'local\twaiting\tbacklog\toverflows\n'
  if [ "$1" = /proc ] && command -v ss >/dev/null 2>&1; then
    ss -ltnH 2>/dev/null | awk -v o="$overflows" '{ printf "%s\t%s\t%s\t%s\n", $4, $2, $3, o }'
  else
    cat "$1/net/tcp" "$1/net/tcp6" 2>/dev/null | awk -v o="$overflows" \
      '$4 == "0A" { split($5, queue, ":"); printf "hex:%s\t%s\t\t%s\n", $2, "hex:" queue[2], o }'
  fi
}
