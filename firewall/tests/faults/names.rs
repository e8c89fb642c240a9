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
    // What is in use is not pushed out by what is not: so there is an app that has only asked.
    let beside = world.host.cgroup.child("idle");
    let [mut app, mut idle] = [world.host.app(), world.host.app_in(&beside)];
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
    ask(&mut world, &mut idle);
    ask(&mut world, &mut app);
    judge(&mut world, &mut app);
    set_all(&world, "KNOWN");
    let full = fill_all(&world, &["NAMES", "FORMER", "ANSWERS"], size);
    world.during(200);
    // Nothing allows them any more.
    each(NAMED_APP, TCP).iter().for_each(|to| world.denied(&mut idle, &format!("tcp {to}")));
    for app in [&mut app, &mut idle] {
        ask(&mut world, app);
        judge(&mut world, app);
    }
    // Names of before have no text by which they could be found in the new tables.
    fill_all(&world, &["NAMES", "FORMER"], size);
    world.host.done(&["reload"]);
    world.during(200);
    for app in [&mut app, &mut idle] {
        ask(&mut world, app);
        judge(&mut world, app);
    }
    drop((idle, beside));
    let did = "maps of names filled, and a reload".to_owned();
    Some(world.end(did, full))
}

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
    let (sent, failed) = crowd.does(&format!("questions {size} {}", each(OPEN, 53)[0]));
    assert_eq!((sent, failed), (size, 0));
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
