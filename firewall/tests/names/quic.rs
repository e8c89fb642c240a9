//! QUIC: the name that a connection begins with, however it is sent.

use libc::{EPERM, ETIMEDOUT};
use serde_json::Value;

use crate::{
    harness::{Kind, Listener, require_names},
    support::{AMAZON, FREE, LIMIT, Outcome, left_behind, quic_client},
};

use super::world::{
    DROPPED, ELSEWHERE, SINGAPORE, World, assert_learned, assert_nothing_denied, assert_passes,
    assert_rule, denied, zone,
};

/// A server of QUIC, as far as a firewall can tell.
fn serve(world: &World, on: &[&str]) -> Listener {
    world.net.answer_udp(on, |datagram, _| quic_client::answer(datagram))
}

/// Long headers that arrived at an address.
fn begun(server: &Listener, ip: &str) -> usize {
    let of = server.contacts().into_iter();
    of.filter(|one| one.to.ip().to_string() == ip && one.data[0] >= 0x80).count()
}

#[track_caller]
fn assert_dropped(outcome: &Outcome, line: &str) {
    let errno = outcome.errno(line);
    assert!([EPERM, ETIMEDOUT].contains(&errno), "{line}: {errno}\n{:#?}", outcome.events);
}

#[test]
fn a_denied_name_never_arrives() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443", "[::]:8443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let mut lines = Vec::new();
    for version in ["v1", "v2"] {
        for shape in
            ["whole", "large", "reversed", "crumbs", "at-once", "behind", "grease", "unfixed"]
        {
            lines.push(format!("quic {ELSEWHERE}:443 {version} {shape} hm.baidu.com"));
        }
        lines.push(format!("quic [{AMAZON}]:443 {version} reversed HM.Baidu.com"));
        lines.push(format!("quic {ELSEWHERE}:8443 {version} whole www.hm.baidu.com"));
    }
    lines.push(format!("quic {ELSEWHERE}:443 v1 connected hm.baidu.com"));
    lines.push(format!("quic {ELSEWHERE}:443 v1 errors hm.baidu.com"));
    let steps: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &steps);
    for line in steps {
        // What is held back is dropped without a word; what is denied is not.
        assert_eq!(outcome.errno(line), DROPPED[0], "{line}: {:#?}", outcome.events);
    }
    assert_eq!(begun(&server, ELSEWHERE) + begun(&server, AMAZON), 0, "{:?}", server.contacts());
    let event = denied(&outcome, "quic", "hm.baidu.com");
    assert_rule(event, "hm.baidu.com");
    assert_learned(event, "quic", "confirmed");
    assert_eq!(event["proto"], "udp", "{event}");
    assert_eq!(event["dst"]["port"], 443, "{event}");
    denied(&outcome, "quic", "www.hm.baidu.com");
    let first = outcome.events.iter().filter(|event| event["hook"] == "quic").count();
    assert!(first >= 20, "each connection is recorded: {first} {}", outcome.stderr);
}

#[test]
fn another_name_arrives_with_its_first_resend() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let mut lines = Vec::new();
    for version in ["v1", "v2"] {
        for shape in [
            "whole",
            "large",
            "reversed",
            "crumbs",
            "at-once",
            "grease",
            "unfixed",
            "connected",
            "errors",
        ] {
            lines.push(format!("quic {ELSEWHERE}:443 {version} {shape} evilbaidu.com"));
        }
        lines.push(format!("quic [{AMAZON}]:443 {version} reversed evilbaidu.com"));
    }
    let steps: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &steps);
    for line in steps {
        assert_passes(&outcome, line);
    }
    assert!(begun(&server, ELSEWHERE) >= 16);
    assert_nothing_denied(&outcome);
}

