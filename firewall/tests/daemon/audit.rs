//! The audit log as the daemon writes it.

use std::process::Command;

use rusqlite::Connection;

use crate::{
    harness::{require_kernel, wait_until},
    host::Host,
    support::{BAIDU, FIREWALL, LIMIT},
};

/// Exit status of `firewall log verify`, and what it says.
fn verified(host: &Host) -> (Option<i32>, String) {
    let mut command = Command::new(FIREWALL);
    command.args(["log", "verify", "--state"]).arg(host.file("state"));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn it_is_whole_after_kills_and_shows_a_change() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let mut app = host.app();
    for round in 0..3 {
        let port = 1000 + round;
        assert_eq!(app.step(&format!("tcp {BAIDU}:{port}")), libc::ECONNREFUSED);
        host.event(|event| event["verdict"] == "deny" && event["dst"]["port"] == port);
        // More is on its way when it is killed.
        assert_eq!(app.step(&format!("flood 100 {BAIDU}:0")), libc::ECONNREFUSED);
        host.kill(round == 1);
        let (status, said) = verified(&host);
        assert_eq!(status, Some(0), "{said}");
        host.start();
    }
    let seqs: Vec<u64> = host.events().iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "numbers go on: {seqs:?}");
    let pid = host.keeper();
    host.signal(pid, libc::SIGTERM);
    host.ended();
    let (status, said) = verified(&host);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.starts_with("whole: records 1 to "), "{said}");

    let database = Connection::open(host.file("state/audit.db")).unwrap();
    database
        .execute_batch("UPDATE events SET event = replace(event, 'deny', 'allow') WHERE id = 2")
        .unwrap();
    let (status, said) = verified(&host);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.starts_with("not whole: record 2 (event "), "{said}");
    // A daemon that goes on does not hide it.
    host.start();
    assert_eq!(app.step(&format!("tcp {BAIDU}:2000")), libc::ECONNREFUSED);
    let stored = || host.events().iter().any(|event| event["dst"]["port"] == 2000);
    assert!(wait_until(LIMIT, stored));
    assert_eq!(verified(&host).0, Some(1));
}
