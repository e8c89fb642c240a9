//! Questions to name servers, made by hand.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use super::client::{addr, check, millis, option, sockaddr};

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const HTTPS: u16 = 65;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(2000);
/// Between the pieces of what is split, so that each is a segment of its own.
pub const PAUSE: Duration = Duration::from_millis(10);

/// A step whose first word begins with `dns`.
pub fn act(words: &[&str]) -> io::Result<()> {
    match words {
        // A connected socket, as every resolver library has it.
        ["dns", server, name, kind] => ask(addr(server), name, kind).map(drop),
        ["dns-sendto", server, name, kind] => {
            let (socket, question) = (bound(addr(server), 0)?, question(id(), name, kind));
            socket.send_to(&question, addr(server))?;
            answer(&socket, &question).map(drop)
        }
        ["dns-from", port, server, name, kind] => {
            let port = port.parse().expect("a port");
            let (socket, question) = (bound(addr(server), port)?, question(id(), name, kind));
            socket.connect(addr(server))?;
            socket.send(&question)?;
            answer(&socket, &question).map(drop)
        }
        ["dns-edns", server, name, kind] => {
            let socket = connected(addr(server))?;
            let question = edns(&question(id(), name, kind));
            socket.send(&question)?;
            answer(&socket, &question).map(drop)
        }
        // Over TCP, with the stream cut at these places; the first two bytes are the length.
        ["dns-tcp", server, name, kind, cuts] => over_tcp(addr(server), name, kind, cuts),
        // Two questions in one stream, before an answer to either (RFC 7766, section 6.2.1.1).
        ["dns-tcp-two", server, first, second] => {
            let questions = [first, second].map(|name| framed(&question(id(), name, "A")));
            let mut stream = TcpStream::connect_timeout(&addr(server), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&questions.concat())?;
            read_answer(&mut stream)?;
            read_answer(&mut stream).map(drop)
        }
        // Sent and forgotten, whatever it is.
        ["dns-hex", server, hex] => connected(addr(server))?.send(&unhex(hex)).map(drop),
        // One call, two datagrams.
        ["dns-segments", server, names @ ..] => {
            let socket = connected(addr(server))?;
            let all: Vec<Vec<u8>> = names.iter().map(|name| question(id(), name, "A")).collect();
            let length = i32::try_from(all[0].len()).expect("short");
            assert!(all.iter().all(|one| one.len() == all[0].len()), "not of one length");
            option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, &length)?;
            socket.send(&all.concat()).map(drop)
        }
        ["dns-mmsg", server, names @ ..] => {
            let all: Vec<Vec<u8>> = names.iter().map(|name| question(id(), name, "A")).collect();
            send_many(&connected(addr(server))?, &all)
        }
        // Two calls, one datagram.
        ["dns-more", server, name] => {
            let socket = connected(addr(server))?;
            let question = question(id(), name, "A");
            let (first, rest) = question.split_at(16);
            send(&socket, first, libc::MSG_MORE)?;
            send(&socket, rest, 0)
        }
        // Asks, and takes in whatever comes from anywhere, like an app that trusts everybody. Fewer
        // datagrams than expected are an error.
        ["dns-listen", port, server, name, time, count] => {
            let socket = bound(addr(server), port.parse().expect("a port"))?;
            socket.send_to(&question(id(), name, "A"), addr(server))?;
            let heard = listen(&socket, millis(time));
            let enough = heard >= count.parse().expect("a number");
            enough.then_some(()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA))
        }
        // Asks for each name of a range, and connects to what the answer says without a pause.
        ["dns-connect", count, server, pattern, port] => {
            connect_each(count.parse().expect("a number"), addr(server), pattern, port)
        }
        other => panic!("no such step: {other:?}"),
    }
}

/// A question without more, in the form of the step language: `\.` is a dot inside of a label and
/// `\0` a byte of zero.
pub fn question(id: u16, name: &str, kind: &str) -> Vec<u8> {
    let kind = match kind {
        "A" => A,
        "AAAA" => AAAA,
        "HTTPS" => HTTPS,
        other => panic!("no such type: {other}"),
    };
    message(id, 1, &[&encode(name)[..], &kind.to_be_bytes(), &[0, 1]].concat())
}

/// A header that asks for recursion and tells this number of questions, and what follows it.
pub fn message(id: u16, questions: u16, rest: &[u8]) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let [c, d] = questions.to_be_bytes();
    [&[a, b, 1, 0, c, d, 0, 0, 0, 0, 0, 0], rest].concat()
}

/// A name as it is on the wire, with a length of six bits whatever the label's is.
pub fn encode(name: &str) -> Vec<u8> {
    let hidden = name.replace("\\.", "\u{1}").replace("\\0", "\u{2}");
    let mut bytes = Vec::new();
    for label in hidden.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.bytes().map(|byte| match byte {
            1 => b'.',
            2 => 0,
            other => other,
        }));
    }
    bytes.push(0);
    bytes
}

/// The same with an OPT record: 1232 bytes, DNSSEC wanted (RFC 6891, section 6.1).
pub fn edns(question: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[11] = 1;
    message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    message
}

