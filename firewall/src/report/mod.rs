//! What records come to: for each app who it talked to, how much, what was stopped, what other policies
//! would have stopped, and what is new.
//!
//! ```text
//! records ─▶ Tally ─ judge (policies alone), known (the report before) ─▶ Report ─▶ terminal, JSON, page
//! ```
//!
//! Records are added one by one, the oldest first, and nothing of them is kept but sums, so that the
//! memory depends on how many apps, names and flows they are of, up to a bound each.

pub mod judge;
pub mod known;
pub mod page;
pub mod terminal;
#[cfg(test)]
mod tests;
mod times;
mod traffic;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    events::{
        App, filter,
        record::{Record, Verdict},
        seen::{Flows, Same},
    },
    policy::AppFacts,
};
pub use judge::{Judge, Would};
pub use known::Known;
pub use times::{Bucket, Times};
use traffic::Meter;

/// Version of the report's format.
pub const SCHEMA: u32 = 1;

/// Apps that are told apart.
const MAX_APPS: usize = 4096;
/// Names and routes that are told apart, of all apps together.
const MAX_ROWS: usize = 1 << 18;
/// Flows that are told apart to be judged.
const MAX_FLOWS: usize = 1 << 16;
/// Names and organisations that are told of one app.
const TOLD: usize = 100;

/// How often, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Verdicts.
    pub flows: Flows,
    /// Transport payload sent, in bytes.
    pub bytes_out: u64,
    /// Transport payload received, in bytes.
    pub bytes_in: u64,
}

impl Sums {
    /// Sent and received.
    pub const fn bytes(&self) -> u64 {
        self.bytes_out.saturating_add(self.bytes_in)
    }

    fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
    }
}

/// What is known of the owner of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An organisation with a name here.
    Organisation,
    /// An AS, by its name or number.
    As,
    /// This machine, or a network that is not public.
    Local,
    /// Nothing.
    Unknown,
}

/// Who a destination belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Owner {
    /// Its name: `local` and `unknown` of those kinds.
    pub name: String,
    /// What is known.
    pub kind: Kind,
}

/// One line of a list: a name, an organisation or a country, and what is counted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row<K> {
    /// What it is about.
    #[serde(flatten)]
    pub of: K,
    /// No report before had it.
    pub new: bool,
    /// How often and how much.
    #[serde(flatten)]
    pub sums: Sums,
    /// The first record.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
}

/// What a row is about that has a name and no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name {
    /// The name; of a country its code, `local` or `unknown`.
    pub name: String,
}

/// Where flows went: who that belongs to, and in which country it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route {
    /// Who it belongs to.
    pub organisation: Owner,
    /// The country's code, `local` or `unknown`.
    pub country: String,
}

/// What is told together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Others {
    /// How many; at least so many, where they were too many to be told apart.
    pub number: usize,
    /// Their sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What stopped flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Stopper {
    /// The policy; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The rule; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The reason, as in events.
    pub reason: String,
}

/// Flows that something stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// What stopped them.
    #[serde(flatten)]
    pub by: Stopper,
    /// How many.
    pub flows: u64,
    /// Some of the names that they went to.
    pub names: Vec<String>,
}

/// An app and all that is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Talker {
    /// The app.
    pub app: Same,
    /// No report before had it.
    pub new: bool,
    /// How often and how much.
    #[serde(flatten)]
    pub sums: Sums,
    /// The first record.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// Who it talked to, most first.
    pub organisations: Vec<Row<Owner>>,
    /// Those that are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_organisations: Option<Others>,
    /// Where these are, most first.
    pub countries: Vec<Row<Name>>,
    /// By what names it knew them, or by which addresses, most first.
    pub names: Vec<Row<Name>>,
    /// Those that are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_names: Option<Others>,
    /// Organisation and country together, most first.
    pub routes: Vec<Row<Route>>,
    /// Those that are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_routes: Option<Others>,
    /// What was stopped, most first.
    pub stopped: Vec<Stopped>,
    /// What passed and would have been stopped, most first.
    pub would: Vec<Would>,
}

/// What is missing in a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Events that were lost before they were written.
    pub lost: u64,
    /// Lines that could not be read.
    pub unreadable: u64,
    /// Verdicts on apps beyond those that fit.
    pub apps: u64,
    /// Records of flows whose bytes are not counted, for they are beyond those that fit.
    pub unmeasured: u64,
    /// Verdicts that were not judged by other policies, for they are beyond those that fit.
    pub unjudged: u64,
}

