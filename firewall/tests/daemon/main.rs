//! What `firewall daemon` promises, with the real binary.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod alone;
mod audit;
mod backstop;
mod hang;
mod host;
mod killed;
mod pins;
mod reload;
mod rights;
mod sinks;
mod start;
mod stop;
mod timed;
