//! Ends that are meant, signals, and changes that the daemon sees by itself.

use std::fs;

use crate::{
    harness::{require_kernel, wait_until},
    host::{ALLOWED, CHINA, DENIED, Host, Server},
    support::LIMIT,
};

#[track_caller]
fn assert_off(host: &Host) {
    assert_eq!(host.pinned(), Vec::<std::path::PathBuf>::new());
    let mut app = host.app();
    app.assert_open(&DENIED);
    app.assert_open(&ALLOWED);
}

#[test]
fn off_ends_the_daemon_and_all_that_it_enforces() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let _server = Server::of(&host);
    host.app().assert_enforced();
    assert!(host.pinned().len() > 20, "{:?}", host.pinned());
    assert_eq!(host.done(&["off"]), "nothing is enforced any more\n");
    assert_eq!(host.ended().code(), Some(0));
    assert_off(&host);
    host.start();
    host.app().assert_enforced();
}

#[test]
fn off_without_a_daemon_removes_what_it_left() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let _server = Server::of(&host);
    host.kill(false);
    host.app().assert_enforced();
    assert!(host.off().contains("nothing is enforced any more"));
    assert_off(&host);
    assert!(host.off().contains("nothing was enforced"));
}

fn stops(signal: i32) {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    host.signal(host.keeper(), signal);
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    host.wait_said("stopped; generation 1 stays in force");
    assert!(!host.socket().exists());
    host.app().assert_enforced();
    host.start();
    assert_eq!(host.generation(), (1, "adopted".to_owned()));
    host.app().assert_enforced();
    server.assert_untouched();
}

#[test]
fn a_stop_keeps_what_is_in_force() {
    stops(libc::SIGTERM);
}

#[test]
fn an_interrupt_is_a_stop() {
    stops(libc::SIGINT);
}

#[test]
fn a_stop_ends_it_where_the_settings_say_so() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let _server = Server::of(&host);
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", "stop = \"off\"\n");
    host.start();
    host.app().assert_enforced();
    // That is no stop.
    host.kill(false);
    host.app().assert_enforced();
    host.start();
    host.signal(host.keeper(), libc::SIGTERM);
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    host.wait_said("enforcement is removed, as `stop` says");
    assert_off(&host);
}

#[test]
fn a_hangup_reloads() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let _server = Server::of(&host);
    host.start();
    host.set("policies.d/china.toml", CHINA);
    host.app().assert_open(&DENIED);
    host.signal(host.keeper(), libc::SIGHUP);
    assert!(wait_until(LIMIT, || host.generation().0 == 2), "{}", host.said());
    host.app().assert_enforced();
}

#[test]
fn changes_are_seen_where_the_settings_say_so() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let _server = Server::of(&host);
    host.set("firewall.toml", "watch = \"on\"\n");
    host.start();
    let files = 40;
    for number in 0..files {
        let name = format!("other-{number}");
        host.set(
            &format!("policies.d/{name}.toml"),
            &CHINA.replace("\"china\"", &format!("{name:?}")),
        );
    }
    let all = || host.status()["policies"].as_array().unwrap().len() == files;
    assert!(wait_until(LIMIT, all), "{}", host.said());
    host.app().assert_enforced();
    // What comes close together is one change.
    let (number, _) = host.generation();
    assert!((2..20).contains(&number), "generation {number}: {}", host.said());

    // As editors save: a new file in the place of the old.
    for number in 1..files {
        host.remove(&format!("policies.d/other-{number}.toml"));
    }
    host.set("new", &CHINA.replace("registered", "renamed"));
    fs::rename(host.file("new"), host.file("policies.d/other-0.toml")).unwrap();
    let renamed = || host.status()["policies"][0]["rules"][0]["name"] == "renamed";
    assert!(wait_until(LIMIT, renamed), "{}", host.said());
    host.app().assert_enforced();
}

#[test]
fn changes_are_not_looked_for_by_default() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    host.remove("policies.d/china.toml");
    std::thread::sleep(crate::host::QUIET * 2);
    assert_eq!(host.generation(), (1, "policies".to_owned()));
}
