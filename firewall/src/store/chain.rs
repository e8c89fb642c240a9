//! The chain: each record's hash is over its text, what is derived from it, and the hash before.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// What is signed begins with it, so that a signature holds for nothing else.
const SEAL: &[u8] = b"firewall audit store 1\0";

/// A record, as it is chained.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// Its number in the store, which counts up by one.
    pub id: i64,
    /// Its text.
    pub event: &'a str,
    /// The number of the event; a loss has none.
    pub seq: Option<i64>,
    /// Microseconds since 1970.
    pub time: i64,
    /// What it shares with others.
    pub kind: &'a str,
}

impl Link<'_> {
    /// Its hash, after that of the record before.
    pub fn hash(&self, before: &Hash) -> Hash {
        let mut context = Sha256::new();
        context.update(before);
        context.update(self.id.to_be_bytes());
        for text in [self.event, self.kind] {
            // With its length, so that nothing moves from one to the other.
            context.update((text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        context.update(self.seq.unwrap_or(-1).to_be_bytes());
        context.update(self.time.to_be_bytes());
        context.finalize().into()
    }
}

/// The ends of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The first record that is still there.
    pub first: i64,
    /// The hash before it.
    pub before: Hash,
    /// The last record; the one before the first of an empty store.
    pub last: i64,
    /// Its hash.
    pub hash: Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self { first: 1, before: Hash::default(), last: 0, hash: Hash::default() }
    }
}

impl Head {
    /// Whether a store can have these ends: its records count from 1 on, and there is a number for the next.
    pub const fn can_be(&self) -> bool {
        self.first >= 1 && self.last >= self.first - 1 && self.last < i64::MAX
    }

    /// What is signed of it.
    pub fn sealed(&self) -> Vec<u8> {
        [SEAL, &self.first.to_be_bytes(), &self.before, &self.last.to_be_bytes(), &self.hash]
            .concat()
    }

    /// The one in a store, with its signature; `None` if nothing was ever stored.
    pub fn read(db: &Connection) -> rusqlite::Result<Option<(Self, Option<Vec<u8>>)>> {
        let head = |row: &Row<'_>| {
            let head = Self {
                first: row.get(0)?,
                before: row.get(1)?,
                last: row.get(2)?,
                hash: row.get(3)?,
            };
            Ok((head, row.get(4)?))
        };
        let query = "SELECT first, before, last, hash, signature FROM head";
        db.query_row(query, [], head).optional()
    }

    /// Puts it in the place of the one in a store.
    pub fn write(&self, db: &Connection, signature: Option<&[u8]>) -> rusqlite::Result<()> {
        let Self { first, before, last, hash } = self;
        db.prepare_cached("INSERT OR REPLACE INTO head VALUES (1, ?, ?, ?, ?, ?)")?
            .execute((first, before, last, hash, signature))?;
        Ok(())
    }
}
