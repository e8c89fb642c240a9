//! A run that is killed: what it started stays under its policies, names included.

use crate::{
    harness::require_names,
    support::{LIMIT, left_behind},
};

use super::world::{DROPPED, ELSEWHERE, World, assert_fails, assert_passes};

#[test]
fn names_are_judged_when_the_run_was_killed() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let lines = [
        "dns 10.200.0.1:53 evilbaidu.com A",
        "sleep 1500",
        "dns 10.200.0.1:53 hm.baidu.com A",
        // What passes has been looked at too: nothing is cut off.
        "dns 10.200.0.1:53 good.example A",
        "dns-tcp 10.200.0.1:53 good.example A whole",
        &format!("tls {ELSEWHERE}:443 plain evilbaidu.com whole"),
    ];
    let mut run = world.start(&["--policy", &policy]).start_client(&lines.join("\n"));
    run.wait_for_step(lines[0]);
    run.child.kill().expect("killing our own child");
    run.child.wait().expect("waiting for it");
    let pid = run.pid();
    assert_eq!(left_behind(pid).len(), 2, "what holds the command");
    run.wait_for_step(lines[5]);
    let outcome = run.end();
    assert_fails(&outcome, lines[2], &DROPPED);
    for line in &lines[3..] {
        assert_passes(&outcome, line);
    }
    world.assert_never_asked("hm.baidu.com");

    let cleared = crate::harness::wait_until(LIMIT, || {
        world.start(&[]).program(&["true"]).assert_status(0);
        left_behind(pid).is_empty()
    });
    assert!(cleared, "{:?}", left_behind(pid));
}
