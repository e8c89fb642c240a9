//! Where verdicts go: the log, those who follow, the hits of rules.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
};

use firewall_common::event::FlowEvent;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::errands::Errands;
use crate::{
    datapath::destroy::Doom,
    events::{
        Event, Lost, SCHEMA,
        log::{self, Log},
        recorder::Sink,
    },
};

/// Takes events.
pub struct Sinks<'e> {
    /// The log in the state folder.
    pub log: Log,
    /// Those who follow.
    pub verdicts: broadcast::Sender<Arc<str>>,
    /// What decided how often.
    pub hits: Hits,
    doom: Doom,
    errands: &'e Errands,
}

impl<'e> Sinks<'e> {
    /// Into a log; sockets that are to be ended are told to `errands`.
    pub fn new(log: Log, verdicts: broadcast::Sender<Arc<str>>, errands: &'e Errands) -> Self {
        Self { log, verdicts, hits: Hits::default(), doom: Doom::default(), errands }
    }

    /// Tells of events that are lost.
    pub fn lost(&mut self, count: u64) {
        self.write(&Lost { schema: SCHEMA, kind: "lost", count });
    }

    fn write(&mut self, line: &impl Serialize) {
        // Nothing in it has keys that are not text.
        let Ok(line) = serde_json::to_string(line) else { return };
        self.log.write_line(&line);
        if self.verdicts.receiver_count() > 0 {
            // Nobody may follow any more.
            let _ = self.verdicts.send(line.into());
        }
    }
}

impl Sink for Sinks<'_> {
    fn seen(&mut self, event: &FlowEvent) {
        let end = |cookie, pid, protocol| self.errands.end(cookie, pid, protocol);
        self.doom.consider(event, end);
    }

    fn record(&mut self, event: Event) {
        self.hits.count(&event);
        self.write(&event);
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

/// More than the longest event has.
const TAIL: u64 = 256 << 10;

/// The number of the last event in the log of a state folder, which the next goes on from; 0 if there is
/// none.
pub fn last_number(state: &Path) -> u64 {
    // The log was just opened; where one of its files cannot be read, numbers start over.
    let files = log::files(&state.join(log::EVENTS)).unwrap_or_default();
    let mut newest_first = files.into_iter().rev();
    newest_first.find_map(|(_, file)| last_number_in(file).ok().flatten()).unwrap_or_default()
}

fn last_number_in(mut file: File) -> io::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let number = |line: &[u8]| serde_json::from_slice::<Numbered>(line).ok().map(|line| line.seq);
    Ok(tail.rsplit(|byte| *byte == b'\n').find_map(number))
}
