//! What is measured, as Prometheus reads it: verdicts, delays, losses, how full maps are.
//!
//! ```text
//! recorded events ─ sink::metrics ─▶ Metrics ◀─ tell ─ daemon (generation, losses, sinks)
//!                                    │   ▲
//!                   text of a scrape ┘   └ read, at each scrape: counters and maps of the kernel
//! ```

use std::{
    collections::HashSet,
    fmt,
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

/// Apps, and policies, that are told apart; the others are [`OTHER`].
pub const MOST_NAMES: usize = 128;

/// The label of what comes when there are [`MOST_NAMES`] already.
pub const OTHER: &str = "other";

/// How long the count of a map's entries is good: it takes a call for each entry.
const COUNTED: Duration = Duration::from_secs(60);

/// Hash maps, which fill up. What is an array has all its entries from the start.
const HASH_MAPS: [&str; 9] = [
    "ANSWERS",
    "CGROUPS",
    "CONNECTIONS",
    "EXECUTABLES",
    "FORMER",
    "LISTENERS",
    "NAMES",
    "PROCESSES",
    "SCRIPTS",
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
    reads: Kernel,
    facts: Mutex<Option<Facts>>,
}

impl Metrics {
    /// None yet, of a kernel that is read at each scrape.
    pub fn new(reads: Kernel) -> Self {
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
            reads,
            facts: Mutex::default(),
        };
        metrics.register();
        metrics
    }

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

    /// What a scrape reads.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub fn text(&self) -> Result<String, Error> {
        if let Some(Facts { generation, since, losses, sinks }) = &*lock(&self.facts) {
            self.generation.set(i64::from(*generation));
            self.age.set(Timestamp::now().duration_since(*since).as_secs_f64().max(0.0));
            for (cause, count) in losses {
                set(&self.lost, [("cause", (*cause).to_owned())], *count);
            }
            for (sink, Counts { queued, dropped, failed }) in sinks {
                let sink = ("sink", (*sink).to_owned());
                self.queued.get_or_create(&[sink.clone()]).set(queued.cast_signed());
                for (cause, count) in [("dropped", dropped), ("failed", failed)] {
                    let labels = [sink.clone(), ("cause", cause.to_owned())];
                    set(&self.sink_lost, labels, *count);
                }
            }
        }
        for counter in Word::ALL {
            let labels = [("counter", counter.word().to_owned())];
            set(&self.kernel, labels, self.reads.counters.sum(*counter)?);
        }
        for Map { name, most, .. } in &self.reads.maps {
            let labels = [("map", (*name).to_owned())];
            self.most_entries.get_or_create(&labels).set(i64::from(*most));
        }
        for (name, entries) in self.reads.entries() {
            self.entries.get_or_create(&[("map", name.to_owned())]).set(i64::from(entries));
        }
        let mut text = String::new();
        // A string takes all that is written to it.
        let _ = encode(&mut text, &self.registry);
        Ok(text)
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
    counted: Mutex<Option<(Instant, Vec<(&'static str, u32)>)>>,
}

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
    fn entries(&self) -> Vec<(&'static str, u32)> {
        let mut counted = lock(&self.counted);
        if let Some((when, entries)) = &*counted
            && when.elapsed() < COUNTED
        {
            return entries.clone();
        }
        let count = |Map { name, data, key_size, most }: &Map| {
            Some((*name, sys::entries(data.fd().as_fd(), *key_size, *most).ok()?))
        };
        let entries: Vec<_> = self.maps.iter().filter_map(count).collect();
        *counted = Some((Instant::now(), entries.clone()));
        entries
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}
