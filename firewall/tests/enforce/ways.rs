//! A table of ways to send, each tried to a denied and to an allowed address.

use std::{net::SocketAddr, time::Duration};

use crate::{
    harness::{Capture, Net},
    support::{ALIDNS, AMAZON, BAIDU, FREE, Outcome, Run},
};

/// A way to send.
pub struct Way {
    /// The client's step; `TO` and `FREE` stand for the address in question and an allowed one.
    pub step: &'static str,
    pub proto: &'static str,
    pub hook: &'static str,
    /// What the denied call fails with.
    pub errno: i32,
    pub v4: bool,
    pub v6: bool,
}

pub const fn way(step: &'static str, proto: &'static str, hook: &'static str, errno: i32) -> Way {
    Way { step, proto, hook, errno, v4: true, v6: true }
}

impl Way {
    pub const fn v4_only(self) -> Self {
        Self { v6: false, ..self }
    }

    pub const fn v6_only(self) -> Self {
        Self { v4: false, ..self }
    }
}

struct Try<'a> {
    way: &'a Way,
    denied: bool,
    to: SocketAddr,
    line: String,
}

fn tries(ways: &[Way]) -> Vec<Try<'_>> {
    let mut tries = Vec::new();
    let mut port = 2000;
    for way in ways {
        for (used, denied, allowed) in [(way.v4, BAIDU, FREE), (way.v6, ALIDNS, AMAZON)] {
            if !used {
                continue;
            }
            let place = |ip: &str, port| SocketAddr::new(ip.parse().expect("an address"), port);
            for (is_denied, ip) in [(true, denied), (false, allowed)] {
                port += 1;
                let to = place(ip, port);
                let line = way
                    .step
                    .replace("TO", &to.to_string())
                    .replace("FREE", &place(allowed, 1999).to_string());
                tries.push(Try { way, denied: is_denied, to, line });
            }
        }
    }
    tries
}

/// What is denied at once may take this long on a busy machine.
pub const AT_ONCE: Duration = Duration::from_millis(500);

/// Tries every way under `cn-jurisdiction`.
#[track_caller]
pub fn check(ways: &[Way]) -> Outcome {
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let tries = tries(ways);
    let ports: Vec<String> = tries
        .iter()
        .filter(|one| one.way.proto == "tcp" && !one.denied)
        .map(|one| one.to.to_string())
        .collect();
    let _tcp = net.listen_tcp(&ports.iter().map(String::as_str).collect::<Vec<_>>());
    // Where a first datagram goes: without a listener its answer is an error for the second.
    let _udp = net.listen_udp(&["[::]:1999"]);
    let capture = net.capture();
    let script: Vec<&str> = tries.iter().map(|one| one.line.as_str()).collect();
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&script.join("\n"));
    outcome.assert_status(0);
    for one in &tries {
        check_try(one, &outcome, &capture);
    }
    capture.assert_nothing_to(BAIDU);
    capture.assert_nothing_to(ALIDNS);
    outcome.assert_explained();
    outcome
}

#[track_caller]
fn check_try(one: &Try<'_>, outcome: &Outcome, capture: &Capture) {
    let Try { way, denied, to, line } = one;
    let step = outcome.step(line);
    let has_ports = !way.proto.starts_with("icmp");
    if !denied {
        assert_eq!(step.errno, 0, "{line}");
        let arrived = capture.to(&to.ip().to_string()).into_iter().any(|packet| {
            !has_ports || packet.ports.is_none() || packet.ports.map(|p| p.1) == Some(to.port())
        });
        assert!(arrived, "{line}: nothing arrived");
        return;
    }
    assert_eq!(step.errno, way.errno, "{line}: {}", outcome.stderr);
    assert!(step.took < AT_ONCE, "{line} took {:?}", step.took);
    // A later fragment does not show its ports.
    let port = if has_ports && !line.contains("later-fragment") { to.port() } else { 0 };
    let event = outcome.denied(&to.ip().to_string(), port, way.proto);
    check_event(event, way.hook, step.pid);
    assert_eq!(event["policy"], "cn-jurisdiction", "{event}");
    assert_eq!(event["rule"], "home-jurisdiction", "{event}");
    assert_eq!(event["geo"]["country"], "CN", "{event}");
    let evidence = event["evidence"].as_array().expect("evidence");
    assert!(evidence.iter().any(|fact| fact.as_str().is_some_and(|f| f.contains("CN"))), "{event}");
}

/// That a verdict of the client names it, and was reached there.
#[track_caller]
pub fn check_event(event: &serde_json::Value, hook: &str, pid: u32) {
    let own = std::env::current_exe().expect("this test");
    assert_eq!(event["hook"], hook, "{event}");
    assert_eq!(event["app"]["exe"], own.to_str().expect("UTF-8"), "{event}");
    assert_eq!(event["app"]["name"], own.file_name().and_then(|n| n.to_str()).expect("UTF-8"));
    assert_eq!(event["app"]["pid"], pid, "{event}");
    assert_eq!(event["app"]["uid"], 0, "{event}");
    assert_eq!(event["app"]["user"], "root", "{event}");
    assert!(
        event["app"]["cgroup"].as_str().is_some_and(|c| c.contains("firewall-run-")),
        "{event}"
    );
}
