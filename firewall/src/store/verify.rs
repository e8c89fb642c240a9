//! Whether the chain is whole, and signed.

use std::path::Path;

use rusqlite::Connection;

use super::{
    Error, FILE,
    chain::{Hash, Head, Link},
    database,
    key::Known,
    reader,
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Every record is as it was stored.
    Whole {
        /// The ends.
        head: Head,
        /// Microseconds since 1970 of the first and the last record; `None` if there is none.
        times: Option<(i64, i64)>,
        /// Whether the head is signed.
        signed: bool,
    },
    /// This is the first record that is not.
    Wrong(Wrong),
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A record, or what is derived from it.
    #[error("record {id}{} was changed", of_event(*.seq))]
    Changed {
        /// Its number.
        id: i64,
        /// That of its event.
        seq: Option<i64>,
    },
    /// A record.
    #[error("record {0} was removed")]
    Removed(i64),
    /// A record that no head knows.
    #[error("record {0} was added")]
    Added(i64),
    /// The end.
    #[error("the records after {0} were cut off, up to {1}")]
    CutOff(i64, i64),
    /// The head.
    #[error("the head is not signed by the key: record {0} or one before was changed, or the head")]
    NotSigned(i64),
    /// There is no head.
    #[error("the head was removed")]
    NoHead,
    /// No store ever has such ends.
    #[error("the head was changed: no store has records {0} to {1}")]
    NoEnds(i64, i64),
}

fn of_event(seq: Option<i64>) -> String {
    seq.map(|seq| format!(" (event {seq})")).unwrap_or_default()
}

/// Looks at every record of the store of a state folder.
///
/// # Errors
///
/// When it cannot be read.
pub fn verify(state: &Path, known: Option<&Known>) -> Result<Found, Error> {
    let path = state.join(FILE);
    let db = reader::open(&path)?;
    look(&db, known).map_err(|source| database(&path, source))
}

fn look(db: &Connection, known: Option<&Known>) -> rusqlite::Result<Found> {
    let _snapshot = db.unchecked_transaction()?;
    let read = Head::read(db)?;
    let missing = read.is_none();
    let (head, signature) = read.unwrap_or_default();
    if !head.can_be() {
        return Ok(Found::Wrong(Wrong::NoEnds(head.first, head.last)));
    }
    let noted = known.and_then(|known| known.head);
    let mut before = head.before;
    let mut last = head.first - 1;
    let mut times = None;
    let mut noted_hash = (noted.map(|noted| noted.last) == Some(last)).then_some(before);
    // From the events on, so that what is derived and has none is not missed, and the other way round.
    let mut query = db.prepare(
        "SELECT events.id, event, hash, entries.id, seq, time, kinds.kind FROM events
         LEFT JOIN entries USING (id) LEFT JOIN kinds ON kinds.id = entries.kind ORDER BY events.id",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if missing {
            return Ok(Found::Wrong(Wrong::NoHead));
        }
        if id < head.first || id > head.last {
            return Ok(Found::Wrong(Wrong::Added(id)));
        }
        if id != last + 1 {
            return Ok(Found::Wrong(Wrong::Removed(last + 1)));
        }
        let seq: Option<i64> = row.get(4)?;
        let changed = Found::Wrong(Wrong::Changed { id, seq });
        // Of another type, too, it was changed.
        let (Ok(event), Ok(hash), Ok(time), Ok(kind)) = (
            row.get_ref(1)?.as_str(),
            row.get::<_, Hash>(2),
            row.get::<_, i64>(5),
            row.get_ref(6)?.as_str(),
        ) else {
            return Ok(changed);
        };
        let link = Link { id, event, seq, time, kind };
        if link.hash(&before) != hash {
            return Ok(changed);
        }
        (before, last) = (hash, id);
        let (first, _) = times.unwrap_or((time, time));
        times = Some((first, time));
        if noted.is_some_and(|noted| noted.last == id) {
            noted_hash = Some(hash);
        }
    }
    if last < head.last {
        return Ok(Found::Wrong(Wrong::CutOff(last, head.last)));
    }
    if before != head.hash {
        return Ok(Found::Wrong(Wrong::NotSigned(last)));
    }
    if let Some(noted) = noted {
        if missing || noted.last > last {
            return Ok(Found::Wrong(Wrong::CutOff(last, noted.last)));
        }
        // What was noted may have been removed since, being old.
        if noted.last >= head.first && noted_hash != Some(noted.hash) {
            return Ok(Found::Wrong(Wrong::Changed { id: noted.last, seq: None }));
        }
    }
    let entries: i64 = db.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
    if entries != last - head.first + 1 {
        return Ok(Found::Wrong(Wrong::Added(last + 1)));
    }
    let signed = match (known, signature) {
        (Some(known), Some(signature)) if known.has_signed(&head, &signature) => true,
        (Some(_), _) if !missing => return Ok(Found::Wrong(Wrong::NotSigned(last))),
        _ => false,
    };
    Ok(Found::Whole { head, times, signed })
}
