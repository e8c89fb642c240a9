//! The hellos in QUIC: published examples, recorded clients, and packets that are built and bent.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

#[path = "../support/quic.rs"]
mod built;
#[path = "../support/hello.rs"]
mod hello;

mod bounds;
mod captures;
mod frames;
mod hellos;
mod packets;
mod random;
mod vectors;

use std::{hash::Hash, time::Duration};

use firewall::quic::{Found, Hello, Inspector, Taken};
use firewall_common::parse::payload::{answer, flags};

/// [`Found`], to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    More,
    Name(String),
    /// With the flags but [`flags::ECH`].
    NoName(u32),
    Same,
    Malformed,
    NoHello,
}

impl Said {
    fn of(taken: &Taken) -> Self {
        match &taken.found {
            Found::More => Self::More,
            Found::Same(_) => Self::Same,
            Found::Malformed => Self::Malformed,
            Found::NoHello => Self::NoHello,
            Found::Hello(Hello { answer: answer::NAME, name, .. }) => Self::Name(name.to_string()),
            Found::Hello(Hello { answer: answer::NO_NAME, flags, .. }) => {
                Self::NoName(flags & !flags::ECH)
            }
            Found::Hello(Hello { answer, .. }) => panic!("answer {answer}"),
        }
    }

    fn name(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

/// What a datagram of a flow says at the beginning of time.
fn take<F: Copy + Eq + Hash>(inspector: &mut Inspector<F>, flow: F, datagram: &[u8]) -> Said {
    Said::of(&inspector.take(flow, datagram, Duration::ZERO))
}

/// What these datagrams of one flow say.
fn all(datagrams: &[Vec<u8>]) -> Vec<Said> {
    let mut inspector = Inspector::default();
    datagrams.iter().map(|datagram| take(&mut inspector, 0, datagram)).collect()
}

/// What a datagram says if nothing was sent before.
fn alone(datagram: &[u8]) -> Said {
    take(&mut Inspector::default(), 0, datagram)
}

/// A destination connection id that a client chose.
const CID: [u8; 8] = *b"client's";
/// One that a server chose.
const SERVER: [u8; 5] = *b"serve";

/// The message of a ClientHello with this name.
fn hello(name: &str) -> Vec<u8> {
    hello::client_hello("plain", name)[5..].to_vec()
}

/// Real hellos, as in a record of TLS over TCP: a small one, and two with a post-quantum key share.
const REAL: [(&str, &[u8]); 3] = [
    ("evilbaidu.com", include_bytes!("../../../firewall-common/tests/payload/curl")),
    ("gator.volces.com", include_bytes!("../../../firewall-common/tests/payload/rustls-mlkem768")),
    (
        "hm.baidu.com",
        include_bytes!("../../../firewall-common/tests/payload/rustls-mlkem768-ech-grease"),
    ),
];
