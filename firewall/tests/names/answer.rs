//! The answer: which ones are believed, and what they tie to a name.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crate::{
    harness::{Kind, require_names},
    support::{AMAZON, BAIDU_HK, FREE, dns},
};

use super::world::{
    DENIED, ELSEWHERE, REFUSED, World, assert_fails, assert_learned, assert_nothing_denied,
    assert_passes, assert_rule, curl, zone,
};

/// Addresses in HTTPS records lead to the name as those in A and AAAA do.
#[test]
fn hints_are_addresses_of_their_name() {
    if !require_names() {
        return;
    }
    let zone = zone()
        .https("hint.example", ".", &[BAIDU_HK, "2001:df1:801::1"])
        .https("front.example", "back.example", &[FREE, AMAZON])
        .https("clean.example", ".", &[ELSEWHERE]);
    for kind in [Kind::Dnsmasq, Kind::Unbound] {
        let world = World::with(kind, &["10.200.0.1"], "", &zone);
        // With ports, so that the questions pass.
        let policy = world.deny(&["hint.example", "back.example"], "ports = [\"tcp/1-65535\"]");
        let lines = [
            "dns 10.200.0.1:53 hint.example HTTPS",
            &format!("tcp {BAIDU_HK}:80"),
            "tcp [2001:df1:801::1]:80",
            // Denied is the target, which the record names.
            "dns 10.200.0.1:53 front.example HTTPS",
            &format!("tcp {FREE}:80"),
            &format!("tcp [{AMAZON}]:80"),
            "dns 10.200.0.1:53 clean.example HTTPS",
            &format!("tcp {ELSEWHERE}:80"),
        ];
        let outcome = world.script(&["--policy", &policy], &lines);
        for at in [0, 3, 6, 7] {
            assert_passes(&outcome, lines[at]);
        }
        for at in [1, 2, 4, 5] {
            assert_fails(&outcome, lines[at], &DENIED);
        }
        for (ip, name, denied) in [
            (BAIDU_HK, "hint.example", "hint.example"),
            ("2001:df1:801::1", "hint.example", "hint.example"),
            (FREE, "front.example", "back.example"),
            (AMAZON, "front.example", "back.example"),
        ] {
            let event = outcome.denied(ip, 80, "tcp");
            assert_rule(event, denied);
            assert_eq!(event["hook"], "connect", "{event}");
            assert_eq!(event["host"]["name"], name, "{event}");
            assert_learned(event, "dns", "unique");
            world.capture.assert_nothing_to(ip);
        }
    }
}

/// Before the question, the address is nobody's; after it, it is the name's. By TCP as well.
#[test]
fn an_address_is_tied_when_it_was_asked_for() {
    if !require_names() {
        return;
    }
    for ask in [
        "dns 10.200.0.1:53 far.example AAAA",
        "dns-sendto 10.200.0.1:53 FAR.Example AAAA",
        "dns-from 5333 10.200.0.1:53 far.example AAAA",
        "dns-edns [fd00:f1e3::1]:53 far.example AAAA",
        "dns-tcp 10.200.0.1:53 far.example AAAA whole",
        "dns-tcp [fd00:f1e3::1]:53 far.example AAAA 1",
        "dns-tcp 10.200.0.1:53 far.example AAAA 2,9,18",
    ] {
        let world = World::new();
        let policy = world.deny(&["far.example"], "ports = [\"tcp/443\"]");
        let [before, after] = [format!("tcp [{AMAZON}]:80"), format!("tcp [{AMAZON}]:443")];
        let outcome = world.script(&["--policy", &policy], &[&before, ask, &after]);
        assert_passes(&outcome, &before);
        assert_passes(&outcome, ask);
        assert_fails(&outcome, &after, &DENIED);
        let event = outcome.denied(AMAZON, 443, "tcp");
        assert_rule(event, "far.example");
        assert_eq!(event["host"]["name"], "far.example", "{event}");
        assert_learned(event, "dns", "unique");
    }
}

/// Every address of an answer is tied, the last as the first.
#[test]
fn all_addresses_of_an_answer_are_tied() {
    if !require_names() {
        return;
    }
    let addresses: Vec<String> = (1..=16).map(|number| format!("198.41.31.{number}")).collect();
    let zone =
        zone().host("many.target.example", &addresses).alias("many.example", "many.target.example");
    for (kind, ask) in [
        (Kind::Dnsmasq, "dns 10.200.0.1:53 many.example A"),
        (Kind::Unbound, "dns-edns 10.200.0.1:53 many.example A"),
        (Kind::Dnsmasq, "dns-tcp 10.200.0.1:53 many.example A whole"),
        (Kind::Unbound, "dns-tcp [fd00:f1e3::1]:53 many.example A 1"),
    ] {
        let world = World::with(kind, &["10.200.0.1"], "", &zone);
        let policy = world.deny(&["=many.target.example"], "");
        let connects: Vec<String> = addresses.iter().map(|ip| format!("tcp {ip}:80")).collect();
        let script: Vec<&str> =
            [ask].into_iter().chain(connects.iter().map(String::as_str)).collect();
        let outcome = world.script(&["--policy", &policy], &script);
        assert_passes(&outcome, ask);
        for (line, ip) in connects.iter().zip(&addresses) {
            assert_fails(&outcome, line, &DENIED);
            assert_rule(outcome.denied(ip, 80, "tcp"), "many.target.example");
        }
    }
}

