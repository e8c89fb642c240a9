//! A QUIC client made by hand: it sends its Initials again until it is answered, as clients do.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

use super::{
    client::{addr, check, option, sockaddr, udp},
    hello::client_hello,
    quic::{self, Initial},
};

/// After this long without an answer, everything is sent again. More than user space needs to read
/// an Initial on a busy machine.
const RESEND: Duration = Duration::from_millis(700);
/// Times that it is sent. The first is held back, the second passes.
const FLIGHTS: usize = 2;

pub fn act(words: &[&str]) -> io::Result<()> {
    match words {
        ["quic", to, version, shape, name] => {
            let client = Client::new(to, version)?;
            client.begin(1, shape, name)?;
            client.finish(1)
        }
        // Two connections, of one socket to one server.
        ["quic-two", to, version, first, second] => {
            let client = Client::new(to, version)?;
            client.begin(1, "whole", first)?;
            client.finish(1)?;
            client.begin(2, "whole", second)?;
            client.finish(2)
        }
        // Once the first name has passed, the same connection says another, and goes on.
        ["quic-swap", to, version, first, second] => {
            let client = Client::new(to, version)?;
            client.begin(1, "whole", first)?;
            let hello = handshake("plain", second);
            let initial = Initial::new(client.version, &client.id(1), &quic::crypto(0, &hello));
            client.send(&[initial.number(7, 2).datagram()])?;
            std::thread::sleep(RESEND);
            client.finish(1)
        }
        // A connection that is denied, in one call with one that passes.
        ["quic-smuggle", to, version, bad, good] => {
            let client = Client::new(to, version)?;
            let _ = client.begin(1, "whole", bad);
            client.begin(2, "whole", good)?;
            client.drain()?;
            let both = [client.flight(1, "whole", bad, 60), client.flight(2, "whole", good, 60)];
            client.send_at_once(&both.concat())?;
            client.answered()?;
            client.finish(1)
        }
        // The same connection says another name, and before that is read another one begins.
        ["quic-reopen", to, version, good, bad] => {
            let client = Client::new(to, version)?;
            client.begin(1, "whole", good)?;
            client.drain()?;
            client.send(&client.flight(1, "whole", bad, 60))?;
            client.send(&client.flight(3, "whole", good, 0))?;
            std::thread::sleep(RESEND);
            client.finish(1)
        }
        // One socket begins a connection, and another one of the same port is answered.
        ["quic-lure", to, version, good, bad] => {
            let begins = Client::new(to, version)?;
            option(&begins.socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
            let hears = Client::beside(&begins)?;
            begins.send(&begins.flight(1, "whole", good, 0))?;
            std::thread::sleep(RESEND);
            begins.send(&begins.flight(1, "whole", good, 16))?;
            hears.answered()?;
            hears.begin(2, "connected", bad)?;
            hears.finish(2)
        }
        // Half a hello, and no more of it.
        ["quic-half", to, version, name] => {
            let client = Client::new(to, version)?;
            client.send(&client.flight(1, "large", name, 0)[..1])
        }
        // So many datagrams of an app that wants to be recorded, each to another port.
        ["quic-noise", seconds, to] => {
            let end =
                std::time::Instant::now() + Duration::from_secs(seconds.parse().expect("a number"));
            let client = Client::new(to, "v1")?;
            let mut to = client.to;
            while std::time::Instant::now() < end {
                to.set_port(to.port() % 60000 + 1000);
                let _ = client.socket.send_to(b"x", to);
            }
            Ok(())
        }
        // What has no name to show, once and then again.
        ["quic-opaque", to] => {
            let client = Client::new(to, "v1")?;
            client.send(&[vec![0x40; 100]])?;
            client.answered()?;
            client.send(&[vec![0x40; 100]])?;
            client.answered()
        }
        // A long header of a version that nobody knows.
        ["quic-version", to] => {
            let client = Client::new(to, "v1")?;
            let mut datagram =
                quic::hello(quic::V1, &client.id(1), &handshake("plain", "x.example"));
            datagram[1..5].copy_from_slice(&[0xff, 0, 0, 0x1d]);
            client.send(&[datagram])?;
            client.answered()
        }
        // What a real client has sent, in its order.
        ["quic-recorded", to, client] => {
            let socket = Client::new(to, "v1")?;
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
            for number in 1.. {
                let Ok(datagram) = std::fs::read(folder.join(format!("{client}-{number}"))) else {
                    break;
                };
                socket.send(&[datagram])?;
                // As long as Chromium waits before it tries again.
                std::thread::sleep(Duration::from_millis(if number % 2 == 0 { 500 } else { 0 }));
            }
            socket.answered()
        }
        // Initials without end that cannot be opened, each of a connection of its own, from so many
        // sockets.
        ["quic-flood", sockets, count, to] => {
            let sockets = (0..sockets.parse::<usize>().expect("a number"))
                .map(|_| Client::new(to, "v1"))
                .collect::<io::Result<Vec<_>>>()?;
            let mut datagram =
                quic::hello(quic::V1, &random_id(), &handshake("plain", "x.example"));
            for number in 0..count.parse::<u64>().expect("a number") {
                datagram[6..14].copy_from_slice(&number.to_be_bytes());
                let client = &sockets[number as usize % sockets.len()];
                let _ = client.send(std::slice::from_ref(&datagram));
            }
            Ok(())
        }
        // A server: clients are answered as servers answer, until no more is heard.
        ["quic-serve", at] => {
            let socket = UdpSocket::bind(addr(at))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut datagram = [0; 2048];
            let mut heard = socket.recv_from(&mut datagram)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            loop {
                let answer = answer(&datagram[..heard.0]).expect("a long header");
                socket.send_to(&answer, heard.1)?;
                let Ok(next) = socket.recv_from(&mut datagram) else { return Ok(()) };
                heard = next;
            }
        }
        other => panic!("no such step: {other:?}"),
    }
}

/// An id that nobody else has.
fn random_id() -> [u8; 8] {
    let mut id = [0; 8];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).expect("numbers");
    id
}

