//! The payload: names that show in TLS and HTTP, where the address says too little or nothing.

use libc::{EAGAIN, ETIMEDOUT};

use crate::{
    harness::{Kind, require_names},
    support::{AMAZON, FREE, dns::hex},
};

use super::world::{
    AT_ONCE, CLOSED, ELSEWHERE, SINGAPORE, TORN, UNRESOLVED, World, assert_fails, assert_learned,
    assert_nothing_denied, assert_passes, assert_rule, curl, denied, zone,
};

/// curl's last word on proxies: they are for everything but this.
const BY_PROXY: &str = "--noproxy nothing.invalid";

/// Two names at one address, one of them denied. Which it is shows in the payload alone.
#[test]
fn a_shared_address_is_decided_by_the_payload() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["tracker.example"], "");
    let pinned =
        format!("--resolve tracker.example:443:{FREE} --resolve tracker.example:80:{FREE}");
    let lines = [
        curl("https://shop.example/"),
        curl("http://shop.example/"),
        curl(&format!("{pinned} https://tracker.example/")),
        curl(&format!("{pinned} http://tracker.example/")),
        // The name that was asked for is allowed, the one in the payload is not.
        curl("-H Host:tracker.example http://shop.example/"),
        curl("https://tracker.example/"),
        curl("https://shop.example/?again"),
    ];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    for line in [&lines[0], &lines[1], &lines[6]] {
        assert_passes(&outcome, line);
    }
    for line in &lines[2..5] {
        assert_fails(&outcome, line, &CLOSED);
    }
    assert_fails(&outcome, &lines[5], &[UNRESOLVED]);
    for hook in ["tls", "http"] {
        let event = denied(&outcome, hook, "tracker.example");
        assert_rule(event, "tracker.example");
        assert_learned(event, hook, "confirmed");
        assert_eq!(event["dst"]["ip"], FREE, "{event}");
        assert_eq!(event["proto"], "tcp", "{event}");
    }
    assert!(world.heard("shop.example") && !world.heard("tracker.example"));
}

/// No name was asked for: what the payload says can deny, whatever the address.
#[test]
fn the_right_name_at_another_address_is_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let lines = [
        curl(&format!("--resolve hm.baidu.com:443:{ELSEWHERE} https://hm.baidu.com/")),
        curl(&format!("--resolve HM.BAIDU.COM:80:{ELSEWHERE} http://HM.BAIDU.COM/")),
        curl(&format!("--resolve hm.baidu.com:443:[{AMAZON}] https://hm.baidu.com/")),
        // The target of a request to a proxy is a whole URL, and is what counts.
        curl(&format!("{BY_PROXY} -x http://{ELSEWHERE}:80 http://hm.baidu.com/")),
        curl(&format!("{BY_PROXY} -x http://{ELSEWHERE}:80 http://www.hm.baidu.com:80/path")),
        curl(&format!("{BY_PROXY} -x http://{ELSEWHERE}:80 http://evilbaidu.com/")),
        curl(&format!("--resolve evilbaidu.com:443:{FREE} https://evilbaidu.com/")),
        curl(&format!("https://{ELSEWHERE}/")),
    ];
    let outcome = world.script(&["--policy", &policy], &lines.each_ref().map(String::as_str));
    for line in &lines[..5] {
        assert_fails(&outcome, line, &CLOSED);
    }
    for line in &lines[5..] {
        assert_passes(&outcome, line);
    }
    for (hook, ip) in [("tls", ELSEWHERE), ("http", ELSEWHERE), ("tls", AMAZON)] {
        let found = outcome.events.iter().find(|event| {
            event["verdict"] == "deny" && event["hook"] == hook && event["dst"]["ip"] == ip
        });
        let event = found.unwrap_or_else(|| panic!("{hook} {ip}: {:#?}", outcome.events));
        assert_rule(event, "hm.baidu.com");
        assert_eq!(event["host"]["name"], "hm.baidu.com", "{event}");
        assert_learned(event, hook, "confirmed");
    }
    denied(&outcome, "http", "www.hm.baidu.com");
    assert!(!world.heard("hm.baidu.com") && !world.heard("HM.BAIDU.COM"));
    assert!(world.heard("GET http://evilbaidu.com/"));
}

