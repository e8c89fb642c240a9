//! Packets made by hand, for raw sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
};

use super::client::check;
use crate::harness::{CLIENT_V4, CLIENT_V6};

const UDP: u8 = 17;
const SOURCE_PORT: u16 = 40_000;

pub fn icmp_protocol(ip: IpAddr) -> libc::c_int {
    if ip.is_ipv4() { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 }
}

/// An echo request. The kernel makes the checksum of ICMPv6 itself.
pub fn echo(ip: IpAddr) -> Vec<u8> {
    let mut packet = match ip {
        IpAddr::V4(_) => vec![8, 0, 0, 0, 0x12, 0x34, 0, 1],
        IpAddr::V6(_) => vec![128, 0, 0, 0, 0x12, 0x34, 0, 1],
    };
    if ip.is_ipv4() {
        let sum: u32 = packet.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// What UDP and its like begin with: ports, a length, no checksum; then eight bytes.
pub fn ports(port: u16) -> Vec<u8> {
    let [a, b] = SOURCE_PORT.to_be_bytes();
    let [c, d] = port.to_be_bytes();
    [&[a, b, c, d, 0, 16, 0, 0][..], b"datagram"].concat()
}

/// A packet from its IP header on.
pub fn form(form: &str, to: SocketAddr) -> Vec<u8> {
    let udp = ports(to.port());
    match form {
        "plain" => headers(to.ip(), UDP, &[], &udp),
        "sctp" => headers(to.ip(), 132, &[], &udp),
        // The second of two: where a fragment goes is in its first.
        "later-fragment" => match to.ip() {
            IpAddr::V4(_) => {
                let mut packet = headers(to.ip(), UDP, &[], b"datagram");
                packet[7] = 2;
                packet
            }
            IpAddr::V6(_) => headers(to.ip(), 44, &[], &fragment(16, false, b"datagram")),
        },
        "first-fragment" => match to.ip() {
            IpAddr::V4(_) => {
                let mut packet = headers(to.ip(), UDP, &[], &udp);
                packet[6] = 0x20;
                packet
            }
            IpAddr::V6(_) => headers(to.ip(), 44, &[], &fragment(0, true, &udp)),
        },
        // Hop by hop options, destination options and a fragment header, one after the other.
        "extensions" => {
            let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
            let rest = [&options(60)[..], &options(44)[..], &fragment(0, false, &udp)].concat();
            headers(to.ip(), 0, &[], &rest)
        }
        // No operation, end: options that say nothing.
        "options" => headers(to.ip(), UDP, &[1, 1, 1, 0], &udp),
        "hop-by-hop" => headers(to.ip(), 0, &[], &[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat()),
        "destination" => {
            headers(to.ip(), 60, &[], &[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat())
        }
        // A fragment that is all there is (RFC 6946).
        "atomic-fragment" => headers(to.ip(), 44, &[], &fragment(0, false, &udp)),
        // The header names the next hop, and the option where it goes from there.
        "source-route" => headers(to.ip(), UDP, &[131, 7, 4, 110, 242, 68, 66, 0], &udp),
        // A routing header with one segment left (RFC 8200, section 4.4).
        "routing-header" => {
            let mut routing = vec![UDP, 2, 0, 1, 0, 0, 0, 0];
            routing.extend("2400:3200::1".parse::<std::net::Ipv6Addr>().expect("v6").octets());
            routing.extend(&udp);
            headers(to.ip(), 43, &[], &routing)
        }
        other => panic!("no such form: {other}"),
    }
}

/// Gives a packet of [`form`] another source, and a header without options its sum.
pub fn from(packet: &mut [u8], source: IpAddr) {
    match source {
        IpAddr::V4(ip) => {
            packet[12..16].copy_from_slice(&ip.octets());
            let sum: u32 =
                packet[..20].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        IpAddr::V6(ip) => packet[8..24].copy_from_slice(&ip.octets()),
    }
}

fn fragment(offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
    // The offset is in units of eight bytes, above three bits of flags.
    let [a, b] = (offset | u16::from(more)).to_be_bytes();
    [&[UDP, 0, a, b, 0, 0, 0, 7][..], rest].concat()
}

fn headers(to: IpAddr, next: u8, options: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match to {
        IpAddr::V4(to) => {
            let header = 20 + options.len();
            let [a, b] = ((header + rest.len()) as u16).to_be_bytes();
            // The kernel fills in the checksum.
            packet.extend([0x40 | (header / 4) as u8, 0, a, b, 0x77, 0x77, 0, 0, 64, next, 0, 0]);
            packet.extend(CLIENT_V4.octets());
            packet.extend(to.octets());
            packet.extend(options);
        }
        IpAddr::V6(to) => {
            let [a, b] = (rest.len() as u16).to_be_bytes();
            packet.extend([0x60, 0, 0, 0, a, b, next, 64]);
            packet.extend(CLIENT_V6.octets());
            packet.extend(to.octets());
        }
    }
    packet.extend(rest);
    packet
}

/// Room for one descriptor.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: a plain structure of integers and pointers, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: computes a size.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
    message
}

/// Sends a descriptor through a Unix socket.
pub fn send_fd(socket: RawFd, fd: RawFd) -> io::Result<()> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 64]);
    let message = message(&mut part, &mut control);
    // SAFETY: the control buffer is large enough for one descriptor, and aligned.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        check(libc::sendmsg(socket, &raw const message, 0) as i32)?;
    }
    Ok(())
}

/// Receives what [`send_fd`] sent.
pub fn receive_fd(socket: RawFd) -> io::Result<RawFd> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 64]);
    let mut message = message(&mut part, &mut control);
    // SAFETY: all buffers live until the call returns; the header is there if it succeeds.
    unsafe {
        check(libc::recvmsg(socket, &raw mut message, 0) as i32)?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::Error::from_raw_os_error(libc::ENOMSG));
        }
        Ok(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned())
    }
}
