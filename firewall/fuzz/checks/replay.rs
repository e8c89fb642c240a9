//! What must hold of any capture, and of the framing of DNS over TCP in it, for the fuzz targets and for the
//! tests.

use std::sync::LazyLock;

use firewall::{
    config::Config,
    policy::{
        AppFacts,
        explain::Explainer,
        source::{Content, Disk, Origin, Source},
    },
    replay::{Counted, Replay, Trust, dns::Framer, packet::Bytes, stream::Stream},
    set::{Parts, Set, organisations},
};
use firewall_common::{
    name_table::Keys,
    parse::dns::{HEADER, MAX_QUESTION, MESSAGE},
};

const POLICY: &str = "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n\
    to = { domains = [\"tracker.example\"], networks = [\"203.0.113.0/24\"], \
    except = { domains = [\"ok.tracker.example\"] } }\nports = [\"tcp/443\", \"udp/443\"]\n";

static SET: LazyLock<Set> = LazyLock::new(|| {
    let config = Config::default();
    let keys = Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 };
    let origin = Origin::File("p.toml".into());
    let sources = [Source { origin, content: Content::Text(POLICY.into()) }];
    let compiled = Set::compile(Parts {
        settings: config.settings(keys, Vec::new()),
        organisations: organisations(&config, &Disk).expect("organisations"),
        config,
        first: None,
        sources: &sources,
        files: &Disk,
    });
    compiled.expect("a policy")
});

/// Reads any bytes as a capture: the same twice is the same, every verdict is told, and names are
/// harmless. `None` if it is no capture.
pub fn replay(bytes: &[u8]) -> Option<Counted> {
    let (one, other) = (read(bytes), read(bytes));
    assert_eq!(one, other);
    let (counted, flows) = one?;
    assert_eq!(counted.verdicts.iter().sum::<u64>(), flows.len() as u64);
    // A packet has 12 bytes before it at least.
    assert!(counted.packets <= bytes.len() as u64 / 12);
    Some(counted)
}

fn read(bytes: &[u8]) -> Option<(Counted, Vec<String>)> {
    let explainer = Explainer { generation: &SET.generation, intel: &SET.intel };
    let mut flows = Vec::new();
    let replay = Replay::new(explainer, AppFacts::default(), Trust::Everyone);
    let read = replay.run(bytes, &mut |flow| {
        let names = flow.host.iter().flat_map(|host| host.chain.iter().chain([&host.name]));
        assert!(names.flat_map(|name| name.chars()).all(|c| c.is_ascii_graphic() || c == ' '));
        flows.push(format!("{flow:?}"));
        Ok(())
    });
    read.ok().map(|(counted, _)| (counted, flows))
}

/// Pieces of a stream at most.
const PIECES: usize = 8;

/// What is said in one direction of DNS over TCP: the places of cuts, a byte each with their number before
/// them, the sequence number's last byte, and the stream. Its messages are those of a slow reader, in pieces of
/// any size, in any order and sent twice.
pub fn dns_stream(bytes: &[u8]) {
    let Some((cuts, rest)) = bytes.split_first() else { return };
    let Some((cuts, rest)) = rest.split_at_checked(usize::from(*cuts) % PIECES) else { return };
    let Some((sequence, stream)) = rest.split_first() else { return };
    // Numbers start again from 0 in the middle.
    let first = u32::MAX - u32::from(*sequence);
    let mut places: Vec<usize> =
        cuts.iter().map(|cut| usize::from(*cut) * 4 % (stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    for most in [MAX_QUESTION as usize, usize::from(u16::MAX)] {
        let want = slow_messages(stream, most);
        assert_eq!(messages([stream], most), want, "{stream:02x?}");
        assert_eq!(messages(stream.chunks(1), most), want, "bytes of {stream:02x?}");
        let pieces = || places.windows(2).map(|ends| (ends[0], &stream[ends[0]..ends[1]]));
        assert_eq!(
            messages(pieces().map(|(_, piece)| piece), most),
            want,
            "{places:?} {stream:02x?}"
        );
        // The last come first, and then all of it from each place on.
        let again = pieces().rev().chain(places.iter().map(|place| (*place, &stream[*place..])));
        assert_eq!(in_turn(first, again, most), want, "{places:?} {stream:02x?}");
    }
}

/// The messages, and whether there is something else behind them.
type Said = (Vec<Vec<u8>>, bool);

fn messages<'s>(pieces: impl IntoIterator<Item = &'s [u8]>, most: usize) -> Said {
    let (mut framer, mut messages) = (Framer::default(), Vec::new());
    for piece in pieces {
        framer.feed(piece, most, |message| messages.push(message.to_vec()));
        assert!(framer.kept() <= MESSAGE);
    }
    (messages, framer.malformed)
}

/// As [`messages`], of segments by their places, behind a SYN.
fn in_turn<'s>(
    first: u32,
    segments: impl IntoIterator<Item = (usize, &'s [u8])>,
    most: usize,
) -> Said {
    let (mut stream, mut framer, mut messages) = (Stream::default(), Framer::default(), Vec::new());
    stream.start(first);
    for (place, segment) in segments {
        let sequence = first.wrapping_add(place as u32);
        let bytes = Bytes { there: segment, len: segment.len() };
        stream.put(sequence, &bytes, |_, piece| {
            framer.feed(piece, most, |message| messages.push(message.to_vec()));
        });
    }
    assert!(!stream.has_hole() && stream.kept() == 0);
    (messages, framer.malformed)
}

/// RFC 1035 section 4.2.2.
fn slow_messages(mut stream: &[u8], most: usize) -> Said {
    let mut messages = Vec::new();
    while let [high, low, rest @ ..] = stream {
        let length = usize::from(*high) * 256 + usize::from(*low);
        if length < HEADER as usize || length > most {
            return (messages, true);
        }
        let Some((message, behind)) = rest.split_at_checked(length) else { break };
        messages.push(message[..length.min(MESSAGE)].to_vec());
        stream = behind;
    }
    (messages, false)
}
