//! Hashes of the suffixes of a name, taken together and each for itself.

mod message;

use firewall_common::{
    name::{MAX_NAME, Text},
    name_table::{Keys, MAX_LABELS, Suffixes},
};
use message::{KEYS, check_suffixes, check_written};
use proptest::prelude::*;

#[test]
fn names_of_all_sizes() {
    for name in ["", "a", "com", "baidu.com", "hm.baidu.com"] {
        check_suffixes(KEYS, name);
    }
    // Around the bytes that a step takes, and up to the longest name.
    for len in 1..=253 {
        let one: String = "abcdefgh".chars().cycle().take(len).collect();
        check_suffixes(KEYS, &one);
        for place in [1, 2, 15, 16, 17, 31, 32, 33, 250] {
            if place + 1 < len {
                let mut two = one.clone();
                two.replace_range(len - 1 - place..len - place, ".");
                check_suffixes(KEYS, &two);
            }
        }
    }
    for labels in 1..=127 {
        check_suffixes(KEYS, &vec!["a"; labels].join("."));
    }
}

#[test]
fn of_too_many_labels_the_whole_name_is_kept() {
    let with = |labels: usize| {
        let name: Vec<String> = (0..labels).map(|label| format!("{label}")).collect();
        Suffixes::of(KEYS, &Text::read(&name.join(".")).unwrap())
    };
    for labels in [MAX_LABELS, MAX_LABELS + 1, MAX_LABELS + 2, 80] {
        let suffixes = with(labels);
        assert_eq!(suffixes.labels as usize, MAX_LABELS);
        assert_eq!(suffixes.hashes[MAX_LABELS - 1], suffixes.whole);
    }
}

#[test]
fn names_are_told_apart() {
    let other = Keys { seed: KEYS.seed ^ 1, ..KEYS };
    let names = ["a", "aa", "a.a", "hm.baidu.com", "hm.baidu.co", "m.baidu.com", "hmxbaidu.com"];
    let mut hashes: Vec<u64> = names.iter().map(|name| KEYS.hash(name)).collect();
    hashes.extend(names.iter().map(|name| other.hash(name)));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 2 * names.len());
    // The root is none: 0 stands for that.
    assert_eq!((KEYS.hash(""), other.hash("")), (0, 0));
}

#[test]
fn a_name_is_what_it_was_before_it_was_written() {
    // A point alone is how the root is written.
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'.') {
        check_written(&[byte.to_ascii_lowercase()]);
    }
    // As long as any, and four times as long where it is written.
    let longest = [&[7; 241][..], b".example.com"].concat();
    assert_eq!(longest.len(), MAX_NAME);
    check_written(&longest);
    let written = longest.escape_ascii().to_string();
    let suffixes = Suffixes::of(KEYS, &Text::read(&written).unwrap());
    assert_eq!(suffixes.hashes[..2], [KEYS.hash("com"), KEYS.hash("example.com")]);
    assert_eq!(Text::read(".").unwrap().len, 0);
    for none in [
        r"\",
        r"a\",
        r"\x",
        r"\x0",
        r"\x+f",
        r"\q",
        &"a".repeat(254),
        &written.replace("com", "coma"),
    ] {
        assert!(Text::read(none).is_none(), "{none}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_name(
        labels in prop::collection::vec("[a-z0-9_-]{1,3}|[a-z]{20,63}", 1..60),
        seed in any::<u64>(),
        factor in any::<u64>(),
    ) {
        let mut name = labels.join(".");
        name.truncate(253);
        check_suffixes(Keys { seed, factor: factor | 1 }, name.trim_end_matches('.'));
    }

    #[test]
    fn any_bytes(name in prop::collection::vec(any::<u8>(), 0..=MAX_NAME)) {
        prop_assume!(name != b".");
        check_written(&name.to_ascii_lowercase());
    }
}
