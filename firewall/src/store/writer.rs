//! Writing: records in one transaction with their links and the signed head.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction};

use super::{
    APPLICATION, Error, Kind, TABLES, VERSION,
    chain::{Hash, Head, Link},
    connect, database,
};
use crate::events::View;

/// Kinds whose numbers are remembered.
const MAX_KINDS: usize = 16_384;

/// Records that are removed in one go.
const PIECE: i64 = 2_000;

/// Pages that are given back in one go.
const PAGES: u32 = 512;

/// Signs heads.
pub trait Signer: Send {
    /// The signature of a head that is about to be stored.
    fn sign(&mut self, head: &Head) -> io::Result<Vec<u8>>;
    /// That a head is stored.
    fn stored(&mut self, head: &Head);
    /// The number of the last record of which [`Self::stored`] was told, also of an earlier writer.
    fn last(&mut self) -> i64;
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For how long.
    pub age: Duration,
    /// Bytes of the database.
    pub size: u64,
}

/// What is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The text.
    pub event: &'a str,
    /// What it says; `None` for a loss.
    pub view: Option<View<'a>>,
    /// The number of the event.
    pub seq: Option<u64>,
}

/// An open store. There is one that writes.
pub struct Store {
    db: Connection,
    path: PathBuf,
    head: Head,
    signer: Option<Box<dyn Signer>>,
    kinds: HashMap<String, i64>,
    /// The number of the last event.
    pub seq: u64,
    /// Why the head is not signed.
    pub unsigned: Option<String>,
}

impl Store {
    /// Opens a store, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is something else.
    pub fn open(path: &Path, mut signer: Option<Box<dyn Signer>>) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let (mut db, is_made) = connect(path, flags)?;
        let open = || {
            db.set_prepared_statement_cache_capacity(32);
            // Before there are tables, or it has no effect.
            db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = FULL;")?;
            db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            if !is_made {
                let transaction = db.transaction()?;
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "application_id", APPLICATION)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
                transaction.commit()?;
            }
            let head = Head::read(&db)?.map(|(head, _)| head).unwrap_or_default();
            let latest = "SELECT seq FROM entries WHERE seq IS NOT NULL ORDER BY id DESC LIMIT 1";
            let seq: Option<i64> = db.query_row(latest, [], |row| row.get(0)).optional()?;
            // Where records are that no head knows of, they are left for who verifies.
            let last: Option<i64> =
                db.query_row("SELECT max(id) FROM events", [], |row| row.get(0))?;
            // And so is that records are gone.
            let noted = signer.as_mut().map(|signer| signer.last()).unwrap_or_default();
            let last = last.unwrap_or_default().max(head.last).max(noted);
            Ok((db, Head { last, ..head }, seq.unwrap_or_default()))
        };
        let (db, head, seq) = open().map_err(|source| database(path, source))?;
        Ok(Self {
            db,
            path: path.to_owned(),
            head,
            signer,
            kinds: HashMap::new(),
            seq: seq.cast_unsigned(),
            unsigned: None,
        })
    }

    /// Stores records, all or none. When it returns they are on the disk.
    ///
    /// # Errors
    ///
    /// When they cannot be stored: the disk is full, for example.
    pub fn append<'a>(
        &mut self,
        entries: impl IntoIterator<Item = Entry<'a>>,
    ) -> Result<(), Error> {
        let outcome = self.try_append(entries);
        if outcome.is_err() {
            // Numbers of kinds that are not stored.
            self.kinds.clear();
        }
        outcome.map_err(|source| database(&self.path, source))
    }

    fn try_append<'a>(
        &mut self,
        entries: impl IntoIterator<Item = Entry<'a>>,
    ) -> rusqlite::Result<()> {
        let transaction = self.db.unchecked_transaction()?;
        let (mut head, mut seq) = (self.head, self.seq);
        for entry in entries {
            let kind = entry.view.as_ref().map_or(String::new(), |view| {
                // It has no keys that are not text.
                serde_json::to_string(&Kind::from(view)).unwrap_or_default()
            });
            let time = entry.view.and_then(|view| view.time).unwrap_or_else(Timestamp::now);
            let link = Link {
                // Of a head that somebody has changed there may be no next: then it cannot be stored.
                id: head.last.saturating_add(1),
                event: entry.event,
                seq: entry.seq.map(u64::cast_signed),
                time: time.as_microsecond(),
                kind: &kind,
            };
            head = Head { last: link.id, hash: link.hash(&head.hash), ..head };
            insert(&self.db, &link, &head.hash, number(&self.db, &mut self.kinds, &kind)?)?;
            seq = entry.seq.unwrap_or(seq);
        }
        self.unsigned = commit(transaction, &head, &mut self.signer)?;
        (self.head, self.seq) = (head, seq);
        Ok(())
    }

    /// Removes some of the oldest records that are older or more than is kept, and tells whether there
    /// are more of them.
    ///
    /// # Errors
    ///
    /// When they cannot be removed.
    pub fn retain(&mut self, limits: Limits, now: Timestamp) -> Result<bool, Error> {
        self.try_retain(limits, now).map_err(|source| database(&self.path, source))
    }

    fn try_retain(&mut self, limits: Limits, now: Timestamp) -> rusqlite::Result<bool> {
        let (pages, free) = (self.of("page_count")?, self.of("freelist_count")?);
        let oldest =
            now.as_microsecond() - i64::try_from(limits.age.as_micros()).unwrap_or(i64::MAX);
        let piece = self.head.first.saturating_add(PIECE);
        let until = if self.used()? > limits.size {
            piece
        } else {
            let query = "SELECT min(id) FROM entries WHERE id < ? AND time >= ?";
            let young: Option<i64> = self.db.query_row(query, (piece, oldest), |row| row.get(0))?;
            young.unwrap_or(piece)
        };
        // The last one stays: the next is chained to it.
        let until = until.min(self.head.last);
        if until <= self.head.first {
            if free > pages / 8 {
                let mut vacuum = self.db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
                let mut steps = vacuum.query([])?;
                while steps.next()?.is_some() {}
            }
            return Ok(false);
        }
        let transaction = self.db.unchecked_transaction()?;
        let before: Hash =
            self.db
                .query_row("SELECT hash FROM events WHERE id = ?", [until - 1], |row| row.get(0))?;
        for table in ["events", "entries"] {
            self.db.execute(&format!("DELETE FROM {table} WHERE id < ?"), [until])?;
        }
        let head = Head { first: until, before, ..self.head };
        self.unsigned = commit(transaction, &head, &mut self.signer)?;
        self.head = head;
        Ok(true)
    }

    /// Whether it is larger than it may be.
    ///
    /// # Errors
    ///
    /// When the store does not say.
    pub fn is_large(&self, limits: Limits) -> Result<bool, Error> {
        let used = self.used().map_err(|source| database(&self.path, source))?;
        Ok(used > limits.size)
    }

    /// Bytes that records take.
    fn used(&self) -> rusqlite::Result<u64> {
        let pages = self.of("page_count")? - self.of("freelist_count")?;
        Ok((pages * self.of("page_size")?).cast_unsigned())
    }

    fn of(&self, name: &str) -> rusqlite::Result<i64> {
        self.db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    }

    /// Forgets kinds that no record has any more. It takes a look at every record.
    ///
    /// # Errors
    ///
    /// When they cannot be removed.
    pub fn tidy(&mut self) -> Result<(), Error> {
        self.kinds.clear();
        let query = "DELETE FROM kinds WHERE id NOT IN (SELECT kind FROM entries)";
        self.db.execute(query, []).map_err(|source| database(&self.path, source))?;
        Ok(())
    }
}

