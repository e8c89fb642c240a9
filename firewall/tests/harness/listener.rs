//! What answers in a namespace, and keeps a record of who came.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Namespace;

/// Records beyond this are counted only, and so are bytes of one connection beyond the second.
const MAX_CONTACTS: usize = 10_000;
const MAX_BYTES: usize = 64 * 1024;
/// The longest that one peer can keep a listener busy.
const PATIENCE: Duration = Duration::from_secs(5);
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
        Self::streams(namespace, on, |stream, data| {
            let _ = stream.take(MAX_BYTES as u64).read_to_end(data);
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
        serve: impl Fn(&mut TcpStream, &mut Vec<u8>) + Send + Copy + 'static,
    ) -> Self {
        let mut listener = Self::idle();
        for address in on {
            let socket = namespace.run(|| TcpListener::bind(address)).expect("binding TCP");
            socket.set_nonblocking(true).expect("a socket that does not block");
            listener.start(move |contacts| {
                let Ok((mut stream, from)) = socket.accept() else { return false };
                let Ok(to) = stream.local_addr() else { return true };
                let contacts = Arc::clone(contacts);
                // Recorded at once: also a peer that says nothing got through.
                let index = record(&contacts, to, from, Vec::new());
                // Bounded by the time-out, so nobody waits for this thread.
                std::thread::spawn(move || {
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.set_write_timeout(Some(PATIENCE));
                    let mut data = Vec::new();
                    serve(&mut stream, &mut data);
                    let mut contacts = contacts.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(contact) = index.and_then(|index| contacts.get_mut(index)) {
                        contact.data = data;
                    }
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

fn answer_http(stream: &mut TcpStream, data: &mut Vec<u8>) {
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    while !data.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if data.len() > MAX_BYTES || Instant::now() > end {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => data.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
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
