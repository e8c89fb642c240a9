//! Names in DNS messages: built ones, bent ones and bytes ones, against a slow parser.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "message/built.rs"]
mod built;
mod message;

use built::{bent, built, labels, message, pointer};
use firewall_common::{
    flow::Address,
    name::Text,
    parse::dns::{HEADER, MESSAGE, NameReader, Parameter, Record, parameter, record},
};
use message::{Memory, check, read, slow};
use proptest::prelude::*;

/// What is read at `at`, after both parsers have read the message at all places.
#[track_caller]
fn name(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    check(bytes);
    let (text, end) = read(&Memory::new(bytes, 0).message(), at as u32)?;
    Some((String::from_utf8(text).unwrap(), end as usize))
}

#[track_caller]
fn alone(name_bytes: &[u8]) -> Option<String> {
    let bytes = message(name_bytes);
    let (text, end) = name(&bytes, 12)?;
    assert_eq!(end, bytes.len());
    Some(text)
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn headers() {
    check(b"");
    let bytes = message(&[]);
    for len in 0..12 {
        assert_eq!(Memory::new(&bytes[..len], 0xff).message().header(), None, "{len}");
    }
    let header = Memory::new(&bytes, 0xff).message().header().unwrap();
    assert_eq!((header.id, header.answer, header.questions, header.answers), (0xabcd, true, 1, 2));
}

#[test]
fn plain_names() {
    assert_eq!(alone(b"\x02hm\x05baidu\x03com\0"), some("hm.baidu.com"));
    assert_eq!(alone(b"\x02HM\x05bAiDu\x03coM\0"), some("hm.baidu.com"));
    assert_eq!(alone(b"\x01@\x01[\x01`\x01{\x01A\x01Z\0"), some("@.[.`.{.a.z"));
    assert_eq!(alone(b"\x03a b\x02\\.\0"), None, "a dot");
    assert_eq!(alone(b"\x03a b\x02\\/\0"), some("a b.\\/"));
    assert_eq!(alone(b"\0"), some(""), "the root");
    // Not text, and none of the letters either.
    let bytes = message(b"\x04\xc1\xda\xe1\xff\0");
    check(&bytes);
    let read = read(&Memory::new(&bytes, 0).message(), 12);
    assert_eq!(read, Some((b"\xc1\xda\xe1\xff".to_vec(), 18)));
}

#[test]
fn no_label_reads_as_two_or_ends_early() {
    for label in [&b"a.b"[..], b".", b"a.", b".a", b"a\0b", b"\0", b"\0a", b"a\0"] {
        for around in [&[label][..], &[b"x", label], &[label, b"x"]] {
            assert_eq!(alone(&[labels(around), vec![0]].concat()), None, "{around:?}");
        }
    }
}

#[test]
fn lengths() {
    let long = [b'a'; 63];
    let text = "a".repeat(63);
    assert_eq!(alone(&[&labels(&[&long]), &[0][..]].concat()), some(&text));
    for first in 64..=191 {
        assert_eq!(alone(&[&[first][..], &[b'a'; 191], &[0]].concat()), None, "{first}");
    }
    // 255 bytes and 256 (RFC 1035 section 3.1).
    let three = labels(&[&long, &long, &long]);
    for (last, fits) in [(60, true), (61, true), (62, false), (63, false)] {
        let bytes = [&three[..], &labels(&[&long[..last]]), &[0]].concat();
        let want = format!("{text}.{text}.{text}.{}", "a".repeat(last));
        assert_eq!(alone(&bytes), fits.then_some(want), "{last}");
    }
    let many = |count| [b"\x01a".repeat(count), vec![0]].concat();
    assert_eq!(alone(&many(127)), some(["a"; 127].join(".").as_str()));
    assert_eq!(alone(&many(128)), None);
    assert_eq!(alone(&many(1000)), None);
}

#[test]
fn names_that_are_cut_off() {
    let bytes = message(b"\x02hm\x05baidu\x03com\0\x03www\xc0\x0c");
    let all = name(&bytes, 26).unwrap();
    assert_eq!(all, ("www.hm.baidu.com".to_owned(), 32));
    for end in 12..32 {
        assert_eq!(name(&bytes[..end], 26), None, "{end}");
        assert_eq!(name(&bytes[..end], 12).is_some(), end >= 26, "{end}");
    }
    for at in [32, 33, 4095, 4096, 4097, u32::MAX] {
        let memory = Memory::new(&bytes, 0);
        assert_eq!(read(&memory.message(), at), None, "{at}");
        assert_eq!(memory.message().skip_name(at), 0, "{at}");
    }
}

#[test]
fn the_last_byte_of_the_memory() {
    let mut bytes = vec![0xff; MESSAGE];
    let at = MESSAGE - 14;
    bytes[at..].copy_from_slice(b"\x02hm\x05baidu\x03com\0");
    let read_at = |bytes: &[u8]| read(&Memory::new(bytes, 0).message(), at as u32);
    assert_eq!(read_at(&bytes), Some((b"hm.baidu.com".to_vec(), MESSAGE as u32)));
    // What would be behind it is the first byte.
    bytes[0] = 0;
    bytes[MESSAGE - 1] = 1;
    assert_eq!(read_at(&bytes), None);
    bytes[MESSAGE - 1] = 0xc0;
    assert_eq!(read_at(&bytes), None);
}

#[test]
fn pointers() {
    let first = b"\x02hm\x05baidu\x03com\0";
    let with = |rest: &[u8]| name(&message(&[&first[..], rest].concat()), 26);
    let told = |text: &str, end| Some((text.to_owned(), end));
    assert_eq!(with(&pointer(12)), told("hm.baidu.com", 28));
    assert_eq!(with(&pointer(15)), told("baidu.com", 28));
    assert_eq!(with(&pointer(25)), told("", 28));
    assert_eq!(with(b"\x01A\xc0\x0f"), told("a.baidu.com", 30));
    assert_eq!(with(&pointer(26)), None, "to itself");
    assert_eq!(with(b"\x01a\xc0\x1a"), None, "to where its name begins");
    assert_eq!(with(b"\x01a\xc0\x1c"), None, "to itself, behind a label");
    assert_eq!(with(b"\xc0\x1c\x01a\0"), None, "forward");
    assert_eq!(with(b"\xff\xff"), None, "far out");
    for into_the_header in 0..12 {
        assert_eq!(with(&pointer(into_the_header)), None);
    }
    // Two that point at each other, and a loop through a label.
    assert_eq!(name(&message(b"\xc0\x0e\xc0\x0c"), 14), None);
    assert_eq!(name(&message(b"\x01a\xc0\x0c"), 14), None);
    // Into the middle of a label that looks like a name.
    assert_eq!(name(&message(b"\x04\x01b\x01c\0\xc0\x0d"), 18), told("b.c", 20));
    // The bytes of the pointer are read again as a label's.
    let bytes = message(b"\x02\xc0\x0c\0");
    check(&bytes);
    let read = read(&Memory::new(&bytes, 0).message(), 13);
    assert_eq!(read, Some((b"\xc0\x0c".to_vec(), 15)));
}

/// Names behind each other, each a pointer to the one before.
fn chain(pointers: usize) -> Vec<u8> {
    let mut rest = b"\x01a\0\0".to_vec();
    for number in 0..pointers {
        rest.extend(pointer(if number == 0 { 12 } else { 14 + 2 * number }));
    }
    message(&rest)
}

#[test]
fn chains_of_pointers() {
    // Beside the pointers, a label and the end.
    for (pointers, fits) in [(1, true), (2, true), (254, true), (269, true), (270, false)] {
        let bytes = chain(pointers);
        let last = bytes.len() - 2;
        assert_eq!(name(&bytes, last).is_some(), fits, "{pointers}");
        assert_eq!(slow(&bytes, last as u32).is_some(), fits, "{pointers}");
    }
    // 127 labels, each behind a pointer of its own, and the end behind one more.
    let mut rest = vec![0];
    let mut before = 12;
    for _ in 0..127 {
        let here = 12 + rest.len();
        rest.extend(b"\x01a");
        rest.extend(pointer(before));
        before = here;
    }
    rest.extend(pointer(before));
    let bytes = message(&rest);
    let text = read(&Memory::new(&bytes, 0).message(), bytes.len() as u32 - 2).unwrap().0;
    assert_eq!(text.len(), 253);
}

#[test]
fn records_are_all_there_or_none() {
    // Type, class, time to live, length and data of a record whose name ends at 12.
    let bytes = message(b"\x00\x01\0\x01\x80\0\0\x05\0\x04\xc0\0\x02\x07");
    let memory = Memory::new(&bytes, 0xff);
    let read = memory.message().record(12).unwrap();
    assert_eq!(read, Record { kind: record::A, lifetime: 0x8000_0005, data: 22, end: 26 });
    assert_eq!((read.size(), read.is_read()), (4, true));
    assert_eq!(memory.message().v4(read.data), Address::v4(0xc000_0207));
    assert!(!Record { kind: 16, ..read }.is_read());
    assert_eq!(memory.message().record(0), None, "its name is malformed");
    for len in 12..bytes.len() {
        assert_eq!(Memory::new(&bytes[..len], 0).message().record(12), None, "{len}");
    }
}

#[test]
fn hints_are_whole_addresses() {
    let bytes = message(b"\0\x04\0\x0b123456789ab\0\x06\0\x10abcdefghijklmnop\0\x01\0\x00");
    let memory = Memory::new(&bytes, 0);
    let (message, end) = (memory.message(), bytes.len() as u32);
    let hints = |parameter: &Parameter| {
        (0..9).map_while(|number| parameter.hint(number)).collect::<Vec<_>>()
    };
    let v4 = message.parameter(12, end).unwrap();
    assert_eq!((v4.key, hints(&v4)), (parameter::IPV4_HINT, vec![16, 20]));
    let v6 = message.parameter(v4.end, end).unwrap();
    assert_eq!((v6.key, hints(&v6)), (parameter::IPV6_HINT, vec![31]));
    let written = std::net::IpAddr::from(*b"abcdefghijklmnop");
    assert_eq!(message.v6(31), Address::from(written));
    let other = message.parameter(v6.end, end).unwrap();
    assert_eq!((other.key, hints(&other), other.end), (1, vec![], end));
    assert_eq!(message.parameter(end, end), None);
    assert_eq!(message.parameter(end - 3, end), None);
    // One that says it is longer than its record has an end that tells.
    assert!(message.parameter(12, v4.end - 1).unwrap().end > v4.end - 1);
}

#[test]
fn what_is_not_read_to_its_end_has_none() {
    let bytes = chain(300);
    let memory = Memory::new(&bytes, 0);
    let mut reader = NameReader::at(bytes.len() as u32 - 2);
    let mut text = Text::EMPTY;
    for _ in 0..NameReader::STEPS {
        assert!(reader.step(&memory.message(), &mut text));
        assert_eq!(reader.end(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_is_read_as_it_was_built(built in built()) {
        let memory = Memory::new(&built.bytes, 0xff);
        for (at, labels, end) in &built.names {
            let text = labels.join(&b'.').to_ascii_lowercase();
            let plain = !labels.iter().flatten().any(|byte| matches!(byte, 0 | b'.'));
            let want = (plain && text.len() <= 253).then_some((text, *end as u32));
            prop_assert_eq!(read(&memory.message(), *at as u32), want);
            prop_assert_eq!(memory.message().skip_name(*at as u32), *end as u32);
        }
    }

    #[test]
    fn a_bent_message_is_read_as_the_slow_parser_reads_it(bytes in bent()) {
        check(&bytes);
    }

    #[test]
    fn any_bytes_are_read_as_the_slow_parser_reads_them(
        bytes in prop::collection::vec(
            prop_oneof![3 => 0..4u8, 2 => Just(0xc0), 2 => HEADER as u8..100, 1 => any::<u8>()],
            0..200,
        ),
    ) {
        check(&bytes);
    }
}
