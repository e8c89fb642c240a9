//! The apps that verdicts are of, and what each has reached or tried to.

use std::{
    cmp::Reverse,
    collections::HashMap,
    ops::{Add, AddAssign},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    App, SCHEMA,
    record::{Geo, Record, Verdict},
};
use crate::apps::cgroup::{Container, without_instance};

/// Apps that are told apart.
const MAX_APPS: usize = 65_536;
/// Destinations that are told apart of one app.
const MAX_DESTINATIONS: usize = 4096;
/// Destinations that are told of one app.
const TOLD: usize = 10;

/// Flows by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flows {
    /// Stopped.
    pub deny: u64,
    /// Recorded, and passed.
    pub audit: u64,
    /// Passed.
    pub allow: u64,
}

impl Flows {
    /// So many of one verdict.
    pub const fn of(verdict: Verdict, count: u64) -> Self {
        let none = Self { deny: 0, audit: 0, allow: 0 };
        match verdict {
            Verdict::Deny => Self { deny: count, ..none },
            Verdict::Audit => Self { audit: count, ..none },
            Verdict::Allow => Self { allow: count, ..none },
        }
    }

    /// Of every verdict.
    pub const fn all(self) -> u64 {
        self.deny.saturating_add(self.audit).saturating_add(self.allow)
    }
}

impl Add for Flows {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            deny: self.deny.saturating_add(other.deny),
            audit: self.audit.saturating_add(other.audit),
            allow: self.allow.saturating_add(other.allow),
        }
    }
}

impl AddAssign for Flows {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What makes an app the same over many processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Same {
    /// File name of the executable, or what else is known.
    pub name: String,
    /// The executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// User number.
    pub uid: u32,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The unit; of scopes without what tells one start from the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// ID of the Flatpak app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flatpak: Option<String>,
    /// Name of the snap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snap: Option<String>,
    /// The container: by its ID only if it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

impl Same {
    /// What of an app stays the same.
    pub fn of(app: App) -> Self {
        let App { name, exe, script, uid, user, unit, flatpak, snap, container, .. } = app;
        // The others have a unit for what they are.
        let unit = match (&flatpak, &snap, &container) {
            (None, None, None) => unit.as_deref().map(without_instance),
            _ => None,
        };
        let container = container.map(|container| match container.name {
            Some(_) => Container { id: None, ..container },
            None => container,
        });
        Self { name, exe, script, uid, user, unit, flatpak, snap, container }
    }
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// Its name or, where none is known, its address.
    pub host: String,
    /// What the last verdict says of it.
    #[serde(flatten)]
    pub geo: Geo,
    /// How often.
    pub flows: Flows,
    /// When last.
    pub last: Timestamp,
}

/// An app and what it has reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The app.
    pub app: Same,
    /// The SHA-256 digest of the executable as it is now, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How often.
    pub flows: Flows,
    /// The first verdict.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// Destinations, the most often denied first, then the most often reached.
    pub destinations: Vec<Destination>,
    /// How many more there are; a lower bound if there are thousands.
    pub more_destinations: usize,
}

struct Tally {
    flows: Flows,
    first: Timestamp,
    last: Timestamp,
    to: HashMap<String, (Flows, Timestamp, Geo)>,
    /// Verdicts on destinations that found no place.
    beyond: bool,
}

/// Takes verdicts in.
#[derive(Default)]
pub struct Seen {
    apps: HashMap<Same, Tally>,
    /// Verdicts on apps that found no place.
    pub beyond: u64,
}

impl Seen {
    /// Takes a verdict in; what only tells bytes is none.
    pub fn add(&mut self, record: Record) {
        let Record { time, verdict, app, dst, host, geo, count, .. } = record;
        if count == 0 {
            return;
        }
        let same = Same::of(app);
        if self.apps.len() >= MAX_APPS && !self.apps.contains_key(&same) {
            self.beyond = self.beyond.saturating_add(count);
            return;
        }
        let tally = self.apps.entry(same).or_insert_with(|| Tally {
            flows: Flows::default(),
            first: time,
            last: time,
            to: HashMap::new(),
            beyond: false,
        });
        let flows = Flows::of(verdict, count);
        tally.flows += flows;
        tally.first = tally.first.min(time);
        tally.last = tally.last.max(time);
        let to = host.map_or_else(|| dst.ip.to_string(), |host| host.name);
        if tally.to.len() >= MAX_DESTINATIONS && !tally.to.contains_key(&to) {
            tally.beyond = true;
            return;
        }
        let (all, last, known) =
            tally.to.entry(to).or_insert_with(|| (Flows::default(), time, Geo::default()));
        *all += flows;
        // A question says nothing of where its name leads.
        if time >= *last && geo != Geo::default() || *known == Geo::default() {
            *known = geo;
        }
        *last = time.max(*last);
    }

