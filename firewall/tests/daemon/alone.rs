//! What others have, or is not there: clear words, status 3, and nothing half done.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    harness::{require_kernel, wait_until},
    host::{ALLOWED, CHINA, DENIED, Host, Kept, Server},
    support::{BAIDU, FIREWALL, LIMIT},
};

/// `firewall daemon` of a host that has something else in one place.
fn daemon(host: &Host, option: &str, place: &Path) -> Command {
    let mut command = Command::new(FIREWALL);
    command.arg("daemon");
    for (name, usual) in host.places() {
        command.arg(name).arg(if name == option { place } else { &usual });
    }
    command
}

#[track_caller]
fn assert_refused(host: &Host, command: Command, told: &[&str]) {
    let (status, said) = host.ends(command);
    assert_eq!(status, Some(3), "{said}");
    for word in told {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
}

#[track_caller]
fn assert_nothing(host: &Host) {
    assert_eq!(host.pinned(), Vec::<PathBuf>::new());
    let mut app = host.app();
    app.assert_open(&DENIED);
    app.assert_open(&ALLOWED);
}

#[test]
fn a_second_daemon_does_not_start() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    let (worker, pinned) = (host.worker(), host.pinned());
    // Its policies would let more pass.
    host.remove("policies.d/china.toml");
    let second = daemon(&host, "--socket", &host.file("other.sock"));
    assert_refused(
        &host,
        second,
        &["another daemon has the pins", ": waiting", "hint: `firewall status`"],
    );
    assert_eq!((host.worker(), host.pinned()), (worker, pinned));
    assert_eq!(host.generation(), (1, "policies".to_owned()));
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();
}

/// At a first start nothing is attached; what was in force stays so.
#[track_caller]
fn refused_with(prepare: impl FnOnce(&Host), told: &[&str]) {
    let mut first = Host::new();
    let _server = Server::of(&first);
    first.set("policies.d/china.toml", CHINA);
    prepare(&first);
    assert_refused(&first, first.command("daemon"), told);
    assert_nothing(&first);
    // It is there for others.
    assert!(first.api.exists());
    fs::remove_file(&first.api).unwrap();
    first.start();
    first.app().assert_enforced();
}

#[test]
fn a_socket_that_another_process_answers_at_is_left_alone() {
    if !require_kernel() {
        return;
    }
    let mut other = None;
    refused_with(
        |host| other = Some(UnixListener::bind(&host.api).unwrap()),
        &["another process answers at", "api.sock", "--socket"],
    );
}

#[test]
fn a_file_in_the_place_of_the_socket_is_left_alone() {
    if !require_kernel() {
        return;
    }
    refused_with(
        |host| host.set("api.sock", "of value"),
        &["is there and no socket", "api.sock", "--socket"],
    );
}

#[test]
fn what_was_in_force_stays_where_the_socket_is_taken() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    host.kill(false);
    fs::remove_file(&host.api).unwrap();
    host.set("api.sock", "of value");
    host.remove("policies.d/china.toml");
    let pinned = host.pinned();
    assert_refused(&host, host.command("daemon"), &["is there and no socket"]);
    assert_eq!(fs::read(&host.api).unwrap(), b"of value");
    assert_eq!(host.pinned(), pinned);
    host.app().assert_enforced();
    server.assert_untouched();
}

#[test]
fn a_stale_socket_is_replaced() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    drop(UnixListener::bind(&host.api).unwrap());
    assert!(host.api.exists());
    host.start();
    host.status();
}

#[test]
fn a_folder_for_the_socket_is_made() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    host.api = host.file("run/firewall/api.sock");
    host.start();
    host.status();
}

#[test]
fn pins_outside_of_a_bpf_file_system_are_refused() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    let place = host.file("pins");
    let command = daemon(&host, "--pin", &place);
    assert_refused(
        &host,
        command,
        &["is in no bpf file system", "mount -t bpf -o mode=0700", "--pin"],
    );
    assert!(!place.exists());
    assert_nothing_pinned(&host);
}

/// The machine without its mounts of a type, as the binary alone sees it.
fn without_mounts(host: &Host, kind: &str) -> Command {
    let mut command = host.net.client_command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    // They can be stacked.
    command.arg("for time in 1 2 3 4; do umount --all --lazy --types \"$0\"; done; exec \"$@\"");
    command.arg(kind).arg(FIREWALL);
    command
}

