//! What runs in the guest.
//!
//! A check is a test that is left out elsewhere. Each prints its line; what it prints besides is shown if
//! it fails.

use std::process::Command;

use libc::{ECONNREFUSED, EPERM, ETIMEDOUT};
use serde_json::Value;

use crate::{
    harness::{Kind, Net, Zone},
    host::{Host, Kept, Server},
    support::{self, ALIDNS, AMAZON, BAIDU, FIREWALL, FREE, Outcome, Run, quic_client},
};

/// Files of the guest.
pub const FILES: [(&str, &str); 3] = [
    ("init", include_str!("init")),
    ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
];

/// The names of the checks.
pub fn checks() -> Vec<String> {
    let output = Command::new(support::own_program())
        .args(["--list", "--ignored", "guest::"])
        .output()
        .expect("this test");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.strip_suffix(": test").map(str::to_owned)).collect()
}

#[test]
#[ignore = "runs in the guest of another kernel"]
fn doctor_finds_all_that_enforcing_takes() {
    let output = Command::new(FIREWALL).args(["doctor", "--json"]).output().expect("the firewall");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for feature in [
        "permission",
        "type information of the kernel (BTF)",
        "cgroup2",
        "the kernel programs load",
        "sockets that are open already",
    ] {
        let row = rows.iter().find(|row| row["feature"] == feature).expect(feature);
        assert_eq!(row["state"], "yes", "{text}");
    }
}

#[test]
#[ignore = "runs in the guest of another kernel"]
fn run_denies_and_allows_by_address() {
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let _tcp = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let places = [(BAIDU, true), (FREE, false), (ALIDNS, true), (AMAZON, false)];
    let steps = |ip: &str| {
        let at = |port| match ip.contains(':') {
            true => format!("[{ip}]:{port}"),
            false => format!("{ip}:{port}"),
        };
        [
            format!("tcp {}", at(80)),
            format!("udp-sendto {}", at(2000)),
            format!("udp-connect {}", at(2001)),
        ]
    };
    let script: Vec<String> = places.iter().flat_map(|(ip, _)| steps(ip)).collect();
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&script.join("\n"));
    outcome.assert_status(0);
    for (ip, denied) in places {
        for step in steps(ip) {
            assert_eq!(outcome.errno(&step), if denied { ECONNREFUSED } else { 0 }, "{step}");
        }
        if !denied {
            assert!(!capture.to(ip).is_empty(), "nothing arrived at {ip}");
            continue;
        }
        capture.assert_nothing_to(ip);
        for (port, proto, hook) in
            [(80, "tcp", "connect"), (2000, "udp", "sendmsg"), (2001, "udp", "connect")]
        {
            let event = outcome.denied(ip, port, proto);
            assert_eq!(event["hook"], hook, "{event}");
            assert_eq!(event["rule"], "home-jurisdiction", "{event}");
            assert_eq!(event["app"]["exe"], support::own_program(), "{event}");
            assert!(event["app"]["cgroup"].as_str().is_some_and(|at| at.contains("firewall-run-")));
        }
    }
}

#[test]
#[ignore = "runs in the guest of another kernel"]
fn run_denies_and_allows_by_name() {
    const DNS: &str = "10.200.0.1:53";
    let net = Net::new(&[FREE, AMAZON, BAIDU]);
    let zone = Zone::default()
        .host("bad.example", &[AMAZON])
        .host("good.example", &[FREE])
        .host("target.example", &[BAIDU])
        .alias("alias.example", "target.example");
    let names = net.serve_names(Kind::Dnsmasq, &zone, &[DNS]);
    let _tcp = net.echo_tcp(&["[::]:443"]);
    let _udp = net.answer_udp(&["[::]:443"], |datagram, _| quic_client::answer(datagram));
    let question = |name: &str| format!("dns {DNS} {name} A");
    let (denied, allowed, alias) =
        (question("bad.example"), question("good.example"), question("alias.example"));
    let reached = format!("tls {FREE}:443 plain good.example whole");
    let shown = format!("tls {FREE}:443 plain bad.example whole");
    let learned = format!("tcp {BAIDU}:443");
    let quic = |name: &str| format!("quic {FREE}:443 v1 whole {name}");
    let (quic_denied, quic_allowed) = (quic("bad.example"), quic("good.example"));
    let script =
        [&denied, &allowed, &alias, &reached, &shown, &learned, &quic_denied, &quic_allowed]
            .map(String::as_str);
    let outcome =
        Run::new(&net, &["--deny", "domain:bad.example", "--deny", "domain:target.example"])
            .client(&script.join("\n"));
    outcome.assert_status(0);
    assert_eq!(outcome.errno(&denied), EPERM, "{}", outcome.stderr);
    // What is held back until its name is known is dropped without a word, and the client may be done by then.
    assert!([EPERM, ETIMEDOUT].contains(&outcome.errno(&quic_denied)), "{}", outcome.stderr);
    for step in [&allowed, &alias, &reached, &quic_allowed] {
        assert_eq!(outcome.errno(step), 0, "{step}: {}", outcome.stderr);
    }
    assert_ne!(outcome.errno(&shown), 0, "{}", outcome.stderr);
    assert_eq!(outcome.errno(&learned), ECONNREFUSED, "{}", outcome.stderr);
    assert!(names.was_asked("good.example") && !names.was_asked("bad.example"));
    for (hook, name) in [
        ("dns", "bad.example"),
        ("tls", "bad.example"),
        ("connect", "alias.example"),
        ("quic", "bad.example"),
    ] {
        assert!(is_denied(&outcome, hook, name), "{hook} {name}: {:#?}", outcome.events);
    }
}