/// The ways in which the first bytes can be cut: each byte of the header, the name in its middle.
const CUTS: [&str; 6] = ["whole", "1", "1,2,3,4,5,6", "5", "120", "hundreds"];

#[test]
fn a_client_hello_in_pieces_is_read() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let mut lines = Vec::new();
    for form in ["plain", "grease", "large", "ech"] {
        for cuts in CUTS {
            for name in ["hm.baidu.com", "Stats.HM.Baidu.com", "evilbaidu.com"] {
                // Each to a port of its own would need a listener each; the address is enough.
                lines.push(format!("tls {ELSEWHERE}:443 {form} {name} {cuts}"));
            }
        }
    }
    let script: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &lines {
        if line.contains("evilbaidu") {
            assert_passes(&outcome, line);
        } else {
            assert_fails(&outcome, line, &TORN);
        }
    }
    for name in ["hm.baidu.com", "stats.hm.baidu.com"] {
        let event = denied(&outcome, "tls", name);
        assert_rule(event, "hm.baidu.com");
        assert_learned(event, "tls", "confirmed");
    }
    // Of a denied hello the server has at most what came before the name was whole.
    for contact in world.https.contacts() {
        let text = String::from_utf8_lossy(&contact.data).to_lowercase();
        assert!(!text.contains("hm.baidu.com"), "{contact:?}");
    }
}

#[test]
fn a_request_in_pieces_is_read() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let mut lines = Vec::new();
    for cuts in ["whole", "1", "4", "16", "20", "25", "1,2,3,20,21,22,23"] {
        for host in ["hm.baidu.com", "HM.BAIDU.COM:80", "hm.baidu.com.", "evilbaidu.com"] {
            lines.push(format!("http {ELSEWHERE}:80 {host} {cuts}"));
        }
        // Not every server looks at the target before the header (RFC 9112, section 3.2.2).
        lines.push(format!(
            "http-absolute {ELSEWHERE}:80 http://hm.baidu.com/x evilbaidu.com {cuts}"
        ));
    }
    let script: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &lines {
        if line.starts_with("http ") && line.contains("evilbaidu") {
            assert_passes(&outcome, line);
        } else {
            assert_fails(&outcome, line, &TORN);
        }
    }
    let event = denied(&outcome, "http", "hm.baidu.com");
    assert_rule(event, "hm.baidu.com");
    assert_learned(event, "http", "confirmed");
}

/// The made-up hellos and requests are such as a server answers.
#[test]
fn without_a_rule_every_payload_is_answered() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let _echo = world.net.echo_tcp(&["[::]:2222"]);
    let mut lines = vec![
        format!("opaque {FREE}:2222"),
        format!("http {ELSEWHERE}:80 hm.baidu.com 20"),
        format!("http-absolute {ELSEWHERE}:80 http://hm.baidu.com/x evilbaidu.com whole"),
        curl(&format!("{BY_PROXY} -x http://{ELSEWHERE}:80 http://hm.baidu.com/")),
    ];
    for form in ["plain", "grease", "large", "ech"] {
        lines.extend(CUTS.map(|cuts| format!("tls {ELSEWHERE}:443 {form} hm.baidu.com {cuts}")));
    }
    let script: Vec<&str> = lines.iter().map(String::as_str).collect();
    let outcome = world.script(&["--deny", "net:192.0.2.0/24"], &script);
    for line in &lines {
        assert_passes(&outcome, line);
    }
    assert_nothing_denied(&outcome);
    assert!(world.heard("GET http://hm.baidu.com/ HTTP"));
    assert!(world.https.contacts().iter().any(|one| {
        let text = String::from_utf8_lossy(&one.data);
        text.contains("hm.baidu.com")
    }));
}

