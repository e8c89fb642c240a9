//! Where the text of policies comes from: files, folders, and the ones in the binary.
//!
//! The only part of the way from text to a generation that touches the file system. What cannot be
//! read is kept as such, and [`load`](super::load) reports it with everything else.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};

use super::diagnostic::printable;
use super::model::Moment;
use super::parse::nearest;
use super::shipped::SHIPPED;
use crate::contents::Contents;
use crate::lists::{self, Format, Parsed};
use crate::regular;
use crate::remote::{Kept, Remote};

/// More than any policy or list needs, and little enough to hold in memory.
pub(crate) const LARGEST: u64 = 64 << 20;

/// One policy file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it comes from.
    pub origin: Origin,
    /// What stands in it.
    pub content: Content,
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is in the binary, under this name.
    Shipped(Cow<'static, str>),
    /// A file.
    File(PathBuf),
}

/// What stands in a policy file.
#[derive(Clone, Debug)]
pub enum Content {
    /// Text, sound or not.
    Text(Arc<str>),
    /// Not UTF-8.
    Bytes(Vec<u8>),
    /// It could not be read.
    Unreadable {
        /// Why not.
        why: String,
        /// What to do.
        hint: &'static str,
    },
}

/// What reads the files that policies name.
pub trait Files {
    /// All bytes of a file.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> Result<Contents, String>;

    /// The list that stands in a file.
    ///
    /// # Errors
    ///
    /// As of [`lists::parse`].
    fn list(&self, format: Option<Format>, contents: &Contents) -> Result<Parsed, lists::Error> {
        // Names are ASCII, or UTF-8 as policies are. What is neither shows up as malformed.
        match std::str::from_utf8(contents) {
            Ok(text) => lists::parse(format, text),
            Err(_) => lists::parse(format, &String::from_utf8_lossy(contents)),
        }
    }

    /// The path with what is behind links in its place, as far as there is something.
    fn real(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// The number of a user by name; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Why nobody can say.
    fn user(&self, _: &str) -> Result<Option<u32>, String> {
        Ok(None)
    }

    /// The number of a group, as [`Self::user`].
    ///
    /// # Errors
    ///
    /// Why nobody can say.
    fn group(&self, _: &str) -> Result<Option<u32>, String> {
        Ok(None)
    }

    /// The moment, for rules that hold for a time; `None` where nobody ends them when they are over.
    fn moment(&self) -> Option<Moment> {
        None
    }

    /// What is kept of a list by URL: nothing where none is fetched.
    fn kept(&self, _: &Remote) -> Kept {
        Kept::default()
    }
}

/// The files of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Contents, String> {
        let read = regular::read(path, LARGEST).map_err(|error| error.to_string())?;
        Ok(read.into())
    }

    fn real(&self, path: &Path) -> PathBuf {
        let there = path.ancestors().find_map(|there| Some((there, fs::canonicalize(there).ok()?)));
        match there {
            Some((there, real)) if there == path => real,
            Some((there, real)) => real.join(path.strip_prefix(there).unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        let user = nix::unistd::User::from_name(name).map_err(|error| error.desc().to_owned())?;
        Ok(user.map(|user| user.uid.as_raw()))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        let group = nix::unistd::Group::from_name(name).map_err(|error| error.desc().to_owned())?;
        Ok(group.map(|group| group.gid.as_raw()))
    }

    fn moment(&self) -> Option<Moment> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
        let second = u64::try_from(time.tv_sec()).ok()?;
        Some(Moment { boot: boot.trim_end().to_owned(), second })
    }
}

