//! Looking for new copies of lists: a few at a time, whenever each is due.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::{JoinSet, spawn_blocking};

use super::fetch::{Answer, Client, Limits, Progress, Received};
use super::{Attempts, Failure, Head, KeptCopy, Reason, Remote, Store, Trouble, Validators};
use super::{judge, schedule};

/// How many lists are fetched at once.
const AT_ONCE: usize = 4;

/// Why no list can be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder cannot be written to.
    #[error("cannot write to {}: {source}", folder.display())]
    State {
        /// Where the copies are.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No server could be trusted.
    #[error("{0}")]
    Client(String),
}

/// What became of a list.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// There is a new copy.
    Updated {
        /// What is known of it.
        head: Head,
        /// How many entries the one before had, if there was one.
        before: Option<usize>,
    },
    /// The copy is what the server has.
    NotModified(Head),
    /// There is no new copy. The last good one stays, if there is one.
    Failed(Failure, Option<Head>),
}

impl Outcome {
    /// The word in machine output.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Updated { .. } => "updated",
            Self::NotModified(_) => "not-modified",
            Self::Failed(failure, _) if failure.reason.is_refusal() => "refused",
            Self::Failed(..) => "failed",
        }
    }

    /// The copy that there is now.
    pub const fn copy(&self) -> Option<&Head> {
        match self {
            Self::Updated { head, .. } | Self::NotModified(head) => Some(head),
            Self::Failed(_, copy) => copy.as_ref(),
        }
    }

    /// Why there is no new one.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure, _) => Some(failure),
            Self::Updated { .. } | Self::NotModified(_) => None,
        }
    }
}

/// Fetches lists into a state folder.
#[derive(Debug)]
pub struct Refresher {
    store: Store,
    client: Client,
    /// What came of attempts that this one made: also where it could not be written down, so that a full
    /// disk is no reason to ask a server again and again.
    attempts: HashMap<String, Attempts>,
    jitter: RandomState,
}

impl Refresher {
    /// For the lists that are kept in `store`.
    ///
    /// # Errors
    ///
    /// When it cannot be written to, or this machine trusts nobody.
    pub fn new(store: Store, limits: Limits) -> Result<Self, Error> {
        store
            .prepare()
            .map_err(|source| Error::State { folder: store.folder().to_owned(), source })?;
        let client = Client::new(limits).map_err(Error::Client)?;
        Ok(Self::with(store, client))
    }

    pub(super) fn with(store: Store, client: Client) -> Self {
        Self { store, client, attempts: HashMap::new(), jitter: RandomState::new() }
    }

    /// When a list is due: at once if there is no copy and nothing was tried, else as its interval or
    /// the failures until now say.
    pub fn due(&self, remote: &Remote, now: Timestamp) -> Timestamp {
        let kept = self.store.attempts(remote, now);
        let own = self.attempts.get(&remote.key()).cloned().unwrap_or_default();
        let attempts = if own.tried > kept.tried { own } else { kept };
        let copied = matches!(self.store.head(remote), Ok(Some(_)));
        if !copied && attempts.failures == 0 {
            return now;
        }
        let random = self.jitter.hash_one((remote.key(), attempts.tried));
        let jitter = random as f64 / u64::MAX as f64;
        schedule::due(remote.refresh, &attempts, jitter, now)
    }

    /// Looks for new copies, a few at a time, and says of each list what became of it.
    ///
    /// With `force` they are fetched even if the server has nothing newer, and may have far fewer entries.
    pub async fn refresh(
        &mut self,
        remotes: &[Arc<Remote>],
        force: bool,
        progress: &Progress,
    ) -> Vec<Outcome> {
        let mut waiting = remotes.iter().enumerate();
        let mut tasks = JoinSet::new();
        let mut done = Vec::with_capacity(remotes.len());
        loop {
            while tasks.len() < AT_ONCE
                && let Some((index, remote)) = waiting.next()
            {
                let (store, client) = (self.store.clone(), self.client.clone());
                let (remote, progress) = (Arc::clone(remote), Arc::clone(progress));
                tasks.spawn(async move {
                    let bytes = |received| progress(index, Some(received));
                    let (outcome, attempts) = update(store, client, remote, force, bytes).await;
                    progress(index, None);
                    (index, outcome, attempts)
                });
            }
            match tasks.join_next().await {
                None => break,
                Some(Ok((index, outcome, attempts))) => {
                    self.attempts.insert(remotes[index].key(), attempts);
                    done.push((index, outcome));
                }
                // Nothing here is cancelled, so it panicked.
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// Looks for a new copy of one list, keeps it if it is good, and writes down what came of it.
async fn update(
    store: Store,
    client: Client,
    remote: Arc<Remote>,
    force: bool,
    progress: impl Fn(Received),
) -> (Outcome, Attempts) {
    let (old, store, remote) = blocking(move || {
        // A copy that is damaged is fetched anew, as if there were none.
        let copy = store.copy(&remote).ok().flatten();
        (copy.map(|KeptCopy { head, .. }| head), store, remote)
    })
    .await;
    let validators = match &old {
        Some(head) if !force => head.validators.clone(),
        _ => Validators::default(),
    };
    let answer = client.fetch(&remote.url, &validators, progress).await;
    blocking(move || {
        let now = Timestamp::now();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let failure = |(reason, message)| Failure { time: now, reason, message };
        let head = answer.and_then(|answer| match (answer, &old) {
            (Answer::List(bytes, validators), old) => {
                keep(&store, &remote, old.as_ref().filter(|_| !force), &bytes, validators, now)
            }
            (Answer::NotModified, Some(old)) => Ok(old.clone()),
            (Answer::NotModified, None) => {
                Err((Reason::Status, "the server has nothing newer than nothing".to_owned()))
            }
        });
        let failed = head.as_ref().err().cloned().map(failure);
        let attempts = store.attempts(&remote, now).then(&remote, now, failed);
        let noted = store.note(&remote, &attempts).map_err(unwritten);
        let outcome = match (head.and_then(|head| noted.map(|()| head)), old) {
            (Ok(head), Some(old)) if head.sha256 == old.sha256 => Outcome::NotModified(head),
            (Ok(head), old) => Outcome::Updated { head, before: old.map(|old| old.entries) },
            (Err(trouble), old) => Outcome::Failed(failure(trouble), old),
        };
        (outcome, attempts)
    })
    .await
}

/// Keeps what was received if it is good; `old` is the copy that it is measured against.
fn keep(
    store: &Store,
    remote: &Remote,
    old: Option<&Head>,
    bytes: &[u8],
    validators: Validators,
    now: Timestamp,
) -> Result<Head, Trouble> {
    let report = judge::judge(remote, old.map(|old| old.entries), bytes)?;
    let mut head = Head::new(remote, validators, bytes, &report, now);
    if let Some(old) = old.filter(|old| old.sha256 == head.sha256) {
        head.fetched = old.fetched;
        if head == *old {
            return Ok(head);
        }
    }
    store.keep(remote, &head, bytes).map_err(unwritten)?;
    Ok(head)
}

fn unwritten(error: io::Error) -> Trouble {
    (Reason::State, format!("it cannot be written: {error}"))
}

/// Does work that would hold up the other downloads on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        // What has begun is never cancelled, so it panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
