//! Where recorded events go, beside those who follow: one module for each kind of place, behind one trait.
//!
//! A sink has a bounded queue and a thread of its own. One that hangs or cannot write loses what comes, which
//! is counted, and holds back neither the daemon nor another sink.

pub mod audit;
pub mod journald;
pub mod jsonl;
pub mod metrics;
mod queue;
mod trouble;

use std::sync::Arc;

use jiff::Timestamp;

use crate::events::{Event, Lost};

pub use queue::{Counts, Queue};

/// What a sink is given.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A recorded event.
    Event {
        /// The event.
        event: Arc<Event>,
        /// The same as JSON, without an end of line.
        line: Arc<str>,
        /// When it was handed over.
        recorded: Timestamp,
    },
    /// Events that are missing here: the kernel had no room for them, or the queue of the sink.
    Lost {
        /// How many.
        lost: Lost,
        /// The same as JSON, without an end of line.
        line: Arc<str>,
    },
}

impl Entry {
    /// Events that are missing.
    pub fn lost(count: u64) -> Self {
        let lost = Lost::new(count);
        // Nothing in it has keys that are not text.
        let line = serde_json::to_string(&lost).unwrap_or_default().into();
        Self::Lost { lost, line }
    }

    /// As JSON, without an end of line.
    pub fn line(&self) -> &Arc<str> {
        match self {
            Self::Event { line, .. } | Self::Lost { line, .. } => line,
        }
    }
}

#[cfg(test)]
pub(crate) use sample::sample;

/// A place for events.
pub trait Sink: Send {
    /// Its word in `status` and in metrics.
    fn name(&self) -> &'static str;

    /// Takes what has come since the last call, in its order: what is not said to have failed is where it
    /// is to be when this returns. It may block: it is called on the thread of the sink.
    fn write(&mut self, entries: &[Entry]) -> Written;
}

/// What became of entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many could not be written.
    pub failed: u64,
    /// What a user should know: once that it cannot be written, and once that it can again.
    pub news: Option<String>,
}

#[cfg(test)]
mod sample {
    use super::*;
    use crate::{
        events::{App, Endpoint, Host, SCHEMA},
        policy::{
            evidence::Data,
            explain::{Finding, Geo},
        },
    };

    /// A verdict about an app; a policy decides but where it is `allow`.
    pub(crate) fn sample(verdict: &'static str, app: &str) -> Event {
        let decided = (verdict != "allow").then_some("web");
        Event {
            schema: SCHEMA,
            seq: 42,
            time: "2026-11-22T01:25:18.215945Z".to_owned(),
            finding: Finding {
                verdict,
                mode: "enforce",
                reason: if decided.is_some() { "rule" } else { "default" },
                action: decided.map(|_| "drop"),
                policy: decided.map(str::to_owned),
                rule: decided.map(|_| "ads".to_owned()),
                evidence: vec!["country:CN=110.240.0.0/12".to_owned(), "as:4837".to_owned()],
                data: Data::default(),
            },
            hook: "connect",
            app: Arc::new(App {
                name: app.to_owned(),
                exe: Some(format!("/usr/bin/{app}")),
                pid: Some(7),
                uid: 1000,
                ..App::default()
            }),
            proto: "tcp".into(),
            src: None,
            dst: Endpoint { ip: [110, 242, 68, 66].into(), port: Some(80) },
            host: Some(Host {
                name: "hm.baidu.com".to_owned(),
                via: Some("dns"),
                confidence: None,
                encrypted_hello: false,
                chain: Vec::new(),
            }),
            geo: Geo { country: Some("CN"), asn: Some(4837), ..Geo::default() },
            count: 1,
            bytes_out: 0,
            bytes_in: 0,
        }
    }
}
