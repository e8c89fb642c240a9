//! Who is on the client's host and not under the policy: hands over a socket, and sends for whoever asks.

use std::{
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd as _, RawFd},
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{harness::Net, support::send_fd};

/// Ends when it is dropped.
pub struct Outside {
    /// A Unix socket that hands over a descriptor.
    pub path: PathBuf,
    /// An abstract one that is told where to send.
    pub name: String,
    /// A socket that is open in this process: one of IPv6, which sends to IPv4 as well.
    pub fd: RawFd,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

const POLL: Duration = Duration::from_millis(20);

impl Outside {
    pub fn new(net: &Net, folder: &Path) -> Self {
        let [four, six] =
            ["0.0.0.0:0", "[::]:0"].map(|any| net.in_client(|| UdpSocket::bind(any)).expect("UDP"));
        let fd = six.as_raw_fd();
        let path = folder.join("hands-over");
        let hands = UnixListener::bind(&path).expect("a Unix socket");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("ours");
        hands.set_nonblocking(true).expect("a socket that does not block");
        let name = format!("{}", folder.display());
        let place = UnixAddr::from_abstract_name(&name).expect("a name");
        // Abstract names belong to a network namespace.
        let asked =
            net.in_client(|| UnixDatagram::bind_addr(&place)).expect("an abstract Unix socket");
        asked.set_read_timeout(Some(POLL)).expect("a time-out");

        let stop = Arc::new(AtomicBool::new(false));
        let (first, second) = (Arc::clone(&stop), Arc::clone(&stop));
        let senders = [four, six.try_clone().expect("a copy")];
        let threads = vec![
            std::thread::spawn(move || {
                while !first.load(Ordering::Acquire) {
                    match hands.accept() {
                        Ok((stream, _)) => {
                            let _ = send_fd(stream.as_raw_fd(), six.as_raw_fd());
                        }
                        Err(_) => std::thread::sleep(POLL),
                    }
                }
            }),
            std::thread::spawn(move || {
                let mut text = [0; 100];
                while !second.load(Ordering::Acquire) {
                    let Ok(length) = asked.recv(&mut text) else { continue };
                    let to = String::from_utf8_lossy(&text[..length]);
                    if let Ok(to) = to.parse::<SocketAddr>() {
                        let _ = senders[usize::from(to.is_ipv6())].send_to(b"x", to);
                    }
                }
            }),
        ];
        Self { path, name, fd, stop, threads }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
