//! What the log says of bytes, beside what the other end sends back.
#![expect(clippy::unwrap_used, reason = "a test")]

mod harness;
mod support;

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    thread,
    time::Duration,
};

use harness::{Net, no_program, require, require_kernel};
use serde_json::Value;
use support::{
    AMAZON, FREE, Run,
    client::{check, sockaddr},
    own_program, uring,
};

/// Says to this binary what to send, for a run of the firewall.
const WAYS: &str = "FIREWALL_TEST_WAYS";

/// Bytes that are sent over a connection: not a round number, and more than a buffer takes.
const MUCH: usize = (3 << 20) + 5;
/// Datagrams that are sent, and bytes of each.
const DATAGRAMS: usize = 200;
const DATAGRAM: usize = 1187;

/// A way to send by TCP, at the port of its place.
const STREAMS: [fn(&mut TcpStream) -> io::Result<()>; 4] =
    [written, from_a_file, from_a_pipe, by_a_ring];
const FIRST_PORT: u16 = 7001;
const UDP: u16 = 7101;
const UNCONNECTED: u16 = 7102;
const URING: u16 = 7103;
const SEGMENTED: u16 = 7104;
const MPTCP: u16 = 7201;
/// Nobody listens there.
const CLOSED: u16 = 7301;

/// What is handed over at once to be cut into [`DATAGRAM`]s, the last one shorter.
const SEGMENTS: usize = 10 * DATAGRAM + 3;
/// What a ping carries behind its header.
const PING: usize = 56;

#[test]
fn sends() {
    let Ok(ways) = std::env::var(WAYS) else { return };
    let host = |text: &str| text.parse::<IpAddr>().unwrap();
    if let Some(ip) = ways.strip_prefix("lossy ") {
        over_a_lossy_way(SocketAddr::new(host(ip), FIRST_PORT)).unwrap();
        std::process::exit(0);
    }
    for ip in ways.split(',').map(host) {
        for (port, way) in (FIRST_PORT..).zip(STREAMS) {
            stream(&TcpStream::connect(SocketAddr::new(ip, port)).unwrap(), way).unwrap();
        }
        stream(&mptcp(SocketAddr::new(ip, MPTCP)).unwrap(), written).unwrap();
        TcpStream::connect(SocketAddr::new(ip, CLOSED)).unwrap_err();
        connected(SocketAddr::new(ip, UDP)).unwrap();
        segmented(SocketAddr::new(ip, SEGMENTED)).unwrap();
        ping(ip).unwrap();
        let socket = UdpSocket::bind(if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        uring::send_msg(socket.as_raw_fd(), SocketAddr::new(ip, URING)).unwrap();
        receive(&socket, 1).unwrap();
    }
    // One socket, here and there in turn.
    let socket = UdpSocket::bind("[::]:0").unwrap();
    for ip in ways.split(',').map(host).cycle().take(20) {
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
            v6 => v6,
        };
        socket.send_to(&[7; 100], SocketAddr::new(ip, UNCONNECTED)).unwrap();
        receive(&socket, 100).unwrap();
    }
    std::process::exit(0);
}

/// Sends, and reads all that is sent back.
fn stream(stream: &TcpStream, way: fn(&mut TcpStream) -> io::Result<()>) -> io::Result<()> {
    let mut back = stream.try_clone()?;
    let reads = thread::spawn(move || io::copy(&mut back, &mut io::sink()));
    way(&mut stream.try_clone()?)?;
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(reads.join().unwrap()?, MUCH as u64, "{stream:?}");
    Ok(())
}

fn mptcp(to: SocketAddr) -> io::Result<TcpStream> {
    let (domain, (address, length)) = (domain(to.ip()), sockaddr(to));
    // SAFETY: takes integers alone.
    let fd = check(unsafe { libc::socket(domain, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) })?;
    // SAFETY: just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(fd, (&raw const address).cast(), length) })?;
    Ok(socket.into())
}