/// The review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `report`.
    pub kind: &'static str,
    /// The first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// When the report before was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<Timestamp>,
    /// How often and how much, all in all.
    #[serde(flatten)]
    pub sums: Sums,
    /// The apps, the busiest first.
    pub apps: Vec<Talker>,
    /// Of all apps, most first.
    pub organisations: Vec<Row<Owner>>,
    /// Of all apps, most first.
    pub countries: Vec<Row<Name>>,
    /// Verdicts over time.
    pub times: Times,
    /// Policies that are not enabled and were asked.
    pub judged: Vec<String>,
    /// What is missing.
    pub missing: Missing,
}

/// Between the first record and the last one.
#[derive(Clone, Copy, Debug)]
struct Span {
    sums: Sums,
    first: Timestamp,
    last: Timestamp,
}

impl Span {
    fn new(time: Timestamp) -> Self {
        Self { sums: Sums::default(), first: time, last: time }
    }

    fn add(&mut self, other: &Self) {
        self.sums.add(&other.sums);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    fn row<K>(self, of: K, new: bool) -> Row<K> {
        let Self { sums, first, last } = self;
        Row { of, new, sums, first, last }
    }
}

/// What is counted of one app.
struct Counted {
    all: Span,
    routes: HashMap<Route, Span>,
    names: HashMap<String, Span>,
    /// Of routes that found no place.
    other_routes: Sums,
    /// Of names that found no place.
    other_names: Sums,
    stopped: HashMap<Stopper, (u64, Vec<String>)>,
}

/// What a policy judges: all that verdicts may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flow {
    app: usize,
    facts: usize,
    ip: IpAddr,
    port: Option<u16>,
    proto: String,
    /// The name, and what it is an alias of.
    names: Vec<String>,
    /// It is the question for the name.
    question: bool,
}

/// Takes records in.
#[derive(Default)]
pub struct Tally {
    numbers: HashMap<Same, usize>,
    apps: Vec<(Same, Counted)>,
    /// Names and routes that there is room for no more.
    rows: usize,
    facts: HashMap<AppFacts, usize>,
    flows: HashMap<Flow, Sums>,
    meter: Meter,
    times: Times,
    missing: Missing,
}

impl Tally {
    /// Takes a record in. The oldest come first.
    pub fn add(&mut self, record: &Record) {
        let (bytes_out, bytes_in) = match self.meter.more(record) {
            Some(more) => more,
            None => {
                self.missing.unmeasured += 1;
                (0, 0)
            }
        };
        // What tells how much it was in the end was counted when it began.
        let count = if record.hook == CLOSE { 0 } else { record.count };
        let flows = Flows::of(record.verdict, count);
        let sums = Sums { flows, bytes_out, bytes_in };
        let Some(app) = self.number(&record.app, record.time) else {
            self.missing.apps = self.missing.apps.saturating_add(record.count);
            return;
        };
        self.times.add(record.time, flows);
        let span = Span { sums, ..Span::new(record.time) };
        let rows = &mut self.rows;
        let counted = &mut self.apps[app].1;
        counted.all.add(&span);
        // One that tells bytes is of the flow to the resolver.
        let question = record.hook == DNS && record.count > 0;
        // Where a resolver is says nothing of what it is asked for.
        if !question && !put(&mut counted.routes, route(record), &span, rows) {
            counted.other_routes.add(&sums);
        }
        let name = match &record.host {
            Some(host) => host.name.clone(),
            None => record.dst.ip.to_string(),
        };
        if record.verdict == Verdict::Deny && count > 0 {
            stop(counted, record, count, &name, rows);
        }
        if !put(&mut counted.names, name, &span, rows) {
            counted.other_names.add(&sums);
        }
        self.keep_flow(app, record, question, &sums);
    }

    /// Events that were lost before they were written.
    pub fn lose(&mut self, count: u64) {
        self.missing.lost = self.missing.lost.saturating_add(count);
    }

    /// Lines that could not be read.
    pub fn pass_over(&mut self, lines: u64) {
        self.missing.unreadable = self.missing.unreadable.saturating_add(lines);
    }

    fn number(&mut self, app: &App, time: Timestamp) -> Option<usize> {
        let same = Same::of(app.clone());
        if let Some(number) = self.numbers.get(&same) {
            return Some(*number);
        }
        if self.apps.len() >= MAX_APPS {
            return None;
        }
        let number = self.apps.len();
        let counted = Counted {
            all: Span::new(time),
            routes: HashMap::new(),
            names: HashMap::new(),
            other_routes: Sums::default(),
            other_names: Sums::default(),
            stopped: HashMap::new(),
        };
        self.apps.push((same.clone(), counted));
        self.numbers.insert(same, number);
        Some(number)
    }