/// What a server that is no server sends on a question.
#[derive(Clone, Copy)]
enum Lie {
    /// The right answer, to show that it would be believed.
    None,
    /// From the right address and another port.
    Port,
    /// From another address and the right port.
    Address,
    /// From the right place, with another transaction.
    Transaction,
    /// From the right place, to a question that nobody asked.
    Question,
}

/// An answer counts only if it is one to a question of this app: all that others send is not
/// believed, and an address in it belongs to nobody.
#[test]
fn answers_that_nobody_asked_for_are_not_believed() {
    if !require_names() {
        return;
    }
    // Not a server that is asked, so that a real one answers nothing here.
    const LIAR: &str = "1.64.0.1";
    for (lie, name, is_believed) in [
        (Lie::None, "victim.example", true),
        (Lie::Port, "victim.example", false),
        (Lie::Address, "victim.example", false),
        (Lie::Transaction, "victim.example", false),
        (Lie::Question, "good.example", false),
    ] {
        let world = World::new();
        world.net.server.ip(&[format!("addr add {LIAR}/32 dev lo")]);
        let elsewhere = match lie {
            Lie::Port => Some((LIAR, 5301)),
            Lie::Address => Some((FREE, 53)),
            _ => None,
        };
        let other = elsewhere.map(|place| {
            Arc::new(world.net.in_server(|| UdpSocket::bind(place).expect("binding")))
        });
        let to: Ipv4Addr = ELSEWHERE.parse().expect("an address");
        let liar = world.net.answer_udp(&[&format!("{LIAR}:53")], move |question, from| {
            let id = u16::from_be_bytes([question[0], question[1]]);
            let id = if matches!(lie, Lie::Transaction) { id ^ 1 } else { id };
            let answer = dns::forged(id, "victim.example", to);
            match &other {
                Some(other) => {
                    other.send_to(&answer, from).expect("sending");
                    None
                }
                None => Some(answer),
            }
        });
        let policy = world.deny(&["victim.example"], "ports = [\"tcp/80\"]");
        let lines =
            [format!("dns-listen 5310 {LIAR}:53 {name} 300 1"), format!("tcp {ELSEWHERE}:80")];
        let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
        assert!(!liar.contacts().is_empty(), "the question arrived");
        assert_passes(&outcome, &lines[0]);
        if is_believed {
            assert_fails(&outcome, &lines[1], &DENIED);
        } else {
            assert_passes(&outcome, &lines[1]);
            assert_nothing_denied(&outcome);
        }
    }
}

/// A packet out of nowhere, from a name server's port to a socket that asked something else.
#[test]
fn an_answer_out_of_nowhere_is_not_believed() {
    if !require_names() {
        return;
    }
    let world = World::new();
    world.net.server.ip(&["addr add 1.64.0.1/32 dev lo"]);
    let stranger = world.net.in_server(|| UdpSocket::bind(("1.64.0.1", 53)).expect("binding"));
    let policy = world.deny(&["victim.example"], "ports = [\"tcp/80\"]");
    let connect = format!("tcp {ELSEWHERE}:80");
    let listen = "dns-listen 5310 10.200.0.1:53 good.example 600 2";
    let run = world.start(&["--policy", &policy]).start_client(&format!("{listen}\n{connect}"));
    let to: Ipv4Addr = ELSEWHERE.parse().expect("an address");
    // For as long as it takes: the app listens for a part of that time.
    for id in 0..100 {
        let answer = dns::forged(id, "victim.example", to);
        stranger.send_to(&answer, ("10.200.0.2", 5310)).expect("sending");
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = run.end();
    outcome.assert_status(0);
    assert_passes(&outcome, listen);
    assert_passes(&outcome, &connect);
    assert_nothing_denied(&outcome);
}

/// A name of one app does not reach to the addresses that it had nothing to do with.
#[test]
fn a_neighbour_of_a_denied_address_is_reached() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["=hm.e.shifen.com"], "");
    let lines =
        [curl("-4 http://hm.baidu.com/"), format!("tcp {ELSEWHERE}:80"), format!("tcp {FREE}:80")];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    assert_fails(&outcome, &lines[0], &[REFUSED]);
    assert_passes(&outcome, &lines[1]);
    assert_passes(&outcome, &lines[2]);
}
