//! What is known of apps has no room left.

use std::fs;

use firewall_common::layout::Counter;

use crate::{
    host::App,
    load::{TCP, UDP},
    maps::fill_all,
    support::own_program,
    world::{By, Held, NOWHERE, PLACE, World, each},
};

/// Rules by which the one executable and the one cgroup may reach [`PLACE`] and the others may not.
fn rules(folder: &str) -> String {
    format!(
        "[[rule]]\nname = \"may\"\naction = \"allow\"\nto = {{ networks = {PLACE:?} }}\n\
         apps = [\"exe:{folder}/good\", \"cgroup:/**/good\"]\n\
         [[rule]]\nname = \"may-not\"\naction = \"drop\"\nto = {{ networks = {PLACE:?} }}\n\
         apps = [\"exe:{folder}/bad\", \"cgroup:/**/bad\"]\n"
    )
}

pub fn maps_full(size: u64) -> Option<Held> {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    for name in ["good", "bad", "other"] {
        fs::hard_link(own_program(), place.join(name))
            .or_else(|_| fs::copy(own_program(), place.join(name)).map(drop))
            .unwrap();
    }
    let program = |name: &str| place.join(name).display().to_string();
    let mut world = World::new(By::Names, &rules(&place.display().to_string()));
    let cgroups = ["good", "bad"].map(|name| world.host.cgroup.child(name));
    let mut allowed = [
        world.host.app_of(&world.host.cgroup, &program("good")),
        world.host.app_of(&cgroups[0], &program("other")),
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
    let kept = format!("open kept udp {}", each(PLACE, UDP)[0]);
    allowed.iter_mut().for_each(|app| world.allowed(app, &kept));
    let before = world.counter(Counter::UnknownApp);
    let names = ["EXECUTABLES", "CGROUPS", "SCRIPTS", "PROCESSES"];
    let full = fill_all(&world, &names, size);
    judge(&mut world, &mut allowed, &mut denied);
    world.during(200);
    // What is known of an app by its number holds in one generation: the paths are asked for again.
    fill_all(&world, &["EXECUTABLES", "CGROUPS", "SCRIPTS"], size);
    world.host.done(&["reload"]);
    judge(&mut world, &mut allowed, &mut denied);
    world.during(200);
    allowed.iter_mut().for_each(|app| world.allowed(app, "say kept"));
    let unknown = world.counter(Counter::UnknownApp) - before;
    let did = "maps of apps filled, and a reload".to_owned();
    drop((allowed, denied));
    drop(cgroups);
    Some(world.end(did, format!("{full}; unknown-app {unknown}")))
}
