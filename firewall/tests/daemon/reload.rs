//! Generations: what a reload and a rollback do, also where they cannot.

use std::{
    fs,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use aya::maps::{HashMap, Map, MapData};
use firewall::datapath::{plain::Plain, sys};
use firewall_common::{
    flow::Address,
    layout::{ABI_VERSION, AnswerKey, Answers},
};

use crate::{
    harness::{Kind, Zone, require_kernel, require_names, wait_until},
    host::{BROKEN, CHINA, Host, Kept, Server},
    support::{AMAZON, BAIDU, FREE, LIMIT},
};

/// The errors of a socket that was ended, or whose packets are denied.
const DENIED: [i32; 5] =
    [libc::EPERM, libc::ECONNREFUSED, libc::ECONNABORTED, libc::EPIPE, libc::EDESTADDRREQ];

fn deny(networks: &str) -> String {
    format!(
        "[policy]\nname = \"more\"\n[[rule]]\nname = \"those\"\naction = \"drop\"\n\
         to = {{ networks = [{networks}] }}\n"
    )
}

#[test]
fn a_new_policy_holds_for_what_is_open() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    for line in [
        "open udp4 udp 212.27.48.10:81",
        "open udp6 udp [2600:9000::10]:81",
        "say udp4",
        "say udp6",
    ] {
        app.does(line);
    }
    kept.assert_alive(&mut app, &server);
    let denied = deny("\"212.27.48.0/24\", \"2600:9000::/32\"");
    host.set("policies.d/more.toml", &denied);
    let said = host.done(&["reload"]);
    assert!(said.contains("generation 2: 2 policies, 2 rules"), "{said}");
    for name in ["udp4", "udp6"] {
        let errno = app.step(&format!("say {name}"));
        assert!(DENIED.contains(&errno), "{name}: {errno}");
    }
    for name in ["kept4", "kept6"] {
        let errno = app.step(&format!("say-until-ended {name}"));
        assert!(
            [libc::ECONNABORTED, libc::EPIPE, libc::ECONNRESET].contains(&errno),
            "{name}: {errno}"
        );
    }
    assert_eq!(app.step(&format!("tcp {FREE}:80")), libc::ECONNREFUSED);
    for ip in [FREE, AMAZON] {
        assert!(wait_until(LIMIT, || server.datagrams(ip) > 0), "the one of before");
        assert_eq!((server.datagrams(ip), server.bytes(ip)), (1, 5), "{ip}");
    }
    server.assert_untouched();
}

/// Who sends nothing has no packet that could be denied.
#[test]
fn a_new_policy_ends_what_is_open_and_silent() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    kept.assert_alive(&mut app, &server);
    host.set("policies.d/more.toml", &deny("\"212.27.48.0/24\", \"2600:9000::/32\""));
    host.done(&["reload"]);
    for name in ["kept4", "kept6"] {
        let errno = app.step(&format!("listen-until-ended {name}"));
        assert_eq!(errno, libc::ECONNABORTED, "{name}");
    }
    server.assert_untouched();
}

/// A world of names: what is allowed by name alone, and what is denied so.
fn names_outlive(how: impl Fn(&mut Host)) {
    if !require_names() {
        return;
    }
    let mut host = Host::new();
    let zone = Zone::default().host("good.example", &[FREE]).host("bad.example", &[AMAZON]);
    let _names = host.net.serve_names(Kind::Dnsmasq, &zone, &["10.200.0.1:53"]);
    let server = Server::of(&host);
    let policy = |name: &str, deny: &str| {
        format!(
            "[policy]\nname = \"names\"\ndefault = \"drop\"\n\
             [[rule]]\nname = \"bad\"\naction = \"drop\"\nto = {{ domains = [{deny:?}] }}\n\
             [[rule]]\nname = {name:?}\naction = \"allow\"\nto = {{ domains = [\"good.example\"] }}\n\
             [[rule]]\nname = \"six\"\naction = \"allow\"\n\
             to = {{ networks = [\"10.200.0.1\", \"2600:9000::/32\"] }}\n"
        )
    };
    host.set("policies.d/names.toml", &policy("good", "other.example"));
    host.start();
    let mut app = host.app();
    app.does("dns 10.200.0.1:53 good.example A");
    app.does("dns 10.200.0.1:53 bad.example AAAA");
    app.assert_open(&[FREE, AMAZON]);
    assert!(wait_until(LIMIT, || server.datagrams(AMAZON) == 1));

    host.set("policies.d/names.toml", &policy("better", "bad.example"));
    how(&mut host);
    assert_eq!(host.generation(), (2, "policies".to_owned()));
    app.assert_open(&[FREE]);
    assert_eq!(app.step(&format!("tcp [{AMAZON}]:80")), libc::ECONNREFUSED);
    assert_eq!(app.step(&format!("udp-sendto [{AMAZON}]:81")), libc::ECONNREFUSED);
    assert_eq!(server.datagrams(AMAZON), 1);
    assert_eq!(app.step(&format!("tcp {BAIDU}:80")), libc::ECONNREFUSED);
    let event = host.event(|event| event["rule"] == "bad");
    assert_eq!(event["host"]["name"], "bad.example");
    host.event(|event| event["rule"] == "better");
}

#[test]
fn names_that_were_learned_before_count_after_it() {
    names_outlive(|host| drop(host.done(&["reload"])));
}

