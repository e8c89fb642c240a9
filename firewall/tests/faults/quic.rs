//! Initials of QUIC that nobody reads, and connections that are forgotten.

use firewall_common::layout::Counter;

use crate::{
    crowd::Crowd,
    harness::{Listener, wait_until},
    host::App,
    load::{NAMED, NAMES},
    maps::fill_all,
    support::{LIMIT, quic_client},
    world::{By, Held, NAMED_BAD, STEP_NAMES, World, each},
};

fn serve(world: &World) -> Listener {
    world.host.net.answer_udp(&["[::]:443"], |datagram, _| quic_client::answer(datagram))
}

/// A client of QUIC, to where its name is judged.
fn client(to: &str, name: &str) -> String {
    format!("quic {to} v1 whole {name}")
}

fn assert_judged(world: &mut World, app: &mut App, server: &Listener) {
    for to in each(NAMED, 443) {
        world.allowed(app, &client(&to, NAMES[1]));
    }
    for to in each(NAMED_BAD, 443) {
        let line = client(&to, STEP_NAMES[1]);
        let errno = app.step(&line);
        assert!([libc::EPERM, libc::ETIMEDOUT].contains(&errno), "{line}: {errno}");
        world.tried(1, 0, 0);
    }
    let came = server.contacts();
    let denied: Vec<_> = came.iter().filter(|one| is_denied(&one.to.ip().to_string())).collect();
    assert!(denied.is_empty(), "{denied:?}");
}

fn is_denied(ip: &str) -> bool {
    NAMED_BAD.contains(&ip)
}

fn learn(app: &mut App) {
    for kind in ["A", "AAAA"] {
        app.does(&format!("dns 10.200.0.1:53 {} {kind}", NAMES[1]));
    }
}

pub fn connections_full(size: u64) -> Option<Held> {
    let mut world = World::new(By::Names, "");
    let server = serve(&world);
    let mut app = world.host.app();
    learn(&mut app);
    assert_judged(&mut world, &mut app, &server);
    let full = fill_all(&world, &["CONNECTIONS"], size);
    world.during(200);
    assert_judged(&mut world, &mut app, &server);
    Some(world.end("the map of connections of QUIC filled".to_owned(), full))
}

/// More than the ring buffer has room for, while nobody reads it.
pub fn unread(size: u64) -> Option<Held> {
    let mut world = World::new(By::Names, "");
    let server = serve(&world);
    let mut app = world.host.app();
    learn(&mut app);
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    let worker = world.host.worker();
    world.host.signal(worker, libc::SIGSTOP);
    let (well, badly) =
        crowd.does(&format!("initials {size} {} {}", each(NAMED_BAD, 443)[0], STEP_NAMES[1]));
    assert_eq!(well + badly, size);
    world.tried(size, 0, 0);
    let lost = world.counter(Counter::LostInitials);
    assert!(lost > 0, "all have found room");
    world.during(200);
    world.host.signal(worker, libc::SIGCONT);
    let reads = wait_until(LIMIT, || app.step(&client(&each(NAMED, 443)[0], NAMES[1])) == 0);
    assert!(reads, "{}", world.host.said());
    assert_judged(&mut world, &mut app, &server);
    let did = format!("{size} Initials of QUIC while nobody reads");
    Some(world.end(did, format!("lost-initials {lost}")))
}
