//! `firewall log` on stored logs, by the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

#[path = "support/stored.rs"]
mod stored;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use firewall::store::FILE;
use serde_json::{Value, json};

fn command(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
    command.arg("log").args(words).arg("--state").arg(state).env("TZ", "Asia/Kolkata");
    command.stdin(Stdio::null());
    command
}

fn log(state: &Path, words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(state, words).output().expect("the firewall");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn event(second: u32, verdict: &str, host: &str) -> Value {
    json!({
        "schema": 1, "seq": second, "time": format!("2026-11-22T01:25:{second:02}.000001Z"),
        "verdict": verdict, "mode": "enforce", "reason": "rule", "action": "drop",
        "policy": "baidu-tongji", "rule": "tongji", "hook": "connect",
        "evidence": ["org:baidu=AS55967", "list:far=x.example"],
        "data": {
            "asn": {"name": "Theirs", "version": "2.3", "date": "2026-06-17"},
            "lists": {"far": {"fetched": "2026-11-20T10:00:00.5Z"}},
        },
        "app": {"name": "curl\u{1b}[2J", "exe": "/usr/bin/curl", "uid": 1000, "user": "ada"},
        "proto": "tcp", "dst": {"ip": "103.235.46.191", "port": 443},
        "host": {"name": host, "via": "dns"},
        "geo": {"country": "HK", "asn": 55967, "organisation": "baidu"},
        "count": second, "bytes_out": 0, "bytes_in": 0, "later": true,
    })
}

/// A state folder with a store.
fn state() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let lost = json!({"schema": 1, "kind": "lost", "count": 7});
    let events = [event(1, "deny", "hm.baidu.com"), lost, event(2, "audit", "x.example")];
    stored::store(state.path(), events.map(|event| event.to_string()));
    state
}

#[test]
fn for_people() {
    let state = state();
    let (status, out, err) = log(state.path(), &[]);
    insta::assert_snapshot!(format!("{status}\n{out}\n{err}"), @r"
    0
    2026-11-22T06:55:01+05:30 deny curl?[2J -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
    2026-11-22T06:55:02+05:30 audit curl?[2J -> x.example 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji (2 times)

    note: 7 events were lost before they were stored
    ");
}

#[test]
fn for_programs_as_it_stands_there() {
    let state = state();
    let (status, out, _) = log(state.path(), &["--json"]);
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted = [event(1, "deny", "hm.baidu.com"), event(2, "audit", "x.example")];
    assert_eq!((status, found), (0, wanted.to_vec()));
    let (_, out, _) = log(state.path(), &["--json", "--host", "baidu.com", "--user", "ada"]);
    assert_eq!(out.lines().count(), 1);
    // In local time, which the test says is five and a half hours ahead.
    let since = ["--json", "--since", "2026-11-22 06:55:02"];
    let (_, out, _) = log(state.path(), &since);
    assert_eq!(out.lines().count(), 1, "{out}");
    let (_, out, _) = log(state.path(), &["--json", "--verdict", "allow"]);
    assert_eq!(out, "");
}

#[test]
fn what_is_wrong_is_said() {
    let empty = tempfile::tempdir().unwrap();
    let (status, out, err) = log(empty.path(), &[]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("error: there is no log in /") && err.contains("\n\nhint: "), "{err}");
    let (status, _, err) = log(empty.path(), &["--since", "yesterday", "--country", "ZZ"]);
    assert_eq!(status, 2);
    assert!(err.contains("error: --since: `yesterday` is no time\n\nhint: "), "{err}");
    assert!(err.contains("error: --country: "), "{err}");
}

#[test]
fn who_may_not_read_it_is_told() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let state = state();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(state.path(), 0o755);
    mode(&state.path().join(FILE), 0o640);
    let output = command(state.path(), &[]).uid(65534).gid(65534).output();
    // A checkout in a folder that only root may enter has no binary for others.
    let Ok(output) = output else { return };
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(err.contains("group `firewall`"), "{err}");
}

/// Ended with the test.
struct Following(Child, mpsc::Receiver<String>);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Following {
    fn start(state: &Path, words: &[&str]) -> Self {
        let mut child = command(state, words).stdout(Stdio::piped()).spawn().expect("the firewall");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (to, from) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self(child, from)
    }

    fn next(&self) -> String {
        self.1.recv_timeout(Duration::from_secs(30)).expect("a line")
    }
}

#[test]
fn it_follows_what_is_stored() {
    let state = tempfile::tempdir().unwrap();
    let add =
        |number| stored::store(state.path(), [event(number, "deny", "x.example").to_string()]);
    add(10);
    let following = Following::start(state.path(), &["--follow", "--json", "--verdict", "deny"]);
    let second = |line: String| serde_json::from_str::<Value>(&line).unwrap()["seq"].clone();
    assert_eq!(second(following.next()), 10);
    for number in 11..20 {
        stored::store(state.path(), [event(number + 10, "allow", "x.example").to_string()]);
        add(number);
        assert_eq!(second(following.next()), number);
    }
}

#[test]
fn the_story_of_one_verdict() {
    let state = state();
    let (status, out, err) = log(state.path(), &["show", "2"]);
    insta::assert_snapshot!(format!("{status}\n{out}{err}"), @r"
    0
    event        2, at 2026-11-22 06:55:02.000001 +05:30
    verdict      audit: it passed, and would have been stopped if the policy were enforced (when it was to be connected)
    decided by   rule tongji of policy baidu-tongji
    evidence     org:baidu=AS55967
                 list:far=x.example
    data         AS numbers by Theirs 2.3, of 2026-06-17
                 list far, fetched 2026-11-20 15:30:00 +05:30
    app          curl?[2J, of user ada
                 exe /usr/bin/curl
    destination  103.235.46.191:443/tcp
    name         x.example, from an answer that the app got
    owner        country HK, AS55967, organisation baidu
    bytes        0 sent, 0 received
    repeated     2 times in a second
    ");
    let (status, out, _) = log(state.path(), &["show", "1", "--json"]);
    assert_eq!(status, 0);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown, event(1, "deny", "hm.baidu.com"));
    let (status, _, err) = log(state.path(), &["show", "3"]);
    assert_eq!(status, 1);
    assert!(err.contains("there is no event 3 in the log of"), "{err}");
}

#[test]
fn a_log_without_its_key_cannot_be_verified() {
    let state = state();
    let (status, out, err) = log(state.path(), &["verify"]);
    assert_eq!((status, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("the key cannot be read") && err.contains("hint: "), "{err}");
}
