//! Whose word counts, and who is charged.

use crate::{
    harness::require_kernel,
    support::FREE,
    world::{World, apps, attempt, by, exe, reach},
};

/// Processes of the flood.
const PROCESSES: usize = 1000;

#[test]
fn no_app_widens_what_it_may_by_a_name_it_gives_itself() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, two) = (world.shell("one"), world.shell("two"));
    let policy = world.policy("drop", &[("one", "allow", apps(&[exe(&one)]))]);
    let (one, two) = (one.display(), two.display());
    let mut script = by("one", &one, 1001);
    script += &by("two", &two, 1002);
    script +=
        &attempt("another-name", format!("bash -c \"exec -a {one} {two} -c '{}'\"", reach(1003)));
    // In mounts of its own anything can stand at any path.
    script += &attempt(
        "mounted",
        format!("unshare -Urm sh -c \"mount --bind {two} {one} && {one} -c '{}'\"", reach(1004)),
    );
    script += &attempt("own-namespace", format!("unshare -Ur {one} -c '{}'", reach(1005)));
    // What root has arranged is as it is.
    script += &attempt("roots-mounts", format!("unshare -m {one} -c '{}'", reach(1006)));
    let tries = world.run(&policy, &script);
    tries.assert(&["one", "roots-mounts"], &["two", "another-name", "mounted", "own-namespace"]);
}

#[test]
fn a_drop_counts_in_a_namespace_of_its_own_too() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, two) = (world.shell("one"), world.shell("two"));
    let policy = world.policy("allow", &[("one", "drop", apps(&[exe(&one)]))]);
    let mut script = attempt("one", format!("unshare -Urm {} -c '{}'", one.display(), reach(1001)));
    script += &attempt("two", format!("unshare -Urm {} -c '{}'", two.display(), reach(1002)));
    world.run(&policy, &script).assert(&["two"], &["one"]);
}

#[test]
fn a_connected_socket_stays_charged_to_who_connected_it() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, two) = (world.shell("one"), world.shell("two"));
    let rules = [("two", "drop", apps(&[exe(&two)])), ("one", "log", apps(&[exe(&one)]))];
    let policy = world.policy("allow", &rules);
    let (one, two) = (one.display(), two.display());
    let script = attempt(
        "inherited",
        format!("{one} -c 'exec 3<>/dev/udp/{FREE}/1001 && exec {two} -c \"echo x >&3\"'"),
    ) + &by("two", &two, 1002)
        + &attempt(
            "executed",
            format!("{one} -c '{} && exec {two} -c \"{}\"'", reach(1003), reach(1004)),
        );
    let tries = world.run(&policy, &script);
    tries.assert(&["inherited"], &["two", "executed"]);
    assert_eq!(tries.exe_of(1003), one.to_string());
    assert_eq!(tries.exe_of(1004), two.to_string());
    assert_eq!(tries.exe_of(1001), one.to_string());
    assert_eq!(tries.exe_of(1002), two.to_string());
}

#[test]
fn of_a_flood_of_short_processes_each_event_names_the_right_one() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let policy = world.policy("allow", &[("all", "log", String::new())]);
    let mut shells = Vec::new();
    for number in 0..8 {
        shells.push(world.shell(&format!("shell{number}")).display().to_string());
    }
    let place = world.path("");
    let place = place.display();
    let script = format!(
        "for i in $(seq 0 {}); do {place}/shell$((i % 8)) -c \"echo x >/dev/udp/{FREE}/$((2000 + i))\" & \
         [ $((i % 16)) = 15 ] && wait; done; wait",
        PROCESSES - 1
    );
    let tries = world.run(&policy, &script);
    let mut named = 0;
    for event in tries.outcome.on(FREE) {
        let number = event["dst"]["port"].as_u64().expect("a port") as usize - 2000;
        match event["app"]["exe"].as_str() {
            Some(exe) => {
                assert_eq!(exe, shells[number % 8], "{event}");
                named += 1;
            }
            None => assert_eq!(event["app"]["name"], "unknown", "{event}"),
        }
    }
    assert_eq!(named, PROCESSES, "{}", tries.outcome.stderr);
}
