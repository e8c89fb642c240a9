//! What is tried to an address that is denied: one line a probe.

use crate::probe::{Charged, Form, Probe, probe};

/// Denied by where the address is registered.
pub fn by_country() -> Vec<Probe> {
    [&streams()[..], &datagrams(), &raw(), &packets(), &carried(), &hands(), &programs(), &below()]
        .concat()
}

fn streams() -> Vec<Probe> {
    vec![
        probe("TCP: connect", "tcp TO").by_daemon(),
        probe("TCP: connect on an IPv6 socket, mapped", "tcp-mapped TO").v4().by_daemon(),
        probe("TCP: Fast Open, MSG_FASTOPEN", "tfo-msg TO").by_daemon(),
        probe("TCP: Fast Open, TCP_FASTOPEN_CONNECT", "tfo-connect TO").by_daemon(),
        probe("TCP: connect in TCP_REPAIR, no handshake", "tcp-repair TO").by_daemon(),
        probe("TCP: from a port of its own choice", "open-from a tcp LOCAL TO").by_daemon(),
        probe("TCP: a listening socket that then calls", "listener-turned TO").by_daemon(),
        probe("TCP: an accepted socket that then calls", "accepted-turned TO").by_daemon(),
        probe("TCP: connects to itself, answers by a route", "routed-own TO OWN").v6().open(),
        probe("TCP: accepted, answers by a route header", "routed-accepted TO OWN")
            .v6()
            .open()
            .charged(Charged::Unknown),
        probe("TCP: MPTCP connect", "mptcp TO").needs("MPTCP").by_daemon(),
        probe("TCP: io_uring connect", "uring-connect TO").needs("io_uring").by_daemon(),
        probe("SCTP: connect", "sctp TO").needs("SCTP"),
        probe("DCCP: connect", "family dccp TO").needs("DCCP"),
        probe("SMC: connect, which falls back to TCP", "family smc TO").needs("SMC"),
        probe("SMC: connect, as a protocol of IP", "family smc-protocol TO").needs("SMC"),
        probe("RxRPC: connect", "family rxrpc TO").needs("RxRPC"),
    ]
}

fn datagrams() -> Vec<Probe> {
    vec![
        probe("UDP: sendto", "udp-sendto TO").by_daemon(),
        probe("UDP: sendto on an IPv6 socket, mapped", "udp-sendto-mapped TO").v4().by_daemon(),
        probe("UDP: sendmsg", "udp-sendmsg TO").by_daemon(),
        probe("UDP: sendmmsg", "udp-sendmmsg TO").by_daemon(),
        probe("UDP: connect, send", "udp-connect TO").by_daemon(),
        probe("UDP: connect on an IPv6 socket, mapped", "udp-connect-mapped TO").v4(),
        probe("UDP: a connected socket connects again", "udp-reconnect VIA TO").by_daemon(),
        probe("UDP: disconnected (AF_UNSPEC), connects", "udp-unconnect VIA TO").by_daemon(),
        probe("UDP: disconnected (AF_UNSPEC), sendto", "udp-unspec VIA TO").by_daemon(),
        probe("UDP: sendto on a connected socket", "udp-connected-sendto VIA TO").by_daemon(),
        probe("UDP: MSG_MORE, then another address", "udp-cork TO VIA").by_daemon(),
        // What is held back goes to the new address of IPv4, and to the old one of IPv6.
        probe("UDP: UDP_CORK, connects elsewhere", "udp-cork-reconnect VIA TO").v4().by_daemon(),
        probe("UDP: UDP_CORK, connects elsewhere", "udp-cork-reconnect TO VIA").v6().by_daemon(),
        probe("UDP: segmented by the kernel (UDP_SEGMENT)", "udp-with segments TO").by_daemon(),
        probe("UDP: fragmented by the kernel", "udp-with large TO").by_daemon(),
        probe("UDP: MSG_ZEROCOPY", "udp-with zero-copy TO").by_daemon(),
        probe("UDP: SO_MARK", "udp-with mark TO"),
        probe("UDP: SO_PRIORITY", "udp-with priority TO"),
        probe("UDP: SO_BINDTODEVICE", "udp-with device TO"),
        probe("UDP: MSG_CONFIRM", "udp-with confirm TO"),
        probe("UDP: interface by IP_PKTINFO", "udp-with packet-info TO"),
        probe("UDP: from port 53", "udp-with port-53 TO").by_daemon(),
        probe("UDP: IP options that say nothing", "udp-with options TO").v4(),
        probe("UDP: hop-by-hop options by the socket", "udp-with hop-by-hop TO").v6(),
        probe("UDP: destination options by the socket", "udp-with destination TO").v6(),
        probe("UDP: source address by IP_FREEBIND", "udp-with freebind TO")
            .v6()
            .open()
            .charged(NOBODY),
        probe("UDP: source address by IP_TRANSPARENT", "udp-with transparent TO")
            .open()
            .charged(NOBODY),
        probe("UDP: another's address, who is answered", "freebind TO OWN")
            .v6()
            .open()
            .charged(NOBODY),
        probe("UDP: io_uring sendmsg", "uring-sendmsg TO").needs("io_uring").by_daemon(),
        probe("UDP: io_uring, zero copy", "uring-zero-copy TO").needs("io_uring").by_daemon(),
        probe("UDP: io_uring, by a thread of the kernel", "uring-polled TO")
            .needs("io_uring")
            .by_daemon(),
        probe("UDP: multicast", "udp-sendto TO").form(Form::Multicast).both(),
        probe("UDP: multicast, connected", "udp-connect TO").form(Form::Multicast).both(),
        probe("UDP: broadcast", "udp-with broadcast TO").form(Form::Broadcast).v4(),
        probe("UDP-Lite: sendto", "udplite TO").needs("UDP-Lite").by_daemon(),
    ]
}

