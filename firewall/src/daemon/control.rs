//! What the API asks of the daemon.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::api::dto::{Change, Fetched, List, Question, Status};

/// Where an answer goes. Nobody may wait for it any more: the client can be gone.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For people; of policies that are not valid the findings, in several lines.
    pub message: String,
    /// Whose fault it is.
    pub kind: Kind,
}

/// Whose fault it is that something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for is not valid: policies, settings, or a question; or there is no generation to
    /// go back to.
    Invalid,
    /// The system cannot.
    Cannot,
}

impl Refusal {
    /// What was asked for is not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Invalid }
    }

    /// The system cannot.
    pub fn cannot(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Cannot }
    }
}

/// Asked of the daemon; each carries where the answer goes.
#[derive(Debug)]
pub enum Request {
    /// How it is.
    Status(Answer<Status>),
    /// Compile the policies anew and let them decide.
    Reload(Answer<Change>),
    /// Let the generation before decide.
    Rollback(Answer<Change>),
    /// Remove enforcement, and stop.
    Off(Answer<()>),
    /// Lists by URL.
    Lists(Answer<Vec<List>>),
    /// Fetch them now.
    UpdateLists(Answer<Vec<Fetched>>),
    /// What would happen to a connection, as `firewall explain --json` says it.
    Explain(Question, Answer<serde_json::Value>),
}

/// What the API has of the daemon.
#[derive(Clone, Debug)]
pub struct Control {
    /// Who takes requests.
    pub requests: mpsc::Sender<Request>,
    /// Verdicts as they are reached: each a JSON line without its end, as in the log.
    pub verdicts: broadcast::Sender<Arc<str>>,
    /// The state folder, where the log is.
    pub state: PathBuf,
    /// Verdicts that were lost to those who follow too slowly.
    pub missed: Arc<AtomicU64>,
}
