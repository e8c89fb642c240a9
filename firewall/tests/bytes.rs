//! What the log says of bytes, beside what the other end sends back.
#![expect(clippy::unwrap_used, reason = "a test")]

mod harness;
mod support;

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, RawFd},
    thread,
    time::Duration,
};

use harness::{Net, require_kernel};
use serde_json::Value;
use support::{AMAZON, FREE, Run, client::check, own_program, uring};

/// Says to this binary what to send, for a run of the firewall.
const WAYS: &str = "FIREWALL_TEST_WAYS";

/// Bytes that are sent over a connection: not a round number, and more than a buffer takes.
const MUCH: usize = (3 << 20) + 5;
/// Datagrams that are sent, and bytes of each.
const DATAGRAMS: usize = 200;
const DATAGRAM: usize = 1187;

/// A way to send by TCP, at the port of its place.
const STREAMS: [fn(&mut TcpStream) -> io::Result<()>; 3] = [written, from_a_file, from_a_pipe];
const FIRST_PORT: u16 = 7001;
const UDP: u16 = 7101;
const UNCONNECTED: u16 = 7102;
const URING: u16 = 7103;

#[test]
fn sends() {
    let Ok(ways) = std::env::var(WAYS) else { return };
    let host = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    for ip in ways.split(',').map(host) {
        for (port, way) in (FIRST_PORT..).zip(STREAMS) {
            stream(SocketAddr::new(ip, port), way).unwrap();
        }
        connected(SocketAddr::new(ip, UDP)).unwrap();
        let socket = UdpSocket::bind(if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        uring::send_msg(socket.as_raw_fd(), SocketAddr::new(ip, URING)).unwrap();
        receive(&socket, 1).unwrap();
    }
    // One socket, here and there in turn.
    let socket = UdpSocket::bind("[::]:0").unwrap();
    for ip in ways.split(',').map(host).cycle().take(20) {
        let ip = match ip {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
            v6 => v6,
        };
        socket.send_to(&[7; 100], SocketAddr::new(ip, UNCONNECTED)).unwrap();
        receive(&socket, 100).unwrap();
    }
    std::process::exit(0);
}

/// Sends, and reads all that is sent back.
fn stream(to: SocketAddr, way: fn(&mut TcpStream) -> io::Result<()>) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    let mut back = stream.try_clone()?;
    let reads = thread::spawn(move || io::copy(&mut back, &mut io::sink()));
    way(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(reads.join().unwrap()?, MUCH as u64, "{to}");
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
            && event["dst"] == serde_json::json!({ "ip": ip, "port": port })
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
    let ports: Vec<String> = ports.map(|port| format!("[::]:{port}")).collect();
    let _tcp = net.echo_tcp(&ports.iter().map(String::as_str).collect::<Vec<_>>());
    let udp = [UDP, UNCONNECTED, URING].map(|port| format!("[::]:{port}"));
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
        assert_eq!(sum(UDP, "udp"), (1, datagrams, datagrams), "{ip}: {all:#?}");
        assert_eq!(sum(URING, "udp"), (1, 1, 1), "{ip}: {all:#?}");
        let (_, out, back) = sum(UNCONNECTED, "udp");
        assert_eq!((out, back), (1000, 1000), "{ip}: {all:#?}");
    }
    for event in &outcome.moved {
        assert_eq!((&event["verdict"], &event["count"]), (&"allow".into(), &0.into()), "{event}");
        assert_eq!(event["app"], outcome.events[0]["app"], "{event}");
        assert!(event["src"]["port"].as_u64() > Some(0), "{event}");
    }
    for event in &outcome.events {
        assert_eq!((&event["bytes_out"], &event["bytes_in"]), (&0.into(), &0.into()), "{event}");
    }
}
