//! Two hosts on one machine, for tests of real sockets: network namespaces, what answers and what
//! listens in them, and cgroups.
//!
//! - [`Net`]: the namespaces `client` and `server`, joined by a veth pair. The server has any public
//!   addresses; the client reaches them all through it; nothing leads out of the two.
//! - [`Listener`]: HTTP, TCP and UDP in a namespace, with a record of who came.
//! - [`Zone`] and [`NameServer`]: names, and a dnsmasq or an unbound that serves them; [`Resolver`]
//!   makes a command ask it. [`Https`]: a TLS server that keeps what clients sent. [`Certificate`]:
//!   what such servers show.
//! - [`Capture`]: every IP packet that arrived at the server, whatever its protocol.
//! - [`Cgroup`]: a child cgroup.
//! - [`require_kernel`]: skips a test where the machine cannot run it.
//!
//! All are guards: dropped, also by a panic, they leave nothing behind. Names carry the process id
//! and a counter, so that tests can run side by side, and what a killed process left is removed by
//! the next one. They panic instead of returning errors, because a panic has a place.
//!
//! Integration tests include this with `mod harness;`, other programs of the workspace with
//! `#[path]`. It takes nothing but `libc`, `rustix` and `tempfile`.
#![allow(dead_code, unused_imports, reason = "each test includes this and uses a part")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "see above: it panics on purpose")]

mod capture;
mod certificate;
mod cgroup;
mod https;
mod listener;
mod name_server;
mod namespace;
mod net;
mod program;
mod require;
mod resolver;

pub use capture::{Capture, Packet, receive_from};
pub use certificate::Certificate;
pub use cgroup::Cgroup;
pub use https::Https;
pub use listener::{Contact, Listener};
pub use name_server::{Kind, NameServer, Zone};
pub use namespace::Namespace;
pub use net::{CLIENT_V4, CLIENT_V6, Net, SERVER_V4, SERVER_V6};
pub use program::find as program;
pub use require::{no_program, require, require_kernel, require_names, skip};
pub use resolver::{DECOY, Resolver};

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A name that no other guard of any living process has: `fw-PID-COUNTER`.
fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

const PREFIX: &str = "fw-";

/// Whether a name is one of ours, made by a process that is gone.
fn is_stale(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
}

/// Asks again and again, for at most `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
