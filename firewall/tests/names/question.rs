//! The question: names that are denied where they are asked for.

use std::collections::HashSet;

use crate::{
    harness::{Kind, require_names},
    support::{AMAZON, BAIDU_HK, FREE, Outcome},
};

use super::world::{
    DENIED, REFUSED, UNRESOLVED, World, assert_fails, assert_learned, assert_nothing_denied,
    assert_passes, assert_question, assert_rule, curl, denied, zone,
};

const NAMES: [&str; 2] = ["hm.baidu.com", "=gator.volces.com"];

/// What a shell's user would type, for denied names and for such as look like them.
fn script() -> [String; 8] {
    [
        curl("http://hm.baidu.com/"),
        curl("https://HM.Baidu.COM/"),
        curl("https://gator.volces.com/"),
        "exec getent ahosts hm.baidu.com".to_owned(),
        curl("http://evilbaidu.com/"),
        curl("https://evilbaidu.com/"),
        curl("https://shop.example/"),
        "exec getent ahosts evilbaidu.com".to_owned(),
    ]
}

fn run(world: &World, options: &[&str]) -> Outcome {
    let script = script();
    world.script(options, &script.each_ref().map(String::as_str))
}

/// One way to a name server: curl and getent fail at once, nobody hears the name, and what only
/// looks like it is reached.
#[track_caller]
fn check(world: &World, server: &str, proto: &str) {
    let policy = world.deny(&NAMES, "");
    let outcome = run(world, &["--policy", &policy]);
    let script = script();
    for line in &script[..3] {
        assert_fails(&outcome, line, &[UNRESOLVED]);
    }
    assert_fails(&outcome, &script[3], &[2]);
    for line in &script[4..] {
        assert_passes(&outcome, line);
    }
    for name in ["hm.baidu.com", "gator.volces.com"] {
        assert_question(denied(&outcome, "dns", name), name, server, proto);
        world.assert_never_asked(name);
    }
    world.capture.assert_nothing_to(BAIDU_HK);
    assert!(world.names.was_asked("evilbaidu.com"));
    assert!(world.visits(FREE) == 1 && world.heard("Host: evilbaidu.com"));
    let told = outcome.stderr.matches("deny getent -> hm.baidu.com").count();
    assert_eq!(told, 1, "for A and AAAA, with retries: {}", outcome.stderr);
}

/// The same with nothing to deny: every way in this file leads somewhere.
#[test]
fn without_a_rule_everything_is_reached() {
    if !require_names() {
        return;
    }
    for (kind, server, options) in [
        (Kind::Dnsmasq, "10.200.0.1", ""),
        (Kind::Unbound, "10.200.0.1", ""),
        (Kind::Dnsmasq, "fd00:f1e3::1", "use-vc"),
        (Kind::Unbound, "fd00:f1e3::1", "use-vc"),
    ] {
        let world = World::with(kind, &[server], options, &zone());
        let outcome = run(&world, &["--deny", "net:192.0.2.0/24"]);
        for step in &outcome.steps {
            assert_eq!(step.errno, 0, "{kind:?} {server} {options}: {step:?}");
        }
        assert_nothing_denied(&outcome);
        assert!(world.on_the_wire("evilbaidu.com") || options == "use-vc");
        assert!(world.names.was_asked("hm.baidu.com") && world.names.was_asked("evilbaidu.com"));
        assert!(world.heard("Host: hm.baidu.com"));
        assert!(world.visits(BAIDU_HK) + world.visits("2001:df1:801::1") == 2);
    }
}

#[test]
fn by_dnsmasq_over_udp() {
    if require_names() {
        check(&World::new(), "10.200.0.1", "udp");
    }
}

#[test]
fn by_unbound_over_udp() {
    if require_names() {
        let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone());
        check(&world, "10.200.0.1", "udp");
    }
}

#[test]
fn by_dnsmasq_over_tcp() {
    if require_names() {
        let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "use-vc", &zone());
        check(&world, "10.200.0.1", "tcp");
    }
}

#[test]
fn by_unbound_over_tcp_and_ipv6() {
    if require_names() {
        let world = World::with(Kind::Unbound, &["fd00:f1e3::1"], "use-vc", &zone());
        check(&world, "fd00:f1e3::1", "tcp");
    }
}

