//! What is said of a place that cannot be written to: once that it cannot, and once that it can again.

use std::io;

/// Whether a place can be written to, and what is missing there.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    missing: u64,
}

impl Trouble {
    /// That so many entries could not be written; returns what to say.
    pub fn failed(&mut self, place: &str, entries: u64, error: &io::Error) -> Option<String> {
        let is_new = self.missing == 0;
        self.missing += entries;
        is_new.then(|| format!("cannot write to {place}: {error}"))
    }

    /// That it can be written to; returns what to say.
    pub fn over(&mut self, place: &str) -> Option<String> {
        let missing = std::mem::take(&mut self.missing);
        let text = format!("{place} can be written to again; events that are missing: {missing}");
        (missing > 0).then_some(text)
    }
}
