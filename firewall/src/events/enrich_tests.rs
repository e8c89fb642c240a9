use std::path::Path;

use firewall_common::{
    evaluate::Outcome,
    event::{Identity, app},
    flow::{TCP, UDP},
};

use super::*;
use crate::{
    cgroup::Hierarchy,
    events::{
        View,
        names::tests::text,
        paths::Paths,
        record::{self, Line},
    },
    intel::Intel,
    policy::{
        self,
        compile::{self, Facts, Generation, Settings},
        source::{Content, Disk, Origin, Source},
    },
};

/// Drops names wherever they lead.
const POLICY: &str = r#"
[policy]
name = "names"
[[rule]]
name = "those"
action = "drop"
to = { domains = ["hm.baidu.com", "=hm.e.shifen.com"] }
"#;

/// Where nothing is known of an address.
const NOWHERE: &str = "192.0.2.7";
/// Where something is.
const SOMEWHERE: &str = "8.8.8.8";

/// Hashes of names.
const TONGJI: u64 = 1;
const ALIASED: u64 = 2;
const TARGET: u64 = 3;
const OTHER: u64 = 4;
const GONE: u64 = 5;

struct World {
    generation: Generation,
    intel: Intel,
    hierarchy: Hierarchy,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let intel = Intel::default();
        let source = Source {
            origin: Origin::File("names.toml".into()),
            content: Content::Text(POLICY.into()),
        };
        let (policies, findings) = policy::load(&[source], intel.organisations().unwrap(), &Disk);
        assert_eq!(findings.render(false), "");
        let facts = Facts { countries: None, asns: None, organisation: &|_| Vec::new() };
        let generation = compile::compile(policies, facts, settings).unwrap();
        Self { generation, intel, hierarchy: Hierarchy::at("/nowhere".into()) }
    }

    fn enricher(&self) -> Enricher<'_> {
        let names = Names::of(|hash| match hash {
            TONGJI => Some(text("hm.baidu.com", &[TARGET])),
            ALIASED => Some(text("stats.example", &[TARGET])),
            TARGET => Some(text("hm.e.shifen.com", &[])),
            OTHER => Some(text("shop.example", &[])),
            _ => None,
        });
        let (executables, scripts, cgroups) =
            (Paths::of(|_| None), Paths::of(|_| None), Paths::of(|_| None));
        let root = Path::new("/nowhere");
        let apps = Apps::of(executables, scripts, cgroups, &self.hierarchy, root);
        Enricher::new(apps, names)
    }

    fn enrich(&self, enricher: &mut Enricher<'_>, event: &FlowEvent) -> Vec<Event> {
        enricher.enrich(event, Some(&self.generation), &self.intel).unwrap()
    }

    fn flow(&self, names: &[&str]) -> Outcome {
        let to = Destination {
            address: address(NOWHERE),
            port: 443,
            protocol: TCP,
            ..Destination::default()
        };
        self.generation.evaluate(0, &to, &self.generation.named(names, true)).unwrap()
    }
}

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn event(hook: Hook, to: &str, outcome: Outcome) -> FlowEvent {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"curl");
    FlowEvent {
        dst: address(to),
        dst_port: if hook == Hook::Dns { 53 } else { 443 },
        protocol: if hook == Hook::Dns { UDP } else { TCP },
        hook: hook as u8,
        verdict: outcome.verdict as u8,
        decision: outcome.decision,
        generation: 1,
        count: 1,
        // A user that nobody has.
        identity: Identity {
            kind: app::PROCESS,
            pid: 7,
            uid: 4_000_000_000,
            comm,
            ..Identity::default()
        },
        ..FlowEvent::default()
    }
}

fn named(event: FlowEvent, name: u64, via: Via, confidence: Confidence) -> FlowEvent {
    FlowEvent { name, via: via as u8, confidence: confidence as u8, ..event }
}

/// As logged, at no time, and broken into pieces to be read.
fn lines(world: &World, enricher: &mut Enricher<'_>, event: &FlowEvent) -> String {
    let events = world.enrich(enricher, event);
    let lines = events.into_iter().map(|event| {
        let line = serde_json::to_string(&Event { time: "T".to_owned(), ..event }).unwrap() + "\n";
        ["reason", "evidence", "hook", "proto", "host", "count"].iter().fold(line, |line, key| {
            let key = format!("\"{key}\":");
            line.replace(&key, &format!("\n  {key}"))
        })
    });
    lines.collect()
}

#[test]
fn what_a_name_is_written_as_has_the_class_of_the_name() {
    let world = World::new();
    let asked = |name: &[u8]| world.generation.question(0, &name.escape_ascii().to_string());
    let plain = asked(b"x.hm.baidu.com");
    assert_ne!(plain, asked(b"x.example"));
    // Of 252 bytes, and of more where it is written.
    for before in [7, b'\\', b'"', 0xff] {
        let name = [&[before; 60][..], b".", &[b'a'; 177], b".hm.baidu.com"].concat();
        assert_eq!(asked(&name), plain, "{}", name.escape_ascii());
    }
}

