//! Replays what fuzzing found: each file of `fuzz/regressions/TARGET/`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

use std::fs;
use std::path::Path;

use firewall::lists::Format;

#[path = "../fuzz/checks/lists.rs"]
mod lists;
#[path = "../fuzz/checks/quic.rs"]
mod quic;

/// The inputs of one target, with a sample of each to have something to replay.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| fs::read(entry.path()).expect("reading")).collect()
}

#[test]
fn lists() {
    let mut replayed = 0;
    for format in Format::ALL {
        for input in inputs(&format!("list_{}", format.word())) {
            // What broke one format may break another.
            Format::ALL.into_iter().for_each(|format| lists::check(format, &input));
            lists::check_import(&input);
            replayed += 1;
        }
    }
    for input in inputs("list_import") {
        lists::check_import(&input);
        replayed += 1;
    }
    assert!(replayed >= Format::ALL.len(), "the regressions are gone");
}

#[test]
fn quic() {
    inputs("quic_packet").iter().for_each(|input| quic::packets(input));
    let said: Vec<quic::Said> =
        inputs("quic_frames").iter().flat_map(|input| quic::frames(input)).collect();
    use quic::Said::{Malformed, More, Name, NoHello, Same};
    let kinds: [fn(&quic::Said) -> bool; 5] = [
        |said| matches!(said, Name(_)),
        |said| *said == More,
        |said| *said == Same,
        |said| *said == Malformed,
        |said| *said == NoHello,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert!(said.iter().any(kind), "none of kind {number}: {said:?}");
    }
}
