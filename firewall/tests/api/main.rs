//! The API of the daemon on a real socket, and the commands that ask it. Behind it is no daemon but what
//! answers as one would.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/stored.rs"]
mod stored;

mod allow;
mod answers;
mod commands;
mod description;
mod flood;
mod place;
mod policies;
mod rights;
mod streams;
mod terminal;
mod world;
