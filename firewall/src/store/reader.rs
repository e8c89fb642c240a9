//! Reading: what a filter lets through, the oldest first, a piece at a time.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{Error, FILE, Kind, connect, database};
use crate::events::filter::Filter;

/// Kinds of which is remembered whether they pass.
const MAX_KINDS: usize = 1 << 20;

/// An open store.
pub struct Reader {
    db: Connection,
    path: std::path::PathBuf,
    /// The last record that was looked at.
    at: i64,
    /// Which kinds pass, by their numbers, which are small.
    kinds: Vec<Option<bool>>,
}

impl Reader {
    /// Opens the store of a state folder; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn open(state: &Path) -> Result<Option<Self>, Error> {
        let path = state.join(FILE);
        if matches!(path.try_exists(), Ok(false)) {
            return Ok(None);
        }
        let db = open(&path)?;
        Ok(Some(Self { db, path, at: 0, kinds: Vec::new() }))
    }

    /// The number of the last record that there is now; 0 if there is none.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn end(&self) -> Result<i64, Error> {
        let last = self.db.query_row("SELECT max(id) FROM entries", [], |row| row.get(0));
        let last: Option<i64> = last.map_err(|source| database(&self.path, source))?;
        Ok(last.unwrap_or_default())
    }

    /// The text of the next records up to the one with the number `end`, at most `most`; none when there are no
    /// more. Losses are for every filter.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn next(
        &mut self,
        filter: &mut Filter,
        end: i64,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        self.try_next(filter, end, most).map_err(|source| database(&self.path, source))
    }

    fn try_next(
        &mut self,
        filter: &mut Filter,
        end: i64,
        most: usize,
    ) -> rusqlite::Result<Vec<String>> {
        // What is read belongs together.
        let _snapshot = self.db.unchecked_transaction()?;
        let mut entries = self.db.prepare_cached(
            "SELECT id, time, kind FROM entries WHERE id > ? AND id <= ? ORDER BY id",
        )?;
        let mut kind = self.db.prepare_cached("SELECT kind FROM kinds WHERE id = ?")?;
        let mut event = self.db.prepare_cached("SELECT event FROM events WHERE id = ?")?;
        let mut rows = entries.query((self.at, end))?;
        let mut found = Vec::new();
        let asks_time = filter.asks_time();
        while found.len() < most
            && let Some(row) = rows.next()?
        {
            let id: i64 = row.get(0)?;
            self.at = id;
            if asks_time && !filter.is_within(row.get(1)?) {
                continue;
            }
            let number: i64 = row.get(2)?;
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            let passes = match self.kinds.get(at) {
                Some(Some(passes)) => *passes,
                _ => {
                    let text: Option<String> =
                        kind.query_row([number], |row| row.get(0)).optional()?;
                    let passes = passes(filter, &text.unwrap_or_default());
                    if at < MAX_KINDS {
                        self.kinds.resize(self.kinds.len().max(at + 1), None);
                        self.kinds[at] = Some(passes);
                    }
                    passes
                }
            };
            if passes {
                // Removed meanwhile by somebody who left the entry: `verify` says so.
                found.extend(event.query_row([id], |row| row.get::<_, String>(0)).optional()?);
            }
        }
        Ok(found)
    }

    /// The text of the event with this number, the last one if there are several.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn event(&self, seq: u64) -> Result<Option<String>, Error> {
        let query =
            "SELECT event FROM events WHERE id = (SELECT max(id) FROM entries WHERE seq = ?)";
        let found = self.db.query_row(query, [seq.cast_signed()], |row| row.get(0)).optional();
        found.map_err(|source| database(&self.path, source))
    }
}

/// Opens a store that is only read, also where nobody writes and this user may not.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    match connect(path, flags) {
        // Without a writer there is no file of shared memory, and who may not make one can only read a
        // store that has nothing left in its write-ahead log.
        Err(error) if error.is_denied() && std::fs::File::open(path).is_ok() => {
            let name = format!("file:{}?immutable=1", path.display());
            let (db, _) = connect(Path::new(&name), flags | OpenFlags::SQLITE_OPEN_URI)?;
            Ok(db)
        }
        other => Ok(other?.0),
    }
}

/// Whether a kind passes; a loss, which has none, does.
fn passes(filter: &mut Filter, kind: &str) -> bool {
    if kind.is_empty() {
        return true;
    }
    match serde_json::from_str::<Kind>(kind) {
        Ok(kind) => filter.passes(kind.view()),
        // Nobody else writes kinds, so somebody did: what has it is shown.
        Err(_) => true,
    }
}
