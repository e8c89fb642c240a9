//! What is known of a list by URL without asking its server.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Failure, Remote, digest};
use crate::contents::Contents;
use crate::lists::{Format, Report};

/// Version of what is written to the state folder.
pub(super) const SCHEMA: u32 = 1;

/// What is kept of a list.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The last good copy, if there ever was one; or why it cannot be used.
    pub copy: Result<Option<KeptCopy>, String>,
    /// What came of fetching it.
    pub attempts: Attempts,
    /// When this was looked up.
    pub now: Timestamp,
}

impl Default for Kept {
    fn default() -> Self {
        Self { copy: Ok(None), attempts: Attempts::default(), now: Timestamp::default() }
    }
}

/// The last good copy of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCopy {
    /// What is known of it.
    pub head: Head,
    /// The list as it was received, without compression.
    pub bytes: Contents,
}

/// What stands before a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub(super) schema: u32,
    pub(super) url: String,
    /// When it was received.
    pub fetched: Timestamp,
    /// To ask whether there is a newer one.
    #[serde(flatten)]
    pub validators: Validators,
    pub(super) bytes: u64,
    /// Of the list.
    pub sha256: String,
    /// Given by the policy, or told by the content.
    pub format: Option<Format>,
    /// How many of its items are used.
    pub entries: usize,
}

/// What a server calls a version of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// As in the header `ETag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// As in the header `Last-Modified`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// What came of fetching a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    pub(super) schema: u32,
    pub(super) url: String,
    /// When it was last tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried: Option<Timestamp>,
    /// When the copy was last known to be what the server has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Timestamp>,
    /// How many attempts have failed since.
    pub failures: u32,
    /// Why the last of them did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Head {
    /// Of a list that was just received.
    pub fn new(
        remote: &Remote,
        validators: Validators,
        bytes: &[u8],
        report: &Report,
        fetched: Timestamp,
    ) -> Self {
        Self {
            schema: SCHEMA,
            url: remote.url.to_string(),
            fetched,
            validators,
            bytes: bytes.len() as u64,
            sha256: digest(bytes),
            format: report.format,
            entries: report.entries,
        }
    }
}

impl Attempts {
    /// After one at `time` that came to something, or failed.
    pub fn then(self, remote: &Remote, time: Timestamp, failure: Option<Failure>) -> Self {
        let (failures, current) = match failure {
            None => (0, Some(time)),
            Some(_) => (self.failures.saturating_add(1), self.current),
        };
        let url = remote.url.to_string();
        Self { schema: SCHEMA, url, tried: Some(time), current, failures, failure }
    }
}
