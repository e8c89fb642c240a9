# Addresses that are registered in CN and elsewhere. In this machine they are on the other side of a
# veth pair each, in namespaces of their own.
DENIED=110.242.68.66
DENIED6=2400:3200::1
BY_PATH=110.242.68.67
ALLOWED=212.27.48.10
ALLOWED6=2a01:e0c:1::1

# How many segments of TCP have arrived in a namespace, over IPv4 and IPv6.
segments() {
    ip netns exec "$1" awk '/^Tcp:/ && $2 ~ /[0-9]/ { print $11 }' /proc/net/snmp
}
