//! Very many cgroups, sockets and programs.

use std::fs;

use firewall_common::layout::Counter;

use crate::{
    crowd::Crowd,
    world::{By, Held, NOWHERE, PLACE, SINK, World, each},
};

/// An allow for [`PLACE`], for these apps.
fn allow(apps: &str) -> String {
    format!(
        "[[rule]]\nname = \"place\"\naction = \"allow\"\nto = {{ networks = {PLACE:?} }}\n\
         ports = [\"udp\"]\napps = [\"{apps}\"]\n"
    )
}

/// A process in each, of which every other one may reach something.
pub fn cgroups(size: u64) -> Option<Held> {
    let mut world = World::new(By::Names, &allow("cgroup:/**/allowed"));
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    let mut shown = Vec::new();
    for (name, port, passes) in [("allowed", SINK, true), ("denied", NOWHERE, false)] {
        let folder = world.host.cgroup.child(name);
        for to in each(PLACE, port) {
            let below = folder.child(if to.starts_with('[') { "v6" } else { "v4" });
            let path = below.path().display();
            let (sent, refused) = crowd.does(&format!("cgroups {} {path} {to}", size / 4));
            let want = if passes { (size / 4, 0) } else { (0, size / 4) };
            assert_eq!((sent, refused), want, "{to}: {}", world.host.said());
            if passes {
                let arrived = world.arrived(SINK);
                world.tried(0, sent, arrived);
            } else {
                world.tried(refused, 0, 0);
            }
            world.during(100);
            // Still there, all of them.
            shown.push(below);
        }
        shown.push(folder);
    }
    let unknown = world.counter(Counter::UnknownApp);
    world.host.done(&["reload"]);
    world.during(200);
    drop(shown);
    let did = format!("{size} cgroups, a process in each");
    Some(world.end(did, format!("unknown-app {unknown}")))
}

/// Sockets that one process has: fewer than most machines let it have open.
const EACH: u64 = 15_000;

/// Connected, and open all at once; then denied by a reload.
pub fn sockets(size: u64) -> Option<Held> {
    let mut world = World::without_daemon(By::Names, &allow("*"));
    world.host.start();
    let [v4, v6] = each(PLACE, SINK);
    // The load's own ports are others than the crowd's.
    world.host.net.client.sysctl(&[("ipv4/ip_local_port_range", "60000 65000")]);
    world.begin();
    let mut crowds = Vec::new();
    let mut arrived = 0;
    for number in 0..size.div_ceil(EACH) {
        let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
        let many = EACH.min(size - number * EACH);
        let from = 2000 + number * EACH / 2;
        assert_eq!(crowd.does(&format!("connect {many} {from} {v4} {v6}")), (many, 0));
        arrived += world.arrived(SINK);
        crowds.push((crowd, many));
    }
    arrived += world.arrived(SINK);
    world.tried(0, size, arrived);
    world.during(200);
    world.set_rules(By::Names, "");
    let said = world.host.done(&["reload"]);
    world.arrived(SINK);
    for (crowd, many) in &mut crowds {
        let (sent, refused) = crowd.does("say");
        assert_eq!(world.arrived(SINK), 0, "{said}");
        assert_eq!((sent, refused), (0, *many));
        world.tried(refused, 0, 0);
    }
    world.during(200);
    let missing = world.counter(Counter::NoState);
    assert_eq!(missing, 0, "sockets without a state");
    let status = world.host.status();
    let shown = format!(
        "no-state {missing}, memory of the daemon {} KiB",
        status["memory_bytes"].as_u64().unwrap() >> 10
    );
    Some(
        world.end(format!("{size} connected sockets open at once, then denied by a reload"), shown),
    )
}

/// Programs that were never seen, each executed once: every other one may reach something, and none gets the
/// rights of another.
pub fn execs(size: u64) -> Option<Held> {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    fs::copy("/bin/bash", place.join("shell")).unwrap();
    let place = place.display();
    let mut world = World::new(By::Names, &allow(&format!("exe:{place}/good-*")));
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    crowd.begin(&format!("execs {size} {place} {}", each(PLACE, SINK)[0]));
    world.during(200);
    let (well, badly) = crowd.end();
    let arrived = world.arrived(SINK);
    assert_eq!((well, badly), (size, 0), "verdicts as they should be; {}", world.host.said());
    world.tried(size / 2, size / 2, arrived);
    world.during(100);
    let shown = [Counter::NoPath, Counter::UnknownApp]
        .map(|one| format!("{} {}", one.word(), world.counter(one)));
    Some(world.end(format!("{size} programs executed, each by another name"), shown.join(", ")))
}
