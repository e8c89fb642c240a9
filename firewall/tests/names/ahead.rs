//! Names known ahead: what policies deny is asked for, and nothing else.

use std::path::Path;

use firewall::{
    intel::{
        ahead::{Ahead, Fact, MOST_NAMES, Tally},
        organisations::Organisations,
        resolver::Resolver,
    },
    policy::{self, source::Source},
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    harness::{Kind, require_names},
    support::{BAIDU_HK, LIMIT, dns},
};

use super::world::{DNS, SINGAPORE, World, zone};

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
    let (policies, findings) = policy::load(&sources, &Organisations::embedded().unwrap());
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