/// The address of nobody, of the family of another.
fn any(of: SocketAddr) -> IpAddr {
    if of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn number(version: &str) -> u32 {
    if version == "v2" { quic::V2 } else { quic::V1 }
}

/// The id that [`answer`] gives.
const SERVER: [u8; 5] = [0x5e, 0x51, 0x52, 0x53, 0x54];

/// A hello as it is in CRYPTO frames: without the header of a record.
fn handshake(form: &str, name: &str) -> Vec<u8> {
    client_hello(form, name)[5..].to_vec()
}

/// What a server says to a datagram: a packet with a long header is answered by an Initial, of which
/// nobody here has the keys, and anything else by a byte.
pub fn answer(datagram: &[u8]) -> Option<Vec<u8>> {
    if datagram.first()? & 0x80 == 0 {
        return Some(vec![0x40]);
    }
    let dcid = usize::from(*datagram.get(5)?);
    let scid = usize::from(*datagram.get(6 + dcid)?);
    let source = datagram.get(7 + dcid..7 + dcid + scid)?;
    let header = [
        &datagram[..1],
        &datagram[1..5],
        &[source.len() as u8],
        source,
        &[SERVER.len() as u8],
        &SERVER,
        &[0, 0x44, 0x00],
    ];
    Some([&header.concat()[..], &[0x77; 1024]].concat())
}

struct Client {
    socket: UdpSocket,
    to: SocketAddr,
    version: u32,
    id: [u8; 8],
}

impl Client {
    fn new(to: &str, version: &str) -> io::Result<Self> {
        let to = addr(to);
        let socket = UdpSocket::bind((any(to), 0))?;
        socket.set_read_timeout(Some(RESEND))?;
        Ok(Self { socket, to, version: number(version), id: random_id() })
    }

    /// The id of the client's connection of this number.
    fn id(&self, number: u8) -> [u8; 8] {
        let mut id = self.id;
        id[0] = number;
        id
    }

    /// One of the same port that is connected, so that all answers are for it.
    fn beside(other: &Self) -> io::Result<Self> {
        let socket = udp(other.to)?;
        option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
        let (own, len) = sockaddr(other.socket.local_addr()?);
        // SAFETY: the pointer is to an address of that length.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const own).cast(), len) })?;
        let socket = UdpSocket::from(socket);
        socket.connect(other.to)?;
        socket.set_read_timeout(Some(RESEND))?;
        Ok(Self { socket, ..*other })
    }

    /// Takes what has come meanwhile.
    fn drain(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        while self.socket.recv(&mut [0; 2048]).is_ok() {}
        self.socket.set_nonblocking(false)
    }

    fn send(&self, datagrams: &[Vec<u8>]) -> io::Result<()> {
        for datagram in datagrams {
            self.socket.send_to(datagram, self.to)?;
        }
        Ok(())
    }

    /// Several datagrams in one call (`UDP_SEGMENT`), all of which are as long.
    fn send_at_once(&self, datagrams: &[Vec<u8>]) -> io::Result<()> {
        const UDP_SEGMENT: i32 = 103;
        let size = libc::c_int::try_from(datagrams[0].len()).expect("short");
        option(&self.socket, libc::SOL_UDP, UDP_SEGMENT, &size)?;
        let sent = self.socket.send_to(&datagrams.concat(), self.to);
        option(&self.socket, libc::SOL_UDP, UDP_SEGMENT, &0)?;
        sent.map(|_| ())
    }

    fn answered(&self) -> io::Result<()> {
        match self.socket.recv(&mut [0; 2048]) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the hello until it is answered. Shapes: `whole`; `large`, post-quantum in two
    /// datagrams; `reversed`, the same with the later part first; `crumbs`, in pieces that overlap;
    /// `at-once`, as `large` in one call; `unfixed`, with the fixed bit cleared; `behind`, behind another packet in one datagram;
    /// `connected`, on a connected socket; `errors`, on one that wants to hear of errors.
    fn begin(&self, connection: u8, shape: &str, name: &str) -> io::Result<()> {
        const IP_RECVERR: i32 = 11;
        match shape {
            "connected" => self.socket.connect(self.to)?,
            "errors" => option(&self.socket, libc::IPPROTO_IP, IP_RECVERR, &1)?,
            _ => {}
        }
        for flight in 0..FLIGHTS {
            let datagrams = self.flight(connection, shape, name, flight as u64 * 16);
            let sent = match shape {
                "at-once" => self.send_at_once(&datagrams),
                "connected" => datagrams.iter().try_for_each(|d| self.socket.send(d).map(|_| ())),
                _ => self.send(&datagrams),
            };
            match sent {
                Err(error) if shape == "errors" && error.raw_os_error() == Some(libc::ENOBUFS) => {}
                sent => sent?,
            }
            match self.answered() {
                Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {}
                answered => return answered,
            }
        }
        Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
    }

    fn flight(&self, connection: u8, shape: &str, name: &str, first: u64) -> Vec<Vec<u8>> {
        let of = self.id(connection);
        let initial = |number: u64, at: usize, bytes: &[u8]| {
            let frames = [&quic::crypto(at as u64, bytes)[..], &quic::PING].concat();
            Initial::new(self.version, &of, &frames).number(first + number, 2)
        };
        let large = handshake("large", name);
        let (half, rest) = large.split_at(900);
        match shape {
            "large" | "at-once" => {
                vec![initial(0, 0, half).datagram(), initial(1, 900, rest).datagram()]
            }
            "reversed" => vec![initial(1, 900, rest).datagram(), initial(0, 0, half).datagram()],
            "crumbs" => (0..large.len())
                .step_by(300)
                .enumerate()
                .rev()
                .map(|(number, at)| {
                    let end = (at + 350).min(large.len());
                    initial(number as u64, at, &large[at..end]).datagram()
                })
                .collect(),
            "behind" => {
                let before = quic::other(self.version, "handshake", &of, 60);
                let hello = initial(0, 0, &handshake("plain", name)).padded(quic::DATAGRAM);
                vec![[before, hello.seal()].concat()]
            }
            "unfixed" => {
                let hello = initial(0, 0, &handshake("plain", name));
                vec![Initial { first: hello.first & !0x40, ..hello }.datagram()]
            }
            "grease" | "ech" => vec![initial(0, 0, &handshake(shape, name)).datagram()],
            _ => vec![initial(0, 0, &handshake("plain", name)).datagram()],
        }
    }

    /// What comes after the server's answer: the rest of the handshake, to the id that the server
    /// has chosen, and data.
    fn finish(&self, connection: u8) -> io::Result<()> {
        let acknowledge = Initial::new(self.version, &self.id(connection), &quic::ACK)
            .number(40, 2)
            .redirected(&SERVER)
            .datagram();
        let handshake = quic::other(self.version, "handshake", &SERVER, 300);
        self.until_answered(&acknowledge)?;
        self.until_answered(&handshake)?;
        self.until_answered(&[&[0x41], &SERVER[..], &[9; 40]].concat())
    }

    fn until_answered(&self, datagram: &[u8]) -> io::Result<()> {
        for _ in 0..FLIGHTS {
            match self.send(&[datagram.to_vec()]) {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                sent => sent?,
            }
            match self.answered() {
                Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {}
                answered => return answered,
            }
        }
        Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
    }
}