    fn keep_flow(&mut self, app: usize, record: &Record, question: bool, sums: &Sums) {
        let facts = filter::facts(&record.app);
        let facts = match self.facts.get(&facts) {
            Some(number) => Some(*number),
            None if self.facts.len() >= MAX_FLOWS => None,
            None => {
                let number = self.facts.len();
                self.facts.insert(facts, number);
                Some(number)
            }
        };
        let flow = |facts| Flow {
            app,
            facts,
            ip: record.dst.ip,
            port: record.dst.port,
            proto: record.proto.clone(),
            names: record
                .host
                .iter()
                .flat_map(|host| std::iter::once(&host.name).chain(&host.chain))
                .cloned()
                .collect(),
            question,
        };
        let flow = facts.map(flow);
        let flow =
            flow.filter(|flow| self.flows.len() < MAX_FLOWS || self.flows.contains_key(flow));
        match flow {
            Some(flow) => self.flows.entry(flow).or_default().add(sums),
            None => {
                self.missing.unjudged = self.missing.unjudged.saturating_add(record.count);
            }
        }
    }

    /// The report. What it tells is known from then on.
    ///
    /// # Errors
    ///
    /// The tables of countries and owners cannot be read.
    pub fn finish(self, judge: &Judge, known: &mut Known) -> anyhow::Result<Report> {
        let Self { apps, facts, flows, times, missing, .. } = self;
        let mut would = judge.judge(apps.len(), &facts, &flows)?;
        let mut talkers = Vec::new();
        let mut sums = Sums::default();
        let mut organisations = HashMap::new();
        let mut countries = HashMap::new();
        for (number, (app, counted)) in apps.into_iter().enumerate() {
            sums.add(&counted.all.sums);
            let would = std::mem::take(&mut would[number]);
            let talker = talker(app, counted, would, known);
            gather(&mut organisations, &talker.organisations);
            gather(&mut countries, &talker.countries);
            talkers.push(talker);
        }
        talkers.sort_by(|one, other| {
            let key = |of: &Talker| weight(&of.sums);
            let name =
                |of: &Talker| (of.app.exe.clone(), of.app.script.clone(), of.app.uid, of.first);
            key(one).cmp(&key(other)).then_with(|| name(one).cmp(&name(other)))
        });
        Ok(Report {
            schema: SCHEMA,
            kind: "report",
            first: talkers.iter().map(|talker| talker.first).min(),
            last: talkers.iter().map(|talker| talker.last).max(),
            last_report: known.time,
            sums,
            apps: talkers,
            organisations: sorted(organisations),
            countries: sorted(countries),
            times,
            judged: judge.names(),
            missing,
        })
    }
}

const CLOSE: &str = "close";
const DNS: &str = "dns";
/// Names that are told of what was stopped.
const EXAMPLES: usize = 3;

/// The most first: by bytes, and where there are none by flows.
fn weight(sums: &Sums) -> impl Ord + use<> {
    (Reverse(sums.bytes()), Reverse(sums.flows.all()))
}

/// Adds to a row, if there is room for it.
fn put<K: Eq + std::hash::Hash>(
    rows: &mut HashMap<K, Span>,
    key: K,
    span: &Span,
    taken: &mut usize,
) -> bool {
    if let Some(row) = rows.get_mut(&key) {
        row.add(span);
        return true;
    }
    if *taken >= MAX_ROWS {
        return false;
    }
    *taken += 1;
    rows.insert(key, *span);
    true
}

fn stop(counted: &mut Counted, record: &Record, count: u64, name: &str, taken: &mut usize) {
    let by = Stopper {
        policy: record.policy.clone(),
        rule: record.rule.clone(),
        reason: record.reason.clone(),
    };
    // Rules are few in what a daemon writes; a file may have any.
    if !counted.stopped.contains_key(&by) {
        if *taken >= MAX_ROWS {
            return;
        }
        *taken += 1;
    }
    let (flows, names) = counted.stopped.entry(by).or_default();
    *flows = flows.saturating_add(count);
    if names.len() < EXAMPLES && !names.iter().any(|one| one == name) {
        names.push(name.to_owned());
    }
}