/// Nothing is recorded: the socket gets the option refused.
const NOBODY: Charged = Charged::Nobody;

fn raw() -> Vec<Probe> {
    vec![
        probe("ICMP: echo by a ping socket", "ping TO").by_daemon(),
        probe("ICMP: echo by a connected ping socket", "ping-connect TO"),
        probe("ICMP: echo by a raw socket", "raw-icmp TO").by_daemon(),
        probe("raw socket: UDP", "raw 17 TO").by_daemon(),
        probe("raw socket: a TCP segment", "raw 6 TO"),
        probe("raw socket: SCTP", "raw 132 TO"),
        probe("raw socket: DCCP", "raw 33 TO"),
        probe("raw socket: a protocol nobody knows", "raw 253 TO"),
        probe("raw socket: IPv4 in IP", "raw 4 TO"),
        probe("raw socket: IPv6 in IP", "raw 41 TO"),
        probe("raw socket: GRE", "raw 47 TO"),
        probe("raw socket: connected", "raw-connected TO"),
        probe("raw socket: own header by an option", "hdrincl-option plain TO"),
        probe("raw socket: IPPROTO_RAW, own header", "hdrincl plain TO TO").by_daemon(),
        probe("raw socket: header says another than sendto", "hdrincl plain VIA TO").by_daemon(),
    ]
}

/// Packets with headers that seldom are.
fn packets() -> Vec<Probe> {
    vec![
        probe("packet: IP options that say nothing", "hdrincl options TO TO").v4(),
        probe("packet: SCTP", "hdrincl sctp TO TO"),
        probe("packet: first fragment", "hdrincl first-fragment TO TO"),
        probe("packet: later fragment", "hdrincl later-fragment TO TO"),
        probe("packet: a fragment that is whole", "hdrincl atomic-fragment TO TO").v6(),
        probe("packet: hop-by-hop options", "hdrincl hop-by-hop TO TO").v6(),
        probe("packet: destination options", "hdrincl destination TO TO").v6(),
        probe("packet: three extension headers", "hdrincl extensions TO TO").v6(),
        probe("packet: a route through what is denied", "hdrincl source-route TO TO")
            .v4()
            .elsewhere(),
        probe("packet: a routing header with hops left", "hdrincl routing-header TO TO")
            .v6()
            .elsewhere(),
        probe("source route by the socket, UDP", "source-route TO VIA").v4().open(),
        probe("source route by the socket, TCP", "tcp-source-route TO VIA").v4().open(),
    ]
}

