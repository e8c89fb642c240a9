//! What is known of apps has no room left.

use std::fs;

use firewall_common::layout::Counter;

use crate::{
    host::App,
    load::{OPEN, TCP},
    maps::fill_all,
    support::own_program,
    world::{By, Held, NOWHERE, PLACE, SINK, World, each},
};

/// Rules by which one executable and one cgroup may reach [`PLACE`], and another one of each may not; and by which
/// everybody may reach [`OPEN`], but `late`, an executable, only as long as `late_may`.
fn rules(folder: &str, late_may: bool) -> String {
    let late = if late_may { "nobody" } else { "late" };
    format!(
        "[[rule]]\nname = \"may\"\naction = \"allow\"\nto = {{ networks = {PLACE:?} }}\n\
         apps = [\"exe:{folder}/good\", \"cgroup:/**/good\"]\n\
         [[rule]]\nname = \"may-not\"\naction = \"drop\"\nto = {{ networks = {PLACE:?} }}\n\
         apps = [\"exe:{folder}/bad\", \"cgroup:/**/bad\"]\n\
         [[rule]]\nname = \"late\"\naction = \"drop\"\nto = {{ networks = {OPEN:?} }}\n\
         apps = [\"exe:{folder}/{late}\"]\n"
    )
}

pub fn maps_full(size: u64) -> Option<Held> {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    for name in ["good", "bad", "late", "other"] {
        fs::hard_link(own_program(), place.join(name))
            .or_else(|_| fs::copy(own_program(), place.join(name)).map(drop))
            .unwrap();
    }
    let program = |name: &str| place.join(name).display().to_string();
    let mut world = World::new(By::Names, &rules(&place.display().to_string(), true));
    let cgroups = ["good", "bad"].map(|name| world.host.cgroup.child(name));
    let quiet = world.host.cgroup.child("quiet");
    let alone = quiet.child("good");
    let mut allowed = [
        world.host.app_of(&world.host.cgroup, &program("good")),
        world.host.app_of(&cgroups[0], &program("other")),
        // No open socket shows who this is.
        world.host.app_of(&alone, &program("other")),
    ];
    let mut denied = [
        world.host.app_of(&world.host.cgroup, &program("bad")),
        world.host.app_of(&cgroups[1], &program("other")),
    ];
    let judge = |world: &mut World, allowed: &mut [App], denied: &mut [App]| {
        for to in each(PLACE, TCP) {
            allowed.iter_mut().for_each(|app| world.allowed(app, &format!("tcp {to}")));
            denied.iter_mut().for_each(|app| world.denied(app, &format!("tcp {to}")));
        }
        for to in each(PLACE, NOWHERE) {
            denied.iter_mut().for_each(|app| world.denied(app, &format!("udp-sendto {to}")));
        }
    };
    judge(&mut world, &mut allowed, &mut denied);
    let mut late = world.host.app_of(&world.host.cgroup, &program("late"));
    let kept = format!("open kept udp {}", each(PLACE, SINK)[0]);
    allowed[..2].iter_mut().for_each(|app| world.allowed(app, &kept));
    world.allowed(&mut late, &format!("open kept udp {}", each(OPEN, SINK)[0]));
    let before = world.counter(Counter::UnknownApp);
    let names = ["EXECUTABLES", "CGROUPS", "SCRIPTS", "PROCESSES"];
    let full = fill_all(&world, &names, size);
    judge(&mut world, &mut allowed, &mut denied);
    world.during(200);
    // What is known of an app by its number holds in one generation: the paths are asked for again.
    for names in [&names[..1], &names[1..2], &names[2..3]] {
        fill_all(&world, names, size);
        world.host.done(&["reload"]);
        judge(&mut world, &mut allowed, &mut denied);
    }
    // Of sockets that go on without a call that shows who is there.
    fill_all(&world, &names[..3], size);
    world.set_rules(By::Names, &rules(&place.display().to_string(), false));
    world.host.done(&["reload"]);
    world.arrived(SINK);
    assert_ne!(late.step("say kept"), 0);
    world.tried(1, 0, 0);
    assert_eq!(world.arrived(SINK), 0, "of an app that may not any more");
    allowed[..2].iter_mut().for_each(|app| world.allowed(app, "say kept"));
    world.during(200);
    let unknown = world.counter(Counter::UnknownApp) - before;
    let did = "maps of apps filled, and four reloads".to_owned();
    drop((allowed, denied, late));
    drop((cgroups, alone, quiet));
    Some(world.end(did, format!("{full}; unknown-app {unknown}")))
}
