//! What must hold of the framing of DNS over TCP (RFC 1035 section 4.2.2).

use firewall::replay::{dns::Framer, packet::Bytes, stream::Stream};
use firewall_common::parse::dns::{HEADER, MAX_QUESTION, MESSAGE};

/// Pieces of a stream, at most.
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
