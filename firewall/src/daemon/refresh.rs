//! Lists by URL, fetched whenever each is due.

use std::{
    collections::HashMap,
    future::pending,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::{
    control::{Answer, Refusal},
    engine::RemoteList,
};
use crate::{
    api::dto::{self, Fetched},
    policy::ListSource,
    remote::{Limits, Outcome, Refresher, Remote, Store},
};

/// Fetches lists.
pub struct Refresh {
    state: PathBuf,
    refresher: Option<Refresher>,
    due: HashMap<String, Timestamp>,
    fetching: Option<Fetching>,
}

struct Fetching {
    task: JoinHandle<(Refresher, Vec<Outcome>)>,
    remotes: Vec<Arc<Remote>>,
    /// One of them has come or failed.
    ended: Arc<AtomicBool>,
    answers: Vec<Answer<Vec<Fetched>>>,
}

/// What came of fetching.
pub struct Done {
    outcomes: Vec<Outcome>,
}

impl Refresh {
    /// Into a state folder.
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), refresher: None, due: HashMap::new(), fetching: None }
    }

    /// Other lists are of interest now. Returns why none can be fetched, if there are some.
    pub fn follow(&mut self, lists: &[RemoteList]) -> Option<String> {
        self.due.clear();
        if lists.is_empty() {
            return None;
        }
        if self.refresher.is_none() && self.fetching.is_none() {
            match Refresher::new(Store::new(&self.state), Limits::default()) {
                Ok(refresher) => self.refresher = Some(refresher),
                Err(error) => return Some(format!("no list can be fetched: {error}")),
            }
        }
        let refresher = self.refresher.as_ref()?;
        let now = Timestamp::now();
        for remote in remotes(lists) {
            self.due.insert(remote.key(), refresher.due(&remote, now));
        }
        None
    }

    /// Begins to fetch what is due.
    pub fn begin(&mut self, lists: &[RemoteList]) {
        let now = Timestamp::now();
        if self.fetching.is_some() || self.due.values().all(|due| *due > now) {
            return;
        }
        let due = |remote: &Arc<Remote>| self.due.get(&remote.key()).is_some_and(|due| *due <= now);
        let remotes: Vec<_> = remotes(lists).into_iter().filter(due).collect();
        self.fetch(remotes, Vec::new());
    }

    /// Fetches all now.
    pub fn now(&mut self, lists: &[RemoteList], answer: Answer<Vec<Fetched>>) {
        match &mut self.fetching {
            Some(fetching) => fetching.answers.push(answer),
            None if self.refresher.is_none() => {
                // Who asked can be gone.
                let _ = answer.send(match lists.is_empty() {
                    true => Ok(Vec::new()),
                    false => Err(Refusal::cannot("no list can be fetched")),
                });
            }
            None => self.fetch(remotes(lists), vec![answer]),
        }
    }

    fn fetch(&mut self, remotes: Vec<Arc<Remote>>, answers: Vec<Answer<Vec<Fetched>>>) {
        let Some(mut refresher) = self.refresher.take() else { return };
        let asked = remotes.clone();
        let ended = Arc::<AtomicBool>::default();
        let one = Arc::clone(&ended);
        let progress: crate::remote::Progress = Arc::new(move |_, received| {
            if received.is_none() {
                one.store(true, Ordering::Release);
            }
        });
        let task = tokio::spawn(async move {
            let outcomes = refresher.refresh(&asked, false, &progress).await;
            (refresher, outcomes)
        });
        self.fetching = Some(Fetching { task, remotes, ended, answers });
    }

    /// Whether a list has come that is not in force yet, while others are still being fetched: a server that
    /// hangs holds up nobody else's.
    pub fn came(&self, lists: &[RemoteList]) -> bool {
        let Some(Fetching { ended, .. }) = &self.fetching else { return false };
        ended.swap(false, Ordering::AcqRel) && self.is_newer(lists)
    }

    /// Whether there is a copy of a list that is not in force.
    fn is_newer(&self, lists: &[RemoteList]) -> bool {
        let store = Store::new(&self.state);
        lists.iter().any(|list| {
            let ListSource::Url(found) = &list.list.source else { return false };
            let used = found.copy.as_ref().ok().and_then(Option::as_ref);
            let kept = store.head(&found.remote).ok().flatten();
            kept.is_some_and(|kept| used.is_none_or(|used| used.sha256 != kept.sha256))
        })
    }

    /// Waits until what is being fetched has come or failed.
    pub async fn done(&mut self) -> Done {
        let Some(fetching) = &mut self.fetching else { return pending().await };
        match (&mut fetching.task).await {
            Ok((refresher, outcomes)) => {
                self.refresher = Some(refresher);
                Done { outcomes }
            }
            // Nothing here is cancelled, so it panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Answers who asked, and returns whether there is a list that is not in force yet.
    pub fn take(&mut self, done: Done, lists: &[RemoteList], say: &mut dyn FnMut(&str)) -> bool {
        let Some(Fetching { remotes, answers, .. }) = self.fetching.take() else { return false };
        let outcomes: HashMap<String, &Outcome> =
            remotes.iter().map(|remote| remote.key()).zip(&done.outcomes).collect();
        let mut fetched = Vec::new();
        for list in lists {
            let Some(remote) = remote(list) else { continue };
            let Some(outcome) = outcomes.get(&remote.key()) else { continue };
            let one = shown(list, &remote, outcome);
            if let Some(message) = &one.message {
                say(&format!("list `{}` of {}: {message}", one.list, one.policy));
            }
            fetched.push(one);
        }
        for answer in answers {
            // Who asked can be gone.
            let _ = answer.send(Ok(fetched.clone()));
        }
        self.follow(lists);
        let updated = |outcome| matches!(outcome, &Outcome::Updated { .. });
        done.outcomes.iter().any(updated) && self.is_newer(lists)
    }

    /// The lists as the API says them.
    pub fn shown(&self, lists: &[RemoteList]) -> Vec<dto::List> {
        let now = Timestamp::now();
        let store = Store::new(&self.state);
        let one = |list: &RemoteList| {
            let ListSource::Url(found) = &list.list.source else { return None };
            let failure = store.attempts(&found.remote, now).failure;
            Some(dto::List {
                name: list.list.name.clone(),
                policy: list.policy.clone(),
                url: found.remote.url.to_string(),
                entries: list.list.report.entries as u64,
                fetched: found.copy.as_ref().ok().and_then(Option::as_ref).map(|head| head.fetched),
                due: self.due.get(&found.remote.key()).copied(),
                failure: failure.map(|failure| failure.message),
            })
        };
        lists.iter().filter_map(one).collect()
    }
}

fn remote(list: &RemoteList) -> Option<Arc<Remote>> {
    match &list.list.source {
        ListSource::Url(found) => Some(Arc::clone(&found.remote)),
        ListSource::Policy | ListSource::File(_) => None,
    }
}

/// What the lists ask for, each once.
fn remotes(lists: &[RemoteList]) -> Vec<Arc<Remote>> {
    let mut seen = std::collections::HashSet::new();
    lists.iter().filter_map(remote).filter(|remote| seen.insert(remote.key())).collect()
}

fn shown(list: &RemoteList, remote: &Remote, outcome: &Outcome) -> Fetched {
    let failure = outcome.failure();
    Fetched {
        list: list.list.name.clone(),
        policy: list.policy.clone(),
        url: remote.url.to_string(),
        result: outcome.word().to_owned(),
        reason: failure.map(|failure| failure.reason.word().to_owned()),
        message: failure.map(|failure| failure.message.clone()),
        entries: outcome.copy().map(|copy| copy.entries as u64),
    }
}
