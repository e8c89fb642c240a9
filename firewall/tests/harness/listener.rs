//! What answers in a namespace, and keeps a record of who came.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Namespace;

/// Records beyond this are counted only, and so are bytes of one connection beyond the second.
const MAX_CONTACTS: usize = 10_000;
const MAX_BYTES: usize = 64 * 1024;
/// The longest that one peer can be silent: between two words of a kept connection a daemon is started, which
/// on an emulated kernel can take minutes.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);

/// Somebody who reached a listener: a TCP connection or a UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The address that was reached; v4-mapped ones as IPv4.
    pub to: SocketAddr,
    pub from: SocketAddr,
    /// What it sent.
    pub data: Vec<u8>,
}

/// Listens until it is dropped.
pub struct Listener {
    contacts: Arc<Mutex<Vec<Contact>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Answers every HTTP request with 200 and a line of text.
    pub fn http(namespace: &Namespace, on: &[SocketAddr]) -> Self {
        Self::streams(namespace, on, answer_http)
    }

    /// Accepts connections, and reads until they end.
    pub fn tcp(namespace: &Namespace, on: &[SocketAddr]) -> Self {
        Self::streams(namespace, on, |stream, record| while read(stream, record).is_some() {})
    }

    /// Accepts connections, and sends back what it reads.
    pub fn echo(namespace: &Namespace, on: &[SocketAddr]) -> Self {
        Self::streams(namespace, on, |stream, record| {
            while let Some(data) = read(stream, record) {
                if stream.write_all(&data).is_err() {
                    return;
                }
            }
        })
    }

    /// Accepts connections, and once one has sent a whole TLS record, has the server behind a Unix
    /// socket answer it. The client's bytes are recorded as they are on the wire.
    pub(super) fn tls(namespace: &Namespace, on: &[SocketAddr], server: PathBuf) -> Self {
        Self::streams(namespace, on, move |stream, record| {
            let mut data = Vec::new();
            // The header of a record ends with its length (RFC 8446, section 5.1).
            while data.len() < 5
                || data.len() < 5 + usize::from(data[3]) * 256 + usize::from(data[4])
            {
                let Some(more) = read(stream, record) else { return };
                data.extend(more);
            }
            let Ok(mut behind) = UnixStream::connect(&server) else { return };
            let (Ok(mut answers), Ok(mut back)) = (behind.try_clone(), stream.try_clone()) else {
                return;
            };
            let answering = std::thread::spawn(move || {
                // Ends with the server's side; both directions have a time-out.
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
            let _ = behind.set_read_timeout(Some(PATIENCE));
            let mut sent = behind.write_all(&data);
            while let (Ok(()), Some(more)) = (&sent, read(stream, record)) {
                sent = behind.write_all(&more);
            }
            let _ = behind.shutdown(Shutdown::Both);
            let _ = answering.join();
        })
    }

    /// Receives datagrams, and sends back what `answer` says. Every address has its own copy, and
    /// none can be the unspecified one: see [`super::Net::answer_udp`].
    pub fn udp(
        namespace: &Namespace,
        on: &[SocketAddr],
        answer: impl FnMut(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + Clone + 'static,
    ) -> Self {
        let mut listener = Self::idle();
        for address in on {
            let socket = namespace.run(|| UdpSocket::bind(address)).expect("binding UDP");
            socket.set_nonblocking(true).expect("a socket that does not block");
            let local = socket.local_addr().expect("a bound socket");
            let mut answer = answer.clone();
            let mut buffer = vec![0; MAX_BYTES];
            listener.start(move |contacts| match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let data = &buffer[..length];
                    record(contacts, local, from, data.to_vec());
                    if let Some(reply) = answer(data, canonical(from)) {
                        // A peer that is gone does not want an answer.
                        let _ = socket.send_to(&reply, from);
                    }
                    true
                }
                // Also ICMP errors that an earlier answer got.
                Err(_) => false,
            });
        }
        listener
    }

    /// Who came until now, in order.
    pub fn contacts(&self) -> Vec<Contact> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until somebody fits.
    pub fn wait_for(&self, limit: Duration, mut fits: impl FnMut(&Contact) -> bool) -> bool {
        super::wait_until(limit, || self.contacts().iter().any(&mut fits))
    }

    fn streams(
        namespace: &Namespace,
        on: &[SocketAddr],
        serve: impl Fn(&mut TcpStream, &Record) + Send + Clone + 'static,
    ) -> Self {
        let mut listener = Self::idle();
        for address in on {
            let socket = namespace.run(|| TcpListener::bind(address)).expect("binding TCP");
            socket.set_nonblocking(true).expect("a socket that does not block");
            let serve = serve.clone();
            listener.start(move |contacts| {
                let Ok((mut stream, from)) = socket.accept() else { return false };
                let Ok(to) = stream.local_addr() else { return true };
                // Recorded at once: also a peer that says nothing got through.
                let index = record(contacts, to, from, Vec::new());
                let record = Record { contacts: Arc::clone(contacts), index };
                let serve = serve.clone();
                // Bounded by the time-out, so nobody waits for this thread.
                std::thread::spawn(move || {
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.set_write_timeout(Some(PATIENCE));
                    serve(&mut stream, &record);
                });
                true
            });
        }
        listener
    }

    fn idle() -> Self {
        Self { contacts: Arc::default(), stop: Arc::default(), threads: Vec::new() }
    }

    /// Calls `step` until the listener is dropped, with a pause when it says there was nothing.
    fn start(&mut self, mut step: impl FnMut(&Arc<Mutex<Vec<Contact>>>) -> bool + Send + 'static) {
        let (contacts, stop) = (Arc::clone(&self.contacts), Arc::clone(&self.stop));
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                if !step(&contacts) {
                    std::thread::sleep(POLL);
                }
            }
        }));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // One that panicked listens no more, which is all that is asked.
            let _ = thread.join();
        }
    }
}

/// Where what a peer sends is kept.
struct Record {
    contacts: Arc<Mutex<Vec<Contact>>>,
    index: Option<usize>,
}

impl Record {
    fn push(&self, bytes: &[u8]) {
        let mut contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(contact) = self.index.and_then(|index| contacts.get_mut(index)) {
            let room = MAX_BYTES.saturating_sub(contact.data.len());
            contact.data.extend(&bytes[..bytes.len().min(room)]);
        }
    }
}

/// What a peer sends next, recorded; `None` at the end of the stream and after too long a pause.
fn read(stream: &mut TcpStream, record: &Record) -> Option<Vec<u8>> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => {
                record.push(&buffer[..length]);
                return Some(buffer[..length].to_vec());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn record(
    contacts: &Mutex<Vec<Contact>>,
    to: SocketAddr,
    from: SocketAddr,
    data: Vec<u8>,
) -> Option<usize> {
    let mut contacts = contacts.lock().unwrap_or_else(PoisonError::into_inner);
    if contacts.len() == MAX_CONTACTS {
        return None;
    }
    contacts.push(Contact { to: canonical(to), from: canonical(from), data });
    Some(contacts.len() - 1)
}

fn answer_http(stream: &mut TcpStream, record: &Record) {
    let end = Instant::now() + PATIENCE;
    let mut data = Vec::new();
    while !data.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if data.len() > MAX_BYTES || Instant::now() > end {
            return;
        }
        let Some(more) = read(stream, record) else { return };
        data.extend(more);
    }
    let (Ok(to), Ok(from)) = (stream.local_addr(), stream.peer_addr()) else { return };
    let body = format!("{} answers {}\n", canonical(to), canonical(from).ip());
    // A client that hangs up early has its answer.
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