/// Ends a transaction with the head that it leads to, and returns why that is not signed.
fn commit(
    transaction: Transaction<'_>,
    head: &Head,
    signer: &mut Option<Box<dyn Signer>>,
) -> rusqlite::Result<Option<String>> {
    let signed = match signer {
        Some(signer) => signer.sign(head),
        None => Err(io::Error::other("there is no key")),
    };
    head.write(&transaction, signed.as_deref().ok())?;
    transaction.commit()?;
    if let Some(signer) = signer {
        signer.stored(head);
    }
    Ok(signed.err().map(|error| error.to_string()))
}

fn insert(db: &Connection, link: &Link<'_>, hash: &Hash, kind: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO events VALUES (?, ?, ?)")?
        .execute((link.id, link.event, hash))?;
    db.prepare_cached("INSERT INTO entries VALUES (?, ?, ?, ?)")?
        .execute((link.id, link.seq, link.time, kind))?;
    Ok(())
}

/// The number of a kind.
fn number(db: &Connection, known: &mut HashMap<String, i64>, kind: &str) -> rusqlite::Result<i64> {
    if let Some(number) = known.get(kind) {
        return Ok(*number);
    }
    let number = db
        .prepare_cached("SELECT id FROM kinds WHERE kind = ?")?
        .query_row([kind], |row| row.get(0))
        .optional()?;
    let number = match number {
        Some(number) => number,
        None => db.prepare_cached("INSERT INTO kinds (kind) VALUES (?)")?.insert([kind])?,
    };
    if known.len() >= MAX_KINDS {
        known.clear();
    }
    known.insert(kind.to_owned(), number);
    Ok(number)
}
