//! Rules, settings and mistakes, as `run` takes them.

use std::{fmt::Write as _, path::PathBuf};

use libc::{ECONNREFUSED, EHOSTUNREACH, EINVAL};
use tempfile::TempDir;

use crate::{
    harness::{Net, require_kernel},
    support::{ALIDNS, AMAZON, BAIDU, FREE, Run},
};

fn file(name: &str, text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file");
    (directory, path)
}

#[test]
fn allow_goes_before_deny_and_both_before_policies() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let rules = [
        "--deny",
        "country:CN",
        "--deny",
        "net:212.27.48.0/24",
        "--allow",
        "net:110.242.68.0/24",
        "--policy",
        "cn-jurisdiction",
    ];
    let outcome = Run::new(&net, &rules)
        .client(&format!("tcp {BAIDU}:80\ntcp {FREE}:80\ntcp [{ALIDNS}]:80\nping {BAIDU}:0"));
    assert_eq!(outcome.errno(&format!("tcp {BAIDU}:80")), 0, "{}", outcome.stderr);
    assert_eq!(outcome.errno(&format!("ping {BAIDU}:0")), 0);
    assert_eq!(outcome.errno(&format!("tcp {FREE}:80")), ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("tcp [{ALIDNS}]:80")), ECONNREFUSED);
    assert_eq!(outcome.denied(FREE, 80, "tcp")["evidence"][0], "net:212.27.48.0/24");
    capture.assert_nothing_to(FREE);
    capture.assert_nothing_to(ALIDNS);
    outcome.assert_explained();
}

#[test]
fn the_default_is_for_what_no_rule_matches() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let rules = ["--default", "drop", "--allow", "country:FR", "--allow", "as:16509"];
    let outcome = Run::new(&net, &rules).client(&format!(
        "tcp {BAIDU}:80\ntcp {FREE}:80\ntcp [{ALIDNS}]:80\ntcp [{AMAZON}]:80\nping {BAIDU}:0"
    ));
    for (host, ip, errno) in [
        (BAIDU, BAIDU, ECONNREFUSED),
        ("[2400:3200::1]", ALIDNS, ECONNREFUSED),
        (FREE, FREE, 0),
        ("[2600:9000::10]", AMAZON, 0),
    ] {
        assert_eq!(outcome.errno(&format!("tcp {host}:80")), errno, "{}", outcome.stderr);
        if errno != 0 {
            let event = outcome.denied(ip, 80, "tcp");
            assert_eq!(event["reason"], "default", "{event}");
            assert_eq!(event["policy"], "command-line", "{event}");
            assert!(event["rule"].is_null(), "{event}");
            capture.assert_nothing_to(ip);
        }
    }
    outcome.assert_explained();
}

#[test]
fn how_a_denied_call_fails_is_configured() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, ALIDNS]);
    let capture = net.capture();
    for (word, errno) in
        [("refuse", ECONNREFUSED), ("unreachable", EHOSTUNREACH), ("blackhole", EINVAL)]
    {
        let (_directory, config) = file("firewall.toml", format!("on_deny = \"{word}\"\n"));
        let config = config.to_str().expect("UTF-8");
        let lines = [
            format!("tcp {BAIDU}:80"),
            format!("tcp [{ALIDNS}]:80"),
            format!("udp-sendto {BAIDU}:81"),
            format!("udp-connect [{ALIDNS}]:81"),
        ];
        let outcome = Run::new(&net, &["--policy", "cn-jurisdiction", "--config", config])
            .client(&lines.join("\n"));
        for line in lines {
            assert_eq!(outcome.errno(&line), errno, "{word}: {line}");
        }
    }
    capture.assert_nothing_to(BAIDU);
    capture.assert_nothing_to(ALIDNS);
}

