//! The log, and that no verdict depends on it.

use std::path::Path;

use serde_json::Value;

use crate::{
    harness::{Net, require_kernel},
    support::{AMAZON, BAIDU, FREE, Run},
};

const CN: [&str; 2] = ["--policy", "cn-jurisdiction"];

#[test]
fn it_has_every_verdict_by_the_time_the_command_has_ended() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let capture = net.capture();
    // Many different ones, and the same one many times, up to the last moment.
    let many: Vec<String> =
        (0..300).map(|number| format!("udp-sendto {BAIDU}:{}", 3000 + number)).collect();
    let script = format!("{}\nuntil 300 udp-sendto {BAIDU}:2001", many.join("\n"));
    let outcome = Run::new(&net, &CN).client(&script);
    outcome.assert_status(0);
    for number in 0..300 {
        assert!(outcome.find("deny", BAIDU, 3000 + number, "udp").is_some(), "{number}");
    }
    let repeats: u64 = outcome
        .on(BAIDU)
        .iter()
        .filter(|event| event["dst"]["port"] == 2001)
        .filter_map(|event| event["count"].as_u64())
        .sum();
    assert!((10..=30).contains(&repeats), "one each 10 ms: {repeats}");
    let total = 300 + repeats;
    assert!(outcome.stderr.contains(&format!("firewall: {total} denied")), "{}", outcome.stderr);
    capture.assert_nothing_to(BAIDU);
    outcome.assert_explained();
}

#[test]
fn it_is_appended_to() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU]);
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    std::fs::write(&log, "first line\n").expect("a file");
    for _ in 0..2 {
        Run::new(&net, &CN).log(&log).client(&format!("tcp {BAIDU}:80"));
    }
    let text = std::fs::read_to_string(&log).expect("the log");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "first line"), "{text}");
}

#[test]
fn quiet_says_nothing_and_logs_all_the_same() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU]);
    let outcome = Run::new(&net, &[&CN[..], &["--quiet"]].concat()).program(&[
        "curl",
        "-s",
        "--noproxy",
        "*",
        &format!("http://{BAIDU}/"),
    ]);
    outcome.assert_status(7);
    assert_eq!(outcome.stderr, "");
    assert_eq!(outcome.on(BAIDU).len(), 1);
}

#[test]
fn a_full_disk_changes_no_verdict_and_is_said() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let script = format!("tcp {BAIDU}:80\ntcp {FREE}:80\nsleep 400\nudp-sendto {BAIDU}:81");
    let outcome = Run::new(&net, &CN).log(Path::new("/dev/full")).client(&script);
    outcome.assert_status(0);
    assert_eq!(outcome.errno(&format!("tcp {BAIDU}:80")), libc::ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("udp-sendto {BAIDU}:81")), libc::ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("tcp {FREE}:80")), 0);
    assert_eq!(outcome.stderr.matches("cannot write the log /dev/full").count(), 1);
    assert!(outcome.stderr.contains("could not be written to the log"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("2 denied"), "{}", outcome.stderr);
    capture.assert_nothing_to(BAIDU);
}

/// Nobody reads while the command floods: what does not fit is counted, and denied all the same.
#[test]
fn a_full_ring_changes_no_verdict_and_is_counted() {
    if !require_kernel() {
        return;
    }
    const FLOOD: u64 = 200_000;
    let net = Net::new(&[BAIDU, FREE]);
    let capture = net.capture();
    let script = format!(
        "udp-sendto {BAIDU}:1000\nsleep 500\nflood {FLOOD} {BAIDU}:0\nudp-sendto {FREE}:1001"
    );
    let run = Run::new(&net, &[&CN[..], &["--quiet"]].concat()).start_client(&script);
    run.wait_for_step("udp-sendto");
    run.signal(libc::SIGSTOP);
    run.wait_for_step("flood");
    run.signal(libc::SIGCONT);
    let outcome = run.end();
    assert_eq!(outcome.errno(&format!("flood {FLOOD} {BAIDU}:0")), libc::ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("udp-sendto {FREE}:1001")), 0);
    capture.assert_nothing_to(BAIDU);
    assert!(!capture.to(FREE).is_empty());
    let (lost, told): (Vec<&Value>, Vec<&Value>) =
        outcome.events.iter().partition(|event| event["kind"] == "lost");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0]["schema"], 1);
    let lost = lost[0]["count"].as_u64().expect("a count");
    let told: u64 = told.iter().filter_map(|event| event["count"].as_u64()).sum();
    assert!(lost > 0 && told > 1000, "{lost} lost, {told} told");
    // Of the one that passed the end is told too, or lost.
    let ended = outcome.moved.len() as u64;
    assert_eq!(lost + told + ended, FLOOD + 3, "every one is accounted for");
}

#[test]
fn observing_records_and_lets_pass() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let outcome = Run::new(&net, &[&CN[..], &["--observe"]].concat())
        .client(&format!("tcp {BAIDU}:80\nudp-sendto {BAIDU}:81\ntcp {FREE}:80"));
    assert!(outcome.steps.iter().all(|step| step.errno == 0), "{:#?}", outcome.steps);
    assert!(!capture.to(BAIDU).is_empty());
    for (port, proto) in [(80, "tcp"), (81, "udp")] {
        let event = outcome.find("audit", BAIDU, port, proto).expect("an audit");
        assert_eq!(event["action"], "drop", "{event}");
        assert_eq!(event["mode"], "observe", "{event}");
        assert_eq!(event["rule"], "home-jurisdiction", "{event}");
    }
    assert_eq!(outcome.events.iter().filter(|event| event["verdict"] == "deny").count(), 0);
    outcome.assert_explained();
}

#[test]
fn without_a_policy_it_watches() {
    if !require_kernel() || Path::new("/etc/firewall/policies.d").exists() {
        return;
    }
    let net = Net::new(&[BAIDU, AMAZON]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let outcome = Run::new(&net, &[]).client(&format!("tcp {BAIDU}:80\ntcp [{AMAZON}]:80"));
    assert!(outcome.steps.iter().all(|step| step.errno == 0), "{:#?}", outcome.steps);
    for ip in [BAIDU, AMAZON] {
        let event = outcome.find("audit", ip, 80, "tcp").expect("an audit");
        assert_eq!(event["policy"], "watch-everything");
        assert!(event["src"]["ip"].is_string() && event["src"]["port"].is_u64(), "{event}");
    }
    outcome.assert_explained();
}

/// A socket that is refused can be connected again, elsewhere.
#[test]
fn what_was_refused_is_recorded() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let again = format!("tcp-again {FREE}:81 {FREE}:80");
    let denied = format!("tcp-again {FREE}:82 {BAIDU}:80");
    let policies = ["--policy", "watch-everything", CN[0], CN[1]];
    let outcome = Run::new(&net, &policies).client(&format!("{again}\n{denied}"));
    assert_eq!(outcome.errno(&again), 0);
    for port in [81, 80, 82] {
        let event = outcome.find("audit", FREE, port, "tcp").expect("an audit");
        assert!(event["src"]["port"].is_u64(), "{event}");
    }
    assert!(outcome.find("deny", BAIDU, 80, "tcp").is_some(), "{:#?}", outcome.events);
    outcome.assert_explained();
}
