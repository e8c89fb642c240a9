//! From a kernel event to one that can be read on its own.

use std::{collections::HashMap, sync::Arc};

use firewall_common::{
    event::FlowEvent,
    flow::{Address, Destination, has_ports},
    verdict::{Confidence, Hook, Reason, Verdict, Via},
};
use jiff::{Timestamp, tz::TimeZone};
use nix::time::{ClockId, clock_gettime};

use super::{
    App, CLOSE, Endpoint, Event, Host, SCHEMA, apps::Apps, filter::facts, names::Names,
    protocol_word,
};
use crate::{
    intel::{self, Intel},
    policy::{
        AppFacts, Default, Mode,
        compile::Generation,
        evidence::Data,
        explain::{self, Explainer, Finding, Geo},
    },
};

/// The reason of a verdict by a generation that is not known any more: by which rule cannot be said.
pub const UNKNOWN_GENERATION: &str = "unknown-generation";

/// The generations that decisions are of.
pub trait Generations {
    /// The one of that number, if it is known.
    fn of(&self, number: u32) -> Option<&Generation>;
}

/// All decisions are of one.
impl Generations for Generation {
    fn of(&self, _: u32) -> Option<&Generation> {
        Some(self)
    }
}

/// Adds names to numbers.
pub struct Enricher<'a> {
    apps: Apps<'a>,
    names: Names,
    geo: HashMap<Address, Geo>,
    seq: u64,
}

/// Addresses whose country and owner are remembered.
const MAX_GEO: usize = 4096;

impl<'a> Enricher<'a> {
    /// For events of apps and names that are kept.
    pub fn new(apps: Apps<'a>, names: Names) -> Self {
        Self { apps, names, geo: HashMap::new(), seq: 0 }
    }

    /// The next event has the number after this one.
    pub const fn going_on_from(mut self, last: u64) -> Self {
        self.seq = last;
        self
    }

    /// The tables of countries and owners are others now.
    pub fn forget_places(&mut self) {
        self.geo.clear();
    }

    /// The events that an event of the kernel stands for: one for each policy that would have
    /// dropped the flow, and the verdict.
    pub fn enrich(
        &mut self,
        event: &FlowEvent,
        generation: Option<&Generation>,
        intel: &Intel,
    ) -> Result<Vec<Event>, intel::Error> {
        let time = wall_clock(event.time);
        let hook = Hook::from_wire(event.hook).unwrap_or(Hook::Packet);
        let app = self.apps.app(&event.identity);
        let asks = hook == Hook::Dns;
        // Nothing was decided: it is about what went over the flow.
        let moved = event.count == 0;
        // Where the resolver is says nothing of what is asked for.
        let geo = if asks && !moved { Geo::default() } else { self.geo(event.dst, intel)? };
        let mut names = if event.name == 0 { Vec::new() } else { self.names.find(event.name) };
        if asks {
            // What the name is an alias of is not known yet, whatever an answer said before.
            names.truncate(1);
        }
        let mut findings = match generation {
            Some(generation) => {
                findings(event, Explainer { generation, intel }, hook, &names, &app)?
            }
            None => vec![of_unknown_generation(event)],
        };
        if moved {
            // Once, however many policies observe.
            findings.drain(..findings.len().saturating_sub(1));
        }
        // The bytes went to the resolver, and not where the name that was asked for leads.
        let host = if asks && moved { None } else { host(event, names) };
        let (bytes_out, bytes_in) = if moved { (event.bytes_out, event.bytes_in) } else { (0, 0) };
        let endpoint = |address: Address, port: u16| Endpoint {
            ip: address.into(),
            port: has_ports(event.protocol).then_some(port),
        };
        Ok(findings
            .into_iter()
            .map(|finding| {
                self.seq += 1;
                Event {
                    schema: SCHEMA,
                    seq: self.seq,
                    time: time.clone(),
                    finding,
                    hook: if event.closed == 0 { hook.word() } else { CLOSE },
                    app: Arc::clone(&app),
                    proto: protocol_word(event.protocol),
                    src: (event.src != Address::default())
                        .then(|| endpoint(event.src, event.src_port)),
                    dst: endpoint(event.dst, event.dst_port),
                    host: host.clone(),
                    geo: geo.clone(),
                    count: event.count,
                    bytes_out,
                    bytes_in,
                }
            })
            .collect())
    }

    /// How often a name was not known any more when its event was read.
    pub const fn missed_names(&self) -> u64 {
        self.names.missed
    }

    /// Files about apps that could not be read or understood.
    pub const fn unreadable(&self) -> u64 {
        self.apps.unreadable()
    }

