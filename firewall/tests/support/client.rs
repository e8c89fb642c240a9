//! The client: this test binary, started again by `firewall run` with a script of system calls.
//!
//! A step is a line, and what it gives is a line in a file: the process, the step, its errno (0 for
//! none) and how many milliseconds it took. `2>` of a shell is of no use for that: the programs
//! that a shell has tell no errno.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{around, dns, elsewhere, evasion, packet, payload, quic_client, roundabout, uring};

/// The name of the test that is no test but the client.
pub const TEST: &str = "support::client::client_of_a_run";

pub const SCRIPT: &str = "FIREWALL_TEST_SCRIPT";
const STEPS: &str = "FIREWALL_TEST_STEPS";

/// How long a call may hang that should not.
const HANG: libc::timeval = libc::timeval { tv_sec: 3, tv_usec: 0 };

/// One step, made.
#[derive(Debug, Clone)]
pub struct Step {
    pub pid: u32,
    pub line: String,
    pub errno: i32,
    pub took: Duration,
}

pub fn prepare(command: &mut Command, script: &str, steps: &Path) {
    command.env(SCRIPT, script).env(STEPS, steps);
}

pub fn read(text: &str) -> Vec<Step> {
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let number = |i: usize| fields[i].parse::<u32>().expect("a number");
            Step {
                pid: number(0),
                line: fields[1].to_owned(),
                errno: number(2).cast_signed(),
                took: Duration::from_millis(number(3).into()),
            }
        })
        .collect()
}

#[test]
fn client_of_a_run() {
    let (Some(script), Some(steps)) = (std::env::var_os(SCRIPT), std::env::var_os(STEPS)) else {
        return;
    };
    let script = script.into_string().expect("UTF-8");
    let file = OpenOptions::new().create(true).append(true).open(steps).expect("the steps");
    let mut client = Client { file, open: BTreeMap::new() };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        client.step(line);
    }
    std::process::exit(0);
}

struct Client {
    file: File,
    /// Sockets that later steps use.
    open: BTreeMap<String, OwnedFd>,
}

impl Client {
    fn step(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let started = Instant::now();
        let result = self.act(&words);
        let took = started.elapsed().as_millis();
        let errno = match result {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or_else(|| panic!("{line}: {error}")),
        };
        // One write, so that lines of processes side by side do not mix.
        let line = format!("{}\t{line}\t{errno}\t{took}\n", std::process::id());
        self.file.write_all(line.as_bytes()).expect("writing the steps");
    }

