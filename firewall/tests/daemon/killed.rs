//! A daemon that is killed: what was in force stays so, and the next one goes on with it.

use std::fs;

use crate::{
    harness::require_kernel,
    host::{CHINA, Host, Kept, Server},
    support::{BAIDU, FREE},
};

fn enforcing_outlives(worker: bool) {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    app.assert_enforced();
    let (number, _) = host.generation();

    let status = host.kill(worker);
    assert_eq!(status.code(), worker.then_some(128 + libc::SIGKILL), "{status}");
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    // One that was not there before.
    host.app().assert_enforced();

    host.start();
    assert_eq!(host.generation(), (number, "adopted".to_owned()));
    assert_eq!(host.status()["state"], "enforcing");
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);

    host.done(&["reload"]);
    assert_eq!(host.generation(), (number + 1, "policies".to_owned()));
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();
}

#[test]
fn enforcing_outlives_the_keeper() {
    enforcing_outlives(false);
}

#[test]
fn enforcing_outlives_the_worker() {
    enforcing_outlives(true);
}

#[test]
fn one_that_was_killed_while_it_made_the_maps_is_not_in_the_way() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    host.kill(false);
    // Of those that come before the one that tells which generation is in force.
    for left in [&["notes"][..], &["notes", "HEADERS", "SOCKETS"]] {
        for path in host.pinned() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !left.contains(&name) {
                fs::remove_file(&path).unwrap();
            }
        }
        host.start();
        assert_eq!(host.generation(), (1, "policies".to_owned()));
        host.app().assert_enforced();
        host.kill(false);
    }
    server.assert_untouched();
}

#[test]
fn the_next_one_takes_changed_policies() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    let (number, _) = host.generation();
    host.kill(false);
    let more = "[policy]\nname = \"more\"\n[[rule]]\nname = \"one\"\naction = \"drop\"\n\
                to = { networks = [\"212.27.48.10\"] }\nports = [\"udp\"]\n";
    host.set("policies.d/more.toml", more);
    app.does(&format!("udp-sendto {FREE}:81"));
    host.start();
    assert_eq!(host.generation(), (number + 1, "policies".to_owned()));
    assert_eq!(app.step(&format!("udp-sendto {FREE}:81")), libc::ECONNREFUSED);
    assert_eq!(app.step(&format!("tcp {BAIDU}:80")), libc::ECONNREFUSED);
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();
}

/// Also where the next daemon has other policies.
#[test]
fn events_of_meanwhile_have_the_names_of_then() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let _server = Server::of(&host);
    let mut app = host.app();
    assert_eq!(app.step(&format!("tcp {BAIDU}:1001")), libc::ECONNREFUSED);
    let before = host.event(|event| event["dst"]["port"] == 1001);
    host.kill(false);
    assert_eq!(app.step(&format!("tcp {BAIDU}:1002")), libc::ECONNREFUSED);
    assert!(host.events().iter().all(|event| event["dst"]["port"] != 1002), "nobody reads");
    let first = "[[rule]]\nname = \"ping\"\naction = \"log\"\nports = [\"icmp\"]\n[[rule]]";
    let changed = CHINA.replace("registered", "another").replace("[[rule]]", first);
    host.set("policies.d/china.toml", &changed);
    host.start();
    let meanwhile = host.event(|event| event["dst"]["port"] == 1002);
    assert_eq!((&meanwhile["policy"], &meanwhile["rule"]), (&"china".into(), &"registered".into()));
    assert_eq!(meanwhile["verdict"], "deny");
    assert!(meanwhile["seq"].as_u64() > before["seq"].as_u64(), "{meanwhile} {before}");
    assert_eq!(app.step(&format!("tcp {BAIDU}:1003")), libc::ECONNREFUSED);
    let after = host.event(|event| event["dst"]["port"] == 1003);
    assert_eq!(after["rule"], "another");
    assert!(after["seq"].as_u64() > meanwhile["seq"].as_u64(), "{after} {meanwhile}");
}

#[test]
fn losses_of_meanwhile_are_told_once() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    assert_eq!(host.status()["losses"]["unread"], 0);
    host.kill(false);
    // The ring buffer has room for some 7,200.
    let flood = 15_000;
    assert_eq!(app.step(&format!("flood {flood} {BAIDU}:0")), libc::ECONNREFUSED);
    host.start();
    let lost = host.status()["losses"]["unread"].as_u64().unwrap();
    assert!((1..flood).contains(&lost), "{lost}");
    let line = host.event(|event| event["kind"] == "lost");
    assert_eq!(line["count"], lost);
    // All others are there.
    host.event(|event| event["dst"]["port"] == 1024);
    let told = || host_lost(&host);
    assert_eq!(told(), lost);
    host.kill(false);
    host.start();
    assert_eq!(host.status()["losses"]["unread"], 0);
    assert_eq!(host_lost(&host), lost);
    server.assert_untouched();
}

/// All losses that the log tells of.
fn host_lost(host: &Host) -> u64 {
    let events = host.events();
    events
        .iter()
        .filter(|event| event["kind"] == "lost")
        .filter_map(|event| event["count"].as_u64())
        .sum()
}