/// Where a flow goes.
fn route(record: &Record) -> Route {
    let geo = &record.geo;
    let local = geo.country.is_none() && is_local(record.dst.ip);
    let unknown = if local { "local" } else { "unknown" };
    let owner = |name: &str, kind| Owner { name: name.to_owned(), kind };
    let organisation = match (&geo.organisation, &geo.as_name, geo.asn) {
        (Some(name), ..) => owner(name, Kind::Organisation),
        (None, Some(name), _) => owner(name, Kind::As),
        (None, None, Some(number)) => owner(&format!("AS{number}"), Kind::As),
        (None, None, None) if local => owner(unknown, Kind::Local),
        (None, None, None) => owner(unknown, Kind::Unknown),
    };
    Route { organisation, country: geo.country.clone().unwrap_or_else(|| unknown.to_owned()) }
}

/// Whether an address is of this machine or of a network that is not public.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
        }
    }
}

fn talker(app: Same, counted: Counted, would: Vec<Would>, known: &mut Known) -> Talker {
    let Counted { all, routes, names, other_routes, other_names, stopped } = counted;
    let mut organisations: HashMap<Owner, Span> = HashMap::new();
    let mut countries: HashMap<Name, Span> = HashMap::new();
    for (Route { organisation, country }, span) in &routes {
        let add = |row: &mut Span| row.add(span);
        organisations.entry(organisation.clone()).and_modify(add).or_insert(*span);
        let country = Name { name: country.clone() };
        countries.entry(country).and_modify(add).or_insert(*span);
    }
    let told = known.take(
        &app,
        organisations.keys().map(|owner| owner.name.as_str()),
        countries.keys().map(|country| country.name.as_str()),
        names.keys().map(String::as_str),
    );
    let fresh = |all: &HashSet<String>, name: &str| all.contains(name);
    let new_organisation = |owner: &Owner| fresh(&told.organisations, &owner.name);
    let (organisations, other_organisations) =
        cut(rows(organisations, new_organisation), other_routes);
    let names = names.into_iter().map(|(name, span)| (Name { name }, span)).collect();
    let new_name = |name: &Name| fresh(&told.names, &name.name);
    let (names, other_names) = cut(rows(names, new_name), other_names);
    let routes = rows(routes, |route| new_organisation(&route.organisation));
    let (routes, more_routes) = cut(routes, other_routes);
    let stopped = stopped.into_iter().map(|(by, (flows, names))| Stopped { by, flows, names });
    let mut stopped: Vec<Stopped> = stopped.collect();
    stopped.sort_by(|one, other| {
        (Reverse(one.flows), &one.by).cmp(&(Reverse(other.flows), &other.by))
    });
    let Span { sums, first, last } = all;
    Talker {
        app,
        new: told.app,
        sums,
        first,
        last,
        organisations,
        other_organisations,
        countries: rows(countries, |country| fresh(&told.countries, &country.name)),
        names,
        other_names,
        routes,
        other_routes: more_routes,
        stopped,
        would,
    }
}

fn rows<K: Ord>(of: HashMap<K, Span>, new: impl Fn(&K) -> bool) -> Vec<Row<K>> {
    let rows = of.into_iter().map(|(of, span)| {
        let new = new(&of);
        span.row(of, new)
    });
    sort(rows.collect())
}

fn sort<K: Ord>(mut rows: Vec<Row<K>>) -> Vec<Row<K>> {
    rows.sort_by(|one, other| {
        weight(&one.sums).cmp(&weight(&other.sums)).then_with(|| one.of.cmp(&other.of))
    });
    rows
}

/// The first rows, and what the others and those without a place come to.
fn cut<K>(mut rows: Vec<Row<K>>, without: Sums) -> (Vec<Row<K>>, Option<Others>) {
    let rest = rows.split_off(rows.len().min(TOLD));
    let more = usize::from(without != Sums::default());
    let mut others = Others { number: rest.len() + more, sums: without };
    rest.iter().for_each(|row| others.sums.add(&row.sums));
    (rows, (others.number > 0).then_some(others))
}

fn gather<K: Clone + Eq + std::hash::Hash>(all: &mut HashMap<K, (Span, bool)>, rows: &[Row<K>]) {
    for row in rows {
        let span = Span { sums: row.sums, first: row.first, last: row.last };
        let (all, new) = all.entry(row.of.clone()).or_insert((Span::new(row.first), false));
        all.add(&span);
        *new |= row.new;
    }
}

fn sorted<K: Ord>(all: HashMap<K, (Span, bool)>) -> Vec<Row<K>> {
    sort(all.into_iter().map(|(of, (span, new))| span.row(of, new)).collect())
}
