//! Ways around: bytes that the receiver sees in another way, answers and aliases of one's own making.

use crate::{
    harness::{Kind, require_names},
    support::{
        BAIDU_HK, FREE,
        dns::{self, hex},
        evasion::framed,
    },
};

use super::world::{
    DENIED, DNS, DROPPED, ELSEWHERE, TORN, World, assert_fails, assert_passes, curl, zone,
};

const ONLY_GOOD: [&str; 6] =
    ["--default", "drop", "--allow", "domain:good.example", "--allow", "net:127.0.0.0/8"];

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// In a namespace of its own an app is root, has any address and answers what it likes: that is no
/// answer of a trusted resolver.
#[test]
fn an_answer_from_a_namespace_of_its_own_allows_nothing() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let own = format!("own-answer {DNS} good.example {BAIDU_HK}");
    let connect = format!("tcp {BAIDU_HK}:80");
    let good = curl("http://good.example/");
    // By its address it can be asked; that makes nobody a resolver.
    let address = format!("net:{}", DNS.trim_end_matches(":53"));
    let arguments = [&ONLY_GOOD[..], &["--allow", &address]].concat();
    let outcome = world.script(&arguments, &[&own, &connect, &good]);
    assert_passes(&outcome, &own);
    assert_fails(&outcome, &connect, &DENIED);
    assert_passes(&outcome, &good);
    world.capture.assert_nothing_to(BAIDU_HK);
}

/// Nor does it there, where the same address is another server.
#[test]
fn an_answer_from_a_namespace_of_its_own_allows_nothing_there() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let send = format!("own-answer-send {DNS} good.example {BAIDU_HK}");
    let address = |of: &str| format!("net:{of}");
    let server = address(DNS.trim_end_matches(":53"));
    let allow_server = [&ONLY_GOOD[..], &["--allow", &server]].concat();
    let outcome = world.script(&allow_server, &[&send]);
    assert_fails(&outcome, &send, &DENIED);
    assert_eq!(outcome.denied(BAIDU_HK, 2001, "udp")["reason"], "default");

    // By its address it is reached there.
    let address = address(BAIDU_HK);
    let outcome = world.script(&[&allow_server[..], &["--allow", &address]].concat(), &[&send]);
    assert_passes(&outcome, &send);
}

/// Who has a zone can name anybody as the target of an HTTPS record, and hint at any address.
#[test]
fn a_hint_beside_the_name_of_another_allows_nothing() {
    if !require_names() {
        return;
    }
    let zone = zone().https("evil.example", "good.example", &[BAIDU_HK]);
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let ask = format!("dns {DNS} evil.example HTTPS");
    let connect = format!("tcp {BAIDU_HK}:80");
    let outcome = world.script(&ONLY_GOOD, &[&ask, &connect]);
    assert_passes(&outcome, &ask);
    assert_fails(&outcome, &connect, &DENIED);
    world.capture.assert_nothing_to(BAIDU_HK);
}

/// An alias of a denied name stays denied though another name has the same address and the payload
/// shows the alias.
#[test]
fn an_alias_is_denied_beside_another_name_of_its_address() {
    if !require_names() {
        return;
    }
    let zone = zone().alias("metrics.example", "tracker.example");
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let policy = world.deny(&["tracker.example"], "");
    let lines = [
        format!("dns {DNS} metrics.example A"),
        format!("dns {DNS} shop.example A"),
        format!("http {FREE}:80 shop.example whole"),
        format!("http {FREE}:80 metrics.example whole"),
    ];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    assert_passes(&outcome, &lines[2]);
    assert_fails(&outcome, &lines[3], &TORN);
    assert!(world.heard("shop.example") && !world.heard("metrics.example"));
}

/// Who receives does not see an urgent byte where it was sent, so a stream with one is another.
#[test]
fn an_urgent_byte_hides_no_name() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["tracker.example"], "");
    let http = hex(get("tracker.example").as_bytes());
    let question = hex(&framed(&dns::question(7, "tracker.example", "A")));
    let lines = [
        format!("urgent 0 {FREE}:80 {http}"),
        // In the name.
        format!("urgent 24 {FREE}:80 {http}"),
        // Behind the length: what is inspected has no questions.
        format!("urgent 2 {DNS} {question}"),
    ];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    assert!(!world.heard("tracker.example"), "a server was told the name");
    world.assert_never_asked("tracker.example");
    for line in &lines {
        assert_fails(&outcome, line, &TORN);
    }
}

/// A socket that was disconnected and connects again starts anew.
#[test]
fn a_socket_can_be_connected_again() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["tracker.example"], "");
    let [good, bad] = ["shop.example", "tracker.example"].map(|host| hex(get(host).as_bytes()));
    let lines = [
        format!("again {FREE}:80 {good} {good}"),
        format!("again {FREE}:80 {good} {bad}"),
        format!("again {ELSEWHERE}:80 {good} {good}"),
    ];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    assert_passes(&outcome, &lines[0]);
    assert_fails(&outcome, &lines[1], &TORN);
    assert_passes(&outcome, &lines[2]);
    assert!(!world.heard("tracker.example"));
}

/// A question in pages that the app can still write to is not what was looked at.
#[test]
fn a_question_in_pages_is_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["tracker.example"], "");
    let [good, bad] = ["another.example", "tracker.example"];
    let [asked, wanted] = [good, bad].map(|name| hex(&dns::question(7, name, "A")));
    let swap = format!("swap {DNS} {asked} {wanted}");
    let outcome = world.script(&["--policy", &policy], &[&swap[..]; 10]);
    assert_fails(&outcome, &swap, &DROPPED);
    world.assert_never_asked(bad);
}
