//! What is known of names has no room left.

use std::process::Command;

use firewall_common::layout::Counter;

use crate::{
    crowd::Crowd,
    host::App,
    load::{OPEN, TCP},
    maps::{fill_all, set_all},
    world::{By, Held, NAMED_APP, NAMED_BAD, STEP_NAMES, World, each},
};

/// Names pushed out take with them what they allowed, and what they denied beyond the address; asked for again,
/// both are there again.
pub fn maps_full(size: u64) -> Option<Held> {
    let mut world = World::new(By::Addresses, "");
    let mut app = world.host.app();
    let ask = |world: &mut World, app: &mut App| {
        for name in &STEP_NAMES[..2] {
            for kind in ["A", "AAAA"] {
                world.allowed(app, &format!("dns 10.200.0.1:53 {name} {kind}"));
            }
        }
    };
    let judge = |world: &mut World, app: &mut App| {
        each(NAMED_APP, TCP).iter().for_each(|to| world.allowed(app, &format!("tcp {to}")));
        each(NAMED_BAD, TCP).iter().for_each(|to| world.denied(app, &format!("tcp {to}")));
    };
    ask(&mut world, &mut app);
    judge(&mut world, &mut app);
    set_all(&world, "KNOWN");
    let full = fill_all(&world, &["NAMES", "FORMER", "ANSWERS"], size);
    world.during(200);
    // Nothing allows them any more.
    each(NAMED_APP, TCP).iter().for_each(|to| world.denied(&mut app, &format!("tcp {to}")));
    ask(&mut world, &mut app);
    judge(&mut world, &mut app);
    // Names of before have no text by which they could be found in the new tables: the payload says which of
    // those that an address can have it is.
    fill_all(&world, &["NAMES", "FORMER"], size);
    world.host.done(&["reload"]);
    world.during(200);
    ask(&mut world, &mut app);
    let hello = |to: &str, name| format!("tls {to} plain {name} whole");
    for to in each(NAMED_APP, TCP) {
        world.allowed(&mut app, &hello(&to, STEP_NAMES[0]));
    }
    for to in each(NAMED_BAD, TCP) {
        let line = hello(&to, STEP_NAMES[1]);
        assert_ne!(app.step(&line), 0, "{line}");
        world.tried(1, 0, 0);
    }
    assert_eq!(world.told(&NAMED_BAD), 0, "bytes that were sent by a denied name");
    let did = "maps of names filled, and a reload".to_owned();
    Some(world.end(did, full))
}

/// Questions between two looks at what has arrived.
const AT_ONCE: u64 = 20_000;

/// Questions that wait have each a place, which another one takes.
pub fn unanswered(size: u64) -> Option<Held> {
    let mut world = World::new(By::Addresses, "");
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    let mut app = world.host.app();
    let servers = world.host.net.server.processes();
    let stop = |word: &str| {
        let done = Command::new("kill").arg(word).args(servers.iter().map(u32::to_string)).status();
        assert!(done.unwrap().success());
    };
    stop("-STOP");
    let line = format!("dns 10.200.0.1:53 {} A", STEP_NAMES[0]);
    // It gives up when nobody answers.
    assert_ne!(app.step(&line), 0);
    let mut asked = 0;
    while asked < size {
        let many = AT_ONCE.min(size - asked);
        let line = format!("questions {many} {}", each(OPEN, 53)[0]);
        assert_eq!(crowd.does(&line), (many, 0));
        world.arrived(53);
        asked += many;
    }
    world.during(200);
    let before = world.counter(Counter::UnaskedAnswers);
    stop("-CONT");
    let unasked = || world.counter(Counter::UnaskedAnswers) - before;
    let came = crate::harness::wait_until(crate::support::LIMIT, || unasked() > 0);
    assert!(came, "each question has found its answer");
    let unasked = unasked();
    let to = format!("tcp {}", each(NAMED_APP, TCP)[0]);
    world.denied(&mut app, &to);
    world.allowed(&mut app, &line);
    world.allowed(&mut app, &to);
    let did = format!("{size} questions that nobody answers");
    Some(world.end(did, format!("unasked-answers {unasked}")))
}
