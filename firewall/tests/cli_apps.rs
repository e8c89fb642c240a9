//! `firewall apps` on logs, by the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// Exit status, standard output, standard error.
fn apps(words: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_firewall"))
        .arg("apps")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the firewall");
    let mut stdin = child.stdin.take().expect("its standard input");
    // It need not read all, or any of it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().expect("no signal"), text(&output.stdout), text(&output.stderr))
}

fn objects(words: &[&str], input: &str) -> Vec<Value> {
    let (status, out, err) = apps(&[&["--json"], words].concat(), input);
    assert_eq!((status, err.as_str()), (0, ""));
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn log(events: &[Value]) -> String {
    events.iter().map(|event| event.to_string() + "\n").collect()
}

fn event(second: u32, verdict: &str, app: Value, host: &str) -> Value {
    json!({
        "schema": 1, "seq": 1, "time": format!("2026-11-22T01:25:{second:02}.000001Z"),
        "verdict": verdict, "mode": "enforce", "reason": "default", "hook": "connect",
        "app": app, "proto": "tcp", "dst": {"ip": "192.0.2.7", "port": 443},
        "host": {"name": host, "via": "dns"}, "geo": {"country": "HK", "organisation": "baidu"},
        "count": 2, "bytes_out": 0, "bytes_in": 0, "later": {"new": true},
    })
}

fn curl(pid: u32) -> Value {
    json!({"name": "curl", "exe": "/usr/bin/curl", "pid": pid, "uid": 1000, "user": "ada",
           "gid": 1000, "unit": format!("app-x-{pid}.scope"),
           "cgroup": format!("/user.slice/app-x-{pid}.scope")})
}

fn python() -> Value {
    json!({"name": "python3.12", "exe": "/usr/bin/python3.12", "script": "/home/ada/\u{1b}[2J.py",
           "uid": 0, "user": "root", "gid": 0, "cgroup": "/system.slice/x.service",
           "unit": "x.service"})
}

fn some() -> String {
    log(&[
        event(1, "allow", curl(7), "a.example"),
        event(3, "deny", curl(8), "hm.baidu.com"),
        event(2, "allow", python(), "b.example"),
    ])
}

#[test]
fn as_json() {
    let all = objects(&["-"], &some());
    assert_eq!(all.len(), 2);
    assert_eq!(
        all[0],
        json!({
            "schema": 1,
            "app": {"name": "curl", "exe": "/usr/bin/curl", "uid": 1000, "user": "ada",
                    "unit": "app-x-*.scope"},
            "flows": {"deny": 2, "audit": 0, "allow": 2},
            "first": "2026-11-22T01:25:01.000001Z", "last": "2026-11-22T01:25:03.000001Z",
            "destinations": [
                {"host": "hm.baidu.com", "country": "HK", "organisation": "baidu",
                 "flows": {"deny": 2, "audit": 0, "allow": 0},
                 "last": "2026-11-22T01:25:03.000001Z"},
                {"host": "a.example", "country": "HK", "organisation": "baidu",
                 "flows": {"deny": 0, "audit": 0, "allow": 2},
                 "last": "2026-11-22T01:25:01.000001Z"},
            ],
            "more_destinations": 0,
        })
    );
    assert_eq!(all[1]["app"]["script"], "/home/ada/\u{1b}[2J.py");
}

#[test]
fn for_people() {
    let (status, out, err) = apps(&["-"], &some());
    assert_eq!((status, err.as_str()), (0, ""));
    insta::assert_snapshot!(out);
}

#[test]
fn of_some_apps() {
    let names = |words: &[&str]| -> Vec<String> {
        let all = objects(&[words, &["-"]].concat(), &some());
        all.iter().map(|one| one["app"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--app", "exe:/usr/bin/curl"]), ["curl"]);
    assert_eq!(names(&["--app", "unit:x.service"]), ["python3.12"]);
    assert_eq!(names(&["--app", "user:0", "--app", "group:1000"]), ["curl", "python3.12"]);
    assert_eq!(names(&["--app", "kernel"]), [""; 0]);
    let (status, _, err) = apps(&["-", "--app", "exe:/usr/bin/none"], &some());
    assert_eq!((status, err.as_str()), (0, "note: no verdict of any app asked for\n"));
    let (status, out, err) = apps(&["-", "--app", "curl", "--app", "exe:x"], "");
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("`curl` is not an app") && err.contains("`exe:x`"), "{err}");
}

#[test]
fn what_is_no_event_is_counted_and_said() {
    let broken = format!("first line\n{}{{\"schema\":1\n", some());
    let rest = "{\"schema\":9}\n{\"schema\":1,\"kind\":\"lost\",\"count\":17}\n";
    let huge = format!("{}\n", "x".repeat(3 << 20));
    let (status, out, err) = apps(&["--json", "-"], &format!("{broken}{rest}{huge}{}", some()));
    assert_eq!((status, out.lines().count()), (0, 2));
    assert!(out.contains("\"deny\":4"), "what stands behind is read: {out}");
    insta::assert_snapshot!(err);
}

#[test]
fn several_files_and_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, some()).unwrap();
    let path = path.to_str().unwrap();
    let all = objects(&[path, path], "");
    assert_eq!(all[0]["flows"]["deny"], 4);
    let (status, out, err) = apps(&[path, "/nowhere/log"], "");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("error: cannot read /nowhere/log: "), "{err}");
    let (status, out, err) = apps(&["-"], "");
    assert_eq!((status, out.as_str(), err.as_str()), (0, "", "note: no verdict of any app\n"));
}

#[test]
fn digests_are_of_files_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let exe = folder.path().join("exe");
    std::fs::write(&exe, "abc").unwrap();
    let app = |exe: &str| json!({"name": "exe", "exe": exe, "uid": 0});
    let inside = json!({"name": "exe", "exe": exe, "uid": 0, "container": {"name": "web"}});
    let input = log(&[
        event(1, "deny", app(exe.to_str().unwrap()), "a.example"),
        event(1, "allow", app("/nowhere/exe"), "a.example"),
        event(1, "audit", inside, "a.example"),
    ]);
    let (status, out, err) = apps(&["--json", "--sha256", "-"], &input);
    assert_eq!(status, 0);
    let all: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(all[0]["sha256"], abc);
    assert!(all[1..].iter().all(|one| one.get("sha256").is_none()), "{out}");
    assert!(err.starts_with("note: no digest of /nowhere/exe: "), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}