fn domain(ip: IpAddr) -> i32 {
    if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// Sends where some of it has to be sent again.
fn over_a_lossy_way(to: SocketAddr) -> io::Result<()> {
    let socket = TcpStream::connect(to)?;
    stream(&socket, written)?;
    // SAFETY: a plain structure of integers, for which zeros are valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    let place = (&raw mut info).cast();
    let fd = socket.as_raw_fd();
    // SAFETY: the kernel writes at most the length that it is told.
    check(unsafe { libc::getsockopt(fd, libc::SOL_TCP, libc::TCP_INFO, place, &raw mut length) })?;
    assert!(info.tcpi_total_retrans > 0, "nothing was lost");
    Ok(())
}

fn written(to: &mut TcpStream) -> io::Result<()> {
    to.write_all(&vec![7; MUCH])
}

fn file() -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![7; MUCH])?;
    file.rewind()?;
    Ok(file)
}

fn from_a_file(to: &mut TcpStream) -> io::Result<()> {
    let file = file()?;
    all(|left| {
        // SAFETY: takes descriptors that are open and no address.
        unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut(), left) }
    })
}

fn from_a_pipe(to: &mut TcpStream) -> io::Result<()> {
    let (out, mut into) = io::pipe()?;
    let writes = thread::spawn(move || into.write_all(&vec![7; MUCH]));
    let (from, to): (RawFd, RawFd) = (out.as_raw_fd(), to.as_raw_fd());
    let none = std::ptr::null_mut();
    // SAFETY: takes descriptors that are open and no address.
    all(|left| unsafe { libc::splice(from, none, to, none, left, 0) })?;
    writes.join().unwrap()
}

fn by_a_ring(to: &mut TcpStream) -> io::Result<()> {
    let data = vec![7; MUCH];
    all(|left| match uring::send(to.as_raw_fd(), &data[..left]) {
        Ok(sent) => sent.cast_signed(),
        Err(_) => -1,
    })
}

/// Calls until [`MUCH`] has gone over.
fn all(mut some: impl FnMut(usize) -> isize) -> io::Result<()> {
    let mut left = MUCH;
    while left > 0 {
        let sent = some(left);
        if sent <= 0 {
            check(sent as i32)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= sent as usize;
    }
    Ok(())
}

fn connected(to: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    for _ in 0..DATAGRAMS {
        socket.send(&[7; DATAGRAM])?;
        receive(&socket, DATAGRAM)?;
    }
    Ok(())
}

/// Hands over many datagrams at once.
fn segmented(to: SocketAddr) -> io::Result<()> {
    const UDP_SEGMENT: i32 = 103;
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    let (size, length) = (DATAGRAM as i32, size_of::<i32>() as libc::socklen_t);
    let (fd, value) = (socket.as_raw_fd(), (&raw const size).cast());
    // SAFETY: the value is valid for its length.
    check(unsafe { libc::setsockopt(fd, libc::SOL_UDP, UDP_SEGMENT, value, length) })?;
    assert_eq!(socket.send(&[7; SEGMENTS])?, SEGMENTS);
    for _ in 0..SEGMENTS / DATAGRAM {
        receive(&socket, DATAGRAM)?;
    }
    receive(&socket, SEGMENTS % DATAGRAM)
}

/// Sends one echo request by a socket without privileges, and waits for the answer.
fn ping(to: IpAddr) -> io::Result<()> {
    let (protocol, kind) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_ICMP, 8),
        IpAddr::V6(_) => (libc::IPPROTO_ICMPV6, 128),
    };
    // SAFETY: takes integers alone.
    let fd = check(unsafe { libc::socket(domain(to), libc::SOCK_DGRAM, protocol) })?;
    // SAFETY: just made, and nobody else has it. It is used as any socket for datagrams is.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut message = [7; 8 + PING];
    message[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 1]);
    socket.send_to(&message, SocketAddr::new(to, 0))?;
    receive(&socket, message.len())
}

fn receive(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut buffer = [0; 2048];
    assert_eq!(socket.recv(&mut buffer)?, bytes);
    Ok(())
}

/// Ends of flows there, and the bytes of all of them.
fn ends(moved: &[Value], ip: &str, port: u16, proto: &str) -> (usize, u64, u64) {
    let fits = |event: &&Value| {
        event["hook"] == "close"
            && event["dst"]["ip"] == ip
            && event["dst"]["port"].as_u64().is_none_or(|found| found == u64::from(port))
            && event["proto"] == proto
    };
    let number = |event: &Value, key: &str| event[key].as_u64().unwrap();
    moved.iter().filter(fits).fold((0, 0, 0), |(flows, out, back), event| {
        (flows + 1, out + number(event, "bytes_out"), back + number(event, "bytes_in"))
    })
}

