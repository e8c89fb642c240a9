//! HTTPS, by `openssl s_server`.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::program::{Program, find};
use super::{Certificate, Contact, Listener, Namespace};

/// A web server with TLS. Every page is openssl's page about the connection.
///
/// What answers listens on a Unix socket, because openssl takes one connection at a time and says
/// little about it; before it is a [`Listener`], which keeps what each client sent.
pub struct Https {
    listener: Listener,
    _server: Program,
    _directory: TempDir,
}

impl Https {
    pub(super) fn new(namespace: &Namespace, on: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [socket, output] = ["socket", "output"].map(|name| directory.path().join(name));
        let certificate = Certificate::new(&["DNS:test"]);
        let openssl = find("openssl").expect("openssl (package openssl)");
        let mut server = Program::start(
            Command::new(&openssl)
                .args(["s_server", "-www", "-quiet", "-unix"])
                .arg(&socket)
                .arg("-key")
                .arg(certificate.key())
                .arg("-cert")
                .arg(certificate.file()),
            &output,
        );
        server.wait_until("openssl s_server", || socket.exists());
        let listener = Listener::tls(namespace, on, socket);
        Self { listener, _server: server, _directory: directory }
    }

    /// Who connected until now, with the bytes they sent, as [`Listener::contacts`].
    pub fn contacts(&self) -> Vec<Contact> {
        self.listener.contacts()
    }
}
