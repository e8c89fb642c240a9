//! Where verdicts go: the audit store, what the settings name besides, those who follow, the hits of rules.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use firewall_common::event::FlowEvent;
use jiff::Timestamp;
use tokio::sync::broadcast;

use super::{
    engine::Engine,
    errands::Errands,
    worker::{Error, system},
};
use crate::{
    config::{self, Listen},
    datapath::{destroy::Doom, maps::Maps},
    events::{Event, recorder},
    metrics::{Facts, Kernel, Metrics},
    sink::{
        Counts, Entry, Queue, Sink,
        audit::Audit,
        journald::{self, Journal},
        jsonl::JsonLines,
        metrics::{Counting, Listener, serve},
    },
    store::writer::Limits,
};

/// Bytes of events that may wait for a sink, about 15,000 of them.
const WAITING: usize = 32 << 20;

/// How long sinks may take at a clean stop, all of them together.
const ENDING: Duration = Duration::from_secs(5);

/// What the settings name, prepared while the worker may still write anywhere and listen.
#[derive(Default)]
pub struct Prepared {
    settings: config::Sinks,
    listener: Option<Listener>,
    missing: Option<String>,
}

impl Prepared {
    /// What stands there. Settings that are not valid are told of by who reads them next, and name nothing.
    pub fn new(config: Option<&Path>, say: &mut dyn FnMut(&str)) -> Self {
        let settings = config::Config::load(config).unwrap_or_default().sinks;
        if let Some(folder) = settings.json.as_deref().and_then(Path::parent) {
            // What is wrong with it is said with the first event.
            let _ = fs::create_dir_all(folder);
        }
        let bound = settings.metrics.as_ref().map(Listener::bind).transpose();
        let missing = bound.as_ref().err().map(|why| format!("no metrics can be read: {why}"));
        if let Some(text) = &missing {
            say(&format!(
                "{text}\n\nhint: free the place or name another one with `listen`, and restart"
            ));
        }
        Self { settings, listener: bound.ok().flatten(), missing }
    }

    /// Folders that have to be written to.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.settings.json.as_deref().and_then(Path::parent).map(Path::to_owned).into_iter()
    }

    /// How much is stored.
    pub fn limits(&self) -> Limits {
        let days = self.settings.keep_days.unwrap_or(config::Sinks::KEEP_DAYS);
        Limits {
            age: Duration::from_secs(u64::from(days) * 86_400),
            size: self.settings.keep_size.unwrap_or(config::Sinks::KEEP_SIZE),
        }
    }

    /// Leaves no socket behind.
    pub fn clear(&self) {
        clear(&self.settings);
    }
}

/// Removes the socket of metrics, if that is permitted: the next one takes its place otherwise.
fn clear(settings: &config::Sinks) {
    if let Some(Listen::Socket(path)) = &settings.metrics {
        let _ = fs::remove_file(path);
    }
}

/// Takes events.
pub struct Sinks<'e> {
    /// The audit store, and what the settings name.
    queues: Vec<Queue>,
    metrics: Option<Arc<Metrics>>,
    /// Those who follow.
    verdicts: broadcast::Sender<Arc<str>>,
    /// What decided how often.
    pub hits: Hits,
    doom: Doom,
    errands: &'e Errands,
    /// What the settings were when all this was made.
    settings: config::Sinks,
    missing: Option<String>,
}

impl<'e> Sinks<'e> {
    /// Into a store and what was prepared; sockets that are to be ended are told to `errands`.
    pub fn new(
        audit: Audit,
        prepared: Prepared,
        maps: &Maps,
        verdicts: broadcast::Sender<Arc<str>>,
        errands: &'e Errands,
    ) -> Result<Self, Error> {
        let Prepared { settings, listener, missing } = prepared;
        let mut queues = vec![start(audit)?];
        if let Some(path) = settings.json.clone() {
            let size = settings.json_size.unwrap_or(config::Sinks::JSON_SIZE);
            let files = settings.json_files.unwrap_or(config::Sinks::JSON_FILES);
            queues.push(start(JsonLines::new("json", path, size, files))?);
        }
        if settings.journal == Some(true) {
            queues.push(start(Journal::new(journald::SOCKET))?);
        }
        let mut metrics = None;
        if let Some(listener) = listener {
            let shared = metrics.insert(Arc::new(Metrics::default()));
            queues.push(start(Counting(Arc::clone(shared)))?);
            let (shared, kernel) = (Arc::clone(shared), Kernel::new(maps)?);
            let text = move || {
                let read = shared.read(&kernel).map_err(|error| error.to_string());
                read.map(|()| shared.text())
            };
            serve(listener, text).map_err(system("cannot start a thread"))?;
        }
        let (hits, doom) = (Hits::default(), Doom::default());
        Ok(Self { queues, metrics, verdicts, hits, doom, errands, settings, missing })
    }