pub fn hex(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // A step has no empty words.
    if text.is_empty() { "-".to_owned() } else { text }
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches('-');
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// An answer with one address to a question, for servers that are made by hand. The question's
/// name stands in both places.
pub fn forged(id: u16, name: &str, ip: Ipv4Addr) -> Vec<u8> {
    let mut message = question(id, name, "A");
    message[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(ip.octets());
    message
}

fn id() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1000);
    NEXT.fetch_add(7, std::sync::atomic::Ordering::Relaxed)
}

fn bound(server: SocketAddr, port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(server, 0)?;
    socket.connect(server)?;
    Ok(socket)
}

/// The addresses of a name.
pub fn ask(server: SocketAddr, name: &str, kind: &str) -> io::Result<Vec<IpAddr>> {
    let (socket, question) = (connected(server)?, question(id(), name, kind));
    socket.send(&question)?;
    answer(&socket, &question)
}

fn answer(socket: &UdpSocket, question: &[u8]) -> io::Result<Vec<IpAddr>> {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        if buffer[..2] == question[..2] {
            return addresses(&buffer[..length]);
        }
    }
}

/// The addresses in an answer, or `ENOENT` where it says that there is none.
fn addresses(answer: &[u8]) -> io::Result<Vec<IpAddr>> {
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    if answer[3] & 15 != 0 || count == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let mut at = after_name(answer, 12) + 4;
    let mut found = Vec::new();
    for _ in 0..count {
        at = after_name(answer, at);
        let kind = u16::from_be_bytes([answer[at], answer[at + 1]]);
        let length = usize::from(u16::from_be_bytes([answer[at + 8], answer[at + 9]]));
        let data = &answer[at + 10..at + 10 + length];
        match kind {
            A => found.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            AAAA => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
        at += 10 + length;
    }
    Ok(found)
}

fn after_name(message: &[u8], mut at: usize) -> usize {
    loop {
        match message[at] {
            0 => return at + 1,
            length if length >= 0xc0 => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}

fn over_tcp(server: SocketAddr, name: &str, kind: &str, cuts: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write_pieces(&mut stream, &framed(&question(id(), name, kind)), cuts)?;
    addresses(&read_answer(&mut stream)?).map(drop)
}

/// A message as it is in a stream, with its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}

fn read_answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_all(stream, &mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    read_all(stream, &mut answer)?;
    Ok(answer)
}

/// Writes in pieces that end at these places: `whole`, or numbers with commas between.
pub fn write_pieces(stream: &mut TcpStream, data: &[u8], cuts: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let cuts = cuts.split(',').filter_map(|cut| cut.parse().ok()).chain([data.len()]);
    let mut start = 0;
    for end in cuts.map(|end: usize| end.min(data.len())) {
        if end > start {
            if start > 0 {
                std::thread::sleep(PAUSE);
            }
            stream.write_all(&data[start..end])?;
            start = end;
        }
    }
    Ok(())
}

/// Reads all of it; a stream that ends before is an `EPIPE`.
pub fn read_all(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::from_raw_os_error(libc::EPIPE),
        _ => error,
    })
}

fn listen(socket: &UdpSocket, time: Duration) -> usize {
    let mut heard = 0;
    let end = Instant::now() + time;
    let mut buffer = [0; 4096];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        let _ = socket.set_read_timeout(Some(left));
        heard += usize::from(socket.recv_from(&mut buffer).is_ok());
    }
    heard
}

fn send(socket: &UdpSocket, data: &[u8], flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// All datagrams by `sendmmsg`, which stops at the first that fails and tells of it at the next
/// call.
fn send_many(socket: &UdpSocket, all: &[Vec<u8>]) -> io::Result<()> {
    let mut parts: Vec<libc::iovec> = all
        .iter()
        .map(|data| libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: a plain structure of integers and pointers, for which zeros are valid.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut done = 0;
    while done < messages.len() {
        let rest = &mut messages[done..];
        let count = u32::try_from(rest.len()).expect("few");
        // SAFETY: the headers and all they point to live until the call returns.
        let sent = check(unsafe {
            libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_NOSIGNAL)
        })?;
        done += usize::try_from(sent).expect("a number");
    }
    Ok(())
}

/// Fails with the error of the last connection only if all fail.
fn connect_each(count: u32, server: SocketAddr, pattern: &str, port: &str) -> io::Result<()> {
    let mut last = Ok(());
    let mut passed = false;
    for number in 0..count {
        let name = pattern.replace('*', &number.to_string());
        let found = ask(server, &name, "A")?;
        let to = SocketAddr::new(found[0], port.parse().expect("a port"));
        last = connect(to);
        passed |= last.is_ok();
    }
    if passed { Ok(()) } else { last }
}

/// By the system call itself: the library's time-out would wait where there is nobody.
fn connect(to: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    // SAFETY: takes integers alone.
    let fd = check(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    })?;
    // SAFETY: just made, and nobody else has it.
    let socket: std::os::fd::OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
    // SAFETY: the address is valid for its length.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result.map(drop),
    }
}
