//! The server name in the first packets of QUIC clients, versions 1 and 2 (RFC 9000, 9001, 9369).
//!
//! The keys of Initial packets follow from what they show, so whoever sees them can read the hello
//! in them. It comes in CRYPTO frames: in any order, several times, spread over packets.
//!
//! What is asked for is what a server can understand, in all ways in which servers may differ. So
//! every byte has to be the same each time it is said, packets in one datagram are of one
//! connection, and what a server should refuse is [`Found::Malformed`]. Nothing is kept of such a
//! datagram: it is not to reach the server.
//!
//! Pure: no clock, no sockets. Time is an argument.

mod connections;
mod frames;
mod inspector;
mod keys;
mod packet;
mod reader;
mod stream;

use std::time::Duration;

use firewall_common::name::Text;
pub use firewall_common::parse::quic::Cid;
pub use inspector::{Counters, Inspector};

/// Whether a client begins a connection with a datagram: nobody can answer with one that its own
/// destination connection id has the keys of.
pub fn is_of_client(datagram: &[u8]) -> bool {
    let found = Inspector::default().take((), datagram, Duration::ZERO).found;
    matches!(found, Found::More | Found::Hello(_))
}

/// What a datagram was.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Where its first packet goes; no bytes if that cannot be read.
    pub cid: Cid,
    /// What it says.
    pub found: Found,
}

/// What a datagram says of the connection that it belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// No ClientHello has become whole, or no further one.
    More,
    /// A ClientHello has become whole.
    Hello(Hello),
    /// It says again what was said before, and nothing else.
    Same(Hello),
    /// Cannot be opened, contradicts what was said before, or is nothing that a server should take.
    Malformed,
    /// There is no Initial in it: nothing to learn.
    NoHello,
}

/// What a ClientHello says.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Of [`firewall_common::parse::payload::answer`].
    pub answer: u32,
    /// Of [`firewall_common::parse::payload::flags`].
    pub flags: u32,
    /// The server name, if that is the answer.
    pub name: Text,
}

/// Nothing that a server should take.
#[derive(Debug)]
struct Malformed;
