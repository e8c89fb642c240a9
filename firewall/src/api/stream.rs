//! Answers that are JSON lines: verdicts as they are reached, and those that were recorded.

use std::{
    convert::Infallible,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::body::Bytes;
use futures_util::{Stream, stream::unfold};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use crate::{
    events::{
        Lost,
        filter::Filter,
        record::{self, Line},
    },
    store::{self, reader::Reader},
};

/// Bytes of lines that are sent at once.
const PIECE: usize = 16 << 10;

/// Whether a line is wanted. What is no verdict, a loss for example, is for every reader.
fn is_wanted(line: &[u8], filter: &mut Option<Filter>) -> bool {
    let Some(filter) = filter else { return true };
    match record::read(line) {
        Ok(Line::Verdict(record)) => filter.passes(&*record),
        Ok(Line::Lost(_)) | Err(_) => true,
    }
}

/// Verdicts as they come. A reader that is too slow loses the oldest and is told how many; they are
/// added to `missed`.
pub fn verdicts(
    receiver: Receiver<Arc<str>>,
    filter: Option<Filter>,
    missed: Arc<AtomicU64>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    unfold((receiver, filter, missed), |(mut receiver, mut filter, missed)| async move {
        let mut lines = String::new();
        while lines.len() < PIECE {
            let next = match lines.is_empty() {
                true => receiver.recv().await.map_err(|error| match error {
                    RecvError::Closed => TryRecvError::Closed,
                    RecvError::Lagged(count) => TryRecvError::Lagged(count),
                }),
                false => receiver.try_recv(),
            };
            match next {
                Ok(line) if is_wanted(line.as_bytes(), &mut filter) => {
                    lines.push_str(&line);
                    lines.push('\n');
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(count)) => {
                    missed.fetch_add(count, Ordering::Relaxed);
                    let lost = Lost::new(count);
                    // It has no keys that are not text.
                    lines.push_str(&serde_json::to_string(&lost).unwrap_or_default());
                    lines.push('\n');
                }
                Err(TryRecvError::Closed) if lines.is_empty() => return None,
                Err(TryRecvError::Closed | TryRecvError::Empty) => break,
            }
        }
        Some((Ok(Bytes::from(lines)), (receiver, filter, missed)))
    })
}

/// Verdicts that were recorded in a state folder until now.
///
/// # Errors
/// When the store is there and cannot be read.
pub fn log(
    state: &Path,
    filter: Option<Filter>,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, store::Error> {
    let recorded = match Reader::open(state)? {
        Some(reader) => {
            Some(Recorded { end: reader.end()?, reader, filter: filter.unwrap_or_default() })
        }
        None => None,
    };
    Ok(unfold(recorded, |recorded| async move {
        let mut recorded = recorded?;
        // A disk can keep a thread waiting.
        let read = tokio::task::spawn_blocking(move || (recorded.next(), recorded)).await;
        match read {
            Ok((Ok(lines), _)) if lines.is_empty() => None,
            Ok((Ok(lines), recorded)) => Some((Ok(Bytes::from(lines)), Some(recorded))),
            Ok((Err(error), _)) => Some((Err(io::Error::other(error)), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    }))
}

/// Records that are read at once.
const AT_ONCE: usize = 32;

struct Recorded {
    reader: Reader,
    /// The last record, so that there is an end.
    end: i64,
    filter: Filter,
}

impl Recorded {
    /// Some lines that are wanted; nothing at the end.
    fn next(&mut self) -> Result<String, store::Error> {
        let found = self.reader.next(&mut self.filter, self.end, AT_ONCE)?;
        Ok(found.into_iter().map(|found| found + "\n").collect())
    }
}
