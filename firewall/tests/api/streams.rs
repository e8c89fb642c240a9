//! Answers that are JSON lines.

use std::{fs, io::BufRead as _};

use serde_json::Value;

use crate::{
    stored,
    world::{Daemon, HELD, event},
};

fn seq(line: &Value) -> Option<u64> {
    line["seq"].as_u64()
}

#[test]
fn verdicts_come_as_they_are_reached() {
    let daemon = Daemon::new();
    let mut all = daemon.stream("/v1/verdicts?follow=true");
    let mut denied = daemon.stream("/v1/verdicts?follow=true&verdict=deny&host=example");
    let next = |stream: &mut std::io::BufReader<_>| -> Value {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    for (number, verdict, host) in
        [(1, "allow", "a.example"), (2, "deny", "b.test"), (3, "deny", "a.example")]
    {
        let line = event(number, verdict, host, "ada");
        daemon.verdicts.send(line.clone().into()).unwrap();
        assert_eq!(
            next(&mut all).to_string(),
            serde_json::from_str::<Value>(&line).unwrap().to_string()
        );
    }
    assert_eq!(seq(&next(&mut denied)), Some(3));
    // What was lost is for all.
    daemon.verdicts.send("{\"schema\":1,\"kind\":\"lost\",\"count\":2}".into()).unwrap();
    assert_eq!(next(&mut denied)["kind"], "lost");
}

#[test]
fn a_slow_reader_holds_nobody_back_and_is_told_what_it_lost() {
    let daemon = Daemon::new();
    let mut slow = daemon.stream("/v1/verdicts?follow=true");
    let sent = 200 * HELD as u64;
    for number in 1..=sent {
        // That it never waits is what is tested: the reader reads nothing.
        daemon.verdicts.send(event(number, "deny", "a.example", "ada").into()).unwrap();
    }
    assert_eq!(daemon.get("/v1/status").status, 200, "others are answered");
    let (mut arrived, mut lost, mut last) = (0, 0, 0);
    while last < sent {
        let mut line = String::new();
        assert_ne!(slow.read_line(&mut line).unwrap(), 0, "{last}");
        let line: Value = serde_json::from_str(&line).unwrap();
        match seq(&line) {
            Some(seq) => {
                assert!(seq > last, "{seq} after {last}");
                arrived += 1;
                last = seq;
            }
            None => {
                assert_eq!(line["kind"], "lost");
                lost += line["count"].as_u64().unwrap();
            }
        }
    }
    assert_eq!(arrived + lost, sent);
    assert!(lost > 0 && arrived >= HELD as u64, "{lost} {arrived}");
    let status = daemon.get("/v1/status").json();
    assert_eq!(status["losses"]["streams"], lost, "counted");
}

#[test]
fn a_reader_that_is_gone_is_forgotten() {
    let daemon = Daemon::new();
    drop(daemon.stream("/v1/verdicts?follow=true"));
    let gone =
        crate::harness::wait_until(crate::world::LIMIT, || daemon.verdicts.receiver_count() == 0);
    assert!(gone);
}

#[test]
fn the_log() {
    let daemon = Daemon::new();
    assert_eq!(daemon.get("/v1/log").body, "", "there is none");
    let lines = |range: std::ops::RangeInclusive<u64>| -> String {
        let line = |number| event(number, "deny", &format!("{number}.example"), "ada") + "\n";
        range.map(line).collect()
    };
    let lost = "{\"schema\":1,\"kind\":\"lost\",\"count\":3}\n";
    let other = event(300, "audit", "hm.baidu.com", "bob") + "\n";
    let all = lines(1..=250) + lost + &other;
    stored::store(daemon.folder.path(), all.lines());
    let answer = daemon.get("/v1/log");
    assert_eq!(answer.body, all);
    assert!(answer.head.contains("content-type: application/jsonl"), "{answer:?}");
    // Who asks for some gets these, and the losses of that time.
    let seqs = |query: &str| -> Vec<u64> {
        let body = daemon.get(&format!("/v1/log?{query}")).body;
        assert_eq!(body.contains(lost), !query.contains("until"), "{query}: {body}");
        body.lines().filter_map(|line| seq(&serde_json::from_str(line).ok()?)).collect()
    };
    assert_eq!(seqs("verdict=audit"), [300]);
    assert_eq!(seqs("user=bob&user=nobody"), [300]);
    assert_eq!(seqs("host=7.example&host=Baidu.com."), [7, 300]);
    assert_eq!(seqs("host=aidu.com"), [0; 0], "at the boundary of a label");
    assert_eq!(seqs("owner=AS55967&verdict=audit&country=HK"), [300]);
    assert_eq!(seqs("owner=baidu&policy=web&rule=ads").len(), 251);
    assert_eq!(seqs("owner=AS5596"), [0; 0]);
    assert_eq!(seqs("policy=other"), [0; 0]);
    assert_eq!(seqs("app=user:4000000001&user=4000000001").len(), 251);
    assert_eq!(seqs("app=exe:/usr/bin/wget"), [0; 0]);
    let some = seqs("since=2026-11-22T01:25:58Z&until=2026-11-22T01:25:59Z");
    assert_eq!(some, [58, 118, 178, 238]);
}

#[test]
fn a_log_that_cannot_be_read_is_no_empty_one() {
    let daemon = Daemon::new();
    fs::create_dir(daemon.path("audit.db")).unwrap();
    let mut stream = daemon.connect();
    std::io::Write::write_all(&mut stream, b"GET /v1/log HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
    let error = answer.starts_with("HTTP/1.0 500") || answer.starts_with("HTTP/1.1 500");
    assert!(error, "{answer}");
}
