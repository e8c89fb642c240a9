//! What is answered, and what is not.

use firewall::daemon::control::Refusal;
use serde_json::json;

use crate::world::Daemon;

#[test]
fn what_is_asked_for_is_asked_of_the_daemon() {
    if !crate::rights::is_root() {
        return;
    }
    let daemon = Daemon::new();
    for (method, path, request) in [
        ("GET", "/v1/status", "Status"),
        ("GET", "/v1/policies", "Status"),
        ("GET", "/v1/lists", "Lists"),
        ("POST", "/v1/lists/update", "UpdateLists"),
        ("POST", "/v1/reload", "Reload"),
        ("POST", "/v1/rollback", "Rollback"),
        ("POST", "/v1/off", "Off"),
    ] {
        let answer = daemon.ask(method, path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(daemon.asked(), [request], "{path}");
    }
    let question = r#"{"destination": "1.2.3.4:443", "app": ["user:0"]}"#;
    let answer = daemon.ask("POST", "/v1/explain", question).json();
    let asked = json!({"destination": "1.2.3.4:443", "app": ["user:0"], "name": []});
    assert_eq!(answer["asked"], asked);
}

#[test]
fn a_no_has_a_reason() {
    if !crate::rights::is_root() {
        return;
    }
    let daemon = Daemon::new();
    for (refusal, status) in [(Refusal::invalid("a\nb"), 422), (Refusal::cannot("a\nb"), 500)] {
        daemon.refuse(Some(refusal));
        for path in ["/v1/lists/update", "/v1/reload", "/v1/rollback", "/v1/off"] {
            let answer = daemon.ask("POST", path, "");
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.json(), json!({"error": {"message": "a\nb"}}));
        }
    }
}

#[test]
fn what_is_not_there_and_what_makes_no_sense() {
    let daemon = Daemon::new();
    let long = format!(r#"{{"destination": "{}"}}"#, "x".repeat(100_000));
    for (method, path, body, status, says) in [
        ("GET", "/", "", 404, "there is no /"),
        ("GET", "/v1/nothing", "", 404, "/v1/nothing"),
        ("GET", "/v1/status/", "", 404, "/v1/status/"),
        ("POST", "/v1/status", "", 405, "/v1/status does not take POST"),
        ("GET", "/v1/reload", "", 405, "/v1/reload does not take GET"),
        ("GET", "/v1/verdicts", "", 400, "follow=true"),
        ("GET", "/v1/verdicts?follow=yes", "", 400, "follow=true"),
        ("GET", "/v1/log?verdikt=deny", "", 400, "verdikt: nothing can be asked for"),
        ("GET", "/v1/log?verdict=no", "", 400, "no verdict `no`"),
        ("GET", "/v1/log?app=curl", "", 400, "`curl` is not an app"),
        ("GET", "/v1/verdicts?follow=true&since=today", "", 400, "`today` is no time"),
        ("POST", "/v1/explain", "", 400, "no question"),
        ("POST", "/v1/explain", "{\"to\": 1}", 400, "unknown field `to`"),
        ("POST", "/v1/explain", &long, 400, "longer than 65536 bytes"),
    ] {
        let answer = daemon.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
        let error = answer.json();
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{path}: {message}");
        if status != 400 {
            assert!(error["error"]["hint"].is_string(), "{path}: {error}");
        }
    }
    assert!(daemon.get("/v1/reload").head.contains("allow: post"));
    assert_eq!(daemon.asked(), [""; 0]);
}

#[test]
fn a_daemon_that_is_gone_is_said_to_be() {
    let daemon = Daemon::new();
    daemon.be_silent();
    let waiting = daemon.connect();
    std::io::Write::write_all(&mut &waiting, b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let asked = crate::harness::wait_until(crate::world::LIMIT, || !daemon.asked().is_empty());
    assert!(asked, "the daemon was asked");
    drop(daemon);
    let mut rest = Vec::new();
    let read = std::io::Read::read_to_end(&mut &waiting, &mut rest);
    assert_eq!((read.ok(), rest.len()), (Some(0), 0), "the connection ends with the daemon");
}