    fn act(&mut self, words: &[&str]) -> io::Result<()> {
        match words {
            ["tcp", to] => tcp(libc::IPPROTO_TCP, addr(to)),
            ["mptcp", to] => tcp(libc::IPPROTO_MPTCP, addr(to)),
            ["mptcp-wait", to, time] => mptcp_wait(addr(to), millis(time)),
            ["tcp-mapped", to] => tcp(libc::IPPROTO_TCP, mapped(addr(to))),
            ["tfo-msg", to] => {
                let socket = stream(addr(to), libc::IPPROTO_TCP)?;
                send_to(&socket, b"x", libc::MSG_FASTOPEN, Some(addr(to)))
            }
            ["tfo-connect", to] => tfo_connect(addr(to)),
            // One socket that is refused at first.
            ["tcp-again", refused, to] => {
                let socket = stream(addr(refused), libc::IPPROTO_TCP)?;
                let first = connect(&socket, addr(refused)).expect_err("nobody is there");
                assert_eq!(first.raw_os_error(), Some(libc::ECONNREFUSED), "{first}");
                connect(&socket, addr(to))
            }
            ["udp-sendto", to] => send_to(&udp(addr(to))?, b"x", 0, Some(addr(to))),
            ["udp-sendto-mapped", to] => {
                let to = mapped(addr(to));
                send_to(&udp(to)?, b"x", 0, Some(to))
            }
            ["udp-sendmsg", to] => send_msg(&udp(addr(to))?, addr(to), false),
            ["udp-sendmmsg", to] => send_msg(&udp(addr(to))?, addr(to), true),
            ["udp-connect", to] => {
                let socket = udp(addr(to))?;
                connect(&socket, addr(to))?;
                send_to(&socket, b"x", 0, None)
            }
            ["udp-connect-mapped", to] => {
                let socket = udp(mapped(addr(to)))?;
                connect(&socket, mapped(addr(to)))?;
                send_to(&socket, b"x", 0, None)
            }
            ["udp-reconnect", first, then] => {
                let socket = connected(first)?;
                connect(&socket, addr(then))?;
                send_to(&socket, b"x", 0, None)
            }
            ["udp-unconnect", first, then] => {
                let socket = connected(first)?;
                disconnect(&socket)?;
                connect(&socket, addr(then))?;
                send_to(&socket, b"x", 0, None)
            }
            ["udp-connected-sendto", first, then] => {
                send_to(&connected(first)?, b"x", 0, Some(addr(then)))
            }
            // What is held back goes where the first part went, whatever the last one says.
            ["udp-cork", first, then] => {
                let socket = udp(addr(first))?;
                send_to(&socket, b"x", libc::MSG_MORE, Some(addr(first)))?;
                send_to(&socket, b"x", 0, Some(addr(then)))
            }
            ["udplite", to] => {
                let socket = socket(addr(to), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?;
                send_to(&socket, b"x", 0, Some(addr(to)))
            }
            ["sctp", to] => {
                let socket = socket(addr(to), libc::SOCK_STREAM, libc::IPPROTO_SCTP)?;
                connect(&socket, addr(to))
            }
            ["ping", to] => {
                let to = addr(to);
                let socket = socket(to, libc::SOCK_DGRAM, packet::icmp_protocol(to.ip()))?;
                send_to(&socket, &packet::echo(to.ip()), 0, Some(to))
            }
            ["ping-connect", to] => {
                let to = addr(to);
                let socket = socket(to, libc::SOCK_DGRAM, packet::icmp_protocol(to.ip()))?;
                connect(&socket, to)?;
                send_to(&socket, &packet::echo(to.ip()), 0, None)
            }
            ["raw-icmp", to] => {
                let to = SocketAddr::new(addr(to).ip(), 0);
                let socket = socket(to, libc::SOCK_RAW, packet::icmp_protocol(to.ip()))?;
                send_to(&socket, &packet::echo(to.ip()), 0, Some(to))
            }
            ["raw", protocol, to] => {
                let protocol = protocol.parse().expect("a protocol");
                let place = SocketAddr::new(addr(to).ip(), 0);
                let socket = socket(place, libc::SOCK_RAW, protocol)?;
                send_to(&socket, &packet::ports(addr(to).port()), 0, Some(place))
            }
            // A packet with its own header. What `sendto` is told can be another address.
            ["hdrincl", form, to, packet_to] => {
                let packet = packet::form(form, addr(packet_to));
                let place = SocketAddr::new(addr(to).ip(), 0);
                let socket = socket(place, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
                send_to(&socket, &packet, 0, Some(place))
            }
            ["tcp-source-route", hop, to] => {
                let socket = stream(addr(to), libc::IPPROTO_TCP)?;
                route_over(&socket, addr(hop))?;
                connect(&socket, addr(to))
            }
            ["source-route", hop, to] => source_route(addr(hop), addr(to)),
            ["routed-accepted", hop, own] => roundabout::accepted(addr(hop).ip(), addr(own)),
            ["routed-own", hop, own] => roundabout::own(addr(hop).ip(), addr(own)),
            ["freebind", from, own] => roundabout::freebind(addr(from).ip(), addr(own)),
            ["uring-connect", to] => {
                let socket = stream(addr(to), libc::IPPROTO_TCP)?;
                uring::connect(socket.as_raw_fd(), addr(to))
            }
            ["uring-sendmsg", to] => uring::send_msg(udp(addr(to))?.as_raw_fd(), addr(to)),
            ["uring-available"] => uring::available(),
            ["fd-sendto", fd, to] => {
                let fd: RawFd = fd.parse().expect("a descriptor");
                raw_send_to(fd, b"x", 0, Some(addr(to)))
            }
            ["open", name, kind, to] => self.open(name, kind, None, addr(to)),
            ["open-from", name, kind, from, to] => {
                self.open(name, kind, Some(addr(from)), addr(to))
            }
            ["listen", name, at] => {
                let listener = std::net::TcpListener::bind(addr(at))?;
                self.open.insert((*name).to_owned(), listener.into());
                Ok(())
            }
            ["take", name, listener] => {
                // SAFETY: takes no address; the listener is open.
                let fd = check(unsafe {
                    libc::accept4(
                        self.open[*listener].as_raw_fd(),
                        std::ptr::null_mut(),
                        std::ptr::null_mut(),
                        libc::SOCK_CLOEXEC,
                    )
                })?;
                // SAFETY: just made, and nobody else has it.
                self.open.insert((*name).to_owned(), unsafe { OwnedFd::from_raw_fd(fd) });
                Ok(())
            }
            ["fork"] => share_with_a_child(),
            ["close", name] => {
                self.open.remove(*name);
                Ok(())
            }
            ["say", name] => send_to(&self.open[*name], b"hello", 0, None),
            ["say-by", how, name] => around::say(how, &self.open[*name]),
            // No text, and no record of TLS.
            ["say-bytes", name, count] => {
                let count = count.parse().expect("a number");
                send_to(&self.open[*name], &vec![0; count], 0, None)
            }
            ["say-until-ended", name] => say_until_ended(&self.open[*name]),
            ["listen-until-ended", name] => listen_until_ended(&self.open[*name]),
            ["wait-for", path] => {
                let there = crate::harness::wait_until(super::LIMIT, || Path::new(path).exists());
                assert!(there, "{path} does not come");
                Ok(())
            }
            // What comes by standard input, step by step, to its end.
            ["follow"] => {
                for line in io::stdin().lines() {
                    self.step(&line?);
                }
                Ok(())
            }
            ["inherit", to] => self.inherit(to),
            ["pass", to] => self.pass(to),
            ["daemon", time, to] => self.daemon(millis(time), to),
            ["setns", path] => {
                let file = File::open(path)?;
                // SAFETY: takes integers alone.
                check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) })?;
                Ok(())
            }
            ["accept", port] => accept(port.parse().expect("a port")),
            ["sleep", time] => {
                std::thread::sleep(millis(time));
                Ok(())
            }
            ["until", time, step @ ..] => {
                let end = Instant::now() + millis(time);
                let mut last = Ok(());
                while Instant::now() < end {
                    last = self.act(step);
                    std::thread::sleep(Duration::from_millis(10));
                }
                last
            }
            // So many datagrams, each to another port of a range and from one socket. Of those that fail,
            // the first one's errno.
            ["flood", count, to] => flood(count.parse().expect("a number"), addr(to)),
            // The errno is the program's exit status.
            ["exec", program, arguments @ ..] => {
                let status = Command::new(program).args(arguments).stdin(Stdio::null()).status()?;
                match status.code() {
                    Some(0) => Ok(()),
                    code => Err(io::Error::from_raw_os_error(code.unwrap_or(255))),
                }
            }
            [word, ..] if word.starts_with("dns") => dns::act(words),
            [
                "udp-with" | "udp-unspec" | "udp-cork-reconnect" | "tcp-repair" | "listener-turned"
                | "accepted-turned" | "family" | "hdrincl-option" | "raw-connected"
                | "uring-zero-copy" | "uring-polled",
                ..,
            ] => around::act(words),
            [
                "as" | "leave" | "given" | "taken" | "asked" | "contained" | "frame" | "framed"
                | "frames-by-xdp" | "tunnel",
                ..,
            ] => elsewhere::act(words),
            ["urgent" | "again" | "swap" | "own-answer" | "own-answer-send", ..] => {
                evasion::act(words)
            }
            ["tls" | "http" | "http-absolute" | "opaque" | "bytes" | "two-hellos", ..] => {
                payload::act(words)
            }
            [word, ..] if word.starts_with("quic") => quic_client::act(words),
            other => panic!("no such step: {other:?}"),
        }
    }

    /// Connects a socket that stays open.
    fn open(
        &mut self,
        name: &str,
        kind: &str,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> io::Result<()> {
        let socket = match kind {
            "tcp" => stream(to, libc::IPPROTO_TCP)?,
            "mptcp" => stream(to, libc::IPPROTO_MPTCP)?,
            "udp" => udp(to)?,
            other => panic!("no such kind: {other}"),
        };
        if let Some(from) = from {
            let (address, length) = sockaddr(from);
            // SAFETY: the address is valid for its length.
            check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        }
        connect(&socket, to)?;
        self.open.insert(name.to_owned(), socket);
        Ok(())
    }

    /// A socket goes over fork and exec into another program.
    fn inherit(&mut self, to: &str) -> io::Result<()> {
        let socket = udp(addr(to))?;
        // SAFETY: a duplicate that is kept open in the child, and closed here with the process.
        let fd = check(unsafe { libc::dup(socket.as_raw_fd()) })?;
        let status = Command::new("/proc/self/exe")
            .args(["--exact", TEST])
            .env(SCRIPT, format!("fd-sendto {fd} {to}"))
            .status()?;
        assert!(status.success(), "{status}");
        Ok(())
    }

    /// A socket goes through a Unix socket into a child, which had none.
    fn pass(&mut self, to: &str) -> io::Result<()> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        // SAFETY: this process has the test's thread and its main thread, which waits; the child
        // makes system calls and writes a line.
        match check(unsafe { libc::fork() })? {
            0 => {
                let fd = packet::receive_fd(far.as_raw_fd()).expect("a descriptor");
                self.step(&format!("fd-sendto {fd} {to}"));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                packet::send_fd(near.as_raw_fd(), udp(addr(to))?.as_raw_fd())?;
                let mut status = 0;
                // SAFETY: the pointer is to an integer of our own.
                check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
                Ok(())
            }
        }
    }

    /// A child of a child leaves the session and sends after a while.
    fn daemon(&mut self, after: Duration, to: &str) -> io::Result<()> {
        // SAFETY: as in `pass`.
        let child = check(unsafe { libc::fork() })?;
        if child != 0 {
            let mut status = 0;
            // SAFETY: the pointer is to an integer of our own.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
            return Ok(());
        }
        // SAFETY: as above; `setsid` and `_exit` take integers alone.
        unsafe {
            libc::setsid();
            if libc::fork() != 0 {
                libc::_exit(0);
            }
        }
        std::thread::sleep(after);
        self.step(&format!("udp-sendto {to}"));
        self.step(&format!("tcp {to}"));
        // SAFETY: ends the grandchild at once.
        unsafe { libc::_exit(0) }
    }
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no ADDRESS:PORT"))
}

fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
        IpAddr::V6(_) => to,
    }
}

pub fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().expect("milliseconds"))
}

pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn check_size(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn family(to: SocketAddr) -> libc::c_int {
    if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

fn socket(to: SocketAddr, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes integers alone.
    let fd = check(unsafe { libc::socket(family(to), kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    option(&socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &HANG)?;
    option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &HANG)?;
    Ok(socket)
}

pub fn udp(to: SocketAddr) -> io::Result<OwnedFd> {
    socket(to, libc::SOCK_DGRAM, 0)
}

pub fn stream(to: SocketAddr, protocol: libc::c_int) -> io::Result<OwnedFd> {
    socket(to, libc::SOCK_STREAM, protocol)
}

pub fn option<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to an initialised value of that length.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), length)
    })?;
    Ok(())
}

/// An address as the kernel takes it.
pub fn sockaddr(to: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: a plain structure of integers, for which zeros are valid.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut storage;
    let length = match to {
        SocketAddr::V4(v4) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger, and aligned for every address.
            unsafe { place.cast::<libc::sockaddr_in>().write(address) };
            size_of_val(&address)
        }
        SocketAddr::V6(v6) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(address) };
            size_of_val(&address)
        }
    };
    (storage, length as libc::socklen_t)
}

pub fn connect(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// `connect` to no address.
pub fn disconnect(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: a plain structure of integers; zero is AF_UNSPEC.
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), &raw const address, length) })?;
    Ok(())
}