#[test]
fn a_missing_bpf_file_system_is_mounted_and_said() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    let server = Server::of(&host);
    let command = host.command_by(without_mounts(&host, "bpf"), "daemon");
    host.start_by(command);
    host.wait_said("mounted a bpf file system at /sys/fs/bpf");
    host.app().assert_enforced();
    server.assert_untouched();
}

/// Of the whole machine nothing is filtered: other tests run.
#[test]
fn a_hierarchy_of_cgroups_that_is_not_mounted_is_found() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    let mut command = without_mounts(&host, "cgroup2");
    command.arg("boot");
    for (name, place) in host.places() {
        if name != "--cgroup" && name != "--socket" {
            command.arg(name).arg(place);
        }
    }
    let (status, said) = host.ends(command);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing to put in force yet"), "{said}");
    assert_nothing_pinned(&host);
}

#[test]
fn pins_in_a_folder_of_a_user_are_refused() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    fs::create_dir(&host.pin).unwrap();
    std::os::unix::fs::chown(&host.pin, Some(12345), None).unwrap();
    let command = host.command("daemon");
    assert_refused(&host, command, &["belongs to user 12345", "hint: remove it"]);
    assert_nothing_pinned(&host);
    assert!(!host.file("state").exists());
}

#[test]
fn a_cgroup_that_is_not_there_is_refused() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    let place = host.cgroup.path().join("missing");
    let command = daemon(&host, "--cgroup", &place);
    assert_refused(&host, command, &["cgroup", "missing"]);
    assert_nothing_pinned(&host);
}

#[test]
fn a_folder_that_is_no_cgroup_is_refused() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    let command = daemon(&host, "--cgroup", &host.file("policies.d"));
    assert_refused(&host, command, &["cgroup", "policies.d"]);
    assert_nothing_pinned(&host);
}

#[track_caller]
fn assert_nothing_pinned(host: &Host) {
    assert_eq!(host.pinned(), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_loses_no_verdict_and_is_said() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    let server = Server::of(&host);
    let inside = host.start_on_disk("8m");
    let rule = || {
        let status = host.status();
        status["policies"][0]["rules"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(rule(), "registered");
    host.set("policies.d/china.toml", &CHINA.replace("registered", "second"));
    host.done(&["reload"]);
    // The database would be looked for in this mount namespace.
    let log = || host.done(&["apps", "--json"]);
    let mut app = host.app();
    assert_eq!(app.step(&format!("tcp {BAIDU}:1001")), libc::ECONNREFUSED);
    assert!(wait_until(LIMIT, || log().contains(BAIDU)), "{}", log());

    let filler = inside.join("filler");
    let full = fs::write(&filler, vec![b'x'; 16 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    // More than the page that is there already has room for.
    assert_eq!(app.step(&format!("flood 100 {BAIDU}:0")), libc::ECONNREFUSED);
    let unwritten = || host.status()["losses"]["unwritten"].as_u64().unwrap();
    assert!(wait_until(LIMIT, || unwritten() > 0), "{}", host.said());
    host.wait_said("cannot write the audit store");
    app.assert_enforced();

    host.set("policies.d/china.toml", &CHINA.replace("registered", "another"));
    host.done(&["reload"]);
    host.wait_said("cannot be kept in");
    app.assert_enforced();
    assert_eq!(rule(), "another");
    // Not to the one before that.
    host.done(&["rollback"]);
    assert_eq!(rule(), "second");
    app.assert_enforced();
    let unknown = host.ask(&["rollback"]);
    assert!(!unknown.status.success(), "{unknown:?}");

    fs::remove_file(filler).unwrap();
    assert_eq!(app.step(&format!("tcp {BAIDU}:1002")), libc::ECONNREFUSED);
    host.wait_said("can be written again");
    // It is in the log, too.
    let told = || String::from_utf8(host.ask(&["apps", "--json"]).stderr).unwrap();
    assert!(wait_until(LIMIT, || told().contains("events were lost")), "{}", told());
    server.assert_untouched();
}
