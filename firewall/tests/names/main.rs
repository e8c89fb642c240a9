//! Names: what a rule by name does to real programs that ask real name servers.
//!
//! Every test also shows what is reached: a wire that is cut proves nothing.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod ahead;
mod answer;
mod apps;
mod encrypted;
mod evasion;
mod killed;
mod payload;
mod question;
mod quic;
mod replay;
mod resolve;
mod shape;
mod trust;
mod world;
