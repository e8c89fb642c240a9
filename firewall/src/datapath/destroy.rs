//! Ending sockets that may not send though their `connect` was let through, for the name in their
//! packets, or because it was before the firewall: without it TCP would go on in retries until the
//! kernel gives up, minutes later.
//!
//! A packet that is refused unread shows no ports, so a socket is found by its cookie among all
//! those of its network namespace, and destroyed through socket diagnostics (sock_diag(7)). A
//! listener is left alone: what is denied there is one answer of it.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use firewall_common::{
    event::FlowEvent,
    flow::{TCP, UDP},
    verdict::{Hook, Verdict},
};
use nix::sched::{CloneFlags, setns};
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, socket_with},
};

/// Sockets that wait to be ended; beyond it they run into their time-outs.
const MAX_WAITING: usize = 1024;
/// Sockets that are remembered, so that none is looked for twice.
const MAX_SEEN: usize = 4096;

struct Doomed {
    cookie: u64,
    pid: u32,
    protocol: u8,
}

/// Sees which sockets are to be ended.
#[derive(Default)]
pub struct Doom {
    seen: HashSet<u64>,
}

impl Doom {
    /// Looks at an event, and has the socket ended if it is a TCP socket that may not send. `end` says
    /// whether that was taken on; if not, it is tried again when the next packet is denied.
    pub fn consider(&mut self, event: &FlowEvent, end: impl FnOnce(u64, u32, u8) -> bool) {
        if !is_doomed(event) {
            return;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        if self.seen.insert(event.cookie) && !end(event.cookie, event.identity.pid, TCP) {
            self.seen.remove(&event.cookie);
        }
    }
}

/// Ends sockets on a thread of its own, which goes from one network namespace to the next.
#[derive(Default)]
pub struct Destroyer {
    thread: Option<SyncSender<Doomed>>,
}

impl Destroyer {
    /// Has a socket ended, by its cookie, a process that has it and its protocol. Returns whether that is
    /// taken on: not while too many others wait, and of TCP and UDP alone. Packets of what is denied are
    /// dropped all the same.
    pub fn end(&mut self, cookie: u64, pid: u32, protocol: u8) -> bool {
        matches!(protocol, TCP | UDP)
            && self
                .thread
                .get_or_insert_with(start)
                .try_send(Doomed { cookie, pid, protocol })
                .is_ok()
    }
}

/// Whether the event is of a TCP socket that is open and may not send: by its address, a question on
/// it, or the name in its payload. A denied `connect` has failed, and leaves nothing open.
fn is_doomed(event: &FlowEvent) -> bool {
    const PACKETS: [Hook; 4] = [Hook::Packet, Hook::Dns, Hook::Tls, Hook::Http];
    // Of a flow that has ended nothing is left to end.
    event.closed == 0
        && event.verdict == Verdict::Deny as u8
        && event.protocol == TCP
        && PACKETS.iter().any(|hook| event.hook == *hook as u8)
}

fn start() -> SyncSender<Doomed> {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    thread::spawn(move || {
        let own = File::open("/proc/thread-self/ns/net");
        for Doomed { cookie, pid, protocol } in receiver {
            // The packets are dropped in any case; this only spares the app the wait.
            let found = namespaces(pid).iter().any(|namespace| {
                setns(namespace, CloneFlags::CLONE_NEWNET).is_ok()
                    && destroy(cookie, protocol).unwrap_or(false)
            });
            if let Ok(own) = &own {
                let _ = setns(own, CloneFlags::CLONE_NEWNET);
            }
            // Where the process is gone, ours is the best guess.
            if !found {
                let _ = destroy(cookie, protocol);
            }
        }
    });
    sender
}

/// The network namespaces that a process has: each of its threads can be in one of its own.
fn namespaces(pid: u32) -> Vec<File> {
    let mut seen = HashSet::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| File::open(thread.path().join("ns/net")).ok())
        .filter(|namespace| namespace.metadata().is_ok_and(|data| seen.insert(data.ino())))
        .collect()
}

