//! What was worked out for the last set that was compiled, for the next one.
//!
//! A reload reads all files anew, and nearly always finds what it found before. What comes of that is
//! known by all that it depends on: a list by the SHA-256 of its bytes and its format, the table of names by
//! the names themselves; the tables in the binary are always the same. So a step that finds its work done here
//! takes what it would have come to. There is never more than what the last set was made of.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    contents::Contents,
    intel::Embedded,
    lists::{self, Format, Parsed},
    policy::{Moment, compile::Left, source::Files},
    remote::{Kept, Remote},
};

/// Lists by the SHA-256 of their bytes and the format that they are read in.
type Lists = HashMap<(String, Option<Format>), Parsed>;

/// What was worked out.
#[derive(Default)]
pub struct Cache(Mutex<Worked>);

/// What a set leaves to the next.
#[derive(Clone, Default)]
pub(crate) struct Worked {
    pub lists: Lists,
    pub left: Left,
    pub embedded: Embedded,
}

impl Cache {
    /// What there is.
    pub(crate) fn worked(&self) -> Worked {
        self.lock().clone()
    }

    /// What came of the last set takes the place of what there is.
    pub(crate) fn keep(&self, worked: Worked) {
        let before = std::mem::replace(&mut *self.lock(), worked);
        // Much to free, and nobody is to wait for it.
        drop(before);
    }

    /// What is put in place is put there whole.
    fn lock(&self) -> MutexGuard<'_, Worked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files of which lists are known that were read before.
pub(crate) struct Known<'a> {
    files: &'a dyn Files,
    before: Lists,
    used: RefCell<Lists>,
}

impl<'a> Known<'a> {
    /// With the lists that are known.
    pub(crate) fn new(files: &'a dyn Files, before: Lists) -> Self {
        Self { files, before, used: RefCell::default() }
    }

    /// The lists that were asked for.
    pub(crate) fn used(self) -> Lists {
        self.used.into_inner()
    }
}

impl Files for Known<'_> {
    fn list(&self, format: Option<Format>, contents: &Contents) -> Result<Parsed, lists::Error> {
        let key = (contents.sha256().to_owned(), format);
        let known = self.used.borrow().get(&key).or(self.before.get(&key)).cloned();
        let list = known.map_or_else(|| self.files.list(format, contents), Ok)?;
        self.used.borrow_mut().insert(key, list.clone());
        Ok(list)
    }

    fn read(&self, path: &Path) -> Result<Contents, String> {
        self.files.read(path)
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.files.real(path)
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        self.files.user(name)
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        self.files.group(name)
    }

    fn moment(&self) -> Option<Moment> {
        self.files.moment()
    }

    fn kept(&self, remote: &Remote) -> Kept {
        self.files.kept(remote)
    }
}
