//! What is measured, as Prometheus reads it: verdicts, delays, losses, how full maps are.
//!
//! ```text
//! recorded events ─ sink::metrics ─▶ Metrics ◀─ tell ─ daemon (generation, losses, sinks)
//!                                    │   ▲
//!                  text of a scrape ◀┘   └ read, at each scrape: counters and maps of the kernel
//! ```

use std::{
    collections::HashSet,
    os::fd::AsFd as _,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use aya::maps::MapData;
use firewall_common::layout::Counter as Word;
use jiff::Timestamp;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    datapath::{
        maps::{self, Maps},
        sys,
    },
    events::{
        Event,
        reader::{Counters, Error},
    },
    sink::Counts,
};

/// Apps, and policies, that are told apart; the others are [`OTHER`]. There are fewer countries.
pub const MOST_NAMES: usize = 256;

/// The label of what comes when there are [`MOST_NAMES`] already.
pub const OTHER: &str = "other";

/// How long the count of a map's entries is good: it takes a call for each entry.
const COUNTED: Duration = Duration::from_secs(60);

/// Hash maps, which fill up. What is an array has all its entries from the start.
const HASH_MAPS: [&str; 10] = [
    "ANSWERS",
    "CGROUPS",
    "CONNECTIONS",
    "EXECUTABLES",
    "FORMER",
    "LISTENERS",
    "NAMES",
    "PROCESSES",
    "SCRIPTS",
    "UNOWNED",
];

