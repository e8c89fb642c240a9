//! The audit store: what was recorded, chained by hash and signed, in a database of SQLite.
//!
//! ```text
//! Event ─ Store::append ─▶ events: id, event, hash     the record and its link of the chain
//!                          entries: id, seq, time, kind   what of it is searched
//!                          kinds: id, kind                who, where to, by what: once for all that share it
//!                          head: the ends of the chain, signed
//! ```
//!
//! The text in `events.event` is the record; `entries` and `kinds` are derived from it, and the hash of
//! a record is over both and the hash before.

pub mod chain;
pub mod key;
pub mod reader;
pub mod verify;
pub mod writer;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::{
    events::{App, View, record::Geo},
    policy::diagnostic::printable,
};

/// Name of the database in the state folder.
pub const FILE: &str = "audit.db";

/// Version of the tables.
const VERSION: i32 = 1;

/// Marks the file as an audit store: `fwal`.
const APPLICATION: i32 = 0x6677_616c;

const TABLES: &str = "
    CREATE TABLE events (id INTEGER PRIMARY KEY, event TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY, seq INTEGER, time INTEGER NOT NULL, kind INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE kinds (id INTEGER PRIMARY KEY, kind TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1), first INTEGER NOT NULL, before BLOB NOT NULL,
        last INTEGER NOT NULL, hash BLOB NOT NULL, signature BLOB
    ) STRICT;
";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("{}: {source}", printable(&path.display().to_string()))]
    Database {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: rusqlite::Error,
    },
    /// A database of something else, or of a later version.
    #[error("{} is no audit store of this version", printable(&.0.display().to_string()))]
    Unknown(PathBuf),
}

impl Error {
    /// Whether nothing that was stored can be read from the file any more.
    pub fn is_broken(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Unknown(_) => true,
            Self::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
            }
        }
    }

    /// Whether this user may not read it.
    pub fn is_denied(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen)
    }
}

/// What many events share: all that is searched for but the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kind {
    verdict: String,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    hook: String,
    app: App,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chain: Vec<String>,
    geo: Place,
}

/// Of where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    #[serde(flatten)]
    geo: Geo,
}

impl From<&View<'_>> for Kind {
    fn from(view: &View<'_>) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self {
            verdict: view.verdict.to_owned(),
            reason: view.reason.to_owned(),
            policy: text(view.policy),
            rule: text(view.rule),
            hook: view.hook.to_owned(),
            // Which process it was is no kind; that it was one tells it from the kernel.
            app: App { pid: view.app.pid.map(|_| 0), parents: Vec::new(), ..view.app.clone() },
            host: text(view.host),
            chain: view.chain.to_vec(),
            geo: Place {
                asn: view.asn,
                geo: Geo {
                    country: text(view.country),
                    asn: None,
                    organisation: text(view.organisation),
                    as_name: text(view.as_name),
                },
            },
        }
    }
}

impl Kind {
    fn view(&self) -> View<'_> {
        let Geo { country, organisation, as_name, .. } = &self.geo.geo;
        View {
            time: None,
            verdict: &self.verdict,
            reason: &self.reason,
            policy: self.policy.as_deref(),
            rule: self.rule.as_deref(),
            hook: &self.hook,
            app: &self.app,
            proto: "",
            ip: std::net::Ipv6Addr::UNSPECIFIED.into(),
            port: None,
            host: self.host.as_deref(),
            encrypted_hello: false,
            chain: &self.chain,
            country: country.as_deref(),
            asn: self.geo.asn,
            organisation: organisation.as_deref(),
            as_name: as_name.as_deref(),
            count: 0,
            bytes_out: 0,
            bytes_in: 0,
        }
    }
}

/// Opens the database, and looks whether it is one of this version. An empty one is.
fn connect(path: &Path, flags: OpenFlags) -> Result<(Connection, bool), Error> {
    let open = || {
        let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        let of = |name| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
        let version = (of("application_id")?, of("user_version")?);
        let tables =
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, u32>(0))?;
        Ok((db, version, tables))
    };
    let (db, version, tables) = open().map_err(|source| database(path, source))?;
    match (version, tables) {
        ((0, 0), 0) => Ok((db, false)),
        ((APPLICATION, VERSION), _) => Ok((db, true)),
        _ => Err(Error::Unknown(path.to_owned())),
    }
}

/// Puts a store that cannot be read any more aside, and returns where it is.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let now = jiff::Timestamp::now().as_second();
    let aside = path.with_added_extension(format!("broken-{now}"));
    std::fs::rename(path, &aside)?;
    for rest in ["-wal", "-shm"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(rest);
            PathBuf::from(name)
        };
        // Often there is none.
        let _ = std::fs::rename(with(path), with(&aside));
    }
    Ok(aside)
}

fn database(path: &Path, source: rusqlite::Error) -> Error {
    Error::Database { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