/// An address with an allowed and a denied name, and a protocol that shows none.
#[test]
fn what_shows_no_name_is_ambiguous() {
    if !require_names() {
        return;
    }
    for (setting, passes) in
        [("", false), ("ambiguous = \"deny\"", false), ("ambiguous = \"allow\"", true)]
    {
        let world = World::new();
        let _echo = world.net.echo_tcp(&["[::]:2222"]);
        let config = world.file("firewall.toml", setting);
        // With ports, so that the question passes.
        let policy = world.deny(&["bad.example"], "ports = [\"tcp/1-65535\"]");
        let opaque = format!("opaque {FREE}:2222");
        let script = [
            "dns 10.200.0.1:53 good.example A",
            "dns 10.200.0.1:53 bad.example A",
            &opaque,
            &format!("tls {FREE}:443 plain good.example whole"),
            &format!("tls {FREE}:443 plain bad.example whole"),
            &format!("http {FREE}:80 good.example whole"),
            &format!("http {FREE}:80 bad.example whole"),
        ];
        let outcome = world.script(&["--policy", &policy, "--config", &config], &script);
        if passes {
            assert_passes(&outcome, &opaque);
        } else {
            assert_fails(&outcome, &opaque, &TORN);
            let found = outcome.find("deny", FREE, 2222, "tcp");
            let event = found.unwrap_or_else(|| panic!("{:#?}", outcome.events));
            assert_eq!(event["host"]["confidence"], "ambiguous", "{event}");
            assert_eq!(event["host"]["via"], "dns", "{event}");
        }
        assert_passes(&outcome, script[3]);
        assert_fails(&outcome, script[4], &TORN);
        assert_passes(&outcome, script[5]);
        assert_fails(&outcome, script[6], &TORN);
        assert_learned(denied(&outcome, "tls", "bad.example"), "tls", "confirmed");
        assert_learned(denied(&outcome, "http", "bad.example"), "http", "confirmed");
    }
}

/// Many names at one address: none pushes another out.
#[test]
fn an_address_has_a_set_of_names() {
    if !require_names() {
        return;
    }
    let mut zone = zone();
    for number in 0..12 {
        zone = zone.host(&format!("n{number}.example"), &[FREE]);
    }
    let world = World::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone);
    let _echo = world.net.echo_tcp(&["[::]:2222"]);
    let policy = world.deny(&["n0.example"], "ports = [\"tcp/1-65535\"]");
    let asked: Vec<String> =
        (0..12).map(|number| format!("dns 10.200.0.1:53 n{number}.example A")).collect();
    let [opaque, good, bad] = [
        format!("opaque {FREE}:2222"),
        format!("tls {FREE}:443 plain n11.example whole"),
        format!("tls {FREE}:443 plain n0.example whole"),
    ];
    let mut script: Vec<&str> = asked.iter().map(String::as_str).collect();
    script.extend([opaque.as_str(), &good, &bad]);
    let outcome = world.script(&["--policy", &policy], &script);
    for line in &asked {
        assert_passes(&outcome, line);
    }
    assert_fails(&outcome, &opaque, &TORN);
    assert_passes(&outcome, &good);
    assert_fails(&outcome, &bad, &TORN);
}

