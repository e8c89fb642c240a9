//! What must hold of any QUIC datagrams, for the fuzz targets and for the test that replays what
//! they found.
#![allow(dead_code, reason = "each user needs a part of it")]
#![allow(clippy::unwrap_used, reason = "panics are what is looked for")]

#[path = "../../tests/support/quic.rs"]
mod built;
#[path = "../../tests/support/hello.rs"]
mod hello;

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use built::{ACK, Initial, PING, V1, V2, close, crypto, other, padding};
use firewall::quic::{Found, Hello, Inspector, Taken};
use firewall_common::parse::payload::{MAX_PAYLOAD, Payload, answer};

/// Any datagrams, each behind its length in two bytes and the number of its flow: the same are taken
/// for the same, nothing is kept of what is malformed, and all of it within bounds.
pub fn packets(bytes: &[u8]) {
    let (mut one, mut other) = (Inspector::default(), Inspector::default());
    let mut tape = Tape(bytes);
    let mut time = Duration::ZERO;
    while !tape.0.is_empty() {
        let flow = tape.byte();
        let len = usize::from(tape.two()).min(tape.0.len());
        let (datagram, rest) = tape.0.split_at(len);
        tape.0 = rest;
        time += Duration::from_millis(flow.into());
        let before = one.counters();
        let taken = one.take(flow, datagram, time);
        assert_eq!(told(&taken), told(&other.take(flow, datagram, time)));
        let after = one.counters();
        assert!(taken.cid.len <= 20);
        match taken.found {
            Found::Malformed => assert_eq!(after.malformed, before.malformed + 1),
            Found::NoHello => assert_eq!(after, before),
            _ => assert!(after.opened > before.opened && after.malformed == before.malformed),
        }
        if matches!(taken.found, Found::Malformed | Found::NoHello) {
            assert_eq!((after.connections, after.bytes), (before.connections, before.bytes));
        }
        assert!(after.connections <= 4096 && after.bytes <= 16 << 20);
    }
    let end = time + Duration::from_secs(60);
    assert_eq!(one.expire(end).len() as u64, one.counters().incomplete);
    assert_eq!((one.counters().connections, one.counters().bytes), (0, 0));
}

fn told(taken: &Taken) -> String {
    format!("{taken:?}")
}

/// A program for two sockets of a client: what each of its datagrams has in it. The packets are well
/// protected, and a slow reader that knows what is in them says what they must be taken for. Returns
/// what that was.
pub fn frames(bytes: &[u8]) -> Vec<Said> {
    let mut inspector = Inspector::default();
    let mut client = Client::default();
    let mut tape = Tape(bytes);
    let mut all = Vec::new();
    for number in 0..MAX_DATAGRAMS {
        if tape.0.is_empty() {
            break;
        }
        let (flow, datagram, want) = client.datagram(&mut tape, number);
        let taken = inspector.take(flow, &datagram, Duration::ZERO);
        assert_eq!(Said::of(&taken), want, "datagram {number}: {datagram:02x?}");
        all.push(want);
    }
    all
}

/// So that every packet number is near the one before, and none takes long.
const MAX_DATAGRAMS: u64 = 24;
/// Ids that clients choose. There is one that a server chose besides.
const CIDS: [&[u8]; 3] = [b"client's", b"another!", b"20 bytes of an id..."];
const SERVER: &[u8] = b"serve";

/// Hellos that differ in the middle, and a further hello behind each.
static SCRIPTS: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let script = |form, first, second| {
        let hello = |name| hello::client_hello(form, name)[5..].to_vec();
        [hello(first), hello(second)].concat()
    };
    [
        script("plain", "a.com", "c.com"),
        script("plain", "b.com", "c.com"),
        script("large", "hm.baidu.com", "hm.baidu.com"),
        script("ech", "-", "a..b"),
    ]
});

/// Input that never ends.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
}

/// [`Found`], to be compared.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    More,
    Name(String),
    NoName(u32),
    Same,
    Malformed,
    NoHello,
}

impl Said {
    fn of(taken: &Taken) -> Self {
        match &taken.found {
            Found::More => Self::More,
            Found::Hello(Hello { answer: answer::NAME, name, .. }) => Self::Name(name.to_string()),
            Found::Hello(Hello { flags, .. }) => Self::NoName(*flags),
            Found::Same(_) => Self::Same,
            Found::Malformed => Self::Malformed,
            Found::NoHello => Self::NoHello,
        }
    }
}

/// All that was said of a connection.
#[derive(Clone, Default)]
struct Stream {
    said: Vec<Option<u8>>,
    /// Where the hello that is next begins.
    begin: usize,
    hellos: u32,
}

impl Stream {
    /// Adds bytes, and tells whether any is new; `None` if they cannot be said.
    fn put(&mut self, offset: usize, bytes: &[u8]) -> Option<bool> {
        let end = offset + bytes.len();
        if end > self.begin + if self.hellos < 2 { MAX_PAYLOAD as usize } else { 0 } {
            return None;
        }
        if bytes.is_empty() {
            return Some(false);
        }
        self.said.resize(end.max(self.said.len()), None);
        let before = self.said[offset..end].to_vec();
        for (at, byte) in bytes.iter().enumerate() {
            self.said[offset + at] = Some(*byte);
        }
        let same = |at: usize| before[at].is_none_or(|before| before == bytes[at]);
        (0..bytes.len()).all(same).then(|| before.contains(&None))
    }

