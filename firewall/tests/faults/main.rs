//! Everything that can go wrong around the verdicts, one fault after the other: while it lasts, what is denied
//! never arrives, what is allowed does, and a counter or the status shows it.
//!
//! `cargo test` runs each in a short form; `cargo xtask faults` runs all in full, and prints a line of each.
#![allow(clippy::unwrap_used, reason = "tests panic")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the lines")]

mod apps;
mod crowd;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../daemon/host.rs"]
#[expect(dead_code, reason = "a part is used")]
mod host;
mod lists;
#[path = "../soak/load.rs"]
#[expect(dead_code, reason = "a part is used")]
mod load;
mod machine;
mod many;
mod maps;
mod names;
mod quic;
mod reader;
#[path = "../update/server.rs"]
mod server;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use harness::require_names;
use world::Held;

/// What goes wrong, and how much of it.
struct Fault {
    name: &'static str,
    short: u64,
    full: u64,
    /// `None` where this machine cannot have it, which has been said.
    run: fn(u64) -> Option<Held>,
}

macro_rules! faults {
    ($($name:ident: $short:literal, $full:literal, $run:path;)+) => {
        const FAULTS: &[Fault] = &[$(Fault {
            name: stringify!($name),
            short: $short,
            full: $full,
            run: $run,
        }),+];

        mod short {
            $(#[test]
            fn $name() {
                super::short(stringify!($name));
            })+
        }
    };
}

faults! {
    ring_buffer_full: 12_000, 300_000, reader::ring_full;
    verdicts_unread_by_a_follower: 6_000, 20_000, reader::follower;
    worker_stopped: 200, 2_000, reader::worker_stopped;
    keeper_stopped: 200, 2_000, reader::keeper_stopped;
    both_stopped: 200, 2_000, reader::both_stopped;
    maps_of_names_full: 1, 4, names::maps_full;
    questions_without_answers: 130_000, 400_000, names::unanswered;
    maps_of_apps_full: 1, 4, apps::maps_full;
    connections_of_quic_full: 1, 4, quic::connections_full;
    initials_unread: 2_000, 20_000, quic::unread;
    listeners_full: 4_300, 8_000, sockets::listeners;
    no_memory_for_sockets: 50, 500, sockets::no_memory;
    no_memory_to_read_in: 200, 2_000, sockets::no_scratch;
    disk_full: 200, 5_000, machine::disk_full;
    killed_for_want_of_memory: 1, 3, machine::out_of_memory;
    clock_jumps: 1, 3, machine::clock;
    list_servers_that_hang_or_never_end: 1, 2, lists::servers;
    cgroups: 200, 10_000, many::cgroups;
    concurrent_sockets: 4_000, 100_000, many::sockets;
    exec_storm: 150, 6_000, many::execs;
}

/// Of a test.
fn short(name: &str) {
    if !require_names() {
        return;
    }
    let fault = FAULTS.iter().find(|fault| fault.name == name).expect("a fault");
    if let Some(held) = (fault.run)(fault.short) {
        println!("{}", held.line(name));
    }
}

/// Which faults: those whose names contain one of these words.
const ONLY: &str = "FIREWALL_FAULTS";
/// How many times the usual size.
const TIMES: &str = "FIREWALL_FAULTS_SIZE";

#[test]
#[ignore = "of `cargo xtask faults`; the same in short are tests of their own"]
fn in_full() {
    if !require_names() {
        return;
    }
    let only = env::var(ONLY).unwrap_or_default();
    let times: u64 = env::var(TIMES).map_or(1, |text| text.parse().expect("a number"));
    let wanted = |fault: &&Fault| {
        only.is_empty() || only.split_whitespace().any(|word| fault.name.contains(word))
    };
    let begun = Instant::now();
    let (mut held, mut skipped, mut failed) = (0, 0, Vec::new());
    let mut all = world::Verdicts::default();
    for fault in FAULTS.iter().filter(wanted) {
        // The rest is to be seen as well.
        match catch_unwind(AssertUnwindSafe(|| (fault.run)(fault.full * times))) {
            Ok(Some(one)) => {
                println!("{}: held", one.line(fault.name));
                all.add(&one.verdicts);
                held += 1;
            }
            Ok(None) => {
                println!("{}: skipped, see above", fault.name);
                skipped += 1;
            }
            Err(why) => {
                let text = why.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| why.downcast_ref().copied()).unwrap_or_default();
                println!("{}: FAILED: {}", fault.name, text.lines().next().unwrap_or_default());
                failed.push(fault.name);
            }
        }
    }
    let left = world::left_behind();
    println!(
        "\n{held} held, {} failed, {skipped} skipped in {} s; {all}; left behind: {}",
        failed.len(),
        begun.elapsed().as_secs(),
        if left.is_empty() { "nothing".to_owned() } else { left.join(", ") },
    );
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
    assert!(left.is_empty(), "left behind: {}", left.join(", "));
    assert!(held > 0 || skipped > 0, "no fault is called `{only}`");
}
