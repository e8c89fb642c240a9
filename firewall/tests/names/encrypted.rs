//! The shipped policy `encrypted-dns`: encrypted DNS fails at once, and plain DNS stays.

use std::net::TcpListener;

use crate::{
    harness::{Kind, require_names},
    support::{AMAZON, FREE},
};

use super::world::{
    CLOSED, CLOUDFLARE, DENIED, DNS, DROPPED, OTHER_DNS, UNRESOLVED, World, assert_fails,
    assert_nothing_denied, assert_passes, curl, denied, zone,
};

/// What Firefox asks for before it turns on DNS over HTTPS.
const CANARY: &str = "use-application-dns.net";

#[test]
fn encrypted_dns_fails_at_once_and_plain_dns_passes() {
    if !require_names() {
        return;
    }
    let [v4, v6] = CLOUDFLARE;
    let zone = zone()
        .host(CANARY, &[FREE])
        .host("mask.icloud.com", &[FREE])
        .host("_dns.resolver.arpa", &[FREE])
        .host("cloudflare-dns.com", &[v4]);
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let tls = world.net.listen_tcp(&["[::]:853"]);
    let quic = world.net.listen_udp(&["[::]:853"]);
    let loopback = world.net.in_client(|| TcpListener::bind("127.0.0.1:853")).expect("a socket");

    let connects = [
        (format!("tcp {v4}:443"), "addresses"),
        (format!("tcp [{v6}]:443"), "addresses"),
        (format!("udp-sendto {v4}:443"), "addresses"),
        (format!("udp-connect [{v6}]:443"), "addresses"),
        (format!("tcp {FREE}:853"), "tls-and-quic"),
        (format!("udp-sendto {FREE}:853"), "tls-and-quic"),
        (format!("tcp [{AMAZON}]:853"), "tls-and-quic"),
        (format!("udp-connect [{AMAZON}]:853"), "tls-and-quic"),
    ];
    let questions = [
        (format!("dns {DNS} {CANARY} A"), &DROPPED[..]),
        // The call that browsers make, for both families and for one.
        (format!("exec getent ahosts {CANARY}"), &[2]),
        (format!("exec getent ahostsv4 {CANARY}"), &[2]),
        ("exec getent ahosts mask.icloud.com".to_owned(), &[2]),
        ("exec getent ahosts _dns.resolver.arpa".to_owned(), &[2]),
        (curl("https://cloudflare-dns.com/"), &[UNRESOLVED]),
        // By a name alone, at an address that is nobody's special.
        (
            curl(&format!("--resolve cloudflare-dns.com:443:{FREE} https://cloudflare-dns.com/")),
            &CLOSED,
        ),
    ];
    let plain = [
        format!("dns {DNS} good.example A"),
        // A service that is denied on its other ports.
        format!("dns {OTHER_DNS} good.example A"),
        format!("dns-tcp {OTHER_DNS} good.example A 2"),
        format!("tcp {FREE}:443"),
        curl("https://shop.example/"),
        "exec getent ahosts good.example".to_owned(),
        "tcp 127.0.0.1:853".to_owned(),
    ];
    let lines: Vec<&str> = (connects.iter().map(|(line, _)| line))
        .chain(questions.iter().map(|(line, _)| line))
        .chain(&plain)
        .map(String::as_str)
        .collect();

    // The rule for port 853 names no destination, so its events have no evidence to ask for.
    let script = lines.join("\n");
    let outcome = world.start(&["--policy", "encrypted-dns"]).client(&script);
    outcome.assert_status(0);
    for (line, rule) in &connects {
        assert_fails(&outcome, line, &DENIED);
        let to = line.split_once(' ').expect("a step").1.rsplit_once(':').expect("a port");
        let port = to.1.parse().expect("a number");
        let proto = if line.starts_with("tcp") { "tcp" } else { "udp" };
        let event = outcome.denied(to.0.trim_matches(['[', ']']), port, proto);
        assert_eq!((&event["policy"], &event["rule"]), (&"encrypted-dns".into(), &(*rule).into()));
    }
    for (line, errors) in &questions {
        assert_fails(&outcome, line, errors);
    }
    for line in &plain {
        assert_passes(&outcome, line);
    }
    for (hook, name, rule) in [
        ("dns", CANARY, "canaries"),
        ("dns", "mask.icloud.com", "canaries"),
        ("dns", "_dns.resolver.arpa", "discovery"),
        ("dns", "cloudflare-dns.com", "services"),
        ("tls", "cloudflare-dns.com", "services"),
    ] {
        assert_eq!(denied(&outcome, hook, name)["rule"], rule);
    }
    for name in [CANARY, "mask.icloud.com", "_dns.resolver.arpa"] {
        world.assert_never_asked(name);
    }
    world.capture.assert_nothing_to(v4);
    world.capture.assert_nothing_to(v6);
    assert!(tls.contacts().is_empty() && quic.contacts().is_empty());

    // Without the policy all of it leads somewhere.
    let outcome = world.script(&["--deny", "net:192.0.2.0/24"], &lines);
    for line in lines {
        assert_passes(&outcome, line);
    }
    assert_nothing_denied(&outcome);
    assert!(world.names.was_asked(CANARY) && !tls.contacts().is_empty());
    drop(loopback);
}
