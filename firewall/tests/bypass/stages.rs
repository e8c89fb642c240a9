//! Which probes are tried against which policy, and how the firewall runs.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    address::{Group, Place},
    harness::Net,
    host::{CHINA, Host},
    moments, name,
    probe::{Probe, Trial},
    support::{AMAZON, BAIDU, FREE, client::Step},
    table, trust,
};

/// Each by a thread of its own.
pub const ALL: [fn() -> Vec<Trial>; 10] = [
    country,
    daemon,
    backstop,
    programs,
    moments,
    name::of_names,
    || name::of_quic(0, 3),
    || name::of_quic(1, 3),
    || name::of_quic(2, 3),
    trust::trials,
];

/// What the groups of the table stand for: networks to many, besides what is registered in CN.
pub const COUNTRY: [&str; 8] = [
    "--policy",
    "cn-jurisdiction",
    "--deny",
    "net:239.1.0.0/16",
    "--deny",
    "net:ff15::1:0/112",
    "--deny",
    "net:10.200.0.255/32",
];

fn net() -> Net {
    Net::new(&[BAIDU, FREE, AMAZON])
}

fn by_run(
    place: &Place<'_>,
    (policy, user): (&'static str, &'static str),
    options: &[&str],
    probes: Vec<Probe>,
) -> Vec<Trial> {
    let group = Group { policy, by: "run", user, probes };
    group.trials(place, |script, _| place.run(options, script))
}

fn country() -> Vec<Trial> {
    let net = net();
    let place = Place::of(&net);
    let mut trials = by_run(&place, ("country", "root"), &COUNTRY, table::by_country());
    let as_user = [&COUNTRY[..], &["--user", "nobody"]].concat();
    trials.extend(by_run(&place, ("country", "nobody"), &as_user, table::by_a_user()));
    trials
}

fn daemon() -> Vec<Trial> {
    let probes = table::by_country().into_iter().filter(|probe| probe.by_daemon).collect();
    of_daemon("daemon", "", probes)
}

fn backstop() -> Vec<Trial> {
    of_daemon("backstop", "backstop = \"on\"", table::behind())
}

fn of_daemon(by: &'static str, settings: &str, probes: Vec<Probe>) -> Vec<Trial> {
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", settings);
    host.start();
    let place = Place::of(&host.net);
    let group = Group { policy: "country", by, user: "root", probes };
    group.trials(&place, |script, targets| by_daemon(&host, &place, script, targets))
}

fn by_daemon(
    host: &Host,
    place: &Place<'_>,
    script: &str,
    targets: &[IpAddr],
) -> (Vec<Step>, Vec<Value>) {
    let steps = place.within(&host.cgroup, script);
    (steps, moments::recorded(host, targets))
}

fn moments() -> Vec<Trial> {
    use moments::{inbound, joined, later, moved, namespaces};
    [later(), moved(), namespaces(), inbound(), joined()].concat()
}

fn programs() -> Vec<Trial> {
    let net = net();
    let place = Place::of(&net);
    let mut trials = Vec::new();
    let (program, script) = (place.program.display(), place.file("script"));
    let script = script.display();
    let policies = [
        ("one-app", format!("default = \"drop\"\n{}", rule("allow", &format!("exe:{program}")))),
        ("not-app", rule("drop", &format!("exe:{program}"))),
        ("not-script", rule("drop", &format!("script:{script}"))),
    ];
    let tables = [table::one_program(), table::all_but_one(), table::all_but_a_script()];
    for ((name, rest), probes) in policies.iter().zip(tables) {
        let path = place.file(&format!("{name}.toml"));
        std::fs::write(&path, format!("[policy]\nname = \"{name}\"\n{rest}")).unwrap();
        let options = ["--policy", path.to_str().expect("UTF-8")];
        trials.extend(by_run(&place, (name, "root"), &options, probes));
    }
    trials
}

fn rule(action: &str, app: &str) -> String {
    format!(
        "[[rule]]\nname = \"it\"\naction = \"{action}\"\napps = [\"{app}\"]\n\
         to = {{ networks = [\"110.242.0.0/16\", \"2400:3200::/32\"] }}\n"
    )
}
