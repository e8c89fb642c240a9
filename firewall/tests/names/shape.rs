//! The shapes of a question: each is denied as the plain one is, and what nobody can read is
//! denied where a rule by name holds.

use libc::EPERM;

use crate::{
    harness::{Capture, require_names},
    support::dns,
};

use super::world::{
    DNS_V6, DROPPED, TORN, World, assert_fails, assert_nothing_denied, assert_passes,
    assert_question, denied,
};

/// A question for a denied name in this many ways.
#[test]
fn every_way_to_ask_is_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let ways = [
        "dns 10.200.0.1:53 NAME A",
        "dns 10.200.0.1:53 NAME AAAA",
        "dns 10.200.0.1:53 NAME HTTPS",
        "dns [fd00:f1e3::1]:53 NAME A",
        "dns-sendto 10.200.0.1:53 NAME A",
        "dns-sendto [fd00:f1e3::1]:53 NAME A",
        "dns-from 5333 10.200.0.1:53 NAME A",
        "dns-from 53 10.200.0.1:53 NAME A",
        "dns-from 443 [fd00:f1e3::1]:53 NAME A",
        "dns-edns 10.200.0.1:53 NAME A",
        "dns-edns [fd00:f1e3::1]:53 NAME AAAA",
        "dns-more 10.200.0.1:53 NAME",
        "dns-segments 10.200.0.1:53 NAME other.exampl",
        "dns-segments 10.200.0.1:53 other.exampl NAME",
        "dns-mmsg 10.200.0.1:53 other.exampl NAME",
        // Nobody asked for is trusted: to whom a question goes makes no difference.
        "dns 9.9.9.9:53 NAME A",
    ];
    let mut lines = Vec::new();
    for name in ["hm.baidu.com", "HM.Baidu.COM"] {
        lines.extend(ways.map(|way| way.replace("NAME", name)));
    }
    let script: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &lines {
        assert_fails(&outcome, line, &DROPPED);
    }
    world.assert_never_asked("hm.baidu.com");
    let event = denied(&outcome, "dns", "hm.baidu.com");
    assert_question(event, "hm.baidu.com", "10.200.0.1", "udp");
    for server in ["fd00:f1e3::1", "9.9.9.9"] {
        let event = outcome.denied(server, 53, "udp");
        assert_question(event, "hm.baidu.com", server, "udp");
    }

    // The same ways for a name that is not denied.
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let ways: Vec<String> = ways
        .iter()
        // Put together by the kernel, it is in pages, and what is in pages can still change.
        .filter(|way| !way.starts_with("dns-more"))
        .map(|way| way.replace("NAME", "evilbaidu.com").replace("other.exampl", "ok.volces.com"))
        .map(|way| if way.ends_with("HTTPS") { way.replace("HTTPS", "AAAA") } else { way })
        .collect();
    let script: Vec<&str> = ways.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &ways {
        assert_passes(&outcome, line);
    }
    assert_nothing_denied(&outcome);
}

/// Over TCP, cut in the length, in the header and in the name.
#[test]
fn a_question_over_tcp_in_pieces_is_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let mut lines = Vec::new();
    for server in ["10.200.0.1:53", DNS_V6] {
        for cuts in ["whole", "1", "2", "1,2,3", "14", "16", "20", "1,2,14,15,16,17,18,19,20,21"] {
            for name in ["hm.baidu.com", "x.HM.baidu.com", "evilbaidu.com"] {
                lines.push(format!("dns-tcp {server} {name} A {cuts}"));
            }
        }
    }
    lines.push("dns-tcp-two 10.200.0.1:53 evilbaidu.com hm.baidu.com".to_owned());
    lines.push("dns-tcp-two 10.200.0.1:53 evilbaidu.com shop.example".to_owned());
    let script: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &lines {
        if line.contains("hm.") || line.contains("HM.") {
            assert_fails(&outcome, line, &TORN);
        } else {
            assert_passes(&outcome, line);
        }
    }
    world.assert_never_asked("hm.baidu.com");
    world.assert_never_asked("x.hm.baidu.com");
    for server in ["10.200.0.1", "fd00:f1e3::1"] {
        let event = outcome.denied(server, 53, "tcp");
        assert_question(event, "hm.baidu.com", server, "tcp");
    }
    denied(&outcome, "dns", "x.hm.baidu.com");
}