    fn geo(&mut self, address: Address, intel: &Intel) -> Result<Geo, intel::Error> {
        if let Some(geo) = self.geo.get(&address) {
            return Ok(geo.clone());
        }
        let geo = explain::geo(intel, address)?;
        if self.geo.len() >= MAX_GEO {
            self.geo.clear();
        }
        self.geo.insert(address, geo.clone());
        Ok(geo)
    }
}

fn findings(
    event: &FlowEvent,
    explainer: Explainer<'_>,
    hook: Hook,
    names: &[String],
    app: &App,
) -> Result<Vec<Finding>, intel::Error> {
    let destination = Destination {
        address: event.dst,
        port: event.dst_port,
        protocol: event.protocol,
        port_hidden: 0,
    };
    let to = (hook != Hook::Dns).then_some(&destination);
    let reached = Reached {
        verdict: Verdict::from_wire(event.verdict).unwrap_or(Verdict::Deny),
        reason: Reason::from_wire(event.reason),
        decision: event.decision,
    };
    // Where no rule names an app, none of it is evidence.
    let asks = explainer.generation.header.apps.classes > 1;
    let app = if asks { facts(app) } else { AppFacts::default() };
    reached.findings(explainer, to, names, &app)
}

/// A verdict, as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What happens.
    pub verdict: Verdict,
    /// Why, where the decision does not say.
    pub reason: Option<Reason>,
    /// The decision it rests on; 0 if none was reached.
    pub decision: u32,
}

impl Reached {
    /// What stands behind it: what observing policies would have done, and last what happened.
    pub fn findings<T: AsRef<str>>(
        &self,
        explainer: Explainer<'_>,
        to: Option<&Destination>,
        names: &[T],
        app: &AppFacts,
    ) -> Result<Vec<Finding>, intel::Error> {
        let mut findings = Vec::new();
        let mut denied = None;
        if let Some(decision) = explainer.generation.decision(self.decision) {
            findings = explainer.findings(decision, to, names, app)?;
            if self.reason.is_none() {
                return Ok(findings);
            }
            // The decision is not what happened: it is that of a name that is denied, if one is.
            let rest = findings.split_off(decision.observed.len());
            denied = rest.into_iter().find(|_| decision.verdict == Verdict::Deny);
        }
        let settings = &explainer.generation.settings;
        let reason = self.reason.unwrap_or(Reason::NoPolicy);
        // Denied, if more than observing was asked for.
        let setting = match reason {
            Reason::Ambiguous => settings.ambiguous,
            _ => settings.unparsable,
        };
        let verdict = self.verdict;
        let observed = settings.observe && verdict == Verdict::Audit && setting == Default::Drop;
        let without = Finding {
            verdict: verdict.word(),
            mode: if observed { Mode::Observe } else { Mode::Enforce }.word(),
            reason: reason.word(),
            action: None,
            policy: None,
            rule: None,
            evidence: Vec::new(),
            data: Data::default(),
        };
        findings.push(match denied {
            Some(denied) => Finding { verdict: verdict.word(), reason: reason.word(), ..denied },
            None => without,
        });
        Ok(findings)
    }
}

/// What an event says by itself.
fn of_unknown_generation(event: &FlowEvent) -> Finding {
    let verdict = Verdict::from_wire(event.verdict).unwrap_or(Verdict::Deny);
    Finding {
        verdict: verdict.word(),
        mode: Mode::Enforce.word(),
        reason: Reason::from_wire(event.reason).map_or(UNKNOWN_GENERATION, Reason::word),
        action: None,
        policy: None,
        rule: None,
        evidence: Vec::new(),
        data: Data::default(),
    }
}

/// What the destination of an event is known by: a name, and behind it what it is an alias of.
fn host(event: &FlowEvent, names: Vec<String>) -> Option<Host> {
    let mut names = names.into_iter();
    Some(Host {
        name: names.next()?,
        via: Via::from_wire(event.via).map(Via::word),
        confidence: Confidence::from_wire(event.confidence).map(Confidence::word),
        encrypted_hello: event.encrypted_hello != 0,
        chain: names.collect(),
    })
}

/// The time of day at a reading of the boot-time clock, by what the clocks show now.
fn wall_clock(boot: u64) -> String {
    let age = nanoseconds(ClockId::CLOCK_BOOTTIME) - i128::from(boot);
    let time = nanoseconds(ClockId::CLOCK_REALTIME) - age;
    let time = Timestamp::from_nanosecond(time).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// What a clock shows now.
pub fn nanoseconds(clock: ClockId) -> i128 {
    clock_gettime(clock)
        .map(|time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "enrich_tests.rs"]
mod tests;