/// There is nothing under the name or path of a policy.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// Neither a shipped policy nor a path.
    #[error("there is no shipped policy `{}`\n\nhint: {hint}", printable(name))]
    Name {
        /// What was asked for.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// A path that leads nowhere.
    #[error("cannot read {}: {error}", printable(&path.display().to_string()))]
    Path {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl Source {
    /// The policies of a command line's `P`: a path if it has a `/` or ends in `.toml`, a folder's
    /// `*.toml` if it is one, else the name of a shipped policy.
    ///
    /// # Errors
    ///
    /// When there is no such shipped policy, file or folder.
    pub fn find(name_or_path: &str) -> Result<Vec<Source>, NotFound> {
        match name_or_path.contains('/') || name_or_path.ends_with(".toml") {
            true => Self::at(Path::new(name_or_path)),
            false => Ok(vec![Self::shipped(name_or_path)?]),
        }
    }

    /// A policy of the binary.
    ///
    /// # Errors
    ///
    /// When there is none of this name; with the nearest that there is.
    pub fn shipped(name: &str) -> Result<Source, NotFound> {
        if let Some((name, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            let content = Content::Text(Arc::from(*text));
            return Ok(Source { origin: Origin::Shipped((*name).into()), content });
        }
        let hint = match nearest(name, SHIPPED.iter().map(|(known, _)| *known)) {
            Some(known) => format!("did you mean `{known}`?"),
            None if Path::new(name).exists() => {
                format!("for the file, write `./{}`", printable(name))
            }
            None => "`firewall policy list` shows them; for a file, write its path".to_owned(),
        };
        Err(NotFound::Name { name: name.to_owned(), hint })
    }

    /// Every policy of the binary.
    pub fn all_shipped() -> Vec<Source> {
        let shipped = SHIPPED.iter();
        let shipped = shipped.map(|(name, text)| Source {
            origin: Origin::Shipped((*name).into()),
            content: Content::Text(Arc::from(*text)),
        });
        shipped.collect()
    }

    /// The file at `path`, or the `*.toml` of the folder at `path`, sorted by name.
    ///
    /// # Errors
    ///
    /// When nothing is there, or the folder cannot be listed. A file that is there and cannot be
    /// read is no error here: [`load`](super::load) reports it.
    pub fn at(path: &Path) -> Result<Vec<Source>, NotFound> {
        let not_found = |error| NotFound::Path { path: path.to_owned(), error };
        if !fs::metadata(path).map_err(not_found)?.is_dir() {
            return Ok(vec![Self::file(path)]);
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(path).map_err(not_found)? {
            let path = entry.map_err(not_found)?.path();
            let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths.iter().map(|path| Self::file(path)).collect())
    }

    /// All of [`Source::at`] for several paths; a file that several of them lead to is taken once.
    ///
    /// # Errors
    ///
    /// As [`Source::at`].
    pub fn at_all<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Source>, NotFound> {
        let mut seen = HashSet::new();
        let mut sources = Vec::new();
        for path in paths {
            for source in Self::at(path.as_ref())? {
                let fresh = match &source.origin {
                    Origin::File(path) => {
                        fs::canonicalize(path).is_ok_and(|real| seen.insert(real))
                    }
                    Origin::Shipped(_) => true,
                };
                // What has no real path cannot be read; that must be seen, not skipped.
                if fresh || matches!(source.content, Content::Unreadable { .. }) {
                    sources.push(source);
                }
            }
        }
        Ok(sources)
    }

    fn file(path: &Path) -> Source {
        let content = match regular::read(path, LARGEST) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Content::Text(Arc::from(text)),
                Err(error) => Content::Bytes(error.into_bytes()),
            },
            Err(error) => Content::Unreadable {
                why: error.to_string(),
                hint: match error.kind() {
                    ErrorKind::FileTooLarge => "divide it into several policies, or remove it",
                    ErrorKind::InvalidInput => "put a file in its place, or remove it",
                    _ => "make it readable, or remove it",
                },
            },
        };
        Source { origin: Origin::File(path.to_owned()), content }
    }

    /// What the paths in it start at; none for one of the binary.
    pub fn folder(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Shipped(_) => None,
            Origin::File(path) => path.parent(),
        }
    }

    /// The file name that findings show.
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::Shipped(name) => format!("<shipped>/{name}.toml"),
            Origin::File(path) => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_policies_sorted_and_reports_what_it_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("b.toml"), "b").unwrap();
        fs::write(path("a.toml"), b"\xff").unwrap();
        fs::write(path(".hidden.toml"), "x").unwrap();
        fs::write(path("notes.txt"), "x").unwrap();
        fs::create_dir(path("c.toml")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("d.toml")).unwrap();

        let sources = Source::at(folder.path()).unwrap();
        let origins: Vec<_> = sources.iter().map(|source| source.origin.clone()).collect();
        let files = ["a.toml", "b.toml", "c.toml", "d.toml"].map(|name| Origin::File(path(name)));
        assert_eq!(origins, files);
        assert!(matches!(&sources[0].content, Content::Bytes(bytes) if bytes == b"\xff"));
        assert!(matches!(&sources[1].content, Content::Text(text) if &**text == "b"));
        let hint = |source: &Source| match source.content {
            Content::Unreadable { hint, .. } => hint,
            _ => "",
        };
        assert_eq!(hint(&sources[2]), "put a file in its place, or remove it");
        assert_eq!(hint(&sources[3]), "make it readable, or remove it");

        // The same file twice, once through the folder; what cannot be read is never lost.
        let all = Source::at_all(&[folder.path(), &path("b.toml")]).unwrap();
        assert_eq!(all.len(), 4);

        fs::File::options().write(true).open(path("b.toml")).unwrap().set_len(LARGEST + 1).unwrap();
        let large = Source::at(&path("b.toml")).unwrap();
        assert_eq!(hint(&large[0]), "divide it into several policies, or remove it");
    }

    #[test]
    fn names_and_paths() {
        let found = Source::find("baidu").unwrap();
        assert_eq!(found[0].origin, Origin::Shipped("baidu".into()));
        let error = Source::find("baidoo").unwrap_err().to_string();
        assert_eq!(error, "there is no shipped policy `baidoo`\n\nhint: did you mean `baidu`?");
        let harmful = Source::find("x\u{1b}[31m").unwrap_err().to_string();
        assert!(harmful.starts_with("there is no shipped policy `x?[31m`\n"), "{harmful:?}");
        let harmful = Source::find("./x\u{1b}[31m").unwrap_err().to_string();
        assert!(harmful.starts_with("cannot read ./x?[31m: "), "{harmful:?}");
        assert!(matches!(Source::find("./baidu"), Err(NotFound::Path { .. })));
        assert!(matches!(Source::find("baidu.toml"), Err(NotFound::Path { .. })));
    }
}