#[test]
fn an_event_is_seen_as_its_record_is() {
    let world = World::new();
    let outcome = world.flow(&["hm.baidu.com"]);
    let made = FlowEvent {
        count: 3,
        bytes_out: 5,
        bytes_in: 7,
        encrypted_hello: 1,
        ..event(Hook::Tls, SOMEWHERE, outcome)
    };
    let made = named(made, TONGJI, Via::Tls, Confidence::Confirmed);
    let [event] = &world.enrich(&mut world.enricher(), &made)[..] else { panic!() };
    let line = serde_json::to_vec(event).unwrap();
    let Line::Verdict(record) = record::read(&line).unwrap() else { panic!() };
    let view = View::from(event);
    assert_eq!(format!("{view:?}"), format!("{:?}", View::from(&*record)));
    assert!(!view.chain.is_empty() && view.asn.is_some() && view.count == 3, "{view:?}");
}

#[test]
fn a_question_has_a_name_and_no_place() {
    let world = World::new();
    let asked = world.generation.question(0, "hm.baidu.com").unwrap();
    let asked = event(Hook::Dns, SOMEWHERE, asked);
    let asked = named(asked, TONGJI, Via::Dns, Confidence::Confirmed);
    insta::assert_snapshot!(lines(&world, &mut world.enricher(), &asked), @r#"
    {"schema":1,"seq":1,"time":"T","verdict":"deny","mode":"enforce",
      "reason":"rule","action":"drop","policy":"names","rule":"those",
      "evidence":["domain:hm.baidu.com"],
      "hook":"dns","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"udp","dst":{"ip":"8.8.8.8","port":53},
      "host":{"name":"hm.baidu.com","via":"dns","confidence":"confirmed"},
      "count":1,"bytes_out":0,"bytes_in":0}
    "#);
    // The same server as a destination is somewhere.
    let to_it = FlowEvent { hook: Hook::Packet as u8, ..asked };
    assert!(world.enrich(&mut world.enricher(), &to_it)[0].geo.asn.is_some());
}

#[test]
fn an_alias_stands_behind_the_name_that_was_asked_for() {
    let world = World::new();
    let connect = event(Hook::Connect, NOWHERE, world.flow(&["stats.example", "hm.e.shifen.com"]));
    let connect = named(connect, ALIASED, Via::Dns, Confidence::Unique);
    insta::assert_snapshot!(lines(&world, &mut world.enricher(), &connect), @r#"
    {"schema":1,"seq":1,"time":"T","verdict":"deny","mode":"enforce",
      "reason":"rule","action":"drop","policy":"names","rule":"those",
      "evidence":["domain:=hm.e.shifen.com"],
      "hook":"connect","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"tcp","dst":{"ip":"192.0.2.7","port":443},
      "host":{"name":"stats.example","via":"dns","confidence":"unique","chain":["hm.e.shifen.com"]},
      "count":1,"bytes_out":0,"bytes_in":0}
    "#);
}

#[test]
fn a_hello_with_another_inside_shows_the_outer_name() {
    let world = World::new();
    let hello = event(Hook::Tls, NOWHERE, world.flow(&["hm.baidu.com"]));
    let hello = named(hello, TONGJI, Via::Tls, Confidence::Confirmed);
    let hello = FlowEvent { encrypted_hello: 1, ..hello };
    insta::assert_snapshot!(lines(&world, &mut world.enricher(), &hello), @r#"
    {"schema":1,"seq":1,"time":"T","verdict":"deny","mode":"enforce",
      "reason":"rule","action":"drop","policy":"names","rule":"those",
      "evidence":["domain:hm.baidu.com","domain:=hm.e.shifen.com"],
      "hook":"tls","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"tcp","dst":{"ip":"192.0.2.7","port":443},
      "host":{"name":"hm.baidu.com","via":"tls","confidence":"confirmed","encrypted_hello":true,"chain":["hm.e.shifen.com"]},
      "count":1,"bytes_out":0,"bytes_in":0}
    "#);
}

#[test]
fn names_that_differ_are_the_reason() {
    let world = World::new();
    let denied = event(Hook::Packet, NOWHERE, world.flow(&["hm.baidu.com"]));
    let denied = named(denied, TONGJI, Via::Dns, Confidence::Ambiguous);
    let denied = FlowEvent { reason: Reason::Ambiguous as u8, ..denied };
    let passed = FlowEvent { verdict: Verdict::Audit as u8, ..denied };
    // Closed before it said anything.
    let silent = FlowEvent { verdict: Verdict::Allow as u8, ..denied };
    // More names than are kept, and none of those that are is denied.
    let more = FlowEvent { decision: world.flow(&[]).decision, name: OTHER, ..denied };
    let mut enricher = world.enricher();
    let all =
        [denied, passed, silent, more].map(|event| lines(&world, &mut enricher, &event)).concat();
    insta::assert_snapshot!(all, @r#"
    {"schema":1,"seq":1,"time":"T","verdict":"deny","mode":"enforce",
      "reason":"ambiguous","action":"drop","policy":"names","rule":"those",
      "evidence":["domain:hm.baidu.com","domain:=hm.e.shifen.com"],
      "hook":"packet","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"tcp","dst":{"ip":"192.0.2.7","port":443},
      "host":{"name":"hm.baidu.com","via":"dns","confidence":"ambiguous","chain":["hm.e.shifen.com"]},
      "count":1,"bytes_out":0,"bytes_in":0}
    {"schema":1,"seq":2,"time":"T","verdict":"audit","mode":"enforce",
      "reason":"ambiguous","action":"drop","policy":"names","rule":"those",
      "evidence":["domain:hm.baidu.com","domain:=hm.e.shifen.com"],
      "hook":"packet","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"tcp","dst":{"ip":"192.0.2.7","port":443},
      "host":{"name":"hm.baidu.com","via":"dns","confidence":"ambiguous","chain":["hm.e.shifen.com"]},
      "count":1,"bytes_out":0,"bytes_in":0}
    {"schema":1,"seq":3,"time":"T","verdict":"allow","mode":"enforce",
      "reason":"ambiguous","action":"drop","policy":"names","rule":"those",
      "evidence":["domain:hm.baidu.com","domain:=hm.e.shifen.com"],
      "hook":"packet","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"tcp","dst":{"ip":"192.0.2.7","port":443},
      "host":{"name":"hm.baidu.com","via":"dns","confidence":"ambiguous","chain":["hm.e.shifen.com"]},
      "count":1,"bytes_out":0,"bytes_in":0}
    {"schema":1,"seq":4,"time":"T","verdict":"deny","mode":"enforce",
      "reason":"ambiguous",
      "hook":"packet","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"tcp","dst":{"ip":"192.0.2.7","port":443},
      "host":{"name":"shop.example","via":"dns","confidence":"ambiguous"},
      "count":1,"bytes_out":0,"bytes_in":0}
    "#);
}

#[test]
fn observing_what_would_be_denied_for_its_names_is_recorded() {
    let of = |ambiguous| {
        let settings = Settings { observe: true, ambiguous, ..Settings::default() };
        let world = World::with(settings);
        let passed = event(Hook::Packet, NOWHERE, world.flow(&["hm.baidu.com"]));
        let passed = named(passed, TONGJI, Via::Dns, Confidence::Ambiguous);
        let (verdict, reason) = (Verdict::Audit as u8, Reason::Ambiguous as u8);
        let passed = FlowEvent { verdict, reason, ..passed };
        let events = world.enrich(&mut world.enricher(), &passed);
        let line = |event: Event| {
            let Finding { verdict, mode, reason, rule, .. } = event.finding;
            format!("{:?}\n", (verdict, mode, reason, rule))
        };
        events.into_iter().map(line).collect::<String>()
    };
    insta::assert_snapshot!(of(Default::Drop) + &of(Default::Allow), @r#"
    ("audit", "observe", "rule", Some("those"))
    ("audit", "observe", "ambiguous", None)
    ("audit", "observe", "rule", Some("those"))
    ("audit", "enforce", "ambiguous", None)
    "#);
}

#[test]
fn a_question_that_nobody_can_read_has_no_name() {
    let world = World::new();
    let outcome = Outcome { verdict: Verdict::Deny, decision: 0 };
    let broken = event(Hook::Dns, SOMEWHERE, outcome);
    let broken = FlowEvent { reason: Reason::ParseError as u8, ..broken };
    insta::assert_snapshot!(lines(&world, &mut world.enricher(), &broken), @r#"
    {"schema":1,"seq":1,"time":"T","verdict":"deny","mode":"enforce",
      "reason":"parse-error",
      "hook":"dns","app":{"name":"curl","pid":7,"uid":4000000000,"gid":0},
      "proto":"udp","dst":{"ip":"8.8.8.8","port":53},
      "count":1,"bytes_out":0,"bytes_in":0}
    "#);
}

#[test]
fn a_name_that_is_gone_is_counted() {
    let world = World::new();
    let connect = event(Hook::Connect, NOWHERE, world.flow(&["hm.baidu.com"]));
    let connect = named(connect, GONE, Via::Dns, Confidence::Unique);
    let mut enricher = world.enricher();
    let events = world.enrich(&mut enricher, &connect);
    assert_eq!((events[0].host.as_ref(), enricher.missed_names()), (None, 1));
    assert_eq!(events[0].finding.rule.as_deref(), Some("those"));
}

#[test]
fn of_a_generation_that_nobody_knows_no_rule_is_told() {
    let world = World::new();
    let denied = event(Hook::Connect, NOWHERE, world.flow(&["hm.baidu.com"]));
    let unreadable = FlowEvent { reason: Reason::ParseError as u8, ..denied };
    let told = [denied, unreadable].map(|event| {
        let events = world.enricher().enrich(&event, None, &world.intel).unwrap();
        let Finding { verdict, reason, policy, rule, .. } = events[0].finding.clone();
        (verdict, reason, policy, rule)
    });
    let of = |reason| ("deny", reason, None, None);
    assert_eq!(told, [of(UNKNOWN_GENERATION), of("parse-error")]);
}
