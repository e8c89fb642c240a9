//! Replays what fuzzing found and what it started from: each file of `fuzz/regressions/TARGET/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test panics, and says of which file"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use firewall::lists::Format;

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use checks::{TARGETS, Target, lists, quic};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions")
}

/// The inputs of one target, each said before it is given away.
fn inputs(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder().join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the inputs of {target} are gone");
    paths.into_iter().map(|path| {
        println!("{}", path.display());
        fs::read(path).unwrap()
    })
}

#[test]
fn every_input_passes() {
    for Target { name, longest, check } in TARGETS {
        for input in inputs(name) {
            assert!(input.len() <= *longest, "the fuzzer would cut this off");
            check(&input);
        }
    }
}

#[test]
fn every_folder_is_of_a_target() {
    let folders = fs::read_dir(folder()).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}

#[test]
fn what_broke_one_format_may_break_another() {
    for format in Format::ALL {
        for input in inputs(&format!("list_{}", format.word())) {
            Format::ALL.into_iter().for_each(|format| lists::check(format, &input));
            lists::check_import(&input);
        }
    }
}

#[test]
fn programs_of_frames_lead_to_every_answer() {
    let said: Vec<quic::Said> =
        inputs("quic_frames").flat_map(|input| quic::frames(&input)).collect();
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