    /// What this datagram has made of it; `None` if no server should take it.
    fn told(&mut self, new: bool) -> Option<Said> {
        let before = if new || self.hellos == 0 { Said::More } else { Said::Same };
        let message: Vec<u8> = self.said[self.begin..].iter().map_while(|byte| *byte).collect();
        let Some([kind, high, middle, low]) = message.first_chunk() else { return Some(before) };
        let len = 4 + u32::from_be_bytes([0, *high, *middle, *low]);
        let end = self.begin + len as usize;
        if *kind != 1 || len > MAX_PAYLOAD || self.said.len() > end {
            return None;
        }
        if message.len() < len as usize {
            return Some(before);
        }
        self.begin = end;
        self.hellos += 1;
        let record = [&[22, 3, 1][..], &(len as u16).to_be_bytes(), &message].concat();
        let mut payload = Payload::START;
        Some(match payload.read(&record[..], 0, record.len() as u32) {
            answer::NAME => Said::Name(payload.name.to_string()),
            _ => Said::NoName(payload.flags),
        })
    }

    fn contradicts(&self, other: &Self) -> bool {
        let mut both = self.said.iter().zip(&other.said);
        both.any(|(one, other)| one.zip(*other).is_some_and(|(one, other)| one != other))
    }
}

/// A client that says what a program wants it to.
#[derive(Default)]
struct Client {
    /// By flow and id.
    streams: HashMap<(u8, usize), Stream>,
}

impl Client {
    /// The next datagram, its flow, and what it must be taken for.
    fn datagram(&mut self, tape: &mut Tape<'_>, number: u64) -> (u8, Vec<u8>, Said) {
        let (flow, which) = (tape.byte() % 2, usize::from(tape.byte()) % CIDS.len());
        let redirected = tape.byte() % 4 == 3;
        let destination = if redirected { SERVER } else { CIDS[which] };
        // Nobody knows what the server's id stands for before the client's own was seen.
        let known = self.streams.get(&(flow, which)).cloned();
        let mut stream = if redirected { known } else { Some(known.unwrap_or_default()) };
        let (mut datagram, mut new, mut is_initial, mut is_sound) =
            (Vec::new(), false, false, true);
        for _ in 0..=tape.byte() % 3 {
            let version = [V1, V2][usize::from(tape.byte() % 2)];
            match tape.byte() % 16 {
                0 => datagram.extend(other(version, "early", destination, 40)),
                1 => datagram.extend(other(version, "handshake", destination, 40)),
                2 => {
                    datagram.extend(other(version, "retry", destination, 40));
                    is_sound = false;
                }
                3 if !datagram.is_empty() => {
                    datagram.extend(Initial::new(version, b"whatever", &[0; 40]).seal());
                    is_sound = false;
                }
                _ => {
                    let mut frames = padding(3);
                    for _ in 0..tape.byte() % 6 {
                        let frame = Frame::read(tape);
                        frames.extend(&frame.bytes);
                        let put = match &mut stream {
                            Some(stream) => stream.put(frame.offset, &frame.said),
                            None => None,
                        };
                        is_sound &= frame.may_be && put.is_some();
                        new |= put.unwrap_or_default();
                    }
                    is_sound &= stream.is_some();
                    is_initial = true;
                    let len = usize::from(tape.byte() % 4) + 1;
                    let packet = Initial::new(version, CIDS[which], &frames);
                    datagram.extend(packet.redirected(destination).number(number, len).seal());
                }
            }
        }
        let want = match (is_sound, is_initial) {
            (false, _) => None,
            (true, false) => Some(Said::NoHello),
            (true, true) => stream.and_then(|stream| self.keep(flow, which, stream, new)),
        };
        (flow, datagram, want.unwrap_or(Said::Malformed))
    }

    /// Keeps what a sound datagram has said, if that is no contradiction.
    fn keep(&mut self, flow: u8, which: usize, mut stream: Stream, new: bool) -> Option<Said> {
        let told = stream.told(new)?;
        let other = self.streams.get(&(1 - flow, which));
        if other.is_some_and(|other| other.contradicts(&stream)) {
            return None;
        }
        self.streams.insert((flow, which), stream);
        Some(told)
    }
}

/// A frame of an Initial.
#[derive(Default)]
struct Frame {
    bytes: Vec<u8>,
    /// What it says of the hello, and where.
    said: Vec<u8>,
    offset: usize,
    may_be: bool,
}

impl Frame {
    fn read(tape: &mut Tape<'_>) -> Self {
        let silent = |bytes: Vec<u8>| Self { bytes, may_be: true, ..Self::default() };
        match tape.byte() {
            0..40 => silent(PING.to_vec()),
            40..60 => silent(ACK.to_vec()),
            60..70 => silent(close(b"a reason")),
            70..80 => silent(padding(tape.byte().into())),
            80..82 => Self { may_be: false, ..silent(vec![0x08, 0, 0, 0]) },
            // A part of a hello, or what is behind its end, near or far.
            kind => {
                let script = &SCRIPTS[usize::from(kind) % SCRIPTS.len()];
                let from = usize::from(tape.two()) % (script.len() + 3);
                let len = usize::from(tape.byte()) * if kind > 200 { 8 } else { 1 };
                let said = match script.get(from..) {
                    Some(rest) => rest[..len.min(rest.len())].to_vec(),
                    None => b"x".to_vec(),
                };
                let offset = from + if kind > 250 { 16_000 } else { 0 };
                Self { bytes: crypto(offset as u64, &said), said, offset, may_be: true }
            }
        }
    }
}
