//! Connections whose bytes the receiver sees in another way than they were sent, and a network
//! namespace in which the app answers its own questions.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use super::{
    client::{addr, check, sockaddr},
    dns::{forged, question, read_all, unhex},
};

const PATIENCE: Duration = Duration::from_millis(2000);

/// A step of this file.
pub fn act(words: &[&str]) -> io::Result<()> {
    match words {
        // With an urgent byte of zero at a place, which no ordinary receiver gets to see.
        ["urgent", at, to, hex] => {
            let (mut stream, bytes) = (connect(to)?, unhex(hex));
            stream.set_nodelay(true)?;
            let (before, after) = bytes.split_at(at.parse().expect("a number"));
            stream.write_all(before)?;
            std::thread::sleep(Duration::from_millis(50));
            // SAFETY: the pointer is valid for one byte.
            let sent =
                unsafe { libc::send(stream.as_raw_fd(), [0_u8].as_ptr().cast(), 1, libc::MSG_OOB) };
            check(i32::try_from(sent).expect("one"))?;
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(after)?;
            read_all(&mut stream, &mut [0])
        }
        // One socket, two connections (connect(2): AF_UNSPEC dissolves the first).
        ["again", to, first, second] => {
            let mut stream = connect(to)?;
            stream.write_all(&unhex(first))?;
            read_all(&mut stream, &mut [0])?;
            let nowhere = [0_u8; 16];
            // SAFETY: the address is valid for its length.
            check(unsafe { libc::connect(stream.as_raw_fd(), nowhere.as_ptr().cast(), 16) })?;
            let (address, length) = sockaddr(addr(to));
            // SAFETY: the address is valid for its length.
            check(unsafe {
                libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length)
            })?;
            stream.write_all(&unhex(second))?;
            read_all(&mut stream, &mut [0])
        }
        // From a page that is written over when it was sent, so that what was looked at is not what
        // arrives. Nothing is waited for.
        ["swap", to, hex, other] => swap(to, &unhex(hex), &unhex(other)),
        // Asks a server of its own in a namespace of its own, where it has the resolver's address.
        ["own-answer", resolver, name, ip] => {
            own_answer(resolver, name, ip.parse().expect("v4"), |_| Ok(()))
        }
        // The same, and then sends there to the address.
        ["own-answer-send", resolver, name, ip] => {
            own_answer(resolver, name, ip.parse().expect("v4"), |ip| {
                UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", (ip, 2001)).map(|_| ())
            })
        }
        other => panic!("no such step: {other:?}"),
    }
}

fn swap(to: &str, bytes: &[u8], other: &[u8]) -> io::Result<()> {
    // SAFETY: the name is a string; the descriptor is nobody else's.
    let file = unsafe {
        File::from_raw_fd(check(libc::memfd_create(c"page".as_ptr(), libc::MFD_CLOEXEC))?)
    };
    file.write_all_at(bytes, 0)?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(addr(to))?;
    let mut from = 0;
    // SAFETY: the pointer is to an integer of our own.
    let sent =
        unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut from, bytes.len()) };
    let sent = if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    file.write_all_at(other, 0)?;
    std::thread::sleep(Duration::from_millis(50));
    sent
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr(to), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// In place of an error number: what comes before what is tried did not work.
const NO_NAMESPACE: i32 = 255;

fn own_answer(
    resolver: &str,
    name: &str,
    ip: Ipv4Addr,
    then: fn(Ipv4Addr) -> io::Result<()>,
) -> io::Result<()> {
    // SAFETY: the child has one thread, works in a namespace of its own and ends at once.
    match check(unsafe { libc::fork() })? {
        0 => {
            let status = match in_own_namespace(resolver, name, ip) {
                Ok(()) => then(ip).err().and_then(|error| error.raw_os_error()).unwrap_or(0),
                Err(_) => NO_NAMESPACE,
            };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to an integer of our own.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
            assert!(libc::WIFEXITED(status), "{status}");
            match libc::WEXITSTATUS(status) {
                0 => Ok(()),
                NO_NAMESPACE => panic!("the namespace"),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

fn in_own_namespace(resolver: &str, name: &str, ip: Ipv4Addr) -> io::Result<()> {
    // SAFETY: takes integers alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", "0 0 1")?;
    let host = addr(resolver).ip();
    for arguments in [
        "link set lo up".to_owned(),
        format!("address add {host}/32 dev lo"),
        format!("address add {ip}/32 dev lo"),
    ] {
        std::process::Command::new("ip").args(arguments.split(' ')).status()?;
    }
    let listener = TcpListener::bind(addr(resolver))?;
    let mut stream = connect(resolver)?;
    let asked = question(9, name, "A");
    stream.write_all(&framed(&asked))?;
    let (mut server, _) = listener.accept()?;
    let mut heard = vec![0; asked.len() + 2];
    server.read_exact(&mut heard)?;
    let answer = framed(&forged(9, name, ip));
    server.write_all(&answer)?;
    read_all(&mut stream, &mut vec![0; answer.len()])
}

/// A message as it is in a stream.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}