/// Chromium, as it was recorded: a post-quantum hello in two datagrams, and again after a while.
#[test]
fn a_real_browser_is_judged() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let line = format!("quic-recorded {ELSEWHERE}:443 chromium");
    let policy = world.deny(&["baidu.com"], "");
    let outcome = world.script(&["--policy", &policy], &[&line]);
    assert_eq!(outcome.errno(&line), EPERM, "{:#?}", outcome.events);
    assert_rule(denied(&outcome, "quic", "hm.baidu.com"), "baidu.com");
    assert_eq!(begun(&server, ELSEWHERE), 0);

    let policy = world.deny(&["evilbaidu.com"], "");
    let outcome = world.script(&["--policy", &policy], &[&line]);
    assert_passes(&outcome, &line);
    assert_eq!(begun(&server, ELSEWHERE), 2, "what it sent again");
}

#[test]
fn each_connection_of_a_socket_is_judged() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let two = format!("quic-two {ELSEWHERE}:443 v1 evilbaidu.com hm.baidu.com");
    let good = format!("quic-two {SINGAPORE}:443 v2 evilbaidu.com good.example");
    let outcome = world.script(&["--policy", &policy], &[&two, &good]);
    assert_eq!(outcome.errno(&two), EPERM, "{:#?}", outcome.events);
    denied(&outcome, "quic", "hm.baidu.com");
    assert_passes(&outcome, &good);
    let data = server.contacts();
    assert!(data.iter().any(|one| one.data.starts_with(&[0x41])), "the first went on: {data:?}");
}

#[test]
fn who_says_another_name_later_does_not_get_far() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let swap = format!("quic-swap {ELSEWHERE}:443 v1 evilbaidu.com hm.baidu.com");
    let outcome = world.script(&["--policy", &policy], &[&swap]);
    assert_dropped(&outcome, &swap);
    let reasons: Vec<&Value> =
        outcome.events.iter().filter(|e| e["hook"] == "quic").map(|e| &e["reason"]).collect();
    assert!(reasons.iter().any(|reason| *reason == "parse-error"), "{:#?}", outcome.events);
    let contacts = server.contacts();
    assert!(!contacts.iter().any(|one| one.data.starts_with(&[0x41])), "{contacts:?}");
}

/// Whether an Initial to one of the client's ids arrived.
fn has_begun(server: &Listener, connection: u8) -> bool {
    server.contacts().iter().any(|one| one.data[0] >= 0x80 && one.data.get(6) == Some(&connection))
}

#[test]
fn a_denied_connection_does_not_pass_beside_another() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let line = format!("quic-smuggle {ELSEWHERE}:443 v1 hm.baidu.com evilbaidu.com");
    let outcome = world.script(&["--policy", &policy], &[&line]);
    assert_dropped(&outcome, &line);
    assert!(has_begun(&server, 2), "the one that passes");
    assert!(!has_begun(&server, 1), "{:?}", server.contacts());
}

#[test]
fn what_another_connection_says_opens_no_flow_that_is_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let line = format!("quic-reopen {ELSEWHERE}:443 v1 evilbaidu.com hm.baidu.com");
    let outcome = world.script(&["--policy", &policy], &[&line]);
    assert_dropped(&outcome, &line);
    assert!(!has_begun(&server, 3), "{:?}", server.contacts());
}

/// To the socket that hears it, what a server answers is an Initial that nothing went before.
#[test]
fn an_answer_is_no_connection_from_outside() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let line = format!("quic-lure {ELSEWHERE}:443 v1 evilbaidu.com hm.baidu.com");
    let outcome = world.script(&["--policy", &policy], &[&line]);
    assert_dropped(&outcome, &line);
    assert!(has_begun(&server, 1), "the one that passes");
    assert!(!has_begun(&server, 2), "{:?}", server.contacts());
}

#[test]
fn what_shows_no_name() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let _server = serve(&world, &["[::]:443", "[::]:4433"]);
    let policy = world.deny(&["tracker.example"], "");
    let opaque = format!("quic-opaque {ELSEWHERE}:443");
    let none = format!("quic {ELSEWHERE}:443 v1 whole -");
    let version = format!("quic-version {ELSEWHERE}:443");
    let elsewhere = format!("quic-version {ELSEWHERE}:4433");
    let steps = [&*opaque, &none, &version, &elsewhere];
    let outcome = world.script(&["--policy", &policy], &steps);
    for line in [&opaque, &none, &elsewhere] {
        assert_passes(&outcome, line);
    }
    assert_eq!(outcome.errno(&version), EPERM, "{:#?}", outcome.events);
    let event = outcome.denied(ELSEWHERE, 443, "udp");
    assert_eq!((&event["hook"], &event["reason"]), (&"quic".into(), &"parse-error".into()));
}

