//! Where verdicts go: the audit store, those who follow, the hits of rules.

use std::{collections::HashMap, sync::Arc};

use firewall_common::event::FlowEvent;
use jiff::Timestamp;
use tokio::sync::broadcast;

use super::errands::Errands;
use crate::{
    datapath::destroy::Doom,
    events::{Event, recorder::Sink},
    sink::{Entry, Queue},
};

/// Takes events.
pub struct Sinks<'e> {
    /// The audit store.
    pub audit: Queue,
    /// Those who follow.
    pub verdicts: broadcast::Sender<Arc<str>>,
    /// What decided how often.
    pub hits: Hits,
    doom: Doom,
    errands: &'e Errands,
}

impl<'e> Sinks<'e> {
    /// Into a store; sockets that are to be ended are told to `errands`.
    pub fn new(audit: Queue, verdicts: broadcast::Sender<Arc<str>>, errands: &'e Errands) -> Self {
        Self { audit, verdicts, hits: Hits::default(), doom: Doom::default(), errands }
    }

    /// Tells of events that are lost.
    pub fn lost(&mut self, count: u64) {
        self.write(&Entry::lost(count));
    }

    fn write(&mut self, entry: &Entry) {
        self.audit.push(entry);
        if self.verdicts.receiver_count() > 0 {
            // Nobody may follow any more.
            let _ = self.verdicts.send(Arc::clone(entry.line()));
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
        // Nothing in it has keys that are not text.
        let Ok(line) = serde_json::to_string(&event) else { return };
        let recorded = Timestamp::now();
        self.write(&Entry::Event { event: Arc::new(event), line: line.into(), recorded });
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