    /// Tells of events that are lost, and returns what [`Self::wrote`] says when the store has that.
    pub fn lost(&mut self, count: u64) -> u64 {
        self.hand_over(&Entry::lost(count));
        self.audit().handed()
    }

    /// Up to which of the things that were handed over the store has them.
    pub fn wrote(&self) -> u64 {
        self.audit().settled()
    }

    /// Events that the store does not have.
    pub fn unwritten(&self) -> u64 {
        let Counts { dropped, failed, .. } = self.audit().counts();
        dropped + failed
    }

    /// What became of the events of each sink.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, Counts)> {
        self.queues.iter().map(|queue| (queue.name(), queue.counts()))
    }

    /// What is not as the settings say.
    pub fn missing(&self, engine: &Engine<'_>) -> impl Iterator<Item = String> {
        self.missing.clone().into_iter().chain(self.outdated(engine))
    }

    /// That the settings say something else by now: what they name was opened before the worker gave up its
    /// rights.
    pub fn outdated(&self, engine: &Engine<'_>) -> Option<String> {
        let text = "`[log]` and `[metrics]` are not yet as the settings say: restart the daemon";
        (engine.now.config.sinks != self.settings).then(|| text.to_owned())
    }

    /// Says what is new, and lets metrics know how it is.
    pub fn look(
        &self,
        losses: Vec<(&'static str, u64)>,
        engine: &Engine<'_>,
        say: &mut dyn FnMut(&str),
    ) {
        for text in self.queues.iter().flat_map(Queue::news) {
            say(&text);
        }
        if let Some(metrics) = &self.metrics {
            let (generation, since) = (engine.now.number.get(), engine.now.since);
            let sinks = self.counts().collect();
            metrics.tell(Facts { generation, since, losses, sinks });
        }
    }

    /// Has everything written, as far as that is done in time.
    pub fn finish(&self, say: &mut dyn FnMut(&str)) {
        clear(&self.settings);
        self.queues.iter().for_each(Queue::close);
        let until = Instant::now() + ENDING;
        for queue in &self.queues {
            let left = queue.wait(until);
            if left > 0 {
                say(&format!("the sink `{}` does not go on: {left} events are lost", queue.name()));
            }
            queue.news().iter().for_each(|text| say(text));
        }
    }

    fn audit(&self) -> &Queue {
        &self.queues[0]
    }

    fn hand_over(&self, entry: &Entry) {
        self.queues.iter().for_each(|queue| queue.push(entry));
        if self.verdicts.receiver_count() > 0 {
            // Nobody may follow any more.
            let _ = self.verdicts.send(Arc::clone(entry.line()));
        }
    }
}

fn start(sink: impl Sink + 'static) -> Result<Queue, Error> {
    Queue::start(sink, WAITING).map_err(system("cannot start a thread"))
}

impl recorder::Sink for Sinks<'_> {
    fn seen(&mut self, event: &FlowEvent) {
        let end = |cookie, pid, protocol| self.errands.end(cookie, pid, protocol);
        self.doom.consider(event, end);
    }

    fn record(&mut self, event: Event) {
        self.hits.count(&event);
        // Nothing in it has keys that are not text.
        let Ok(line) = serde_json::to_string(&event) else { return };
        let (event, line) = (Arc::new(event), line.into());
        self.hand_over(&Entry::Event { event, line, recorded: Timestamp::now() });
    }
}

/// How often rules and defaults decided: events times their count.
#[derive(Default)]
pub struct Hits {
    rules: HashMap<(String, String), u64>,
    defaults: HashMap<String, u64>,
    /// The default of the settings.
    pub default: u64,
}

impl Hits {
    fn count(&mut self, event: &Event) {
        let finding = &event.finding;
        let hits = match (&finding.policy, &finding.rule) {
            (Some(policy), Some(rule)) => {
                self.rules.entry((policy.clone(), rule.clone())).or_default()
            }
            (Some(policy), None) => self.defaults.entry(policy.clone()).or_default(),
            _ if finding.reason == firewall_common::verdict::Reason::Default.word() => {
                &mut self.default
            }
            _ => return,
        };
        *hits += u64::from(event.count);
    }

    /// Of a rule.
    pub fn of_rule(&self, policy: &str, rule: &str) -> u64 {
        self.rules.get(&(policy.to_owned(), rule.to_owned())).copied().unwrap_or_default()
    }

    /// Of the default of a policy.
    pub fn of_default(&self, policy: &str) -> u64 {
        self.defaults.get(policy).copied().unwrap_or_default()
    }
}