/// A UDP socket that has sent there.
fn connected(to: &str) -> io::Result<OwnedFd> {
    let socket = udp(addr(to))?;
    connect(&socket, addr(to))?;
    send_to(&socket, b"first", 0, None)?;
    Ok(socket)
}

fn send_to(
    socket: &OwnedFd,
    data: &[u8],
    flags: libc::c_int,
    to: Option<SocketAddr>,
) -> io::Result<()> {
    raw_send_to(socket.as_raw_fd(), data, flags, to)
}

pub fn raw_send_to(
    socket: RawFd,
    data: &[u8],
    flags: libc::c_int,
    to: Option<SocketAddr>,
) -> io::Result<()> {
    let address = to.map(sockaddr);
    let (pointer, length) = match &address {
        Some((storage, length)) => ((&raw const *storage).cast(), *length),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: both pointers are valid for their lengths.
    check_size(unsafe {
        libc::sendto(
            socket,
            data.as_ptr().cast(),
            data.len(),
            flags | libc::MSG_NOSIGNAL,
            pointer,
            length,
        )
    })
}

fn send_msg(socket: &OwnedFd, to: SocketAddr, many: bool) -> io::Result<()> {
    let (mut address, length) = sockaddr(to);
    let mut data = *b"x";
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: a plain structure of integers and pointers, for which zeros are valid.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_name = (&raw mut address).cast();
    message.msg_hdr.msg_namelen = length;
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    // SAFETY: everything that the header points to lives until the call returns.
    check_size(unsafe {
        if many {
            libc::sendmmsg(socket.as_raw_fd(), &raw mut message, 1, 0) as isize
        } else {
            libc::sendmsg(socket.as_raw_fd(), &raw const message.msg_hdr, 0)
        }
    })
}

fn tcp(protocol: libc::c_int, to: SocketAddr) -> io::Result<()> {
    let socket = stream(to, protocol)?;
    connect(&socket, to)?;
    send_to(&socket, b"hello", 0, None)
}

/// Keeps the connection while the kernel joins further addresses to it.
fn mptcp_wait(to: SocketAddr, time: Duration) -> io::Result<()> {
    let socket = stream(to, libc::IPPROTO_MPTCP)?;
    connect(&socket, to)?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        send_to(&socket, b"hello", 0, None)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Fast open without asking for a cookie first: the first data is in the SYN.
fn tfo_connect(to: SocketAddr) -> io::Result<()> {
    const TCP_FASTOPEN_NO_COOKIE: libc::c_int = 34;
    let socket = stream(to, libc::IPPROTO_TCP)?;
    option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1_i32)?;
    option(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &1_i32)?;
    connect(&socket, to)?;
    send_to(&socket, b"x", 0, None)
}

/// A loose source route (RFC 791): `sendto` names the end, the packet's header the first hop.
fn source_route(hop: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = udp(to)?;
    route_over(&socket, hop)?;
    send_to(&socket, b"x", 0, Some(to))
}

fn route_over(socket: &OwnedFd, hop: SocketAddr) -> io::Result<()> {
    let IpAddr::V4(hop) = hop.ip() else { panic!("IPv4 only") };
    let [a, b, c, d] = hop.octets();
    option(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[131_u8, 7, 4, a, b, c, d, 0])
}

/// A server for one connection: four bytes in, four out.
fn accept(port: u16) -> io::Result<()> {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind(("::", port))?;
    option(&listener, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &HANG)?;
    let (mut stream, _) = listener.accept()?;
    let mut question = [0; 4];
    stream.read_exact(&mut question)?;
    stream.write_all(b"pong")
}

/// A child has all sockets too, for as long as this process lives.
fn share_with_a_child() -> io::Result<()> {
    // SAFETY: as in `pass`; the child makes system calls alone, and ends with this thread or after a
    // minute.
    unsafe {
        if check(libc::fork())? == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::sleep(60);
            libc::_exit(0)
        }
    }
    Ok(())
}

/// Sends until the socket is no more: that a packet is denied does not end it.
fn say_until_ended(socket: &OwnedFd) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match send_to(socket, b"hello", 0, None) {
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(())
}

/// Sends nothing.
fn listen_until_ended(socket: &OwnedFd) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut byte = 0_u8;
    while Instant::now() < end {
        let into = (&raw mut byte).cast();
        // SAFETY: the pointer is valid for one byte.
        let heard = unsafe { libc::recv(socket.as_raw_fd(), into, 1, libc::MSG_DONTWAIT) };
        match check(i32::try_from(heard).expect("one")) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(())
}

fn flood(count: u32, to: SocketAddr) -> io::Result<()> {
    let socket = udp(to)?;
    let mut first = Ok(());
    for number in 0..count {
        let port = 1024 + (number % 60_000) as u16;
        first = first.and(send_to(&socket, b"x", 0, Some(SocketAddr::new(to.ip(), port))));
    }
    first
}
