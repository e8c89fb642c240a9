//! Whose answers can allow something.

use crate::{
    harness::{Kind, require_names},
    support::{FREE, Outcome},
};

use super::world::{
    CLOSED, DENIED, DNS, DROPPED, ELSEWHERE, OTHER_DNS, TORN, UNRESOLVED, World, assert_fails,
    assert_learned, assert_passes, curl, denied, zone,
};

const ONLY_GOOD: [&str; 4] = ["--default", "drop", "--allow", "domain:good.example"];

#[track_caller]
fn assert_default(outcome: &Outcome, hook: &str, name: &str) {
    let event = denied(outcome, hook, name);
    assert_eq!(event["reason"], "default", "{event}");
    assert_eq!(event["policy"], "command-line", "{event}");
    assert!(event["rule"].is_null(), "{event}");
}

/// Everything is dropped but one name: its question passes, its addresses, and nothing else.
#[test]
fn one_name_is_allowed() {
    if !require_names() {
        return;
    }
    for (server, options) in
        [("10.200.0.1", ""), ("fd00:f1e3::1", ""), ("10.200.0.1", "use-vc"), ("127.0.0.53", "")]
    {
        let world = World::with(Kind::Dnsmasq, &[server], options, &zone());
        let stub = (server == "127.0.0.53")
            .then(|| world.net.stub_resolver("127.0.0.53:53", "10.200.0.1:53"));
        let lines = [
            curl("http://good.example/"),
            curl("https://good.example/"),
            curl("http://bad.example/"),
            "exec getent ahosts shop.example".to_owned(),
            format!("tcp {ELSEWHERE}:80"),
            format!("udp-sendto {FREE}:5000"),
        ];
        let outcome = world.script(&ONLY_GOOD, &lines.each_ref().map(String::as_str));
        assert_passes(&outcome, &lines[0]);
        assert_passes(&outcome, &lines[1]);
        assert_fails(&outcome, &lines[2], &[UNRESOLVED]);
        assert_fails(&outcome, &lines[3], &[2]);
        assert_fails(&outcome, &lines[4], &DENIED);
        assert_default(&outcome, "dns", "bad.example");
        assert_default(&outcome, "dns", "shop.example");
        world.assert_never_asked("bad.example");
        world.assert_never_asked("shop.example");
        world.capture.assert_nothing_to(ELSEWHERE);
        assert_eq!(world.visits(FREE), 2);
        let allowed = outcome
            .events
            .iter()
            .find(|event| event["verdict"] == "allow" && event["dst"]["ip"] == FREE);
        if let Some(event) = allowed {
            assert_eq!(event["host"]["name"], "good.example", "{event}");
            assert_eq!(event["rule"], "--allow domain:good.example", "{event}");
        }
        drop(stub);
    }
}

/// A server that the system does not ask cannot allow: anybody can answer what an app likes.
#[test]
fn an_answer_of_anybody_allows_nothing() {
    if !require_names() {
        return;
    }
    // With the server itself in reach, so that only trust decides.
    let allow_server = [&ONLY_GOOD[..], &["--allow", "net:9.9.9.9"]].concat();
    let world = World::new();
    let asks = format!("dns {OTHER_DNS} good.example A");
    let asks_tcp = format!("dns-tcp {OTHER_DNS} good.example A whole");
    let connect = format!("tcp {FREE}:80");
    let outcome = world.script(&allow_server, &[&asks, &asks_tcp, &connect]);
    assert_passes(&outcome, &asks);
    assert_passes(&outcome, &asks_tcp);
    assert_fails(&outcome, &connect, &DENIED);
    assert_eq!(outcome.denied(FREE, 80, "tcp")["reason"], "default");
    world.capture.assert_nothing_to(FREE);

    // The same question to the system's own server does.
    let asks = "dns 10.200.0.1:53 good.example A";
    let outcome = world.script(&allow_server, &[asks, &connect]);
    assert_passes(&outcome, asks);
    assert_passes(&outcome, &connect);

    // And so does one that is configured.
    let config = world.file("firewall.toml", "resolvers = [\"9.9.9.9\"]\n");
    let asks = format!("dns {OTHER_DNS} good.example A");
    let outcome =
        world.script(&[&ONLY_GOOD[..], &["--config", &config]].concat(), &[&asks, &connect]);
    assert_passes(&outcome, &asks);
    assert_passes(&outcome, &connect);
}

/// To another server no question passes that no rule lets reach it.
#[test]
fn another_server_is_an_address_like_any() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let asks = format!("dns {OTHER_DNS} good.example A");
    let outcome = world.script(&ONLY_GOOD, &[&asks]);
    let errno = outcome.errno(&asks);
    assert!(DENIED.contains(&errno) || DROPPED.contains(&errno), "{errno}");
    world.capture.assert_nothing_to("9.9.9.9");
}

/// A name in a payload can deny; it cannot allow an address that no answer gave for it.
#[test]
fn a_payload_allows_nothing() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let lines = [
        curl(&format!("--resolve good.example:443:{ELSEWHERE} https://good.example/")),
        curl(&format!("-H Host:good.example http://{ELSEWHERE}/")),
    ];
    let outcome = world.script(&ONLY_GOOD, &lines.each_ref().map(String::as_str));
    for line in &lines {
        assert_fails(&outcome, line, &[&CLOSED[..], &[7]].concat());
    }
    assert!(!world.heard("good.example"));
}

/// Nor at an address that is allowed by another name.
#[test]
fn a_payload_allows_nothing_at_the_address_of_another_name() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let both = [&ONLY_GOOD[..], &["--allow", "domain:far.example"]].concat();
    let lines = [
        format!("dns {DNS} good.example A"),
        format!("http {FREE}:80 good.example whole"),
        format!("tls {FREE}:443 plain good.example whole"),
        // Allowed, and elsewhere.
        format!("http {FREE}:80 far.example whole"),
        format!("tls {FREE}:443 plain far.example whole"),
    ];
    let outcome = world.script(&both, &lines.each_ref().map(String::as_str));
    for line in &lines[..3] {
        assert_passes(&outcome, line);
    }
    for line in &lines[3..] {
        assert_fails(&outcome, line, &TORN);
    }
    for hook in ["http", "tls"] {
        assert_default(&outcome, hook, "far.example");
    }
    assert!(world.heard("good.example") && !world.heard("far.example"));
}

/// A denied name is denied whoever answered for it.
#[test]
fn anybody_can_deny() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["far.example"], "ports = [\"tcp/80\"]");
    let asks = format!("dns {OTHER_DNS} far.example AAAA");
    let connect = "tcp [2600:9000::10]:80";
    let outcome = world.script(&["--policy", &policy], &[&asks, connect]);
    assert_passes(&outcome, &asks);
    assert_fails(&outcome, connect, &DENIED);
    assert_learned(outcome.denied("2600:9000::10", 80, "tcp"), "dns", "unique");
}
