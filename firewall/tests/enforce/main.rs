//! Traffic that must not get out, by real sockets of a command under `firewall run`.
//!
//! Every way is tried to a denied and to an allowed address: a wire that is cut proves nothing.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod escape;
mod inbound;
mod raw;
mod tcp;
mod udp;
mod ways;
