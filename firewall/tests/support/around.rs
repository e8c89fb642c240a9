//! Sockets with options, and calls that seldom send: what may look like a way around a policy.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::FileExt as _,
    },
};

use super::{
    client::{
        addr, check, check_size, connect, disconnect, option, raw_send_to, sockaddr, stream, udp,
    },
    packet, uring,
};

/// What is sent by [`say`], and nothing else is.
pub const WORDS: &[u8] = b"said-after-it-was-denied";

/// `linux/udp.h`, `linux/in.h`, `linux/in6.h`, `linux/tcp.h`
const UDP_SEGMENT: i32 = 103;
const IP_FREEBIND: i32 = 15;
const IP_TRANSPARENT: i32 = 19;
const IPV6_HDRINCL: i32 = 36;
const IPV6_HOPOPTS: i32 = 54;
const IPV6_DSTOPTS: i32 = 59;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_FREEBIND: i32 = 78;
const TCP_REPAIR: i32 = 19;
const AF_SMC: i32 = 43;
const AF_RXRPC: i32 = 33;
const IPPROTO_SMC: i32 = 256;
const IPPROTO_DCCP: i32 = 33;
const SOCK_DCCP: i32 = 6;

pub fn act(words: &[&str]) -> io::Result<()> {
    match words {
        ["udp-with", what, to] => udp_with(what, addr(to)),
        // A socket that was connected, and is no more.
        ["udp-unspec", first, then] => {
            let socket = udp(addr(first))?;
            connect(&socket, addr(first))?;
            disconnect(&socket)?;
            send(&socket, b"x", 0, addr(then))
        }
        // What is held back belongs to the flow that it began with.
        ["udp-cork-reconnect", first, then] => {
            let socket = udp(addr(first))?;
            connect(&socket, addr(first))?;
            option(&socket, libc::IPPROTO_UDP, libc::UDP_CORK, &1)?;
            raw_send_to(socket.as_raw_fd(), b"x", 0, None)?;
            let moved = connect(&socket, addr(then));
            let more = raw_send_to(socket.as_raw_fd(), b"y", 0, None);
            option(&socket, libc::IPPROTO_UDP, libc::UDP_CORK, &0)?;
            moved.and(more)
        }
        // Connected without a handshake, as what restores checkpoints does.
        ["tcp-repair", to] => {
            let socket = stream(addr(to), libc::IPPROTO_TCP)?;
            option(&socket, libc::IPPROTO_TCP, TCP_REPAIR, &1)?;
            connect(&socket, addr(to))?;
            option(&socket, libc::IPPROTO_TCP, TCP_REPAIR, &0)?;
            raw_send_to(socket.as_raw_fd(), b"hello", 0, None)
        }
        // A socket that was a server, and then calls.
        ["listener-turned", to] => {
            let socket = OwnedFd::from(TcpListener::bind((any(addr(to)), 0))?);
            // SAFETY: takes integers alone.
            check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) })?;
            disconnect(&socket)?;
            call(&socket, to)
        }
        // One that was accepted.
        ["accepted-turned", to] => {
            let any = any(addr(to));
            let listener = TcpListener::bind((any, 0))?;
            // Which is the loopback.
            let _near = TcpStream::connect(listener.local_addr()?)?;
            let socket = OwnedFd::from(listener.accept()?.0);
            disconnect(&socket)?;
            call(&socket, to)
        }
        ["family", family, to] => by_family(family, addr(to)),
        // A header of its own by an option, on a socket of a protocol.
        ["hdrincl-option", form, to] => {
            let to = SocketAddr::new(addr(to).ip(), 0);
            let socket = raw(to)?;
            match to {
                SocketAddr::V4(_) => option(&socket, libc::IPPROTO_IP, libc::IP_HDRINCL, &1)?,
                SocketAddr::V6(_) => option(&socket, libc::IPPROTO_IPV6, IPV6_HDRINCL, &1)?,
            }
            send(&socket, &packet::form(form, SocketAddr::new(to.ip(), 2001)), 0, to)
        }
        ["raw-connected", to] => {
            let to = SocketAddr::new(addr(to).ip(), 0);
            let socket = raw(to)?;
            connect(&socket, to)?;
            raw_send_to(socket.as_raw_fd(), &packet::ports(2001), 0, None)
        }
        ["uring-zero-copy", to] => uring::send_zero_copy(udp(addr(to))?.as_raw_fd(), addr(to)),
        ["uring-polled", to] => uring::send_polled(udp(addr(to))?.as_raw_fd(), addr(to)),
        other => panic!("no such step: {other:?}"),
    }
}