/// Further ports are configured; without that they are like any other.
#[test]
fn the_ports_are_configured() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let sink = world.net.listen_udp(&["10.200.0.1:5300"]);
    let config = world.file("firewall.toml", "dns_ports = [53, 5300]\n");
    let question = dns::hex(&dns::question(7, "hm.baidu.com", "A"));
    let line = format!("dns-hex 10.200.0.1:5300 {question}");
    let outcome = world.script(&["--policy", &policy, "--config", &config], &[&line]);
    assert_fails(&outcome, &line, &DROPPED);
    let event = denied(&outcome, "dns", "hm.baidu.com");
    assert_eq!(event["dst"]["port"], 5300, "{event}");
    assert!(sink.contacts().is_empty());
    let outcome = world.script(&["--policy", &policy], &[&line]);
    assert_passes(&outcome, &line);
    assert_eq!(sink.contacts().len(), 1);
}

/// Several questions in one message: one that is denied is enough.
#[test]
fn several_questions_are_all_judged() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let of = |names: &[&str]| {
        let rest: Vec<u8> =
            names.iter().flat_map(|name| [dns::encode(name), vec![0, 1, 0, 1]].concat()).collect();
        let count = u16::try_from(names.len()).expect("few");
        format!("dns-hex 10.200.0.1:53 {}", dns::hex(&dns::message(9, count, &rest)))
    };
    // The second name ends where a pointer leads: in the first, behind its first label.
    let tail = [0, 1, 0, 1];
    let first = dns::encode("www.baidu.com");
    let pointed = [&first[..], &tail, &[2, b'h', b'm', 0xc0, 16], &tail].concat();
    let denied_ones = [
        format!("dns-hex 10.200.0.1:53 {}", dns::hex(&dns::message(9, 2, &pointed))),
        of(&["evilbaidu.com", "hm.baidu.com"]),
        of(&["hm.baidu.com", "evilbaidu.com"]),
        of(&["evilbaidu.com", "good.example", "x.hm.baidu.com"]),
    ];
    let fine = of(&["evilbaidu.com", "good.example"]);
    let script: Vec<&str> = denied_ones.iter().chain([&fine]).map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &denied_ones {
        assert_fails(&outcome, line, &DROPPED);
    }
    assert_passes(&outcome, &fine);
    assert!(!world.on_the_wire("www.baidu.com"));
    assert!(!world.on_the_wire("hm.baidu.com") && world.on_the_wire("good.example"));
}

/// Messages that cannot be read, with a word for each.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let tail = [0, 1, 0, 1];
    let question = |name: &[u8]| dns::message(3, 1, &[name, &tail].concat());
    let long: Vec<u8> =
        (0..6).flat_map(|_| [vec![50], vec![b'a'; 50]].concat()).chain([0]).collect();
    vec![
        ("a pointer to itself", question(&[0xc0, 12])),
        ("a loop of two pointers", question(&[1, b'a', 0xc0, 12])),
        ("a pointer past the end", question(&[0xc0, 200])),
        ("a label of a reserved kind", question(&[0x80, 0])),
        ("a label of 64 bytes", question(&[&[64][..], &[b'a'; 64], &[0]].concat())),
        ("a name of more than 255 bytes", question(&long)),
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("half a header", dns::message(3, 1, &[])[..7].to_vec()),
        ("a header alone", dns::message(3, 1, &[])),
        ("a name without an end", dns::message(3, 1, &[3, b'a', b'b', b'c'])),
        ("a label that goes past the end", dns::message(3, 1, &[60, b'a'])),
        ("a question without its type", dns::message(3, 1, &dns::encode("evilbaidu.com"))),
        (
            "fewer questions than it says",
            dns::message(3, 5, &[&dns::encode("a.b")[..], &tail].concat()),
        ),
        ("a name with a zero in a label", dns::question(3, "hm\\0.baidu.com", "A")),
        ("a name with a dot in a label", dns::question(3, "hm\\.baidu.com", "A")),
    ]
}

#[track_caller]
fn datagrams(capture: &Capture) -> usize {
    capture.to("10.200.0.1").iter().filter(|packet| packet.protocol == 17).count()
}

