//! What must hold of the long headers of QUIC and of the arguments of a process.

use firewall_common::parse::{
    args::{Args, MAX_ARGS, interpreter},
    quic::{Cid, Long, MAX_CID, Start, V1, V2, end, kind, start},
};

/// The long header at the start of a datagram, read once more by one that takes bytes off the front.
pub fn quic(bytes: &[u8]) {
    let read = start(bytes, 0);
    assert_eq!(read, slow_start(bytes), "{bytes:02x?}");
    // The same behind something else.
    let behind = [&[0xff; 7], bytes].concat();
    let moved = match read {
        Start::Long(long) => Start::Long(Long { scid: long.scid + 7, ..long }),
        other => other,
    };
    assert_eq!(start(&behind[..], 7), moved, "{bytes:02x?}");
    if let Start::Long(long) = read {
        let found = end(bytes, &long);
        match slow_end(bytes, &long) {
            Some(want) => assert_eq!(u64::from(found), want, "{bytes:02x?}"),
            None => assert!(found as usize > bytes.len() && found > 1 << 29, "{bytes:02x?}"),
        }
    }
    let id = &bytes[..bytes.len().min(MAX_CID + 1)];
    match Cid::new(id) {
        Some(cid) => {
            let (all, len) = cid.to_bytes();
            assert_eq!((&all[..len], &all[len..]), (id, &[0; 24][len..]));
        }
        None => assert!(id.len() > MAX_CID),
    }
}

/// RFC 9000 section 17.2, RFC 9369 section 3.2.
fn slow_start(bytes: &[u8]) -> Start {
    let [first @ 0x80..=0xff, a, b, c, d, dcid, ..] = *bytes else { return Start::Opaque };
    let types = match u32::from_be_bytes([a, b, c, d]) {
        V1 => [kind::INITIAL, kind::ZERO_RTT, kind::HANDSHAKE, kind::RETRY],
        V2 => [kind::RETRY, kind::INITIAL, kind::ZERO_RTT, kind::HANDSHAKE],
        _ if first & 0x40 == 0 => return Start::Opaque,
        _ => return Start::OtherVersion,
    };
    match usize::from(dcid) {
        0..=MAX_CID => Start::Long(Long {
            kind: types[usize::from(first / 16 % 4)],
            dcid: dcid.into(),
            scid: 6 + u32::from(dcid),
        }),
        _ => Start::Malformed,
    }
}

/// Where the packet says that it ends; `None` if it does not.
fn slow_end(bytes: &[u8], long: &Long) -> Option<u64> {
    let mut rest = bytes.get(long.scid as usize..)?;
    let scid = take(&mut rest, 1)?[0];
    take(&mut rest, scid.into())?;
    match long.kind {
        kind::RETRY => return None,
        kind::INITIAL => {
            let token = number(&mut rest)?;
            take(&mut rest, token as usize)?;
        }
        _ => {}
    }
    let length = number(&mut rest)?;
    Some((bytes.len() - rest.len()) as u64 + length)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

/// RFC 9000 section 16; none that takes eight bytes.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let len = 1 << (bytes.first()? >> 6);
    let digits = take(bytes, len)?;
    let all = digits.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    (len < 8).then_some(all & ((1 << (8 * len - 2)) - 1))
}

/// Names of executables, one of each kind.
const INTERPRETERS: [&str; 14] = [
    "python3.13",
    "node",
    "perl",
    "ruby",
    "php8.2",
    "dash",
    "bash",
    "zsh",
    "fish",
    "lua5.4",
    "R",
    "tclsh",
    "gjs",
    "curl",
];

/// Arguments, behind a byte that chooses the executable: a script is the end of an argument, or there
/// is none, and what follows it changes nothing.
pub fn args(bytes: &[u8]) {
    let Some((which, mut rest)) = bytes.split_first() else { return };
    let mut name = [0; 16];
    match INTERPRETERS.get(usize::from(*which)) {
        Some(known) => name[..known.len()].copy_from_slice(known.as_bytes()),
        None => {
            let own = rest.split_off(..rest.len().min(16)).unwrap_or_default();
            name[..own.len()].copy_from_slice(own);
        }
    }
    let kind = interpreter(&name);
    let mut args = Args::new(kind);
    let mut done = None;
    for (index, byte) in (0..MAX_ARGS).zip(rest) {
        args.step(index, *byte);
        if done.is_none() && args.is_done() {
            done = Some(args);
        }
    }
    if let Some(done) = done {
        assert_eq!(format!("{done:?}"), format!("{args:?}"), "{}", rest.escape_ascii());
    }
    if args.len == 0 {
        return;
    }
    assert!(args.is_done() && kind != 0);
    let (start, len) = (args.start as usize, args.len as usize);
    let script = &rest[start..start + len];
    assert!(!script.contains(&0) && rest[start + len] == 0, "{args:?} {}", rest.escape_ascii());
    // The first argument is the name of the process.
    let before = &rest[..start];
    let begin = before.iter().rposition(|byte| *byte == 0).expect("a name before") + 1;
    let option = &before[begin..];
    assert!(option.is_empty() || matches!(option[0], b'-' | b'+'), "{}", rest.escape_ascii());
}