#[test]
fn an_address_with_several_names_waits_for_the_hello() {
    if !require_names() {
        return;
    }
    // The question for bad.example is denied, so its address comes from an alias.
    let zone = zone().alias("odd.example", "bad.example");
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let _server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["=bad.example"], "");
    let asked = ["dns 10.200.0.1:53 shop.example A", "dns 10.200.0.1:53 odd.example A"];
    let shop = format!("quic {FREE}:443 v1 large shop.example");
    let opaque = format!("quic-opaque {FREE}:443");
    let odd = format!("quic {FREE}:443 v1 whole odd.example");
    let outcome = world.script(&["--policy", &policy], &[asked[0], asked[1], &shop, &opaque, &odd]);
    assert_passes(&outcome, &shop);
    assert_eq!(outcome.errno(&opaque), EPERM, "{:#?}", outcome.events);
    assert_eq!(outcome.errno(&odd), EPERM, "an alias of a denied name: {:#?}", outcome.events);
    let event = outcome.denied(FREE, 443, "udp");
    assert_eq!(event["reason"], "ambiguous", "{event}");
}

#[test]
fn it_can_be_blocked_or_let_through() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let good = format!("quic {ELSEWHERE}:443 v2 whole evilbaidu.com");
    let bad = format!("quic {ELSEWHERE}:443 v1 whole hm.baidu.com");
    let config = world.file("block.toml", "quic = \"block\"\n");
    let outcome = world.script(&["--config", &config, "--policy", &policy], &[&good, &bad]);
    for line in [&good, &bad] {
        assert_eq!(outcome.errno(line), EPERM, "{:#?}", outcome.events);
    }
    let event = outcome.denied(ELSEWHERE, 443, "udp");
    assert_eq!((&event["hook"], &event["reason"]), (&"quic".into(), &"quic".into()), "{event}");
    assert!(event["host"].is_null(), "{event}");
    assert_eq!(begun(&server, ELSEWHERE), 0);

    let config = world.file("allow.toml", "quic = \"allow\"\n");
    let outcome = world.script(&["--config", &config, "--policy", &policy], &[&good, &bad]);
    for line in [&good, &bad] {
        assert_passes(&outcome, line);
    }
}

#[test]
fn who_only_observes_holds_nothing_back() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let bad = format!("quic {ELSEWHERE}:443 v1 whole hm.baidu.com");
    let outcome = world.script(&["--observe", "--policy", &policy], &[&bad]);
    assert_passes(&outcome, &bad);
    assert_eq!(begun(&server, ELSEWHERE), 3, "nothing was sent again: {:?}", server.contacts());
    let event = outcome.find("audit", ELSEWHERE, 443, "udp").expect("an event");
    assert_eq!(event["host"]["name"], "hm.baidu.com", "{event}");
    assert_eq!(event["mode"], "observe", "{event}");
    // Of what no rule names it is told where it goes, too.
    let outcome = world.script(&["--policy", "watch-everything"], &[&bad]);
    assert_passes(&outcome, &bad);
    let event = outcome.find("audit", ELSEWHERE, 443, "udp").expect("an event");
    assert_learned(event, "quic", "confirmed");
    assert_eq!(event["host"]["name"], "hm.baidu.com", "{event}");
    let quic = outcome.events.iter().filter(|event| event["dst"]["port"] == 443).count();
    assert_eq!(quic, 1, "told once: {:#?}", outcome.events);
    // Also of another connection of the same socket.
    let two = format!("quic-two {ELSEWHERE}:443 v1 good.example hm.baidu.com");
    let outcome = world.script(&["--policy", "watch-everything"], &[&two]);
    assert_passes(&outcome, &two);
    let names = outcome.events.iter().filter(|event| event["hook"] == "quic");
    let names: Vec<&Value> = names.map(|event| &event["host"]["name"]).collect();
    assert_eq!(names, ["good.example", "hm.baidu.com"], "{:#?}", outcome.events);
    // And of one that never says its whole name.
    let half = format!("quic-half {ELSEWHERE}:443 v1 hm.baidu.com");
    let outcome = world.script(&["--policy", "watch-everything"], &[&half]);
    assert_passes(&outcome, &half);
    let event = outcome.find("audit", ELSEWHERE, 443, "udp").expect("an event");
    assert!(event["host"].is_null(), "{event}");
}