// linux/netlink.h and linux/sock_diag.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// `TCP_ESTABLISHED`, `SYN_SENT`, `SYN_RECV`, `FIN_WAIT1`, `CLOSE_WAIT`, `LAST_ACK`, `CLOSING`:
/// those that send by themselves and are no listeners, a bit each. UDP uses the first for connected
/// sockets.
const SENDING: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 11;

const HEADER: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, interface, and the cookie in its last 8 bytes.
const ID: usize = 48;
/// In `struct inet_diag_msg` and `inet_diag_req_v2`.
const ID_IN_MESSAGE: usize = 4;
const ID_IN_REQUEST: usize = 8;

/// Destroys the socket with this cookie in the network namespace of this thread. Returns whether it
/// was there.
fn destroy(cookie: u64, protocol: u8) -> io::Result<bool> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        if let Some(id) = find(&socket, family, protocol, cookie)? {
            let request = request(SOCK_DESTROY, NLM_F_ACK, family, protocol, !0, &id);
            rustix::net::send(&socket, &request, SendFlags::empty())?;
            let mut answer = [0; 1024];
            rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kernel's identification of the socket with this cookie.
fn find(socket: &OwnedFd, family: u8, protocol: u8, cookie: u64) -> io::Result<Option<[u8; ID]>> {
    let request = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, protocol, SENDING, &[0; ID]);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut found = None;
    let mut buffer = vec![0; 32 << 10];
    // To the end, also behind what was looked for: the socket is used again.
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, body) in messages(&buffer[..length]) {
            match kind {
                NLMSG_DONE | NLMSG_ERROR => return Ok(found),
                _ => found = found.or_else(|| id(body).filter(|id| cookie_of(id) == cookie)),
            }
        }
    }
}

fn id(body: &[u8]) -> Option<[u8; ID]> {
    body.get(ID_IN_MESSAGE..)?.first_chunk().copied()
}

/// Two words, the lower one first.
fn cookie_of(id: &[u8; ID]) -> u64 {
    let word = |at: usize| u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]);
    u64::from(word(ID - 8)) | u64::from(word(ID - 4)) << 32
}

/// A `struct nlmsghdr` with a `struct inet_diag_req_v2`.
fn request(
    kind: u16,
    flags: u16,
    family: u8,
    protocol: u8,
    states: u32,
    id: &[u8; ID],
) -> [u8; HEADER + ID_IN_REQUEST + ID] {
    let mut bytes = [0; HEADER + ID_IN_REQUEST + ID];
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = protocol;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    bytes[HEADER + ID_IN_REQUEST..].copy_from_slice(id);
    bytes
}

/// The netlink messages in a datagram: type and what follows the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_end_whose_packets_are_denied() {
        let doomed = |hook: Hook, verdict: Verdict, protocol| {
            let (hook, verdict) = (hook as u8, verdict as u8);
            is_doomed(&FlowEvent { hook, verdict, protocol, ..FlowEvent::default() })
        };
        let of_tcp = |hook: &&Hook| doomed(**hook, Verdict::Deny, TCP);
        let ended: Vec<&str> = Hook::ALL.iter().filter(of_tcp).map(|hook| hook.word()).collect();
        assert_eq!(ended, ["packet", "dns", "tls", "http"]);
        assert!(!doomed(Hook::Dns, Verdict::Deny, UDP));
        assert!(!doomed(Hook::Tls, Verdict::Audit, TCP));
    }

    #[test]
    fn messages_end_where_the_datagram_does() {
        let id = std::array::from_fn(|i| i as u8);
        let one = request(SOCK_DESTROY, NLM_F_ACK, 2, TCP, 1, &id);
        let two = [one, one].concat();
        let read: Vec<_> = messages(&two).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], (SOCK_DESTROY, &one[HEADER..]));
        assert_eq!(messages(&two[..100]).count(), 1, "the second is cut off");
        assert_eq!(messages(&[0; 16]).count(), 0, "shorter than its header");
        assert_eq!(cookie_of(&id), 0x2f2e_2d2c_2b2a_2928);
    }
}