#[test]
fn by_dnsmasq_over_ipv6() {
    if require_names() {
        let world = World::with(Kind::Dnsmasq, &["fd00:f1e3::1"], "", &zone());
        check(&world, "fd00:f1e3::1", "udp");
    }
}

/// A resolver of this machine asks for whoever it is; the app is judged where it asks it.
#[test]
fn by_a_stub_on_the_loopback() {
    if !require_names() {
        return;
    }
    for (options, proto) in [("", "udp"), ("use-vc", "tcp")] {
        let world = World::with(Kind::Dnsmasq, &["127.0.0.53"], options, &zone());
        let _stub = world.net.stub_resolver("127.0.0.53:53", "10.200.0.1:53");
        check(&world, "127.0.0.53", proto);
    }
}

/// Only what an alias leads to is denied: the question passes, and the addresses do not.
#[test]
fn an_alias_denies_the_addresses_it_leads_to() {
    if !require_names() {
        return;
    }
    for (kind, server, options) in [
        (Kind::Dnsmasq, "10.200.0.1", ""),
        (Kind::Unbound, "fd00:f1e3::1", ""),
        (Kind::Unbound, "10.200.0.1", "use-vc"),
        (Kind::Dnsmasq, "127.0.0.53", ""),
    ] {
        let world = World::with(kind, &[server], options, &zone());
        let stub = (server == "127.0.0.53")
            .then(|| world.net.stub_resolver("127.0.0.53:53", "10.200.0.1:53"));
        let policy = world.deny(&["=hm.e.shifen.com"], "");
        let lines = [
            "exec getent ahosts hm.baidu.com".to_owned(),
            curl("-4 http://hm.baidu.com/"),
            curl("-6 https://HM.baidu.com/"),
            curl("https://hm.e.shifen.com/"),
            curl("http://evilbaidu.com/"),
        ];
        let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
        assert_passes(&outcome, &lines[0]);
        assert_fails(&outcome, &lines[1], &[REFUSED]);
        assert_fails(&outcome, &lines[2], &[REFUSED]);
        assert_fails(&outcome, &lines[3], &[UNRESOLVED]);
        assert_passes(&outcome, &lines[4]);
        for (ip, port) in [(BAIDU_HK, 80), ("2001:df1:801::1", 443)] {
            let event = outcome.denied(ip, port, "tcp");
            assert_rule(event, "hm.e.shifen.com");
            assert_eq!(event["hook"], "connect", "{event}");
            assert_eq!(event["host"]["name"], "hm.baidu.com", "{event}");
            assert_eq!(event["host"]["chain"][0], "hm.e.shifen.com", "{event}");
            assert_learned(event, "dns", "unique");
            world.capture.assert_nothing_to(ip);
        }
        assert_rule(denied(&outcome, "dns", "hm.e.shifen.com"), "hm.e.shifen.com");
        drop(stub);
    }
}

/// A chain of more than one alias, with the denied name in its middle.
#[test]
fn any_name_of_a_chain_denies() {
    if !require_names() {
        return;
    }
    let zone = zone()
        .host("end.example", &[BAIDU_HK])
        .alias("middle.example", "end.example")
        .alias("first.example", "middle.example")
        .alias("start.example", "first.example");
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let policy = world.deny(&["=middle.example"], "");
    let lines = [curl("http://start.example/"), curl("http://evilbaidu.com/")];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    assert_fails(&outcome, &lines[0], &[REFUSED]);
    assert_passes(&outcome, &lines[1]);
    let event = outcome.denied(BAIDU_HK, 80, "tcp");
    assert_rule(event, "middle.example");
    assert_eq!(event["host"]["name"], "start.example", "{event}");
    world.capture.assert_nothing_to(BAIDU_HK);
}

/// A rule with ports says nothing of the question; the ports decide at the address.
#[test]
fn a_rule_with_ports_lets_the_question_pass() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["far.example"], "ports = [\"tcp/443\"]");
    let [secure, plain] = [curl("https://far.example/"), curl("http://far.example/")];
    let outcome = world.script(&["--policy", &policy], &[&secure, &plain]);
    assert_fails(&outcome, &secure, &[REFUSED]);
    assert_passes(&outcome, &plain);
    let event = outcome.denied(AMAZON, 443, "tcp");
    assert_rule(event, "far.example");
    assert_learned(event, "dns", "unique");
}