/// IPv6 addresses that carry an IPv4 address.
fn carried() -> Vec<Probe> {
    let forms = [(Form::Nat64, "NAT64"), (Form::SixToFour, "6to4"), (Form::Teredo, "Teredo")];
    let ways: [[&str; 4]; 3] = [
        ["NAT64 address: TCP", "NAT64 address: UDP", "NAT64 address: raw", "NAT64 address: ICMPv6"],
        ["6to4 address: TCP", "6to4 address: UDP", "6to4 address: raw", "6to4 address: ICMPv6"],
        [
            "Teredo address: TCP",
            "Teredo address: UDP",
            "Teredo address: raw",
            "Teredo address: ICMPv6",
        ],
    ];
    let steps = ["tcp TO", "udp-sendto TO", "raw 17 TO", "raw-icmp TO"];
    let of = |((form, _), names): ((Form, &str), [&'static str; 4])| {
        names.into_iter().zip(steps).map(move |(name, step)| probe(name, step).form(form))
    };
    forms.into_iter().zip(ways).flat_map(of).collect()
}

/// Sockets and processes that change hands.
fn hands() -> Vec<Probe> {
    vec![
        probe("socket inherited over fork and exec", "inherit TO").by_daemon(),
        probe("socket passed to a child (SCM_RIGHTS)", "pass TO").by_daemon(),
        probe("a grandchild that left by double fork", "daemon 100 TO\nsleep 700").by_daemon(),
        probe("own user and network namespace", "contained socket TO")
            .needs("user namespaces or tunnels")
            .by_daemon(),
        probe("own namespaces, a frame, a helper that sends", "contained frame TO")
            .needs("user namespaces or tunnels")
            .by_daemon(),
        probe("a route by netlink, then TCP", "exec ip route add ONLY via GATEWAY\ntcp TO"),
        probe("socket of somebody outside, handed over", "given SOCKET TO")
            .known("Sockets handed over")
            .by_daemon(),
        probe("socket of somebody outside, pidfd_getfd", "taken PID FD TO")
            .known("A process can ask another one"),
        probe("a proxy outside, abstract Unix socket", "asked SERVICE TO")
            .known("A process can ask another one"),
        probe("root moves itself to another cgroup", "leave ELSEWHERE udp-sendto TO")
            .known("Root leaves"),
    ]
}

/// The same program by other names. What is recorded of a file is told by the path that it was last executed
/// by, so each has the time to be read.
fn programs() -> Vec<Probe> {
    vec![
        probe("program: a copy", "as copy udp-sendto TO")
            .charged(Charged::Named("copied"))
            .by_daemon(),
        probe("program: a hard link", "sleep 300\nas link udp-sendto TO\nsleep 300")
            .charged(Charged::Named("linked")),
        probe("program: a symbolic link", "sleep 300\nas symbolic-link udp-sendto TO\nsleep 300"),
        probe("program: renamed", "sleep 300\nas renamed udp-sendto TO\nsleep 300")
            .charged(Charged::Named("renamed")),
        probe("program: from memory (memfd, fexecve)", "as memory udp-sendto TO")
            .charged(Charged::Unknown)
            .by_daemon(),
        probe("program: started by the loader", "as loader udp-sendto TO")
            .charged(Charged::Named("ld-linux-x86-64.so.2"))
            .needs("/lib64/ld-linux-x86-64.so.2"),
        probe("program: a library of LD_PRELOAD sends", "as preloaded IP").needs("C compiler"),
        probe("interpreter: a script of bash", "exec bash SCRIPT IP")
            .charged(Charged::Named("bash"))
            .by_daemon(),
    ]
}

/// Below every hook.
fn below() -> Vec<Probe> {
    vec![
        probe("packet socket (AF_PACKET), as root", "frame TO").known("Packet sockets"),
        probe("a tunnel whose packets are forwarded, root", "tunnel TO").known("Root forwards"),
    ]
}

/// Where the daemon stands at the interfaces.
pub fn behind() -> Vec<Probe> {
    vec![
        probe("packet socket (AF_PACKET), as root", "frame TO"),
        probe("packet socket: behind a VLAN tag", "framed tagged TO"),
        probe("packet socket: past the queue of the interface", "framed past TO")
            .open()
            .charged(NOBODY),
        probe("a tunnel whose packets are forwarded, root", "tunnel TO")
            .charged(Charged::Forwarded),
    ]
}

/// By an ordinary user, against the same policy.
pub fn by_a_user() -> Vec<Probe> {
    vec![
        probe("TCP: connect", "tcp TO"),
        probe("UDP: sendto", "udp-sendto TO"),
        probe("ICMP: echo by a ping socket", "ping TO"),
        probe("own user and network namespace", "contained socket TO")
            .needs("user namespaces or tunnels"),
        probe("own namespaces, a frame, a helper that sends", "contained frame TO")
            .needs("user namespaces or tunnels"),
        probe("packet socket (AF_PACKET)", "frame TO").open().charged(NOBODY),
        probe("raw socket: IPPROTO_RAW, own header", "hdrincl plain TO TO").open().charged(NOBODY),
        probe("to another cgroup", "leave ELSEWHERE udp-sendto TO").open().charged(NOBODY),
        probe("socket of somebody outside, pidfd_getfd", "taken PID FD TO").open().charged(NOBODY),
        probe("a tunnel whose packets are forwarded", "tunnel TO").open().charged(NOBODY),
    ]
}

/// Where one program alone may send.
pub fn one_program() -> Vec<Probe> {
    const ITSELF: &str = "as itself udp-sendto TO";
    vec![
        probe("allowed program: a copy of it", "as copy udp-sendto TO")
            .control(ITSELF)
            .charged(Charged::Named("copied")),
        probe("allowed program: a hard link to it", "sleep 300\nas link udp-sendto TO\nsleep 300")
            .control(ITSELF)
            .charged(Charged::Named("linked")),
        probe("allowed program: from memory", "as memory udp-sendto TO")
            .control(ITSELF)
            .charged(Charged::Unknown),
        probe("allowed program: given to the loader", "as loader udp-sendto TO")
            .control(ITSELF)
            .charged(Charged::Named("ld-linux-x86-64.so.2"))
            .needs("/lib64/ld-linux-x86-64.so.2"),
        probe("allowed program: another mounted over it", "as mounted udp-sendto TO")
            .control(ITSELF),
        probe("allowed program: another one, bash", "exec bash SCRIPT IP")
            .control(ITSELF)
            .charged(Charged::Named("bash")),
        probe("allowed program: a library of LD_PRELOAD", "as preloaded IP")
            .control(ITSELF)
            .needs("C compiler")
            .known("A copy is another app"),
    ]
}

/// Where one program alone may not.
pub fn all_but_one() -> Vec<Probe> {
    vec![
        probe("denied program: itself", "udp-sendto TO").control("as copy udp-sendto TO"),
        probe(
            "denied program: a symbolic link to it",
            "sleep 300\nas symbolic-link udp-sendto TO\nsleep 300",
        )
        .control("as copy udp-sendto TO"),
        probe("denied program: its child", "daemon 100 TO\nsleep 700")
            .control("as copy udp-sendto TO"),
        probe("denied program: a copy of it", "as copy udp-sendto TO")
            .known("A copy is another app"),
        probe("denied program: a hard link to it", "sleep 300\nas link udp-sendto TO\nsleep 300")
            .known("A copy is another app"),
        probe("denied program: given to the loader", "as loader udp-sendto TO")
            .needs("/lib64/ld-linux-x86-64.so.2")
            .known("A copy is another app"),
    ]
}

/// A script may not.
pub fn all_but_a_script() -> Vec<Probe> {
    vec![
        probe("denied script: itself", "exec bash SCRIPT IP")
            .control("udp-sendto TO")
            .charged(Charged::Named("bash")),
        probe("denied script: a copy of it", "exec bash SCRIPTCOPY IP")
            .known("A copy is another app"),
    ]
}