#[test]
fn a_server_answers() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let serve = "quic-serve 10.200.0.2:4433";
    let run = world.start(&["--policy", &policy]).start_client(&format!("sleep 1\n{serve}"));
    run.wait_for_step("sleep 1");
    let got = world.net.in_server(|| {
        let socket = std::net::UdpSocket::bind("10.200.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("an option");
        let hello = crate::support::hello::client_hello("plain", "hm.baidu.com");
        let datagram = crate::support::quic::hello(1, &[1; 8], &hello[5..]);
        let mut got = 0;
        for _ in 0..10 {
            socket.send_to(&datagram, "10.200.0.2:4433").expect("sending");
            if let Ok(len) = socket.recv(&mut [0; 2048]) {
                got = len;
                break;
            }
        }
        got
    });
    let outcome = run.end();
    assert_passes(&outcome, serve);
    assert!(got > 1000, "{got}");
}

#[test]
fn without_a_reader_it_is_as_configured() {
    if !require_names() {
        return;
    }
    for (setting, passes) in [("block", false), ("allow", true)] {
        let world = World::new();
        let server = serve(&world, &["[::]:443"]);
        let policy = world.deny(&["hm.baidu.com"], "");
        let config = world.file("config.toml", &format!("quic_unattended = \"{setting}\"\n"));
        let before = format!("quic {ELSEWHERE}:443 v1 whole evilbaidu.com");
        let after = format!("quic {SINGAPORE}:443 v1 whole evilbaidu.com");
        let lines = [&before, "sleep 7000", &after];
        let mut run = world
            .start(&["--config", &config, "--policy", &policy])
            .start_client(&lines.join("\n"));
        run.wait_for_step(&before);
        run.child.kill().expect("killing our own child");
        run.child.wait().expect("waiting for it");
        let pid = run.pid();
        run.wait_for_step(&after);
        let outcome = run.end();
        assert_passes(&outcome, &before);
        if passes {
            assert_passes(&outcome, &after);
            assert!(begun(&server, SINGAPORE) > 0);
        } else {
            assert_eq!(outcome.errno(&after), EPERM, "{:#?}", outcome.events);
            assert_eq!(begun(&server, SINGAPORE), 0);
        }
        let cleared = crate::harness::wait_until(LIMIT, || {
            world.start(&[]).program(&["true"]).assert_status(0);
            left_behind(pid).is_empty()
        });
        assert!(cleared, "{:?}", left_behind(pid));
    }
}

#[test]
fn a_flood_changes_nothing_for_others() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = serve(&world, &["[::]:443"]);
    let policy = world.deny(&["hm.baidu.com"], "");
    let flood = format!("quic-flood 1 200000 {SINGAPORE}:443");
    let good = format!("quic {ELSEWHERE}:443 v1 large evilbaidu.com");
    let bad = format!("quic {ELSEWHERE}:443 v1 large hm.baidu.com");
    // Both programs are the same app, so that they have their share of one budget.
    let lines = format!("{flood}\n{good}\n{bad}");
    let outcome = world.script(&["--policy", &policy], &lines.lines().collect::<Vec<_>>());
    assert_passes(&outcome, &flood);
    assert_passes(&outcome, &good);
    assert_eq!(outcome.errno(&bad), EPERM);
    assert_eq!(begun(&server, SINGAPORE), 0, "none of the flood arrived");
    denied(&outcome, "quic", "hm.baidu.com");
}