#[test]
fn what_cannot_be_read_is_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let lines: Vec<(&str, String)> = broken()
        .into_iter()
        .map(|(what, bytes)| (what, format!("dns-hex 10.200.0.1:53 {}", dns::hex(&bytes))))
        .collect();
    let script: Vec<&str> = lines.iter().map(|line| line.1.as_str()).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for (what, line) in &lines {
        assert_eq!(outcome.errno(line), EPERM, "{what}: {:#?}", outcome.events);
    }
    assert_eq!(datagrams(&world.capture), 0);
    let events: Vec<_> =
        outcome.events.iter().filter(|event| event["reason"] == "parse-error").collect();
    let count: u64 = events.iter().filter_map(|event| event["count"].as_u64()).sum();
    assert_eq!(count, lines.len() as u64, "{events:#?}");
    for event in events {
        assert_eq!(event["hook"], "dns", "{event}");
        assert_eq!(event["verdict"], "deny", "{event}");
        assert_eq!(event["dst"]["ip"], "10.200.0.1", "{event}");
    }

    // It passes where that is configured, and is recorded.
    let config = world.file("firewall.toml", "unparsable = \"allow\"\n");
    world.capture.clear();
    let outcome = world.script(&["--policy", &policy, "--config", &config], &script);
    for (what, line) in &lines {
        assert_eq!(outcome.errno(line), 0, "{what}: {:#?}", outcome.events);
    }
    assert_eq!(datagrams(&world.capture), lines.len());
    assert_nothing_denied(&outcome);
    let event = outcome.find("audit", "10.200.0.1", 53, "udp").expect("an audit");
    assert_eq!(event["reason"], "parse-error", "{event}");

    // And where no rule is by name, nobody looks.
    world.capture.clear();
    let outcome = world.script(&["--deny", "net:192.0.2.0/24"], &script);
    assert!(outcome.steps.iter().all(|step| step.errno == 0), "{:#?}", outcome.steps);
    assert_eq!(datagrams(&world.capture), lines.len());
}

/// The longest names there can be are read: 255 bytes, labels of 63.
#[test]
fn the_longest_names_are_judged() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    // 3 labels of 63, and one that fills up to 253 characters.
    let label = "a".repeat(63);
    let below = format!("{label}.{label}.{label}.{}.hm.baidu.com", "b".repeat(253 - 3 * 64 - 13));
    let beside = format!("{label}.{label}.{label}.{}.evilbaidu.com", "b".repeat(253 - 3 * 64 - 14));
    let many = format!("{}hm.baidu.com", "a.".repeat(120));
    assert_eq!((dns::encode(&below).len(), dns::encode(&many).len()), (255, 254));
    let lines = [&below, &many, &beside]
        .map(|name| format!("dns-hex 10.200.0.1:53 {}", dns::hex(&dns::question(5, name, "A"))));
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    assert_fails(&outcome, &lines[0], &DROPPED);
    assert_fails(&outcome, &lines[1], &DROPPED);
    assert_passes(&outcome, &lines[2]);
    for name in [&below, &many] {
        assert_eq!(denied(&outcome, "dns", name)["reason"], "rule");
    }
}

/// Questions to everybody on the link are seen, and pass but for names that a rule has.
#[test]
fn questions_to_the_link_pass() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["secret.local", "secret"], "");
    let question = |name| dns::hex(&dns::question(0, name, "A"));
    let mut lines = Vec::new();
    for place in ["224.0.0.251:5353", "224.0.0.252:5355"] {
        lines.push((format!("dns-hex {place} {}", question("printer.local")), 0));
        lines.push((format!("dns-hex {place} {}", question("secret.local")), EPERM));
    }
    let script: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for (line, errno) in &lines {
        assert_eq!(outcome.errno(line), *errno, "{line}: {:#?}", outcome.events);
    }
    assert!(world.on_the_wire("printer.local") && !world.on_the_wire("secret.local"));
    for (ip, port) in [("224.0.0.251", 5353), ("224.0.0.252", 5355)] {
        assert_eq!(world.capture.to(ip).len(), 1);
        let event = outcome.denied(ip, port, "udp");
        assert_eq!(event["hook"], "dns", "{event}");
        assert_eq!(event["host"]["name"], "secret.local", "{event}");
    }
}
