//! Where recorded events go, beside those who follow: one module for each kind of place, behind one trait.
//!
//! A sink has a bounded queue and a thread of its own. One that hangs or cannot write loses what comes, which
//! is counted, and holds back neither the daemon nor another sink.

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
