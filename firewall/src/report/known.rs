//! What reports before have told: which app talked to whom. Kept in the state folder, so that the next one
//! can say what is new.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::{self, ErrorKind},
    path::Path,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::{events::seen::Same, regular, replace::replace};

/// Name of the file in the state folder.
pub const FILE: &str = "report.json";
/// Bytes of the file.
const LARGEST: u64 = 64 << 20;
/// Organisations, countries and names that are remembered, of all apps together.
const MAX_PAIRS: usize = 1 << 18;

/// What is known.
#[derive(Debug, Default)]
pub struct Known {
    /// When the report before was made; without one nothing is new.
    pub time: Option<Timestamp>,
    apps: HashMap<Same, Seen>,
    pairs: usize,
    /// Pairs that found no place.
    pub beyond: u64,
}

/// What an app has talked to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Seen {
    organisations: BTreeSet<String>,
    countries: BTreeSet<String>,
    names: BTreeSet<String>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    schema: u32,
    time: Timestamp,
    seen: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    app: Same,
    #[serde(flatten)]
    seen: Seen,
}

/// What of an app is new.
#[derive(Debug, Default)]
pub(super) struct New {
    pub app: bool,
    pub organisations: HashSet<String>,
    pub countries: HashSet<String>,
    pub names: HashSet<String>,
}

impl Known {
    /// What the file in a state folder says; nothing where there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is none of these.
    pub fn load(state: &Path) -> io::Result<Self> {
        let bytes = match regular::read(&state.join(FILE), LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let File { schema, time, seen } = serde_json::from_slice(&bytes)?;
        if schema != SCHEMA {
            let why = format!("it has schema {schema}, and this reads schema {SCHEMA}");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let pairs = seen.iter().map(|Entry { seen, .. }| {
            seen.organisations.len() + seen.countries.len() + seen.names.len()
        });
        Ok(Self {
            time: Some(time),
            pairs: pairs.sum(),
            apps: seen.into_iter().map(|entry| (entry.app, entry.seen)).collect(),
            beyond: 0,
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn store(&self, state: &Path, now: Timestamp) -> io::Result<()> {
        let mut seen: Vec<Entry> = self
            .apps
            .iter()
            .map(|(app, seen)| Entry { app: app.clone(), seen: seen.clone() })
            .collect();
        seen.sort_by(|one, other| {
            let key =
                |entry: &Entry| (entry.app.exe.clone(), entry.app.name.clone(), entry.app.uid);
            key(one).cmp(&key(other))
        });
        let file = File { schema: SCHEMA, time: now, seen };
        let text = serde_json::to_vec(&file)?;
        if text.len() as u64 > LARGEST {
            let why = format!("it would have more than {} MiB", LARGEST >> 20);
            return Err(io::Error::new(ErrorKind::FileTooLarge, why));
        }
        replace(&state.join(FILE), 0o640, &[&text])
    }

    /// What of it is new, which it is no more from then on.
    pub(super) fn take<'a>(
        &mut self,
        app: &Same,
        organisations: impl Iterator<Item = &'a str>,
        countries: impl Iterator<Item = &'a str>,
        names: impl Iterator<Item = &'a str>,
    ) -> New {
        let compares = self.time.is_some();
        let mut new = New { app: compares && !self.apps.contains_key(app), ..New::default() };
        let seen = self.apps.entry(app.clone()).or_default();
        let mut take = |all: &mut BTreeSet<String>, new: &mut HashSet<String>, one: &str| {
            if all.contains(one) {
                return;
            }
            if compares {
                new.insert(one.to_owned());
            }
            if self.pairs >= MAX_PAIRS {
                self.beyond += 1;
                return;
            }
            self.pairs += 1;
            all.insert(one.to_owned());
        };
        organisations.for_each(|one| take(&mut seen.organisations, &mut new.organisations, one));
        countries.for_each(|one| take(&mut seen.countries, &mut new.countries, one));
        names.for_each(|one| take(&mut seen.names, &mut new.names, one));
        new
    }
}