#[test]
#[ignore = "runs in the guest of another kernel"]
fn run_allows_one_app() {
    let net = Net::new(&[FREE]);
    let _tcp = net.listen_tcp(&["[::]:80", "[::]:81"]);
    let rule = |name: &str, port: u16, exe: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\naction = \"allow\"\napps = [\"exe:{exe}\"]\n\
             to = {{ networks = [\"{FREE}/32\"] }}\nports = [\"tcp/{port}\"]\n"
        )
    };
    let policy = format!(
        "[policy]\nname = \"apps\"\ndefault = \"drop\"\n{}{}",
        rule("own", 80, &support::own_program()),
        rule("other", 81, "/bin/busybox"),
    );
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    std::fs::write(&file, policy).expect("our file");
    let path = file.path().to_str().expect("UTF-8");
    let (own, other) = (format!("tcp {FREE}:80"), format!("tcp {FREE}:81"));
    let outcome = Run::new(&net, &["--policy", path]).client(&[&*own, &*other].join("\n"));
    outcome.assert_status(0);
    assert_eq!(outcome.errno(&own), 0, "{}", outcome.stderr);
    assert_eq!(outcome.errno(&other), ECONNREFUSED, "{}", outcome.stderr);
}

fn is_denied(outcome: &Outcome, hook: &str, name: &str) -> bool {
    outcome.events.iter().any(|event| {
        event["verdict"] == "deny" && event["hook"] == hook && event["host"]["name"] == name
    })
}

#[test]
#[ignore = "runs in the guest of another kernel"]
fn the_daemon_is_killed_and_the_next_one_goes_on() {
    let mut host = Host::with_china();
    let names = "[policy]\nname = \"names\"\n[[rule]]\nname = \"bad\"\naction = \"drop\"\n\
                 to = { domains = [\"bad.example\"] }\n";
    host.set("policies.d/names.toml", names);
    host.done(&["reload"]);
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    let question = "dns 10.200.0.1:53 bad.example A";
    let (number, _) = host.generation();
    app.assert_enforced();
    assert_eq!(app.step(question), EPERM);

    host.kill(false);
    app.assert_enforced();
    assert_eq!(app.step(question), EPERM);
    kept.assert_alive(&mut app, &server);

    host.start();
    assert_eq!(host.generation(), (number, "adopted".to_owned()));
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();
}

#[test]
#[ignore = "runs in the guest of another kernel"]
fn frames_are_judged_where_the_kernel_has_programs_at_interfaces() {
    let host = Host::with_china();
    host.set("firewall.toml", "backstop = \"on\"\n");
    host.done(&["reload"]);
    let _listening = Server::of(&host);
    let capture = host.net.capture();
    let mut app = host.app();
    let [denied, allowed] = [BAIDU, FREE].map(|ip| app.step(&format!("frame {ip}:443")));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert_eq!(allowed, 0);
    if release.starts_with("6.1.") {
        assert_eq!(host.status()["state"], "degraded");
        assert!(host.said().contains("6.6"), "{}", host.said());
        app.assert_enforced();
        return;
    }
    assert_eq!(denied, libc::ENOBUFS, "{}", host.said());
    assert_eq!(host.status()["state"], "enforcing");
    capture.assert_nothing_to(BAIDU);
    assert!(!capture.to(FREE).is_empty());
}
