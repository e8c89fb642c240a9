//! Lists by URL: fetched, judged, and the last good copy of each kept.
//!
//! ```text
//! refresher ─ schedule: which is due ─ fetch: over HTTPS ─ judge: is it good? ─ store
//!                                                                                │
//!                                            policy::load ◀─ Files::kept ────────┘
//! ```
//!
//! Policies read what the store has and nothing else: no server decides whether a policy loads.

mod fetch;
mod judge;
mod kept;
mod refresher;
mod schedule;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::lists::Format;
use kept::SCHEMA;

pub use fetch::{Limits, Progress, Received};
pub use kept::{Attempts, Head, Kept, KeptCopy, Validators};
pub use refresher::{Error, Outcome, Refresher};
pub use store::Store;

/// A list that is fetched from a URL: what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// With `https`.
    pub url: Url,
    /// The format that its policy gives; `None` for the one that the content tells.
    pub format: Option<Format>,
    /// The only content that is taken, in lower-case hexadecimal.
    pub sha256: Option<String>,
    /// How often to look for a new one.
    pub refresh: Duration,
}

impl Remote {
    /// How often to look for a new list where a policy does not say.
    pub const REFRESH: Duration = Duration::from_hours(24);

    /// What its copy is kept under: lists that ask for the same share one, and a list that asks for
    /// something else than before has none.
    pub fn key(&self) -> String {
        let format = self.format.map_or("auto", Format::word);
        let sha256 = self.sha256.as_deref().unwrap_or_default();
        digest(format!("{}\n{format}\n{sha256}", self.url).as_bytes())
    }

    /// Whether a copy that was found current `age` ago is too old to rely on.
    pub fn is_stale(&self, age: Duration) -> bool {
        age > self.refresh.saturating_mul(3)
    }
}

/// Why there is no new copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub reason: Reason,
    /// The particulars, for people, in one line.
    pub message: String,
}

/// Why there is no new copy. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No connection to the server, or no address for its name.
    Unreachable,
    /// The server has no certificate that a trusted root vouches for.
    Tls,
    /// The server answers with something else than the list.
    Status,
    /// The server leads elsewhere too often, or to where nothing is fetched from.
    Redirect,
    /// It takes too long.
    Timeout,
    /// The body ends early, or is damaged.
    Interrupted,
    /// The body is compressed in a way that was not asked for.
    Encoding,
    /// The body is larger than any list needs to be.
    TooLarge,
    /// It is not the content that the policy asks for.
    Sha256,
    /// It is a web page.
    Page,
    /// It is in no format, or not in the one that the policy gives.
    Format,
    /// It has no entry that can be used.
    Empty,
    /// It has fewer than half the entries of the last good copy.
    Shrunk,
    /// What is kept cannot be read or written.
    State,
}

impl Reason {
    /// The word in machine output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Encoding => "encoding",
            Self::TooLarge => "too-large",
            Self::Sha256 => "sha256",
            Self::Page => "page",
            Self::Format => "format",
            Self::Empty => "empty",
            Self::Shrunk => "shrunk",
            Self::State => "state",
        }
    }

    /// Whether there was a new copy, and it was not taken.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Sha256 | Self::Page | Self::Format | Self::Empty | Self::Shrunk)
    }
}

/// Why there is no new copy, without when.
type Trouble = (Reason, String);

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
