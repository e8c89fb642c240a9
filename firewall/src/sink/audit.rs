//! The audit store.

use std::{path::Path, time::Instant};

use jiff::Timestamp;

use super::{Entry, Sink, Written};
use crate::{
    events::View,
    store::{
        self,
        writer::{self, Limits, Signer, Store},
    },
};

/// How often is looked for records that are too old.
const EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// Pieces of records that are removed between two batches.
const PIECES: usize = 8;

/// Stores what it is given.
pub struct Audit {
    store: Store,
    limits: Limits,
    tidied: Option<Instant>,
    /// Records were removed since.
    untidy: bool,
    /// Records that could not be stored, which the store itself does not know of yet.
    missing: u64,
    /// What was said last.
    said: Option<String>,
}

impl Audit {
    /// Opens the store of a state folder. One that cannot be read any more is put aside, and that is said.
    ///
    /// # Errors
    ///
    /// When it can be neither opened nor made.
    pub fn open(
        state: &Path,
        limits: Limits,
        signer: impl Signer + Clone + 'static,
    ) -> Result<(Self, Option<String>), store::Error> {
        let path = state.join(store::FILE);
        let open = || Store::open(&path, Some(Box::new(signer.clone())));
        let mut said = None;
        let store = match open() {
            Err(error) if error.is_broken() => {
                let aside = store::put_aside(&path).map_err(|_| error)?;
                said = Some(format!(
                    "the audit store cannot be read any more, and is kept as {}",
                    aside.display()
                ));
                open()?
            }
            other => other?,
        };
        Ok((Self { store, limits, tidied: None, untidy: false, missing: 0, said: None }, said))
    }

    /// The number of the last event that is stored.
    pub const fn seq(&self) -> u64 {
        self.store.seq
    }

    fn store(&mut self, entries: &[Entry]) -> Result<(), store::Error> {
        let missing = (self.missing > 0).then(|| Entry::lost(self.missing));
        self.store.append(missing.iter().chain(entries).map(|entry| match entry {
            Entry::Event { event, line, .. } => writer::Entry {
                event: line,
                view: Some(View::from(&**event)),
                seq: Some(event.seq),
            },
            Entry::Lost { line, .. } => writer::Entry { event: line, view: None, seq: None },
        }))?;
        self.missing = 0;
        Ok(())
    }

    /// Removes what is not to be kept any more, not all of it at once.
    fn remove_old(&mut self) -> Result<(), store::Error> {
        let is_due = self.tidied.is_none_or(|tidied| tidied.elapsed() >= EVERY);
        if !is_due && !self.store.is_large(self.limits)? {
            return Ok(());
        }
        for _ in 0..PIECES {
            if self.store.retain(self.limits, Timestamp::now())? {
                self.untidy = true;
                continue;
            }
            if is_due {
                if std::mem::take(&mut self.untidy) {
                    self.store.tidy()?;
                }
                self.tidied = Some(Instant::now());
            }
            break;
        }
        Ok(())
    }
}

impl Sink for Audit {
    fn name(&self) -> &'static str {
        "log"
    }

    fn write(&mut self, entries: &[Entry]) -> Written {
        let before = self.missing;
        let (failed, says) = match self.store(entries) {
            Ok(()) => {
                // What is stored stays stored, whatever becomes of what is old.
                let kept = self.remove_old().err();
                let kept = kept.map(|error| format!("old records cannot be removed: {error}"));
                let unsigned = self.store.unsigned.as_ref();
                (0, kept.or(unsigned.map(|why| format!("the audit store is not signed: {why}"))))
            }
            Err(error) => {
                self.missing += entries.iter().map(count).sum::<u64>();
                (entries.len() as u64, Some(format!("cannot write the audit store: {error}")))
            }
        };
        let news = match (&says, &self.said) {
            (says, said) if says == said => None,
            (None, Some(_)) if before > 0 => Some(format!(
                "the audit store can be written again; records that are missing: {before}"
            )),
            (None, Some(_)) => Some("the audit store is as it should be again".to_owned()),
            (says, _) => says.clone(),
        };
        self.said = says;
        Written { failed, news }
    }
}

/// How many events an entry stands for.
const fn count(entry: &Entry) -> u64 {
    match entry {
        Entry::Event { .. } => 1,
        Entry::Lost { lost, .. } => lost.count,
    }
}
