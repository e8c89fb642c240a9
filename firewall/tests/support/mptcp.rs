//! A server of MPTCP that offers a further address.

use std::{net::SocketAddr, time::Duration};

use crate::harness::Net;

/// Has the server offer an address of its own, which the client's kernel then joins. False where `ip`
/// cannot say that.
pub fn offer(net: &Net, address: &str) -> bool {
    for namespace in [&net.client, &net.server] {
        let status = namespace
            .command("ip")
            .args(["mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4"])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return false;
        }
    }
    let signal = net
        .server_command("ip")
        .args(["mptcp", "endpoint", "add", address, "dev", "lo", "signal"])
        .status();
    assert!(signal.is_ok_and(|status| status.success()), "ip mptcp endpoint");
    true
}

/// Accepts MPTCP connections on port 8080 for ten seconds, and reads them.
pub fn serve() -> std::thread::JoinHandle<()> {
    use rustix::net::{
        AddressFamily, Protocol, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    };
    let protocol = Protocol::from_raw(262.try_into().expect("not zero"));
    let fd =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, Some(protocol))
            .expect("MPTCP");
    let any: SocketAddr = "0.0.0.0:8080".parse().expect("an address");
    bind(&fd, &any).expect("binding");
    listen(&fd, 4).expect("listening");
    let seconds = Duration::from_secs(10);
    rustix::net::sockopt::set_socket_timeout(
        &fd,
        rustix::net::sockopt::Timeout::Recv,
        Some(seconds),
    )
    .expect("a time-out");
    std::thread::spawn(move || {
        while let Ok(stream) = accept_with(&fd, SocketFlags::CLOEXEC) {
            let mut stream = std::net::TcpStream::from(stream);
            let _ = stream.set_read_timeout(Some(seconds));
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    })
}