/// Upper bounds of the delays that are counted together, in seconds. Repeats are held back for one.
const DELAYS: [f64; 12] =
    [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

type Labels<const N: usize> = [(&'static str, String); N];
type Counts1 = Family<Labels<1>, Counter>;
type Counts2 = Family<Labels<2>, Counter>;
type Gauges = Family<Labels<1>, Gauge>;

/// What the daemon knows by itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The number of the generation that decides.
    pub generation: u32,
    /// Since when it does.
    pub since: Timestamp,
    /// Events that did not arrive, by the words of `losses` in `status`.
    pub losses: Vec<(&'static str, u64)>,
    /// What became of the entries of each sink.
    pub sinks: Vec<(&'static str, Counts)>,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    policies: Verdicts,
    apps: Verdicts,
    countries: Verdicts,
    delay: Histogram,
    lost: Counts1,
    generation: Gauge,
    age: Gauge<f64, AtomicU64>,
    queued: Gauges,
    sink_lost: Counts2,
    kernel: Counts1,
    entries: Gauges,
    most_entries: Gauges,
    facts: Mutex<Option<Facts>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("firewall"),
            policies: Verdicts::default(),
            apps: Verdicts::default(),
            countries: Verdicts::default(),
            delay: Histogram::new(DELAYS),
            lost: Family::default(),
            generation: Gauge::default(),
            age: Gauge::default(),
            queued: Family::default(),
            sink_lost: Family::default(),
            kernel: Family::default(),
            entries: Family::default(),
            most_entries: Family::default(),
            facts: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let Self { registry, policies, apps, countries, .. } = self;
        for (name, help, verdicts) in [
            ("policy_verdicts", "Verdicts by the policy that decided", policies),
            ("app_verdicts", "Verdicts by the name of the app", apps),
            ("country_verdicts", "Verdicts by the country of the destination", countries),
        ] {
            registry.register(name, help, verdicts.counts.clone());
        }
        let help = "From a decision in the kernel until its event is recorded";
        registry.register_with_unit("record_delay", help, Unit::Seconds, self.delay.clone());
        registry.register("lost_events", "Events that did not arrive", self.lost.clone());
        let help = "The number of the generation that decides";
        registry.register("generation", help, self.generation.clone());
        let help = "How long the generation has decided";
        registry.register_with_unit("generation_age", help, Unit::Seconds, self.age.clone());
        let help = "Entries that wait for a sink, or that it is writing";
        registry.register("sink_queued_entries", help, self.queued.clone());
        let help = "Entries that a sink has lost";
        registry.register("sink_lost_entries", help, self.sink_lost.clone());
        registry.register("kernel", "Counters of the kernel programs", self.kernel.clone());
        let help = "Entries in a map of the kernel programs, counted once a minute";
        registry.register("map_entries", help, self.entries.clone());
        let help = "Entries that a map of the kernel programs has room for";
        registry.register("map_max_entries", help, self.most_entries.clone());
    }

    /// Counts a recorded event.
    pub fn count(&self, event: &Event, recorded: Timestamp) {
        let verdict = event.finding.verdict;
        let times = u64::from(event.count);
        for (verdicts, label, name) in [
            (&self.policies, "policy", event.finding.policy.as_deref()),
            (&self.apps, "app", Some(event.app.name.as_str())),
            (&self.countries, "country", event.geo.country),
        ] {
            verdicts.count(label, name.unwrap_or_default(), verdict, times);
        }
        if let Ok(decided) = event.time.parse::<Timestamp>() {
            // A clock can have been set back.
            self.delay.observe(recorded.duration_since(decided).as_secs_f64().max(0.0));
        }
    }

    /// Takes what the daemon knows.
    pub fn tell(&self, facts: Facts) {
        *lock(&self.facts) = Some(facts);
    }

    /// Takes what the kernel knows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, kernel: &Kernel) -> Result<(), Error> {
        for counter in Word::ALL {
            let labels = [("counter", counter.word().to_owned())];
            set(&self.kernel, labels, kernel.counters.sum(*counter)?);
        }
        for (name, entries, most) in kernel.entries() {
            let labels = [("map", name.to_owned())];
            self.entries.get_or_create(&labels).set(entries.into());
            self.most_entries.get_or_create(&labels).set(most.into());
        }
        Ok(())
    }

    /// What a scrape reads.
    pub fn text(&self) -> String {
        if let Some(Facts { generation, since, losses, sinks }) = &*lock(&self.facts) {
            self.generation.set(i64::from(*generation));
            self.age.set(Timestamp::now().duration_since(*since).as_secs_f64().max(0.0));
            for (cause, count) in losses {
                set(&self.lost, [("cause", (*cause).to_owned())], *count);
            }
            for (sink, Counts { queued, dropped, failed }) in sinks {
                let sink = || ("sink", (*sink).to_owned());
                self.queued.get_or_create(&[sink()]).set(queued.cast_signed());
                for (cause, count) in [("dropped", dropped), ("failed", failed)] {
                    let labels = [sink(), ("cause", cause.to_owned())];
                    set(&self.sink_lost, labels, *count);
                }
            }
        }
        let mut text = String::new();
        // A string takes all that is written to it.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets a counter to what was counted elsewhere.
fn set<const N: usize>(family: &Family<Labels<N>, Counter>, labels: Labels<N>, count: u64) {
    family.get_or_create(&labels).inner().store(count, std::sync::atomic::Ordering::Relaxed);
}

/// Verdicts by something that has names.
#[derive(Debug, Default)]
struct Verdicts {
    counts: Counts2,
    names: Mutex<HashSet<String>>,
}

impl Verdicts {
    fn count(&self, label: &'static str, name: &str, verdict: &'static str, times: u64) {
        let name = self.bounded(name).to_owned();
        let labels = [(label, name), ("verdict", verdict.to_owned())];
        self.counts.get_or_create(&labels).inc_by(times);
    }

    /// The name, if it is one of those that came first.
    fn bounded<'n>(&self, name: &'n str) -> &'n str {
        let mut names = lock(&self.names);
        if names.contains(name) {
            return name;
        }
        if names.len() >= MOST_NAMES {
            return OTHER;
        }
        names.insert(name.to_owned());
        name
    }
}

/// What is read of the kernel programs.
pub struct Kernel {
    counters: Counters,
    maps: Vec<Map>,
    counted: Mutex<Option<(Instant, Vec<Filled>)>>,
}

/// The name of a map, how many entries it has and how many it has room for.
type Filled = (&'static str, u32, u32);

struct Map {
    name: &'static str,
    data: MapData,
    key_size: usize,
    most: u32,
}

impl Kernel {
    /// Of loaded programs.
    ///
    /// # Errors
    /// When a map is missing or of another shape.
    pub fn new(maps: &Maps) -> Result<Self, Error> {
        let counters = Counters::new(maps)?;
        let each = HASH_MAPS.into_iter().map(|name| {
            let held = maps.fd(name)?.try_clone_to_owned();
            let held =
                held.map_err(|source| maps::Error::Hold { name: name.to_owned(), source })?;
            let data = MapData::from_fd(held)?;
            let info = data.info()?;
            let (key_size, most) = (info.key_size() as usize, info.max_entries());
            Ok(Map { name, data, key_size, most })
        });
        let maps = each.collect::<Result<_, Error>>()?;
        Ok(Self { counters, maps, counted: Mutex::default() })
    }

    /// How many entries each map has, as it was counted last. Of one that cannot be read there is none.
    fn entries(&self) -> Vec<Filled> {
        let mut counted = lock(&self.counted);
        if let Some((when, entries)) = &*counted
            && when.elapsed() < COUNTED
        {
            return entries.clone();
        }
        let count = |Map { name, data, key_size, most }: &Map| {
            let entries = sys::entries(data.fd().as_fd(), *key_size, *most).ok()?;
            Some((*name, entries, *most))
        };
        let entries: Vec<_> = self.maps.iter().filter_map(count).collect();
        *counted = Some((Instant::now(), entries.clone()));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample;

    /// The lines of a metric, without what explains it.
    fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.text();
        let mut lines: Vec<String> =
            text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn verdicts_are_counted_with_their_repeats() {
        let metrics = Metrics::default();
        let mut event = sample("deny", "curl");
        event.count = 3;
        for _ in 0..2 {
            metrics.count(&event, event.time.parse().unwrap());
        }
        let event = Event { finding: sample("allow", "x").finding, ..event };
        let later = event.time.parse::<Timestamp>().unwrap() + Duration::from_millis(70);
        metrics.count(&event, later);
        assert_eq!(
            lines(&metrics, "firewall_app_"),
            [
                "firewall_app_verdicts_total{app=\"curl\",verdict=\"allow\"} 3",
                "firewall_app_verdicts_total{app=\"curl\",verdict=\"deny\"} 6",
            ]
        );
        assert_eq!(
            lines(&metrics, "firewall_policy_"),
            [
                "firewall_policy_verdicts_total{policy=\"\",verdict=\"allow\"} 3",
                "firewall_policy_verdicts_total{policy=\"web\",verdict=\"deny\"} 6",
            ]
        );
        let countries = lines(&metrics, "firewall_country_");
        assert!(countries[1].contains("country=\"CN\",verdict=\"deny\"} 6"), "{countries:?}");
        let delays = lines(&metrics, "firewall_record_delay_seconds_");
        for line in ["bucket{le=\"0.05\"} 2", "bucket{le=\"0.1\"} 3", "count 3", "sum 0.07"] {
            let line = format!("firewall_record_delay_seconds_{line}");
            assert!(delays.contains(&line), "no {line}: {delays:#?}");
        }
        assert!(metrics.text().ends_with("# EOF\n"));
    }

    #[test]
    fn names_are_harmless() {
        let metrics = Metrics::default();
        let name = "a\"} 1\nfirewall_generation 99\n\\\x1b[31m";
        let event = sample("deny", name);
        metrics.count(&event, event.time.parse().unwrap());
        let escaped =
            "{app=\"a\\\"} 1\\nfirewall_generation 99\\n\\\\\x1b[31m\",verdict=\"deny\"} 1";
        assert_eq!(
            lines(&metrics, "firewall_app"),
            [format!("firewall_app_verdicts_total{escaped}")]
        );
        assert_eq!(lines(&metrics, "firewall_generation "), ["firewall_generation 0"]);
    }

    #[test]
    fn apps_beyond_the_most_are_told_apart_no_more() {
        let metrics = Metrics::default();
        for number in 0..MOST_NAMES + 10 {
            let event = sample("audit", &format!("app-{number}"));
            metrics.count(&event, event.time.parse().unwrap());
        }
        let lines = lines(&metrics, "firewall_app");
        assert_eq!(lines.len(), MOST_NAMES + 1);
        let other = "firewall_app_verdicts_total{app=\"other\",verdict=\"audit\"} 10";
        assert!(lines.contains(&other.to_owned()), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("\"app-0\"")), "those that came first stay");
    }

    #[test]
    fn what_the_daemon_tells() {
        let metrics = Metrics::default();
        let facts = |dropped| Facts {
            generation: 7,
            since: Timestamp::now() - Duration::from_secs(90),
            losses: vec![("events", dropped), ("unread", 0)],
            sinks: vec![("journal", Counts { queued: 3, dropped, failed: 1 })],
        };
        for dropped in [2, 5] {
            metrics.tell(facts(dropped));
            let lost = format!("firewall_lost_events_total{{cause=\"events\"}} {dropped}");
            assert!(lines(&metrics, "firewall_lost").contains(&lost));
        }
        assert_eq!(lines(&metrics, "firewall_generation "), ["firewall_generation 7"]);
        let age = lines(&metrics, "firewall_generation_age_seconds");
        let age: f64 = age[0].rsplit(' ').next().unwrap().parse().unwrap();
        assert!((90.0..600.0).contains(&age), "{age}");
        assert_eq!(
            lines(&metrics, "firewall_sink_"),
            [
                "firewall_sink_lost_entries_total{sink=\"journal\",cause=\"dropped\"} 5",
                "firewall_sink_lost_entries_total{sink=\"journal\",cause=\"failed\"} 1",
                "firewall_sink_queued_entries{sink=\"journal\"} 3",
            ]
        );
    }
}
