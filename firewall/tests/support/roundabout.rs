//! Ways to have a denied address reached by what looks like an answer.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use super::client::option;

/// `linux/in6.h`
const IPV6_FREEBIND: libc::c_int = 78;

/// A connection to oneself is accepted, and its answers are sent by way of `hop`.
pub fn accepted(hop: IpAddr, own: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(own)?;
    let _near = TcpStream::connect(own)?;
    let (far, _) = listener.accept()?;
    route_over(&far, hop)?;
    linger(far)
}

/// A socket connects to itself, which is a simultaneous open, and sends by way of `hop`.
pub fn own(hop: IpAddr, own: SocketAddr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &own)?;
    connect(&socket, &own)?;
    let stream = TcpStream::from(socket);
    route_over(&stream, hop)?;
    linger(stream)
}

/// Sends to an own address from one that is somebody else's, who then gets the answer.
pub fn freebind(from: IpAddr, own: SocketAddr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, sendto, socket_with};
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    option(&socket, libc::IPPROTO_IPV6, IPV6_FREEBIND, &1_i32)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    sendto(&socket, b"x", rustix::net::SendFlags::empty(), &own)?;
    Ok(())
}

/// A segment routing header (RFC 8754) that is at its last segment, which becomes the destination.
fn route_over(stream: &TcpStream, hop: IpAddr) -> io::Result<()> {
    let IpAddr::V6(hop) = hop else { panic!("IPv6 only") };
    let mut header = [0_u8; 24];
    header[..4].copy_from_slice(&[0, 2, 4, 0]);
    header[8..].copy_from_slice(&hop.octets());
    let socket: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)
}

/// Sends, and gives the packet time to leave.
fn linger(mut stream: TcpStream) -> io::Result<()> {
    let sent = stream.write_all(b"secret");
    std::thread::sleep(Duration::from_millis(300));
    sent
}
