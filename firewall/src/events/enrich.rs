//! From a kernel event to one that can be read on its own.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use firewall_common::{
    event::{FlowEvent, Identity, app},
    flow::{Address, Destination, has_ports},
    verdict::{Confidence, Hook, Reason, Verdict, Via},
};
use jiff::{Timestamp, tz::TimeZone};
use nix::time::{ClockId, clock_gettime};

use super::{
    App, Endpoint, Event, Host, SCHEMA, executables::Executables, names::Names, protocol_word,
};
use crate::{
    cgroup::Hierarchy,
    intel,
    policy::{
        AppFacts, Default, Mode,
        explain::{Explainer, Finding, Geo},
    },
};

/// Adds names to numbers.
pub struct Enricher<'a> {
    explainer: Explainer<'a>,
    executables: Executables,
    names: Names,
    hierarchy: &'a Hierarchy,
    users: HashMap<u32, Option<String>>,
    cgroups: HashMap<u64, Option<PathBuf>>,
    geo: HashMap<Address, Geo>,
    seq: u64,
}

/// Addresses whose country and owner are remembered.
const MAX_GEO: usize = 4096;

impl<'a> Enricher<'a> {
    /// For events of one generation.
    pub fn new(
        explainer: Explainer<'a>,
        executables: Executables,
        names: Names,
        hierarchy: &'a Hierarchy,
    ) -> Self {
        Self {
            explainer,
            executables,
            names,
            hierarchy,
            users: HashMap::new(),
            cgroups: HashMap::new(),
            geo: HashMap::new(),
            seq: 0,
        }
    }

    /// The events that an event of the kernel stands for: one for each policy that would have
    /// dropped the flow, and the verdict.
    pub fn enrich(&mut self, event: &FlowEvent) -> Result<Vec<Event>, intel::Error> {
        let time = wall_clock(event.time);
        let hook = Hook::from_wire(event.hook).unwrap_or(Hook::Packet);
        let app = self.app(&event.identity);
        // Where the resolver is says nothing of what is asked for.
        let geo = if hook == Hook::Dns { Geo::default() } else { self.geo(event.dst)? };
        let mut names = if event.name == 0 { Vec::new() } else { self.names.find(event.name) };
        if hook == Hook::Dns {
            // What the name is an alias of is not known yet, whatever an answer said before.
            names.truncate(1);
        }
        let findings = self.findings(event, hook, &names)?;
        let host = host(event, names);
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
                    hook: hook.word(),
                    app: app.clone(),
                    proto: protocol_word(event.protocol),
                    src: (event.src != Address::default())
                        .then(|| endpoint(event.src, event.src_port)),
                    dst: endpoint(event.dst, event.dst_port),
                    host: host.clone(),
                    geo: geo.clone(),
                    count: event.count,
                    // A verdict comes before the flow's first byte.
                    bytes_out: 0,
                    bytes_in: 0,
                }
            })
            .collect())
    }

    /// How often a name was not known any more when its event was read.
    pub const fn missed_names(&self) -> u64 {
        self.names.missed
    }

    fn findings(
        &self,
        event: &FlowEvent,
        hook: Hook,
        names: &[String],
    ) -> Result<Vec<Finding>, intel::Error> {
        let destination = Destination {
            address: event.dst,
            port: event.dst_port,
            protocol: event.protocol,
            port_hidden: 0,
        };
        let to = (hook != Hook::Dns).then_some(&destination);
        let reason = Reason::from_wire(event.reason);
        let mut findings = Vec::new();
        let mut denied = None;
        if let Some(decision) = self.explainer.generation.decision(event.decision) {
            findings = self.explainer.findings(decision, to, names, &AppFacts::default())?;
            if reason.is_none() {
                return Ok(findings);
            }
            // The decision is not what happened: it is that of a name that is denied, if one is.
            let rest = findings.split_off(decision.observed.len());
            denied = rest.into_iter().find(|_| decision.verdict == Verdict::Deny);
        }
        let settings = &self.explainer.generation.settings;
        let reason = reason.unwrap_or(Reason::NoPolicy);
        let verdict = Verdict::from_wire(event.verdict).unwrap_or(Verdict::Deny);
        // Denied, if more than observing was asked for.
        let setting = match reason {
            Reason::Ambiguous => settings.ambiguous,
            _ => settings.unparsable,
        };
        let observed = settings.observe && verdict == Verdict::Audit && setting == Default::Drop;
        let without = Finding {
            verdict: verdict.word(),
            mode: if observed { Mode::Observe } else { Mode::Enforce }.word(),
            reason: reason.word(),
            action: None,
            policy: None,
            rule: None,
            evidence: Vec::new(),
        };
        findings.push(match denied {
            Some(denied) => Finding { verdict: verdict.word(), reason: reason.word(), ..denied },
            None => without,
        });
        Ok(findings)
    }

    fn geo(&mut self, address: Address) -> Result<Geo, intel::Error> {
        if let Some(geo) = self.geo.get(&address) {
            return Ok(geo.clone());
        }
        let geo = self.explainer.geo(address)?;
        if self.geo.len() >= MAX_GEO {
            self.geo.clear();
        }
        self.geo.insert(address, geo.clone());
        Ok(geo)
    }

    fn app(&mut self, identity: &Identity) -> App {
        let exe = self.executables.path(identity.executable, identity.pid);
        let comm = identity.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = match (identity.kind, &exe) {
            (app::KERNEL, _) => "kernel".to_owned(),
            (0, _) => "unknown".to_owned(),
            (_, Some(exe)) => {
                exe.file_name().unwrap_or(exe.as_os_str()).to_string_lossy().into_owned()
            }
            (_, None) => String::from_utf8_lossy(comm).into_owned(),
        };
        let cgroup = self.cgroup(identity.cgroup);
        App {
            name,
            exe: exe.map(|exe| exe.to_string_lossy().into_owned()),
            pid: (identity.pid != 0).then_some(identity.pid),
            uid: identity.uid,
            user: self.user(identity.uid),
            unit: cgroup.as_deref().and_then(unit),
            cgroup: cgroup.map(|path| path.to_string_lossy().into_owned()),
        }
    }

    fn user(&mut self, uid: u32) -> Option<String> {
        self.users
            .entry(uid)
            .or_insert_with(|| {
                let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
                user.map(|user| user.name)
            })
            .clone()
    }

    fn cgroup(&mut self, id: u64) -> Option<PathBuf> {
        if id == 0 {
            return None;
        }
        if !self.cgroups.contains_key(&id) {
            self.cgroups
                .extend(self.hierarchy.paths().into_iter().map(|(id, path)| (id, Some(path))));
        }
        // One that is gone already is not looked for again.
        self.cgroups.entry(id).or_insert(None).clone()
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

/// The systemd unit that a cgroup belongs to.
fn unit(cgroup: &Path) -> Option<String> {
    cgroup
        .components()
        .rev()
        .filter_map(|component| component.as_os_str().to_str())
        .find(|name| name.ends_with(".service") || name.ends_with(".scope"))
        .map(str::to_owned)
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
