//! The daemon killed, reloaded and replaced again and again under a steady load: what is denied never
//! arrives, and what is allowed never breaks.
//!
//! `cargo test` has a short form; `cargo xtask soak` says by the environment how long it goes on.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it counted, and what went wrong"
)]

#[path = "../harness/mod.rs"]
mod harness;
mod load;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    net::IpAddr,
    time::{Duration, Instant},
};

use harness::{Capture, Cgroup, Kind, Net, Resolver, Zone, require_names};
use load::{DENIED, Load, NAMED, NAMES, OPEN, OTHER, TCP, TRACKER, UDP};
use service::Service;

/// Of 6 kills, 6 reloads, a rollback and a replacement each.
const ROUNDS: &str = "FIREWALL_SOAK_ROUNDS";
/// Rounds go on at least for so long.
const MINUTES: &str = "FIREWALL_SOAK_MINUTES";
/// For how long there is no daemon at the end.
const ALONE: &str = "FIREWALL_SOAK_ALONE";
/// What moments and policies are chosen by.
const SEED: &str = "FIREWALL_SOAK_SEED";

/// The most memory of both processes of the daemon after a flood, in bytes. A debug build is larger.
const MEMORY: u64 = if cfg!(debug_assertions) { 256 << 20 } else { 64 << 20 };

fn number(name: &str, standard: u64) -> u64 {
    env::var(name).map_or(standard, |text| text.parse().expect("a number"))
}

/// Packets that arrived.
struct Arrived<'a> {
    capture: &'a Capture,
    forbidden: Vec<IpAddr>,
    all: u64,
    leaks: u64,
}

impl Arrived<'_> {
    /// Counts those of a step.
    fn look(&mut self, step: &str) {
        for packet in self.capture.take() {
            self.all += 1;
            if self.forbidden.contains(&packet.to) {
                println!("after {step}: {packet:?}");
                self.leaks += 1;
            }
        }
    }
}

#[test]
fn a_daemon_that_dies_opens_nothing_and_breaks_nothing() {
    if !require_names() {
        return;
    }
    let seed = number(SEED, u64::from(std::process::id()) << 16 | 0x5eed);
    let rounds = number(ROUNDS, 2);
    let end = Instant::now() + Duration::from_secs(60 * number(MINUTES, 0));
    let alone = Duration::from_secs(number(ALONE, 10));

    let net = Net::new(&[DENIED, TRACKER, OPEN, NAMED, OTHER].concat());
    let zone = Zone::default().host(NAMES[0], &TRACKER).host(NAMES[1], &NAMED);
    let _names = net.serve_names(Kind::Dnsmasq, &zone, &["10.200.0.1:53"]);
    let _tcp = net.echo_tcp(&[&format!("[::]:{TCP}")]);
    let _udp = net.listen_udp(&[&format!("[::]:{UDP}")]);
    let capture = net.capture();
    let resolver = Resolver::new(&["10.200.0.1"], "");
    let cgroup = Cgroup::new();
    let folder = tempfile::tempdir().expect("a directory");
    let mut service = Service::new(&net, &resolver, &cgroup, folder.path(), seed);
    service.change();
    service.start();
    let load = Load::start(&net, &cgroup, &resolver, folder.path());
    let forbidden = [DENIED, TRACKER, OTHER].concat();
    let mut arrived = Arrived {
        capture: &capture,
        forbidden: forbidden.iter().map(|ip| ip.parse().expect("an address")).collect(),
        all: 0,
        leaks: 0,
    };

    let (mut kills, mut reloads, mut rollbacks, mut replacements) = (0, 0, 0, 0);
    let mut round = 0;
    while round < rounds || Instant::now() < end {
        round += 1;
        for turn in 0..6 {
            service.reload();
            reloads += 1;
            arrived.look("a reload");
            if turn % 3 == 2 {
                service.kill_at_reload();
                arrived.look("a kill during a reload");
            } else {
                if turn % 3 == 1 {
                    service.change();
                }
                service.kill_at_start();
                arrived.look("a kill during a start");
            }
            kills += 1;
        }
        service.roll_back();
        rollbacks += 1;
        arrived.look("a rollback");
        service.replace();
        replacements += 1;
        arrived.look("a replacement");
    }

    // Nobody is there.
    let maps_before = service.maps_bytes();
    service.kill();
    load.flood(true);
    let quiet = Instant::now() + alone;
    while Instant::now() < quiet {
        std::thread::sleep(Duration::from_secs(1));
        arrived.look("a flood without a daemon");
    }
    load.flood(false);
    service.start();
    let status = service.status();
    let unread = status["losses"]["unread"].as_u64().expect("losses");
    let memory = status["memory_bytes"].as_u64().expect("memory");
    let maps = service.maps_bytes();
    service.stop();
    service.start();
    let told = service.losses_told().iter().filter(|count| **count == unread).count();
    let counts = load.stop();
    arrived.look("the end");

    let of = |name: &str| {
        counts.iter().find(|(found, _)| found == name).map(|(_, count)| *count).expect("a count")
    };
    let mut table = vec![
        ("kills".to_owned(), kills),
        ("reloads".to_owned(), reloads),
        ("rollbacks".to_owned(), rollbacks),
        ("replacements of the binary".to_owned(), replacements),
        ("seconds without a daemon".to_owned(), alone.as_secs()),
        ("packets at the server".to_owned(), arrived.all),
        ("of them to where they may not go".to_owned(), arrived.leaks),
        ("packets that the capture lost".to_owned(), capture.lost() as u64),
    ];
    table.extend(counts.clone());
    table.extend([
        ("losses told after the time without a daemon".to_owned(), unread),
        ("times they were told".to_owned(), told as u64),
        ("KiB of kernel maps before the flood".to_owned(), maps_before >> 10),
        ("KiB of kernel maps after it".to_owned(), maps >> 10),
        ("KiB of the daemon after it".to_owned(), memory >> 10),
    ]);
    println!("seed {seed}");
    for (what, count) in &table {
        println!("{what:<52} {count:>12}");
    }

    assert_eq!(arrived.leaks, 0, "packets that should not have left");
    assert_eq!(capture.lost(), 0, "packets nobody looked at");
    for name in [
        "denied attempts that did not fail",
        "of them refused",
        "established TCP connections broken",
        "of them lost",
        "names not found",
    ] {
        assert_eq!(of(name), 0, "{name}");
    }
    for name in ["denied attempts", "denied packets of the flood", "names looked up"] {
        assert!(of(name) > 0, "{name}");
    }
    assert!(unread > 0, "the flood was not long enough to lose an event");
    assert_eq!(told, 1, "losses are told once");
    // They are made once, of a fixed size; the tables of a generation come on top.
    assert!(maps <= maps_before + maps_before / 10, "{maps_before} bytes of maps, then {maps}");
    assert!(memory < MEMORY, "{memory} bytes");
}