/// Requests that servers take for HTTP/1.1 with this host.
#[test]
fn requests_that_servers_read_in_another_way_are_denied() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["tracker.example"], "");
    let plain = "GET / HTTP/1.1\r\nHost: tracker.example\r\n\r\n";
    let long = format!("/ HTTP/1.1\r\n{}", format!("X: {}\r\n", "a".repeat(4000)).repeat(5));
    for request in [
        // nginx and Python take two digits of the minor version.
        plain.replace("1.1", "1.01"),
        // nginx goes past any number of empty lines.
        format!("{}{plain}", "\r\n".repeat(9)),
        // Node.js and Python look at `Host` alone.
        plain.replace("GET /", "GET http://shop.example/"),
        plain.replace("GET /", "GET http://[::1]/"),
        // nginx takes four buffers of 8 KiB.
        plain.replace("/ HTTP/1.1\r\n", &long),
        // Node.js reads headers behind any version, and behind none.
        plain.replace("1.1", "2.0"),
        plain.replace(" HTTP/1.1", ""),
        // Python takes any white space.
        plain.replace("/ H", "/\u{b}H"),
        plain.replace("GET", "A_METHOD-THAT-IS-LONGER-THAN-THE-OTHERS"),
    ] {
        let line = format!("bytes {FREE}:80 {}", hex(request.as_bytes()));
        let outcome = world.script(&["--policy", &policy], &[&line]);
        assert!(!world.heard("tracker.example"), "{}", &request[..request.len().min(60)]);
        assert_fails(&outcome, &line, &TORN);
    }
}

/// The server chooses by the second hello.
#[test]
fn a_second_hello_is_read_too() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["tracker.example"], "");
    let [other, same, bad] = ["another.example", "shop.example", "tracker.example"]
        .map(|second| format!("two-hellos {FREE}:443 shop.example {second}"));
    let outcome = world.script(&["--policy", &policy], &[&same]);
    assert_passes(&outcome, &same);
    let shown = outcome.events.iter().filter(|event| event["hook"] == "tls");
    assert_eq!(shown.count(), 1, "{:#?}", outcome.events);
    let outcome = world.script(&["--policy", &policy], &[&other, &bad]);
    assert_passes(&outcome, &other);
    assert_fails(&outcome, &bad, &TORN);
    assert_rule(denied(&outcome, "tls", "tracker.example"), "tracker.example");
    assert!(world.heard("another.example") && !world.heard("tracker.example"));
}

/// A denied flow ends for the app, instead of hanging until somebody gives up.
#[test]
fn a_denied_flow_does_not_hang() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let line = format!("tls {ELSEWHERE}:443 plain hm.baidu.com whole");
    let outcome = world.script(&["--policy", &policy], &[&line]);
    let step = outcome.step(&line);
    assert!(![0, EAGAIN, ETIMEDOUT].contains(&step.errno), "{step:?}");
    assert!(step.took < AT_ONCE, "{step:?}");
}

/// Where no rule has a name, every event has the best one that is known all the same.
#[test]
fn events_have_names_that_no_verdict_needed() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let shown = format!("tls {ELSEWHERE}:443 grease evilbaidu.com 100");
    let request = format!("http {ELSEWHERE}:80 good.example whole");
    let garbled = format!("http-absolute {ELSEWHERE}:80 http://a.example/x b.example whole");
    let asked = "dns 10.200.0.1:53 gator.volces.com A";
    let denied = format!("tcp {SINGAPORE}:443");
    let lines = [&*shown, &request, &garbled, asked, &denied];
    let outcome = world.script(&["--deny", &format!("net:{SINGAPORE}/32")], &lines);
    for line in &lines[..4] {
        assert_passes(&outcome, line);
    }
    let of = |port: u16, name: &str| {
        let mut events = outcome.on(ELSEWHERE).into_iter();
        let is = |event: &&serde_json::Value| {
            event["dst"]["port"] == port && event["host"]["name"] == name
        };
        events.find(is).unwrap_or_else(|| panic!("no {name}: {:#?}", outcome.events))
    };
    assert_learned(of(443, "evilbaidu.com"), "tls", "confirmed");
    assert_learned(of(80, "good.example"), "http", "confirmed");
    let event = outcome.denied(SINGAPORE, 443, "tcp");
    assert_eq!(event["hook"], "connect", "{event}");
    assert_eq!(event["host"]["name"], "gator.volces.com", "{event}");
    assert_learned(event, "dns", "unique");
}
