//! What the app speaks to: a process of its own, in the other network namespace.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType, bind, ipproto, listen, socket, sockopt};

use crate::harness::SERVER_V4;

/// Where it takes connections and leaves them.
pub const CONNECTIONS: u16 = 80;
/// Where it reads all that comes, and says how many bytes that were.
pub const BULK: u16 = 81;
/// Where it takes datagrams.
pub const DATAGRAMS: u16 = 82;
/// Where it answers questions.
pub const NAMES: u16 = 53;

/// How many names are asked for in turn.
const DIFFERENT: u32 = 64;
/// The address that they all have (RFC 5737).
const ADDRESS: [u8; 4] = [198, 51, 100, 7];
/// Bytes of the header of a DNS message (RFC 1035, section 4.1.1).
const HEADER: usize = 12;

/// Says `ready` once it listens, and serves until standard input ends.
pub fn serve() -> Result<()> {
    let (connections, bulk) = (listener(CONNECTIONS)?, listener(BULK)?);
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DATAGRAMS))?;
    sockopt::set_socket_recv_buffer_size_force(&datagrams, 8 << 20)?;
    let names = UdpSocket::bind((SERVER_V4, NAMES))?;
    thread::spawn(move || {
        for stream in connections.incoming() {
            // The client has ended it already, mostly.
            drop(stream);
        }
    });
    thread::spawn(move || {
        for stream in bulk.incoming() {
            // The client says so when it lacks the answer.
            let _ = stream.and_then(count);
        }
    });
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while datagrams.recv(&mut datagram).is_ok() {}
    });
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, from)) = names.recv_from(&mut message) {
            // The client says so when it lacks the answer.
            let _ = names.send_to(&answer(&message[..length]), from);
        }
    });
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// With a queue that a client without a pause does not fill.
fn listener(port: u16) -> Result<TcpListener> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
        .with_context(|| format!("port {port}"))?;
    listen(&socket, 4096)?;
    Ok(socket.into())
}

fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut piece = vec![0; 256 << 10];
    let mut bytes = 0u64;
    loop {
        match stream.read(&mut piece)? {
            0 => return stream.write_all(&bytes.to_be_bytes()),
            read => bytes += read as u64,
        }
    }
}

/// The question for the address of one of the names.
pub fn question(number: u32) -> Vec<u8> {
    let id = (number as u16).to_be_bytes();
    // Recursion desired; one question (RFC 1035, section 4.1.1).
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [&*format!("host{}", number % DIFFERENT), "bench", "example"] {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Whether a message answers a question.
pub fn answers(message: &[u8], question: &[u8]) -> bool {
    message.get(..2) == question.get(..2) && message.ends_with(&ADDRESS)
}

/// The answer with an address; to all but its own names, that there is no such name.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    let own = b"\x05bench\x07example\0\0\x01\0\x01";
    let known = question.ends_with(own);
    if let Some(header) = message.get_mut(2..HEADER) {
        // A response; recursion available; NXDOMAIN is 3; one answer or none, and nothing else.
        header.copy_from_slice(&[
            0x81,
            if known { 0x80 } else { 0x83 },
            0,
            1,
            0,
            u8::from(known),
            0,
            0,
            0,
            0,
        ]);
    }
    if known {
        // The name of the question; A, IN, 60 s, 4 bytes.
        message.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(ADDRESS);
    }
    message
}