#[test]
fn names_that_were_learned_before_count_after_a_kill() {
    names_outlive(|host| {
        host.kill(false);
        host.start();
    });
}

/// One app sends to ever new ports of an address that is allowed by name alone, while its names change
/// from one generation to the other and back, as often as that can be.
#[test]
fn names_hold_while_they_are_brought_over() {
    if !require_names() {
        return;
    }
    let mut host = Host::new();
    let zone = Zone::default().host("good.example", &[FREE]);
    let _names = host.net.serve_names(Kind::Dnsmasq, &zone, &["10.200.0.1:53"]);
    let policy = |name: &str| {
        format!(
            "[policy]\nname = \"names\"\ndefault = \"drop\"\n\
             [[rule]]\nname = {name:?}\naction = \"allow\"\nto = {{ domains = [\"good.example\"] }}\n"
        )
    };
    host.set("policies.d/names.toml", &policy("good"));
    host.start();
    let mut app = host.app();
    app.does("dns 10.200.0.1:53 good.example A");
    host.set("policies.d/names.toml", &policy("better"));
    host.done(&["reload"]);

    let mut answers = names_in(&host, "ANSWERS");
    let mut former = names_in(&host, "FORMER");
    let address = Address::from(FREE.parse::<IpAddr>().unwrap());
    let ours = answers.keys().flatten().find(|Plain(key)| key.address == address);
    let key = ours.expect("the name was learned");
    let Plain(now) = answers.get(&key, 0).unwrap();
    assert_eq!(now.generation, 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut changes = 0_u64;
            let (mut one, mut other) = (now, Answers { generation: 1, ..now });
            while !stop.load(Relaxed) {
                // As whoever brings names over does it.
                former.insert(key, Plain(one), 0).unwrap();
                answers.insert(key, Plain(other), 0).unwrap();
                // As between two switches.
                sys::wait_for_programs();
                std::mem::swap(&mut one, &mut other);
                changes += 1;
            }
            changes
        });
        // Below the ports of mDNS, each 50 times.
        let failed = (0..50).find(|_| app.step(&format!("flood 4000 {FREE}:0")) != 0);
        stop.store(true, Relaxed);
        let changes = changes.join().unwrap();
        assert_eq!(failed, None, "after {changes} changes: {:?}", host.events().last());
        assert!(changes > 10, "{changes}");
    });
}

type Names = HashMap<MapData, Plain<AnswerKey>, Plain<Answers>>;

fn names_in(host: &Host, map: &str) -> Names {
    let pin = host.pin.join(format!("v{ABI_VERSION}/maps/{map}"));
    Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap().try_into().unwrap()
}

/// What is wrong changes nothing, is said, and can be mended.
fn refused(file: &str, text: &str, told: &[&str]) {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    host.set(file, text);
    let output = host.ask(&["reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in told {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    let status = host.status();
    assert_eq!(status["state"], "degraded");
    assert!(status["degraded"][0].as_str().unwrap().contains("the last reload failed"), "{status}");
    assert_eq!(status["last_reload"]["done"], false);
    assert_eq!(status["generation"]["number"], 1);
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);

    host.remove(file);
    host.done(&["reload"]);
    let status = host.status();
    assert_eq!(
        (&status["state"], &status["generation"]["number"]),
        (&"enforcing".into(), &2.into())
    );
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();
}

#[test]
fn a_broken_policy_changes_nothing() {
    refused("policies.d/broken.toml", BROKEN, &["broken.toml:3", "perhaps", "`observe`"]);
}

#[test]
fn a_list_that_cannot_be_read_changes_nothing() {
    let text = "[policy]\nname = \"listed\"\n[list.ads]\nfile = \"missing.txt\"\n\
                [[rule]]\nname = \"ads\"\naction = \"drop\"\nto = { lists = [\"ads\"] }\n";
    refused("policies.d/listed.toml", text, &["listed.toml:4", "missing.txt"]);
}

#[test]
fn settings_that_are_wrong_change_nothing() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let _server = Server::of(&host);
    host.set("firewall.toml", "stop = \"perhaps\"\n");
    let output = host.ask(&["reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("firewall.toml:1") && said.contains("perhaps"), "{said}");
    host.app().assert_enforced();
}

#[test]
fn back_and_back_again() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let _server = Server::of(&host);
    let output = host.ask(&["rollback"]);
    assert_eq!(output.status.code(), Some(1), "there is nothing to go back to");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no generation before"), "{output:?}");

    fs::remove_file(host.file("policies.d/china.toml")).unwrap();
    host.set("policies.d/more.toml", &deny("\"212.27.48.0/24\""));
    host.done(&["reload"]);
    let mut app = host.app();
    let there = |app: &mut crate::host::App| {
        [BAIDU, FREE].map(|ip| app.step(&format!("udp-sendto {ip}:81")))
    };
    assert_eq!(there(&mut app), [0, libc::ECONNREFUSED]);
    for (number, expected) in [(3, [libc::ECONNREFUSED, 0]), (4, [0, libc::ECONNREFUSED])] {
        host.done(&["rollback"]);
        assert_eq!(host.generation(), (number, "rollback".to_owned()));
        assert_eq!(host.status()["generation"]["previous"], number - 1);
        assert_eq!(there(&mut app), expected, "generation {number}");
    }
    host.set("policies.d/china.toml", CHINA);
    host.done(&["reload"]);
    assert_eq!(there(&mut app), [libc::ECONNREFUSED; 2]);
}
