//! However a hello is cut, mixed and repeated, its name is the one that it has in one piece.

use firewall::quic::Inspector;
use firewall_common::parse::payload::{Payload, answer};
use proptest::{prelude::*, sample::Index};

use super::{
    CID, REAL, SERVER, Said,
    built::{ACK, Initial, PING, V1, V2, crypto, padding},
    hello::client_hello,
    take,
};

/// Hellos with their names as the parser of TLS over TCP reads them.
fn hellos() -> Vec<(Said, Vec<u8>)> {
    let forms = ["plain", "grease", "large", "ech"];
    let made = forms.map(|form| client_hello(form, "hm.baidu.com"));
    let records = REAL.map(|(_, record)| record.to_vec()).into_iter().chain(made);
    let read = |record: Vec<u8>| {
        let mut payload = Payload::START;
        let answer = payload.read(&record[..], 0, record.len() as u32);
        assert_eq!(answer, answer::NAME);
        (Said::Name(payload.name.to_string()), record[5..].to_vec())
    };
    records.map(read).collect()
}

/// Where a piece begins and ends, and what comes before it in its packet.
type Piece = (Index, Index, u8);

/// How a datagram is sent: bytes of its packet number, whether it goes to the server's id, and
/// whether in the other version.
type Way = (usize, bool, bool);

/// A frame that says nothing of the hello.
fn filler(kind: u8) -> Vec<u8> {
    match kind % 5 {
        0 => PING.to_vec(),
        1 => ACK.to_vec(),
        2 => padding(usize::from(kind) / 5),
        3 => crypto(u64::from(kind), b""),
        _ => Vec::new(),
    }
}

/// A client that has a hello to say.
struct Client<'a> {
    hello: &'a [u8],
    version: u32,
    /// Which bytes were said.
    said: Vec<bool>,
    /// Packets that were sent.
    sent: u64,
    answered: bool,
}

impl Client<'_> {
    /// The datagram with these pieces, and what it must be taken for; `None` is the name.
    fn say(&mut self, pieces: &[(usize, usize, u8)], way: Way) -> (Vec<u8>, Option<Said>) {
        let mut frames = padding(3);
        for &(from, to, before) in pieces {
            frames.extend(filler(before));
            frames.extend(crypto(from as u64, &self.hello[from..to]));
            self.said[from..to].fill(true);
        }
        let (number_len, redirected, other) = way;
        let mut packet = Initial::new(self.version, &CID, &frames).number(self.sent, number_len);
        // The first packet alone is bound to the client's id and version.
        if self.sent > 0 && redirected {
            packet = packet.redirected(&SERVER);
        }
        if self.sent > 0 && other {
            packet = packet.in_version(if self.version == V1 { V2 } else { V1 });
        }
        self.sent += 1;
        let want = match (self.answered, self.said.contains(&false)) {
            (true, _) => Some(Said::Same),
            (false, true) => Some(Said::More),
            (false, false) => None,
        };
        self.answered |= want.is_none();
        (packet.seal(), want)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn any_pieces_make_the_same_name(
        which in any::<Index>(),
        is_v2 in any::<bool>(),
        datagrams in prop::collection::vec(
            (
                prop::collection::vec(any::<Piece>(), 0..6),
                (1..=4_usize, any::<bool>(), any::<bool>()),
            ),
            1..12,
        ),
        cut in any::<Index>(),
    ) {
        let hellos = hellos();
        let (name, hello) = which.get(&hellos);
        let len = hello.len();
        let version = if is_v2 { V2 } else { V1 };
        let said = vec![false; len];
        let mut client = Client { hello, version, said, sent: 0, answered: false };
        let mut sent = Vec::new();
        for (pieces, way) in datagrams {
            let piece = |(from, to, before): &Piece| {
                let (from, to) = (from.index(len + 1), to.index(len + 1));
                (from.min(to), from.max(to), *before)
            };
            sent.push(client.say(&pieces.iter().map(piece).collect::<Vec<_>>(), way));
        }
        // What is missing.
        let cut = cut.index(len);
        for piece in [(cut, len, 1), (0, cut, 2), (0, len, 3)] {
            sent.push(client.say(&[piece], (2, false, false)));
        }
        let mut inspector = Inspector::default();
        for (datagram, want) in &sent {
            prop_assert_eq!(&take(&mut inspector, 0, datagram), want.as_ref().unwrap_or(name));
        }
        prop_assert!(client.answered);
        let counters = inspector.counters();
        prop_assert_eq!((counters.malformed, counters.opened), (0, sent.len() as u64));
    }
}