fn any(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn call(socket: &OwnedFd, to: &str) -> io::Result<()> {
    connect(socket, addr(to))?;
    raw_send_to(socket.as_raw_fd(), b"hello", 0, None)
}

fn send(socket: &OwnedFd, data: &[u8], flags: i32, to: SocketAddr) -> io::Result<()> {
    raw_send_to(socket.as_raw_fd(), data, flags, Some(to))
}

fn raw(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    new(family, libc::SOCK_RAW, libc::IPPROTO_UDP)
}

fn new(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers alone.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A datagram from a socket with an option.
fn udp_with(what: &str, to: SocketAddr) -> io::Result<()> {
    let socket = udp(to)?;
    let set = |level, name, value: i32| option(&socket, level, name, &value);
    let v4 = to.is_ipv4();
    let (mut length, mut flags) = (1, 0);
    match what {
        "mark" => set(libc::SOL_SOCKET, libc::SO_MARK, 0x1234)?,
        "priority" => set(libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?,
        "device" => option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"wire0\0")?,
        "broadcast" => set(libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?,
        "zero-copy" => {
            set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
            flags = libc::MSG_ZEROCOPY;
            length = 1000;
        }
        "segments" => {
            set(libc::IPPROTO_UDP, UDP_SEGMENT, 100)?;
            length = 300;
        }
        // The kernel makes fragments of it.
        "large" => length = 4000,
        "no-route" => flags = libc::MSG_DONTROUTE,
        "confirm" => flags = libc::MSG_CONFIRM,
        "options" => option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1_u8, 1, 1, 0])?,
        "hop-by-hop" => option(&socket, libc::IPPROTO_IPV6, IPV6_HOPOPTS, &PADDING)?,
        "destination" => option(&socket, libc::IPPROTO_IPV6, IPV6_DSTOPTS, &PADDING)?,
        "freebind" | "transparent" => {
            let (level, name) = match (what, v4) {
                ("freebind", true) => (libc::IPPROTO_IP, IP_FREEBIND),
                ("freebind", false) => (libc::IPPROTO_IPV6, IPV6_FREEBIND),
                (_, true) => (libc::IPPROTO_IP, IP_TRANSPARENT),
                (_, false) => (libc::IPPROTO_IPV6, IPV6_TRANSPARENT),
            };
            set(level, name, 1)?;
            let own = if v4 { "198.51.100.7:0" } else { "[2001:db8::7]:0" };
            bind(&socket, addr(own))?;
        }
        "packet-info" => return with_packet_info(&socket, to),
        port if port.starts_with("port-") => {
            set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            bind(&socket, SocketAddr::new(any(to), port[5..].parse().expect("a port")))?;
        }
        other => panic!("no such option: {other}"),
    }
    send(&socket, &vec![b'x'; length], flags, to)
}

/// Options of an extension header that say nothing: next header, length, PadN of four bytes.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn bind(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// With a control message that names the interface.
fn with_packet_info(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    // SAFETY: the name ends with a zero.
    let index = unsafe { libc::if_nametoindex(c"wire0".as_ptr()) };
    let (mut address, length) = sockaddr(to);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: plain structures of integers and pointers, for which zeros are valid.
    let (mut message, mut info4, mut info6): (libc::msghdr, libc::in_pktinfo, libc::in6_pktinfo) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
    info4.ipi_ifindex = index.cast_signed();
    info6.ipi6_ifindex = index;
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the control buffer is large enough for either structure, and aligned; everything that
    // the header points to lives until the call returns.
    unsafe {
        let size = if to.is_ipv4() { size_of_val(&info4) } else { size_of_val(&info6) } as u32;
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        if to.is_ipv4() {
            ((*header).cmsg_level, (*header).cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
            libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info4);
        } else {
            ((*header).cmsg_level, (*header).cmsg_type) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(info6);
        }
        check_size(libc::sendmsg(socket.as_raw_fd(), &raw const message, 0))
    }
}

/// Protocols and families that kernels seldom have.
fn by_family(family: &str, to: SocketAddr) -> io::Result<()> {
    let ip = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = match family {
        "smc" => new(AF_SMC, libc::SOCK_STREAM, i32::from(to.is_ipv6()))?,
        "smc-protocol" => new(ip, libc::SOCK_STREAM, IPPROTO_SMC)?,
        "dccp" => new(ip, SOCK_DCCP, IPPROTO_DCCP)?,
        "rxrpc" => new(AF_RXRPC, libc::SOCK_DGRAM, ip)?,
        other => panic!("no such family: {other}"),
    };
    connect(&socket, to)?;
    raw_send_to(socket.as_raw_fd(), b"hello", 0, None)
}

/// Sends [`WORDS`] on a connection in a way.
pub fn say(how: &str, socket: &OwnedFd) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    match how {
        "send" => raw_send_to(fd, WORDS, 0, None),
        "zero-copy" => {
            option(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1)?;
            raw_send_to(fd, WORDS, libc::MSG_ZEROCOPY, None)
        }
        "urgent" => raw_send_to(fd, WORDS, libc::MSG_OOB, None),
        "sendfile" => {
            let file = file()?;
            // SAFETY: no pointer but the null one.
            check_size(unsafe {
                libc::sendfile(fd, file.as_raw_fd(), std::ptr::null_mut(), WORDS.len())
            })
        }
        "splice" => {
            let (from, mut to) = io::pipe()?;
            to.write_all(WORDS)?;
            splice(from.as_raw_fd(), fd)
        }
        "vmsplice" => {
            let (from, to) = io::pipe()?;
            let part =
                libc::iovec { iov_base: WORDS.as_ptr().cast_mut().cast(), iov_len: WORDS.len() };
            // SAFETY: what the pipe holds is a constant, which stays.
            check_size(unsafe { libc::vmsplice(to.as_raw_fd(), &raw const part, 1, 0) })?;
            splice(from.as_raw_fd(), fd)
        }
        other => panic!("no such way: {other}"),
    }
}

fn splice(from: RawFd, to: RawFd) -> io::Result<()> {
    let nowhere = std::ptr::null_mut();
    // SAFETY: no pointers but null ones.
    check_size(unsafe { libc::splice(from, nowhere, to, nowhere, WORDS.len(), 0) })
}

fn file() -> io::Result<std::fs::File> {
    // SAFETY: the name is a string; the descriptor is nobody else's.
    let file = unsafe {
        std::fs::File::from_raw_fd(check(libc::memfd_create(c"words".as_ptr(), libc::MFD_CLOEXEC))?)
    };
    file.write_all_at(WORDS, 0)?;
    Ok(file)
}
