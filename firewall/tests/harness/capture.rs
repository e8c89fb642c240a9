//! What arrives at the server, seen below all sockets: a packet that is not here did not get out
//! of the client.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Namespace;

/// Packets beyond this are counted as lost.
const MAX_PACKETS: usize = 65_536;
/// How much of a packet is kept.
const SNAP: usize = 512;
/// A protocol number that is free for experiments within one network (IEEE 802, 88-B5).
const MARKER: u16 = 0x88b5;
/// How long a packet may be under way, neighbour discovery included.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// An IP packet that arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub from: IpAddr,
    pub to: IpAddr,
    /// The protocol after all extension headers: 6 for TCP.
    pub protocol: u8,
    /// Source and destination, where the protocol has ports and this is no later fragment.
    pub ports: Option<(u16, u16)>,
    /// The packet from its IP header on, the first 512 bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, protocol, ports, bytes: _ } = self;
        write!(f, "{from} -> {to} protocol {protocol} ports {ports:?}")
    }
}

#[derive(Default)]
struct Seen {
    packets: Vec<Packet>,
    lost: usize,
    markers: Vec<u64>,
}

/// Records packets until it is dropped.
pub struct Capture {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    marker: OwnedFd,
    marker_address: libc::sockaddr_ll,
    sent: std::cell::Cell<u64>,
}

impl Capture {
    /// Records what `client` sends to `server` over the interface that has this name in both.
    pub(super) fn new(client: &Namespace, server: &Namespace, interface: &str) -> Self {
        let every = u16::try_from(libc::ETH_P_ALL).expect("16 bits");
        let (socket, _) =
            server.run(|| open(interface, every)).expect("a packet socket (needs root)");
        let (marker, marker_address) =
            client.run(|| open(interface, MARKER)).expect("a packet socket (needs root)");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Acquire) {
                    receive(&socket, &seen);
                }
            }
        });
        let sent = std::cell::Cell::new(0);
        Self { seen, stop, thread: Some(thread), marker, marker_address, sent }
    }

    /// Everything that arrived until now, in order.
    pub fn packets(&self) -> Vec<Packet> {
        self.settle();
        self.seen().packets.clone()
    }

    /// What arrived for an address, whatever the protocol.
    pub fn to(&self, address: &str) -> Vec<Packet> {
        let address: IpAddr = address.parse().expect("an address");
        self.packets().into_iter().filter(|packet| packet.to == address).collect()
    }

    /// Panics when anything arrived for an address, or if packets were lost so that nobody knows.
    #[track_caller]
    pub fn assert_nothing_to(&self, address: &str) {
        let packets = self.to(address);
        assert!(packets.is_empty(), "these reached {address}: {packets:#?}");
        assert_eq!(self.lost(), 0, "packets were lost, so that {address} is not known untouched");
    }

    /// Waits until a packet fits.
    pub fn wait_for(&self, limit: Duration, mut fits: impl FnMut(&Packet) -> bool) -> bool {
        super::wait_until(limit, || self.seen().packets.iter().any(&mut fits))
    }

    /// How many packets arrived without being recorded.
    pub fn lost(&self) -> usize {
        self.seen().lost
    }

    /// Everything that arrived since the last time.
    pub fn take(&self) -> Vec<Packet> {
        self.settle();
        std::mem::take(&mut self.seen().packets)
    }

    /// Forgets what arrived until now.
    pub fn clear(&self) {
        self.settle();
        self.seen().packets.clear();
    }

    /// Waits until everything that the client has sent is recorded, by sending a frame after it
    /// that no firewall for IP sees.
    fn settle(&self) {
        std::thread::sleep(UNDER_WAY);
        let number = self.sent.get() + 1;
        self.sent.set(number);
        let bytes = number.to_ne_bytes();
        // SAFETY: both pointers are to initialised memory of the lengths given, which the call only
        // reads.
        let sent = unsafe {
            libc::sendto(
                self.marker.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const self.marker_address).cast(),
                ADDRESS_LENGTH,
            )
        };
        assert_eq!(sent, 8, "the marker was not sent: {}", io::Error::last_os_error());
        let arrived = super::wait_until(Duration::from_secs(2), || {
            let seen = self.seen();
            seen.markers.contains(&number) || seen.lost > 0
        });
        assert!(arrived, "the marker did not arrive: is the wire still up?");
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Whether it panicked makes no difference any more.
            let _ = thread.join();
        }
    }
}

const ADDRESS_LENGTH: u32 = size_of::<libc::sockaddr_ll>() as u32;

