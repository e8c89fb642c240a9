//! The files of a machine, read with care: other users have written them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::regular;

/// No file of settings is as large.
const LARGEST: u64 = 16 << 20;

/// A machine by the root of its file system. Paths are those that its users see.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

/// A user's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Whose it is.
    pub user: String,
    /// Where it is.
    pub folder: PathBuf,
}

/// A file or folder that is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct Unreadable {
    pub(super) file: PathBuf,
    pub(super) why: String,
}

impl Unreadable {
    pub(super) fn new(file: impl Into<PathBuf>, why: impl ToString) -> Self {
        Self { file: file.into(), why: why.to_string() }
    }
}

impl Machine {
    /// The one whose root is here.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The homes of all users: those that `/etc/passwd` names and that are there, and what else is in
    /// `/home`, such as of users that a directory service knows.
    ///
    /// # Errors
    /// `/etc/passwd` or `/home` is there and cannot be read.
    pub fn homes(&self) -> Result<Vec<Home>, Unreadable> {
        let passwd = self.read(Path::new("/etc/passwd"))?.unwrap_or_default();
        // passwd(5): the name comes first, the folder sixth.
        let named = passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some(((*fields.first()?).to_owned(), PathBuf::from(fields.get(5)?)))
        });
        let others = self.entries(Path::new("/home"))?.into_iter().map(|folder| {
            (folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), folder)
        });
        let mut homes: Vec<Home> = Vec::new();
        for (user, folder) in named.chain(others) {
            // Several users can share one, as services do.
            let known = homes.iter().any(|home| home.folder == folder);
            if !known && folder.is_absolute() && self.place(&folder).is_dir() {
                homes.push(Home { user, folder });
            }
        }
        Ok(homes)
    }

    /// Whether something is there, or may be: where that cannot be seen, reading will say why.
    pub(crate) fn has(&self, path: &Path) -> bool {
        !fs::metadata(self.place(path)).is_err_and(|error| is_absent(&error))
    }

    /// The text of a file, or none if there is no file.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>, Unreadable> {
        // A user can put a pipe or a link to a device there: root must not wait for the one or open the
        // other.
        match regular::read(&self.place(path), LARGEST) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Unreadable::new(path, error)),
        }
    }

    /// The JSON object in a file, or none if there is no file.
    pub(super) fn json(
        &self,
        path: &Path,
    ) -> Result<Option<serde_json::Map<String, serde_json::Value>>, Unreadable> {
        let Some(text) = self.read(path)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Unreadable::new(path, format!("no JSON object: {error}")))
    }

    /// What is in a folder, sorted; nothing if there is none.
    pub(crate) fn entries(&self, path: &Path) -> Result<Vec<PathBuf>, Unreadable> {
        let names: io::Result<BTreeSet<PathBuf>> = fs::read_dir(self.place(path))
            .and_then(|names| names.map(|entry| Ok(path.join(entry?.file_name()))).collect());
        match names {
            Ok(names) => Ok(names.into_iter().collect()),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(Unreadable::new(path, error)),
        }
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The sections of a file in the form of `profiles.ini` and `resolved.conf`, in order, with their keys
/// and values.
pub(super) fn sections(text: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let mut sections: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push((name, Vec::new()));
        } else if let (Some((key, value)), Some((_, keys))) =
            (line.split_once('='), sections.last_mut())
        {
            keys.push((key.trim(), value.trim()));
        }
    }
    sections
}