    /// The apps, the most often denied first, then the busiest.
    pub fn summaries(self) -> Vec<Summary> {
        let mut all: Vec<Summary> = self.apps.into_iter().map(summary).collect();
        all.sort_by(|one, other| {
            let key = |of: &Summary| (Reverse(of.flows.deny), Reverse(of.flows.all()));
            let name = |of: &Summary| (of.app.exe.clone(), of.app.script.clone(), of.first);
            key(one).cmp(&key(other)).then_with(|| name(one).cmp(&name(other)))
        });
        all
    }
}

fn summary((app, tally): (Same, Tally)) -> Summary {
    let Tally { flows, first, last, to, beyond } = tally;
    let mut destinations: Vec<Destination> = to
        .into_iter()
        .map(|(host, (flows, last, geo))| Destination { host, geo, flows, last })
        .collect();
    destinations.sort_by(|one, other| {
        let key = |of: &Destination| (Reverse(of.flows.deny), Reverse(of.flows.all()));
        key(one).cmp(&key(other)).then_with(|| one.host.cmp(&other.host))
    });
    let more_destinations = destinations.len().saturating_sub(TOLD) + usize::from(beyond);
    destinations.truncate(TOLD);
    let schema = SCHEMA;
    Summary { schema, app, sha256: None, flows, first, last, destinations, more_destinations }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::events::record::{Host, To};

    fn record(second: i64, app: &App, verdict: Verdict, host: &str) -> Record {
        Record {
            seq: 1,
            time: Timestamp::from_second(second).unwrap(),
            verdict,
            reason: "default".to_owned(),
            policy: None,
            rule: None,
            hook: "connect".to_owned(),
            app: app.clone(),
            proto: "tcp".to_owned(),
            dst: To { ip: IpAddr::from([192, 0, 2, 7]), port: Some(443) },
            host: (!host.is_empty()).then(|| Host {
                name: host.to_owned(),
                encrypted_hello: false,
                chain: Vec::new(),
            }),
            geo: Geo::default(),
            count: 2,
            src: None,
            bytes_out: 0,
            bytes_in: 0,
        }
    }

    fn seen(records: Vec<Record>) -> Vec<Summary> {
        let mut seen = Seen::default();
        records.into_iter().for_each(|record| seen.add(record));
        assert_eq!(seen.beyond, 0);
        seen.summaries()
    }

    fn app(unit: &str) -> App {
        let exe = Some("/opt/x".to_owned());
        let unit = (!unit.is_empty()).then(|| unit.to_owned());
        App { name: "x".to_owned(), exe, unit, ..App::default() }
    }

    #[test]
    fn processes_of_an_app_are_one() {
        let first = App { pid: Some(1), ..app("app-gnome-x-12.scope") };
        let second = App { pid: Some(2), ..app("app-gnome-x-13.scope") };
        let other = App { uid: 7, ..first.clone() };
        let script = App { script: Some("/a.py".to_owned()), ..first.clone() };
        let all = seen(vec![
            record(5, &first, Verdict::Allow, "a.example"),
            record(3, &second, Verdict::Deny, "b.example"),
            record(4, &other, Verdict::Allow, ""),
            record(4, &script, Verdict::Audit, ""),
        ]);
        assert_eq!(all.len(), 3);
        let Summary { app, flows, first, last, destinations, .. } = &all[0];
        assert_eq!(app.unit.as_deref(), Some("app-gnome-x-*.scope"));
        assert_eq!(*flows, Flows { deny: 2, audit: 0, allow: 2 });
        assert_eq!((first.as_second(), last.as_second()), (3, 5));
        let hosts: Vec<&str> = destinations.iter().map(|to| to.host.as_str()).collect();
        assert_eq!(hosts, ["b.example", "a.example"], "the denied one first");
        assert_eq!(all[1].destinations[0].host, "192.0.2.7");
    }

    #[test]
    fn containers_are_told_apart_by_name() {
        let of = |id: &str, name: Option<&str>| {
            let container = Container {
                id: Some(id.to_owned()),
                name: name.map(str::to_owned),
                ..Container::default()
            };
            let app = App { container: Some(container), ..app(&format!("docker-{id}.scope")) };
            record(1, &app, Verdict::Allow, "")
        };
        let all =
            seen(vec![of("1", Some("web")), of("2", Some("web")), of("3", None), of("4", None)]);
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn what_is_known_of_a_destination_outlasts_a_question() {
        let app = app("");
        let geo = Geo { country: Some("CN".to_owned()), ..Geo::default() };
        let connect = Record { geo: geo.clone(), ..record(2, &app, Verdict::Deny, "a.example") };
        let all = seen(vec![
            record(1, &app, Verdict::Allow, "a.example"),
            connect,
            record(3, &app, Verdict::Allow, "a.example"),
        ]);
        assert_eq!(all[0].destinations[0].geo.country, geo.country);
        assert_eq!(all[0].destinations[0].last.as_second(), 3);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let app = app("");
        let mut tally = Seen::default();
        for number in 0..MAX_DESTINATIONS + 5 {
            tally.add(record(1, &app, Verdict::Allow, &format!("{number}.example")));
        }
        let all = tally.summaries();
        assert_eq!(all[0].destinations.len(), TOLD);
        assert_eq!(all[0].more_destinations, MAX_DESTINATIONS - TOLD + 1);
        assert_eq!(all[0].flows.allow, 2 * (MAX_DESTINATIONS as u64 + 5), "all are counted");
    }
}
