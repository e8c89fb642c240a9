//! Names known ahead: what policies deny is asked for, and nothing else.

use std::path::Path;

use firewall::{
    intel::{
        ahead::{Ahead, Fact, MOST_NAMES, Tally},
        organisations::Organisations,
        resolver::Resolver,
    },
    policy::{
        self,
        source::{Disk, Source},
    },
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    harness::{Kind, require_names},
    support::{BAIDU_HK, LIMIT, dns},
};

use super::world::{
    DNS, DROPPED, ELSEWHERE, SINGAPORE, TORN, World, assert_fails, assert_learned, assert_passes,
    denied, zone,
};

/// Upstreams that do not answer do not hear of every name.
#[test]
fn who_answered_last_is_asked_first() {
    if !require_names() {
        return;
    }
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone());
    let silent = world.net.answer_udp(&["10.200.0.1:5301"], |_, _| None);
    let upstreams = ["10.200.0.1:5301", DNS].map(|text| text.parse().unwrap());
    world.net.in_client(|| {
        runtime().block_on(async {
            let resolver = Resolver::new(upstreams.into()).unwrap();
            for name in ["good.example", "shop.example", "shop.example"] {
                let answer = resolver.resolve(name).await.unwrap();
                assert_eq!((answer.upstream, answer.addresses.len()), (1, 1));
            }
        });
    });
    let heard = |name| {
        let name = dns::encode(name);
        let contacts = silent.contacts();
        contacts.iter().any(|one| one.data.windows(name.len()).any(|bytes| bytes == name))
    };
    assert!(heard("good.example"));
    assert!(!heard("shop.example"));
}

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime")
}

#[test]
fn denied_names_are_known_before_any_app_asks() {
    if !require_names() {
        return;
    }
    // A resolver that blocks one of them leads to itself.
    let zone = zone().host("blocked.example", &["10.200.0.1"]);
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone);
    let names = ["hm.baidu.com", "=gator.volces.com", "*.example", "gone.test", "blocked.example"];
    let path = world.deny(&names, "");
    let sources = Source::at(Path::new(&path)).unwrap();
    let (policies, findings) = policy::load(&sources, &Organisations::embedded().unwrap(), &Disk);
    assert!(!findings.has_errors(), "{}", findings.render(false));
    let denied = policy::denied_names(&policies, MOST_NAMES);
    assert_eq!((denied.names.len(), denied.left_out), (4, 0));

    let upstream = DNS.parse().unwrap();
    let (mut facts, tally) = world.net.in_client(|| {
        runtime().block_on(async {
            let mut facts = Vec::new();
            let mut sink = |Fact { name, chain, address, lifetime }: Fact<'_>| {
                facts.push(format!("{name} {chain:?} {address} {}", lifetime.as_secs()));
            };
            let mut ahead = Ahead::new(denied.names, Resolver::new(vec![upstream]).unwrap());
            for _ in names.iter().skip(1) {
                timeout(LIMIT, ahead.learn(&mut sink)).await.expect("an answer in time");
            }
            (facts, ahead.tally)
        })
    });
    facts.sort();
    let want = [
        format!("gator.volces.com [] {SINGAPORE} 300"),
        format!("hm.baidu.com [\"hm.e.shifen.com\"] {BAIDU_HK} 300"),
        "hm.baidu.com [\"hm.e.shifen.com\"] 2001:df1:801::1 300".to_owned(),
    ];
    assert_eq!(facts, want);
    assert_eq!(tally, Tally { found: 3, empty: 1, failed: 0, unused: 1 });
    for name in ["hm.baidu.com", "gator.volces.com", "gone.test", "blocked.example"] {
        assert!(world.names.was_asked(name), "{name}");
    }
    for name in ["good.example", "shop.example", "evilbaidu.com"] {
        world.assert_never_asked(name);
    }
    for name in ["example", "baidu.com", "x.example"] {
        assert!(!world.names.was_asked(name), "{name}");
    }
}

/// An app that asks where nobody sees it: what it has no name of to show is denied at the addresses of
/// denied names.
#[test]
fn who_asks_elsewhere_is_stopped_at_the_address() {
    if !require_names() {
        return;
    }
    let zone = zone().host("neighbour.example", &[SINGAPORE]);
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone);
    let _echo = world.net.echo_tcp(&["[::]:2222"]);
    let policy = world.deny(&["=gator.volces.com", "hm.baidu.com"], "");
    let config = world.file("ahead.toml", "ahead = \"on\"\n");
    let opaque = format!("opaque {SINGAPORE}:2222");
    let udp = format!("udp-sendto {SINGAPORE}:9999");
    let said = format!("tls {SINGAPORE}:443 plain gator.volces.com whole");
    let other = format!("tls {SINGAPORE}:443 plain evilbaidu.com whole");
    let elsewhere = format!("opaque {ELSEWHERE}:2222");
    let asked = "dns 10.200.0.1:53 neighbour.example A";
    // The names are looked up while the command starts.
    let lines = ["sleep 1500", &opaque, &udp, &said, &other, &elsewhere, asked];
    let outcome = world.script(&["--config", &config, "--policy", &policy], &lines);
    assert_fails(&outcome, &opaque, &TORN);
    assert_fails(&outcome, &udp, &DROPPED);
    assert_fails(&outcome, &said, &TORN);
    for line in [&*other, &elsewhere, asked] {
        assert_passes(&outcome, line);
    }
    let event = outcome.denied(SINGAPORE, 2222, "tcp");
    assert_eq!(event["reason"], "ambiguous", "{event}");
    assert_learned(event, "ahead", "ambiguous");
    assert_eq!(event["host"]["name"], "gator.volces.com", "{event}");
    assert_learned(outcome.denied(SINGAPORE, 9999, "udp"), "ahead", "ambiguous");
    assert_learned(denied(&outcome, "tls", "gator.volces.com"), "tls", "confirmed");
    // What it asks for itself stands before what was looked up for everybody.
    let steps = ["sleep 1500", asked, &opaque];
    let outcome = world.script(&["--config", &config, "--policy", &policy], &steps);
    assert_passes(&outcome, &opaque);
    // Without it nobody knows.
    let outcome = world.script(&["--policy", &policy], &[&opaque, &udp]);
    assert_passes(&outcome, &opaque);
    assert_passes(&outcome, &udp);
}
