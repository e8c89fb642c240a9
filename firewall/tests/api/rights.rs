//! Who may do what, by real users.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use crate::{
    harness,
    world::{Answer, Daemon, OWN, READERS, Said},
};

/// Whether this is root, who alone may change something and be somebody else.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        harness::skip("this is not root");
    }
    root
}

/// What a user with these groups gets: the primary one first.
fn ask_as(daemon: &Daemon, uid: u32, groups: &[u32], method: &str, path: &str) -> Answer {
    let all: Vec<String> = groups[1..].iter().map(u32::to_string).collect();
    let output = Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &groups[0].to_string()])
        .args(match all.is_empty() {
            true => vec!["--clear-groups".to_owned()],
            false => vec!["--groups".to_owned(), all.join(",")],
        })
        .args(["curl", "--silent", "--include", "--raw", "--max-time", "30", "--unix-socket"])
        .arg(daemon.socket())
        .args(["-X", method, &format!("http://firewall{path}")])
        .output()
        .expect("setpriv");
    assert!(output.status.success(), "{output:?}");
    Answer::of(&output.stdout)
}

#[test]
fn off_without_a_daemon_is_for_root() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pin = folder.path().join("pins");
    fs::create_dir(&pin).unwrap();
    // One whose folder may not be looked into need not be there.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    for pin in [pin, folder.path().join("none")] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "54323", "--regid", "54323", "--clear-groups"]);
        command.args([env!("CARGO_BIN_EXE_firewall"), "off", "--socket", "/none", "--pin"]);
        command.arg(pin);
        let said = Said::of(command);
        assert_eq!((said.status, said.out.as_str()), (3, ""), "{said:?}");
        assert!(said.err.ends_with("\nhint: use sudo\n"), "{said:?}");
    }
}

#[test]
fn reading_and_changing() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::new();
    let stranger = 54_323;
    for (who, uid, groups, reads, changes) in [
        ("root", 0, &[0][..], 200, 200),
        ("a member", stranger, &[stranger, 7, READERS], 200, 403),
        ("one whose primary group it is", stranger, &[READERS], 200, 403),
        ("the daemon itself", OWN, &[OWN], 200, 403),
        ("a stranger", stranger, &[stranger, 7], 403, 403),
        ("one of root's group", stranger, &[0], 403, 403),
        ("one of many groups", stranger, &(1..200).chain([READERS]).collect::<Vec<_>>(), 200, 403),
    ] {
        for path in ["/v1/status", "/v1/policies", "/v1/lists", "/v1/log", "/v1/openapi.json"] {
            let answer = ask_as(&daemon, uid, groups, "GET", path);
            assert_eq!(answer.status, reads, "{who} {path}");
        }
        if reads == 403 {
            let error = ask_as(&daemon, uid, groups, "GET", "/v1/status").json();
            assert!(error["error"]["hint"].as_str().unwrap().contains("usermod"), "{error}");
        }
        // What is refused does not say whether it is there.
        let missing = ask_as(&daemon, uid, groups, "GET", "/v1/nothing");
        assert_eq!(missing.status, if reads == 200 { 404 } else { 403 }, "{who}");
        daemon.asked();
        for path in ["/v1/lists/update", "/v1/reload", "/v1/rollback", "/v1/off"] {
            let answer = ask_as(&daemon, uid, groups, "POST", path);
            assert_eq!(answer.status, changes, "{who} {path}");
            if changes == 403 {
                let error = answer.json();
                assert!(error["error"]["message"].as_str().unwrap().contains("root"), "{error}");
                assert_eq!(error["error"]["hint"], "use sudo", "{who} {path}");
            }
            // Nor does a method that the path does not take.
            let wrong = ask_as(&daemon, uid, groups, "GET", path);
            assert_eq!(wrong.status, if reads == 200 { 405 } else { 403 }, "{who} {path}");
        }
        let asked = daemon.asked().len();
        assert_eq!(asked, if changes == 200 { 4 } else { 0 }, "{who}");
    }
}