#[test]
fn ports_and_protocols() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let _web = net.listen_tcp(&["[::]:80", "[::]:8002"]);
    let (_directory, policy) = file(
        "ports.toml",
        "[policy]\nname = \"ports\"\n[[rule]]\nname = \"some\"\naction = \"drop\"\n\
         to = { networks = [\"212.27.48.0/24\"] }\nports = [\"tcp/80\", \"udp/8000-8999\", \"icmp\"]\n",
    );
    let lines = [
        (format!("tcp {FREE}:80"), ECONNREFUSED),
        (format!("tcp {FREE}:8002"), 0),
        (format!("udp-sendto {FREE}:8000"), ECONNREFUSED),
        (format!("udp-sendto {FREE}:8999"), ECONNREFUSED),
        (format!("udp-sendto {FREE}:80"), 0),
        (format!("udp-sendto {FREE}:9000"), 0),
        (format!("ping {FREE}:0"), libc::EPERM),
        // A later fragment shows no port; some could be denied.
        (format!("hdrincl later-fragment {FREE}:0 {FREE}:0"), libc::EPERM),
    ];
    let script: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
    let outcome =
        Run::new(&net, &["--policy", policy.to_str().expect("UTF-8")]).client(&script.join("\n"));
    for (line, errno) in &lines {
        assert_eq!(outcome.errno(line), *errno, "{line}");
    }
}

#[test]
fn a_hundred_thousand_rules() {
    if !require_kernel() {
        return;
    }
    let mut text = "[policy]\nname = \"many\"\n".to_owned();
    for number in 0..100_000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number * 16);
        write!(
            text,
            "[[rule]]\nname = \"r{number}\"\naction = \"drop\"\nto = {{ networks = [\"{ip}/32\"] }}\n"
        )
        .expect("text");
    }
    text +=
        "[[rule]]\nname = \"last\"\naction = \"drop\"\nto = { networks = [\"110.242.68.66\"] }\n";
    let (_directory, policy) = file("many.toml", text);
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let outcome = Run::new(&net, &["--policy", policy.to_str().expect("UTF-8")])
        .client(&format!("tcp {BAIDU}:80\ntcp {FREE}:80\ntcp 11.0.0.16:80\ntcp 11.24.105.240:80"));
    assert_eq!(outcome.errno(&format!("tcp {BAIDU}:80")), ECONNREFUSED, "{}", outcome.stderr);
    assert_eq!(outcome.errno("tcp 11.0.0.16:80"), ECONNREFUSED);
    assert_eq!(outcome.errno("tcp 11.24.105.240:80"), ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("tcp {FREE}:80")), 0);
    assert_eq!(outcome.denied(BAIDU, 80, "tcp")["rule"], "last");
    assert_eq!(outcome.denied("11.0.0.16", 80, "tcp")["rule"], "r1");
    assert_eq!(outcome.denied("11.24.105.240", 80, "tcp")["rule"], "r99999");
    capture.assert_nothing_to(BAIDU);
}

#[test]
fn with_a_mistake_nothing_runs() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let rule = |to: &str| {
        format!(
            "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\nto = {{ {to} }}\n"
        )
    };
    for (text, says) in [
        (rule("jurisdictions = [\"XX\"]").into_bytes(), "XX"),
        (rule("networks = [\"10.0.0.0/33\"]").into_bytes(), "10.0.0.0/33"),
        (rule("asns = [\"AS0\"]").into_bytes(), "AS0"),
        (
            rule("networks = [\"10.0.0.0/8\"] }\nports = [\"tcp/70000\"]\nx = {").into_bytes(),
            "70000",
        ),
        (rule("netwroks = [\"10.0.0.0/8\"]").into_bytes(), "networks"),
        (Vec::new(), "policy"),
        (b"[policy]\nname = \"\xff\"\n".to_vec(), "UTF-8"),
    ] {
        let (directory, policy) = file("bad.toml", text);
        let ran = directory.path().join("ran");
        let outcome = Run::new(&net, &["--policy", policy.to_str().expect("UTF-8")])
            .program(&["touch", ran.to_str().expect("UTF-8")]);
        outcome.assert_status(125);
        assert!(
            outcome.stderr.contains(says) && outcome.stderr.contains("bad.toml"),
            "{}",
            outcome.stderr
        );
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        assert!(!ran.exists(), "{}", outcome.stderr);
    }
}