/// By an option of the command line, and by a file of names.
#[test]
fn a_name_or_a_list_on_the_command_line() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let list = world.file("hosts", "0.0.0.0 hm.baidu.com\n0.0.0.0 tracker.example # seen\n");
    let list = format!("list:{list}");
    let lines = [
        curl("http://gator.volces.com/"),
        curl("http://hm.baidu.com/"),
        curl("http://tracker.example/"),
        curl("http://shop.example/"),
    ];
    let options = ["--deny", "domain:gator.volces.com", "--deny", &list];
    let outcome = world.script(&options, &lines.each_ref().map(String::as_str));
    for line in &lines[..3] {
        assert_fails(&outcome, line, &[UNRESOLVED]);
    }
    assert_passes(&outcome, &lines[3]);
    for (name, rule) in [
        ("gator.volces.com", "--deny domain:gator.volces.com".to_owned()),
        ("hm.baidu.com", format!("--deny {list}")),
        ("tracker.example", format!("--deny {list}")),
    ] {
        let event = denied(&outcome, "dns", name);
        assert_eq!(event["policy"], "command-line", "{event}");
        assert_eq!(event["rule"], rule, "{event}");
        let evidence = event["evidence"][0].as_str().expect("evidence");
        assert!(
            evidence.ends_with(&format!("={name}")) || evidence.ends_with(&format!(":{name}")),
            "{event}"
        );
        world.assert_never_asked(name);
    }
}

/// Observed, every place tells what it would have denied, and nothing is.
#[test]
fn observing_records_and_lets_pass() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com", "=hm.e.shifen.com"], "");
    let lines = [
        curl("-4 https://hm.baidu.com/"),
        curl(&format!("--resolve hm.baidu.com:443:{FREE} https://hm.baidu.com/")),
    ];
    let outcome =
        world.script(&["--policy", &policy, "--observe"], &lines.each_ref().map(String::as_str));
    for line in &lines {
        assert_passes(&outcome, line);
    }
    assert_nothing_denied(&outcome);
    for (hook, ip) in [("dns", "10.200.0.1"), ("tls", BAIDU_HK), ("tls", FREE)] {
        let event = outcome.events.iter().find(|event| {
            event["hook"] == hook && event["dst"]["ip"] == ip && event["action"] == "drop"
        });
        let event = event.unwrap_or_else(|| panic!("{hook} {ip}: {:#?}", outcome.events));
        assert_eq!(event["verdict"], "audit", "{event}");
        assert_eq!(event["mode"], "observe", "{event}");
        assert_eq!(event["host"]["name"], "hm.baidu.com", "{event}");
    }
}

/// No pause between the answer and the first packet: the name is known before the app has it.
#[test]
fn an_address_is_known_before_the_app_has_it() {
    if !require_names() {
        return;
    }
    // Each name and each address is new, so that none can be known from before.
    let mut zone = zone();
    for number in 0..200 {
        zone = zone
            .host(&format!("t{number}.target.example"), &[format!("198.41.30.{number}")])
            .alias(&format!("n{number}.example"), &format!("t{number}.target.example"));
    }
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let policy = world.deny(&["target.example"], "");
    let line = "dns-connect 200 10.200.0.1:53 n*.example 80";
    let outcome = world.script(&["--policy", &policy], &[line]);
    assert_eq!(outcome.errno(line), DENIED[0], "{:#?}", outcome.steps);
    assert_eq!(arrived(&world), 0);
    assert_eq!(world.capture.lost(), 0);
    assert!(world.names.was_asked("n199.example"));
    // The same without the rule: all of them leave.
    let outcome = world.script(&["--deny", "net:192.0.2.0/24"], &[line]);
    assert_passes(&outcome, line);
    assert_eq!(arrived(&world), 200);
}

/// How many of the 200 addresses something arrived for.
fn arrived(world: &World) -> usize {
    let packets = world.capture.packets();
    let to = packets.iter().map(|packet| packet.to.to_string());
    to.filter(|ip| ip.starts_with("198.41.30.")).collect::<HashSet<_>>().len()
}
