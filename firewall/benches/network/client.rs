//! The app whose connections are measured: a process of its own, that does one task after the other.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, SendFlags, SocketType, connect, ipproto, sendto, socket,
    sockopt::set_socket_linger,
};
use serde::{Deserialize, Serialize};

use crate::server;

/// How long an answer may take that comes in microseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is sent where the size does not matter.
const PAYLOAD: [u8; 64] = [0; 64];

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Task {
    /// TCP connections, one after the other.
    Connect { to: SocketAddr, times: u32 },
    /// The first datagram of so many sockets, which are not connected.
    FirstSend { to: SocketAddr, times: u32 },
    /// Datagrams of one connected socket.
    Sends { to: SocketAddr, times: u32 },
    /// Bytes over one TCP connection.
    Bulk { to: SocketAddr, bytes: u64 },
    /// Questions to a name server, each from a new socket.
    LookUp { to: SocketAddr, times: u32 },
    /// Whether a datagram gets out.
    Try { to: SocketAddr },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Done {
    /// Microseconds for one, and how many in a second with all around it.
    Times { p50: f64, p99: f64, rate: f64 },
    /// How many in a second.
    Rate(f64),
    /// The number of the error, 0 if there was none.
    Errno(i32),
}

/// Reads tasks, a line of JSON each, and answers with a line.
pub fn serve() -> Result<()> {
    for line in io::stdin().lock().lines() {
        let task: Task = serde_json::from_str(&line?)?;
        let done = task.run().with_context(|| format!("{task:?}"))?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&done)?)?;
        out.flush()?;
    }
    Ok(())
}

impl Task {
    fn run(self) -> Result<Done> {
        match self {
            Self::Connect { to, times } => each(times, |_| connect_once(to)),
            Self::FirstSend { to, times } => each(times, |_| {
                let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
                let start = Instant::now();
                sendto(&socket, &PAYLOAD, SendFlags::empty(), &to)?;
                Ok(start.elapsed())
            }),
            Self::Sends { to, times } => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(to)?;
                let start = Instant::now();
                for _ in 0..times {
                    socket.send(&PAYLOAD)?;
                }
                Ok(Done::Rate(f64::from(times) / start.elapsed().as_secs_f64()))
            }
            Self::Bulk { to, bytes } => bulk(to, bytes),
            Self::LookUp { to, times } => each(times, |number| look_up(to, number)),
            Self::Try { to } => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                let error = socket.send_to(&PAYLOAD, to).err();
                Ok(Done::Errno(error.map_or(0, |error| error.raw_os_error().unwrap_or(-1))))
            }
        }
    }
}

fn each(times: u32, mut one: impl FnMut(u32) -> Result<Duration>) -> Result<Done> {
    let start = Instant::now();
    let mut took = (0..times).map(&mut one).collect::<Result<Vec<_>>>()?;
    let rate = f64::from(times) / start.elapsed().as_secs_f64();
    took.sort();
    let at = |part: usize| {
        let time = took.get((took.len() * part / 100).min(took.len().saturating_sub(1)));
        anyhow::Ok(time.context("nothing was measured")?.as_secs_f64() * 1e6)
    };
    Ok(Done::Times { p50: at(50)?, p99: at(99)?, rate })
}

fn connect_once(to: SocketAddr) -> Result<Duration> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    let start = Instant::now();
    connect(&socket, &to)?;
    let took = start.elapsed();
    // Ends it with a reset: the port is free again at once, as many as there are.
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(took)
}

fn bulk(to: SocketAddr, bytes: u64) -> Result<Done> {
    // The beginning of no protocol that has names.
    let piece = vec![0; 256 << 10];
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let part = left.min(piece.len() as u64);
        stream.write_all(&piece[..part as usize])?;
        left -= part;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived).context("the server does not say what arrived")?;
    let rate = bytes as f64 / start.elapsed().as_secs_f64();
    ensure!(u64::from_be_bytes(arrived) == bytes, "not everything arrived");
    Ok(Done::Rate(rate))
}

/// As a resolver of a C library: a socket for each question.
fn look_up(to: SocketAddr, number: u32) -> Result<Duration> {
    let question = server::question(number);
    let mut answer = [0; 512];
    let start = Instant::now();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.send(&question)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let length = socket.recv(&mut answer).context("no answer")?;
    let took = start.elapsed();
    ensure!(server::answers(&answer[..length], &question), "that is no answer to the question");
    Ok(took)
}
