//! The API of the daemon: HTTP/1.1 with JSON over a Unix socket. Who asks is known by the credentials of
//! the socket.
//!
//! ```text
//! client ─ socket ─▶ server (who, how many) ─ routes ─ control::Request ─▶ daemon
//!                                               └ stream ◀─ verdicts, log
//! ```

pub mod client;
pub mod dto;
pub mod peer;
pub mod routes;
pub mod server;
mod stream;

pub use client::Client;
pub use peer::Rights;
pub use server::{bind, serve};

/// Where the daemon listens.
pub const SOCKET: &str = "/run/firewall/api.sock";
