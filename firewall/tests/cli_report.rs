//! `firewall report` on logs, by the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

#[path = "support/stored.rs"]
mod stored;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// Exit status, standard output, standard error.
fn report(state: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
    command.arg("report").args(words).arg("--state").arg(state).env("TZ", "Asia/Kolkata");
    // Not what this machine has.
    command.arg("--policies").arg(state).arg("--config").arg("/dev/null");
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().expect("the firewall");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn event(second: u32, verdict: &str, host: &str) -> Value {
    json!({
        "schema": 1, "seq": second, "time": format!("2026-11-22T01:25:{second:02}.000001Z"),
        "verdict": verdict, "mode": "enforce", "reason": "rule", "action": "drop",
        "policy": "baidu-tongji", "rule": "tongji", "hook": "connect",
        "app": {"name": "curl\u{1b}[2J<script>", "exe": "/usr/bin/curl", "uid": 1000, "user": "ada"},
        "proto": "tcp", "dst": {"ip": "103.235.46.191", "port": 443},
        "host": {"name": host, "via": "dns"},
        "geo": {"country": "HK", "asn": 55967, "organisation": "baidu"},
        "count": second, "bytes_out": 10, "bytes_in": 2000, "later": true,
    })
}

/// What is recorded.
fn events() -> [String; 3] {
    let lost = json!({"schema": 1, "kind": "lost", "count": 7});
    [event(1, "deny", "hm.baidu.com"), lost, event(2, "allow", "hm.baidu.com")]
        .map(|event| event.to_string())
}

/// A state folder with a store.
fn state() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    stored::store(state.path(), events());
    state
}

#[test]
fn json_and_what_is_new() {
    let state = state();
    let told = |words: &[&str]| -> Value {
        let (status, out, err) = report(state.path(), words);
        assert_eq!(status, 0, "{err}");
        serde_json::from_str(&out).expect("JSON")
    };
    let first = told(&["--json"]);
    assert_eq!(first["flows"], json!({"deny": 1, "audit": 0, "allow": 2}));
    assert_eq!((&first["bytes_out"], &first["bytes_in"]), (&json!(10), &json!(2000)));
    assert_eq!(first["missing"]["lost"], 7);
    let app = &first["apps"][0];
    assert_eq!((&app["new"], &app["names"][0]["new"]), (&json!(false), &json!(false)));
    assert_eq!(app["stopped"][0]["policy"], "baidu-tongji");
    let would = app["would"].as_array().unwrap();
    let tongji = would.iter().find(|one| one["policy"] == "baidu-tongji").expect("shipped");
    assert_eq!((&tongji["rule"], &tongji["flows"]), (&json!("tongji"), &json!(2)));
    assert!(first.get("last_report").is_none());

    let log = state.path().join("log.jsonl");
    let more = [event(3, "allow", "hm.baidu.com"), event(4, "allow", "x.example")];
    fs::write(&log, format!("{}\nno event\n{}\n", more[0], more[1])).unwrap();
    let log = log.to_str().unwrap();
    let second = told(&["--json", "--log", log]);
    assert!(second["last_report"].is_string());
    assert_eq!(second["missing"]["unreadable"], 1);
    let names = second["apps"][0]["names"].as_array().unwrap();
    for (name, new) in [("hm.baidu.com", false), ("x.example", true)] {
        let row = names.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(row["new"], new, "{name}");
    }
    let filtered = told(&["--json", "--log", log, "--host", "x.example"]);
    assert_eq!(filtered["flows"]["allow"], 4);
    assert_eq!(filtered["apps"][0]["names"][0]["new"], false, "it was told before");
}

#[test]
fn a_page_and_the_terminal() {
    let state = state();
    let page = state.path().join("page.html");
    let (status, out, err) = report(state.path(), &["--html", page.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (0, ""), "{err}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>"), "whole");
    assert!(html.contains("curl?[2J&lt;script&gt;") && !html.contains("<script"));
    let (status, out, err) = report(state.path(), &[]);
    assert_eq!(status, 0);
    assert!(out.contains("curl?[2J<script>") && !out.contains('\u{1b}'), "{out}");
    assert!(out.contains("2026-11-22 06:55:01"), "in local time: {out}");
    assert_eq!(err, "");
}

#[test]
fn what_cannot_be() {
    let state = state();
    let empty = tempfile::tempdir().unwrap();
    let none = |words: &[&str]| report(empty.path(), words);
    let (status, out, err) = none(&[]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("there is no log") && err.contains("hint: "), "{err}");
    assert_eq!(none(&["--log", "/nowhere/log"]).0, 1);
    assert_eq!(none(&["--since", "whenever"]).0, 2);
    for place in ["/dev/null", "/"] {
        let (status, _, err) = report(state.path(), &["--html", place]);
        assert_eq!(status, 2, "{err}");
        assert!(err.contains("no regular file"), "{err}");
    }
    let (status, _, err) = report(state.path(), &["--html", "/proc/none/page.html"]);
    assert_eq!(status, 1, "{err}");
    assert!(!state.path().join("report.json").exists(), "what was not told is not known");

    // What is known cannot be kept in a folder, nor read from one.
    fs::create_dir(state.path().join("report.json")).unwrap();
    let (status, out, err) = report(state.path(), &[]);
    assert_eq!(status, 0);
    assert!(out.contains("hm.baidu.com") && err.contains("what is new is not told"), "{err}");
    let log = state.path().join("log");
    fs::write(&log, events().join("\n")).unwrap();
    let place = Path::new("/proc/none");
    let (status, out, err) = report_at(place, &log, empty.path());
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("hm.baidu.com"));
    assert!(err.contains("the next report will not know what this one told"), "{err}");
}

/// A report whose state folder cannot be written to.
fn report_at(state: &Path, log: &Path, policies: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
    command.arg("report").arg("--log").arg(log).arg("--state").arg(state);
    command.arg("--policies").arg(policies).arg("--config").arg("/dev/null");
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().expect("the firewall");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}
