//! What must hold of any capture, for the fuzz target and for the tests.

use std::sync::LazyLock;

use firewall::{
    config::Config,
    policy::{
        AppFacts,
        explain::Explainer,
        source::{Content, Disk, Origin, Source},
    },
    replay::{Counted, Replay, Trust},
    set::{Parts, Set, organisations},
};
use firewall_common::name_table::Keys;

const POLICY: &str = "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n\
    to = { domains = [\"tracker.example\"], networks = [\"203.0.113.0/24\"], \
    except = { domains = [\"ok.tracker.example\"] } }\nports = [\"tcp/443\", \"udp/443\"]\n";

static SET: LazyLock<Set> = LazyLock::new(|| {
    let config = Config::default();
    let keys = Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 };
    let origin = Origin::File("p.toml".into());
    let sources = [Source { origin, content: Content::Text(POLICY.into()) }];
    let compiled = Set::compile(Parts {
        settings: config.settings(keys, Vec::new()),
        organisations: organisations(&config, &Disk).expect("organisations"),
        config,
        first: None,
        sources: &sources,
        files: &Disk,
    });
    compiled.expect("a policy")
});

/// Reads any bytes as a capture: the same twice is the same, every verdict is told, and names are
/// harmless. `None` if it is no capture.
pub fn replay(bytes: &[u8]) -> Option<Counted> {
    let (one, other) = (read(bytes), read(bytes));
    assert_eq!(one, other);
    let (counted, flows) = one?;
    assert_eq!(counted.verdicts.iter().sum::<u64>(), flows.len() as u64);
    // A packet has 12 bytes before it at least.
    assert!(counted.packets <= bytes.len() as u64 / 12);
    Some(counted)
}

fn read(bytes: &[u8]) -> Option<(Counted, Vec<String>)> {
    let explainer = Explainer { generation: &SET.generation, intel: &SET.intel };
    let mut flows = Vec::new();
    let replay = Replay::new(explainer, AppFacts::default(), Trust::Everyone);
    let read = replay.run(bytes, &mut |flow| {
        let names = flow.host.iter().flat_map(|host| host.chain.iter().chain([&host.name]));
        assert!(names.flat_map(|name| name.chars()).all(|c| c.is_ascii_graphic() || c == ' '));
        flows.push(format!("{flow:?}"));
        Ok(())
    });
    read.ok().map(|(counted, _)| (counted, flows))
}
