#!/bin/bash
# Brings the network up, in place of ifupdown's usual: called while networking.service starts. What
# it tries at once is what a program would that waits for the network.
set -eu
. /srv/reach.sh

connect() {
    local namespace=$1 device=$2 own=$3 own6=$4
    ip netns add "$namespace"
    ip link add "$device" type veth peer name peer netns "$namespace"
    ip -n "$namespace" link set lo up
    ip -n "$namespace" address add "${own%.*}.2/24" dev peer
    ip -n "$namespace" address add "${own6}2/64" dev peer nodad
    ip -n "$namespace" link set peer up
    ip address add "${own%.*}.1/24" dev "$device"
    ip address add "${own6}1/64" dev "$device" nodad
    ip link set "$device" up
    shift 4
    for address in "$@"; do
        ip -n "$namespace" address add "$address" dev lo
        case $address in
        *:*) ip route add "$address" via "${own6}2" ;;
        *) ip route add "$address" via "${own%.*}.2" ;;
        esac
    done
}

ip link set lo up
connect allowed wan0 192.168.10.0 fd10:: "$ALLOWED" "$ALLOWED6"
connect denied wan1 192.168.20.0 fd20:: "$DENIED" "$DENIED6" "$BY_PATH"
for address in "$DENIED" "$DENIED6" "$ALLOWED" "$ALLOWED6"; do
    # Nobody listens yet, so this fails in any case: what counts is what arrives.
    timeout 5 bash -c "exec 3<>/dev/tcp/$address/80" 2>/dev/null || true
done
for namespace in allowed denied; do
    echo "$namespace $(segments "$namespace")"
done >/run/first-packets