#[test]
fn they_are_those_that_went_over() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE, AMAZON]);
    let ports = FIRST_PORT..FIRST_PORT + STREAMS.len() as u16;
    let ports: Vec<String> = ports.chain([MPTCP]).map(|port| format!("[::]:{port}")).collect();
    let _tcp = net.echo_tcp(&ports.iter().map(String::as_str).collect::<Vec<_>>());
    let udp = [UDP, UNCONNECTED, URING, SEGMENTED].map(|port| format!("[::]:{port}"));
    let _udp = net.listen_udp(&udp.each_ref().map(String::as_str));
    let mut run = Run::new(&net, &["--policy", "cn-jurisdiction"]);
    run.command.env(WAYS, format!("{FREE},{AMAZON}"));
    let outcome = run.program(&[&own_program(), "--exact", "sends", "--nocapture"]);
    outcome.assert_status(0);
    outcome.assert_explained();
    let much = MUCH as u64;
    let datagrams = (DATAGRAMS * DATAGRAM) as u64;
    for ip in [FREE, AMAZON] {
        let sum = |port, proto| ends(&outcome.moved, ip, port, proto);
        let all = &outcome.moved;
        for port in (FIRST_PORT..).take(STREAMS.len()) {
            assert_eq!(sum(port, "tcp"), (1, much, much), "{ip} {port}: {all:#?}");
        }
        assert_eq!(sum(MPTCP, "tcp"), (1, much, much), "{ip}: {all:#?}");
        assert_eq!(sum(CLOSED, "tcp"), (1, 0, 0), "{ip}: {all:#?}");
        let segments = SEGMENTS as u64;
        assert_eq!(sum(SEGMENTED, "udp"), (1, segments, segments), "{ip}: {all:#?}");
        let icmp = if ip.contains(':') { "icmpv6" } else { "icmp" };
        assert_eq!(sum(0, icmp), (1, PING as u64, PING as u64), "{ip}: {all:#?}");
        assert_eq!(sum(UDP, "udp"), (1, datagrams, datagrams), "{ip}: {all:#?}");
        assert_eq!(sum(URING, "udp"), (1, 1, 1), "{ip}: {all:#?}");
        let (_, out, back) = sum(UNCONNECTED, "udp");
        assert_eq!((out, back), (1000, 1000), "{ip}: {all:#?}");
    }
    for event in &outcome.moved {
        assert_eq!((&event["verdict"], &event["count"]), (&"allow".into(), &0.into()), "{event}");
        assert_eq!(event["app"], outcome.events[0]["app"], "{event}");
        let has_ports = !event["proto"].as_str().unwrap().starts_with("icmp");
        assert_eq!(event["src"]["port"].as_u64() > Some(0), has_ports, "{event}");
    }
    for event in &outcome.events {
        assert_eq!((&event["bytes_out"], &event["bytes_in"]), (&0.into(), &0.into()), "{event}");
    }
}

#[test]
fn what_is_sent_again_counts_once() {
    if !require_kernel() || !require(no_program("nft")) {
        return;
    }
    let net = Net::new(&[FREE, AMAZON]);
    let rules = "add table inet lossy\n\
        add chain inet lossy arrives { type filter hook input priority 0; }\n\
        add rule inet lossy arrives meta l4proto tcp numgen random mod 12 == 0 drop\n";
    let mut nft = net.server_command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
    let _tcp = net.echo_tcp(&[&format!("[::]:{FIRST_PORT}")]);
    for ip in [FREE, AMAZON] {
        let mut run = Run::new(&net, &["--policy", "cn-jurisdiction"]);
        run.command.env(WAYS, format!("lossy {ip}"));
        let outcome = run.program(&[&own_program(), "--exact", "sends", "--nocapture"]);
        outcome.assert_status(0);
        let much = MUCH as u64;
        let sum = ends(&outcome.moved, ip, FIRST_PORT, "tcp");
        assert_eq!(sum, (1, much, much), "{:#?}", outcome.moved);
    }
}
