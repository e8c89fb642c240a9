//! Nobody reads: the worker, the keeper or both are stopped, the ring buffer is full, a follower does not follow.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread::sleep,
    time::{Duration, Instant},
};

use firewall_common::layout::{Counter, PATIENCE};

use crate::{
    harness::wait_until,
    load::{DENIED, NAMED, NAMES},
    support::{LIMIT, quic_client},
    world::{By, Held, STEP_NAMES, World, each},
};

/// Denied events, each of a flow of its own.
pub fn flood(world: &mut World, count: u64) {
    let mut app = world.host.app();
    assert_eq!(app.step(&format!("flood {count} {}:0", DENIED[0])), libc::ECONNREFUSED);
    world.tried(count, 0, 0);
}

pub fn ring_full(size: u64) -> Option<Held> {
    let mut world = World::new(By::Names, "");
    let worker = world.host.worker();
    world.host.signal(worker, libc::SIGSTOP);
    flood(&mut world, size);
    world.during(200);
    let lost = world.counter(Counter::LostEvents);
    assert!(lost > 0, "all have found room");
    world.host.signal(worker, libc::SIGCONT);
    let told = || world.host.status()["losses"]["events"].as_u64().unwrap();
    assert!(wait_until(LIMIT, || told() >= lost), "{} of {lost}", told());
    let told = told();
    world.host.event(|event| event["kind"] == "lost");
    world.during(200);
    let did = format!("{size} denied flows while nobody read the ring buffer");
    Some(
        world.end(
            did,
            format!("lost-events {lost}, losses.events {told}, a line `lost` in the log"),
        ),
    )
}

pub fn follower(size: u64) -> Option<Held> {
    let mut world = World::new(By::Names, "");
    let mut stream = UnixStream::connect(&world.host.api).unwrap();
    stream.write_all(b"GET /v1/verdicts?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    // And then it reads no more.
    flood(&mut world, size);
    world.during(200);
    // How many it has missed is counted when it reads on.
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut lost = 0;
    let end = Instant::now() + LIMIT;
    while lost == 0 && Instant::now() < end {
        // The load goes on, so there is always more to read.
        (0..100).all(|_| stream.read(&mut buffer).is_ok_and(|read| read > 0));
        world.during(1);
        lost = world.host.status()["losses"]["streams"].as_u64().unwrap();
    }
    assert!(lost > 0, "{}", world.host.said());
    let did = format!("{size} verdicts for a follower of the API that does not read");
    Some(world.end(did, format!("losses.streams {lost}")))
}

pub fn worker_stopped(size: u64) -> Option<Held> {
    stopped(size, "worker", |world| vec![world.host.worker()])
}

pub fn both_stopped(size: u64) -> Option<Held> {
    stopped(size, "worker and keeper", |world| vec![world.host.keeper(), world.host.worker()])
}

/// A name in QUIC, which only user space reads.
fn quic(name: &str) -> String {
    format!("quic {} v1 whole {name}", each(NAMED, 443)[0])
}

fn stopped(size: u64, who: &str, of: fn(&World) -> Vec<u32>) -> Option<Held> {
    let mut world = World::without_daemon(By::Names, "");
    world.host.start();
    let server =
        world.host.net.answer_udp(&["[::]:443"], |datagram, _| quic_client::answer(datagram));
    let mut app = world.host.app();
    app.does(&format!("dns 10.200.0.1:53 {} A", NAMES[1]));
    world.allowed(&mut app, &quic(NAMES[1]));
    let came = server.contacts().len();
    let pids = of(&world);
    pids.iter().for_each(|pid| world.host.signal(*pid, libc::SIGSTOP));
    sleep(Duration::from_nanos(PATIENCE) + Duration::from_secs(1));
    // What only a reader can judge is denied, and does not wait for one.
    assert_eq!(app.step(&quic(NAMES[1])), libc::EPERM);
    world.tried(1, 0, 0);
    world.denied(&mut app, &format!("dns 10.200.0.1:53 {} A", STEP_NAMES[2]));
    // Now, so that the ring buffer has room for the events of that.
    world.begin();
    world.during(size);
    assert_eq!(server.contacts().len(), came, "{:?}", server.contacts());
    pids.iter().for_each(|pid| world.host.signal(*pid, libc::SIGCONT));
    world.host.event(|event| event["reason"] == "unattended");
    let unattended = world.host.events();
    let unattended = unattended.iter().filter(|event| event["reason"] == "unattended").count();
    // It is read again.
    let reads = wait_until(LIMIT, || app.step(&quic(NAMES[1])) == 0);
    assert!(reads, "{}", world.host.said());
    world.during(200);
    let did = format!("{who} stopped by SIGSTOP for longer than {} s", PATIENCE / 1_000_000_000);
    let lost = world.counter(Counter::LostEvents);
    Some(world.end(did, format!("{unattended} events with reason unattended, lost-events {lost}")))
}

/// The worker goes on; what it asks of the keeper waits.
pub fn keeper_stopped(size: u64) -> Option<Held> {
    let mut world = World::new(By::Names, "");
    let keeper = world.host.keeper();
    world.host.status();
    world.host.signal(keeper, libc::SIGSTOP);
    world.during(size);
    let queued = || {
        let status = world.host.status();
        let log = status["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == "log");
        log.unwrap()["queued"].as_u64().unwrap()
    };
    assert!(wait_until(LIMIT, || queued() > 0), "the log goes on without its key");
    let waited = queued();
    world.host.signal(keeper, libc::SIGCONT);
    assert!(wait_until(LIMIT, || queued() < waited), "{}", world.host.said());
    world.host.done(&["reload"]);
    world.during(200);
    Some(world.end("keeper stopped by SIGSTOP".to_owned(), format!("sinks.log.queued {waited}")))
}