/// A socket for whole IP packets of one interface, and the address of everyone on its wire.
fn open(interface: &str, protocol: u16) -> io::Result<(OwnedFd, libc::sockaddr_ll)> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name ends with a NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: a plain structure of integers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    address.sll_halen = 6;
    address.sll_addr[..6].fill(0xff);

    // Protocol 0 receives nothing until the binding says of which interface.
    // SAFETY: takes integers alone.
    let fd =
        check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let room: libc::c_int = 32 << 20;
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &room)?;
    let pause = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &pause)?;
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), ADDRESS_LENGTH) })?;
    Ok((socket, address))
}

fn set_option<T>(socket: RawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to an initialised value of that length.
    check(unsafe { libc::setsockopt(socket, level, option, (&raw const *value).cast(), length) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Receives from a packet socket: how long it was and whose, or `None` if nothing came in time.
pub fn receive_from(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(usize, libc::sockaddr_ll)> {
    // SAFETY: a plain structure of integers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = ADDRESS_LENGTH;
    // SAFETY: all pointers are to memory of the lengths given, which nobody else uses meanwhile.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut address).cast(),
            &raw mut length,
        )
    };
    Some((usize::try_from(received).ok()?, address))
}

/// Receives one packet, or none for 10 ms.
fn receive(socket: &OwnedFd, seen: &Mutex<Seen>) {
    let mut buffer = [0; SNAP];
    let received = receive_from(socket, &mut buffer);
    let lost = dropped(socket);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.lost += lost;
    let Some((received, address)) = received else { return };
    // The server's own answers pass here as well.
    if address.sll_pkttype == libc::PACKET_OUTGOING {
        return;
    }
    let bytes = &buffer[..received.min(SNAP)];
    if u16::from_be(address.sll_protocol) == MARKER {
        seen.markers.extend(bytes.first_chunk().map(|number| u64::from_ne_bytes(*number)));
    } else if let Some(packet) = parse(bytes) {
        if seen.packets.len() < MAX_PACKETS {
            seen.packets.push(packet);
        } else {
            seen.lost += 1;
        }
    }
}

/// How many packets the socket had no room for since the last call.
fn dropped(socket: &OwnedFd) -> usize {
    // `struct tpacket_stats`: packets, drops; reading sets both back to zero.
    let mut counts = [0_u32; 2];
    let mut length = 8;
    // SAFETY: the pointers are to memory of the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            counts.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { counts[1] as usize } else { 0 }
}

/// An IP packet, as far as it can be read; `None` for other protocols, like ARP.
fn parse(bytes: &[u8]) -> Option<Packet> {
    let (from, to, mut protocol, mut offset, mut first): (IpAddr, IpAddr, _, _, _);
    match bytes.first()? >> 4 {
        4 => {
            from = Ipv4Addr::from(array::<4>(bytes, 12)?).into();
            to = Ipv4Addr::from(array::<4>(bytes, 16)?).into();
            protocol = *bytes.get(9)?;
            offset = usize::from(bytes[0] & 15) * 4;
            first = u16::from_be_bytes(array(bytes, 6)?) & 0x1fff == 0;
        }
        6 => {
            from = Ipv6Addr::from(array::<16>(bytes, 8)?).into();
            to = Ipv6Addr::from(array::<16>(bytes, 24)?).into();
            protocol = *bytes.get(6)?;
            offset = 40;
            first = true;
            // RFC 8200, section 4: hop-by-hop, routing and destination options; fragment; RFC 4302.
            while let (0 | 43 | 60 | 44 | 51, Some([next, length])) =
                (protocol, array::<2>(bytes, offset))
            {
                if protocol == 44 {
                    first &= array(bytes, offset + 2)
                        .is_some_and(|offset| u16::from_be_bytes(offset) & 0xfff8 == 0);
                }
                offset += match protocol {
                    44 => 8,
                    51 => (usize::from(length) + 2) * 4,
                    _ => (usize::from(length) + 1) * 8,
                };
                protocol = next;
                if !first {
                    break;
                }
            }
        }
        _ => return None,
    }
    // TCP, UDP, DCCP, SCTP and UDP-Lite begin with their ports.
    let has_ports = first && matches!(protocol, 6 | 17 | 33 | 132 | 136);
    let ports = array::<4>(bytes, offset)
        .filter(|_| has_ports)
        .map(|[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
    Some(Packet { from, to, protocol, ports, bytes: bytes.to_vec() })
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}
