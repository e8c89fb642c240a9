//! The last good copies of lists in the state folder, and what came of fetching them.
//!
//! Below `STATE/lists` a list has two files: `KEY.list`, a line of JSON and then the list as it was
//! received, and `KEY.json`, what came of the last attempt. Each is replaced as a whole, so whoever
//! reads sees one copy or the other. The copy carries its own SHA-256: what is damaged is never used.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Attempts, Failure, Head, Kept, KeptCopy, Reason, Remote, SCHEMA};
use crate::contents::Contents;
use crate::policy::Moment;
use crate::policy::source::{Disk, Files, LARGEST};
use crate::regular;
use crate::replace::replace;

/// More than the line before a list ever has.
const LONGEST_HEAD: u64 = 64 << 10;

/// The copies of lists in a state folder. It reads the other files of this machine too.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    /// Whether rules for a time count for who reads it.
    keeps_time: bool,
}

impl Store {
    /// Of a state folder, which need not be there to be read.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("lists"), keeps_time: true }
    }

    /// For who does not end rules when their time is over: none of them counts.
    pub fn without_time(self) -> Self {
        Self { keeps_time: false, ..self }
    }

    /// Where the copies are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder if it is missing, and sees whether it can be written to.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder)?;
        self.lock().map(drop)
    }

    /// The copy of a list, if one was ever fetched.
    ///
    /// # Errors
    ///
    /// What is wrong with it: it is not to be used.
    pub fn copy(&self, remote: &Remote) -> Result<Option<KeptCopy>, String> {
        let Some((head, mut rest)) = self.open(remote)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = rest.by_ref().take(LARGEST + 1).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        let bytes = Contents::from(bytes);
        if bytes.len() as u64 != head.bytes || bytes.sha256() != head.sha256 {
            return Err(
                "it is damaged: its SHA-256 is not the one that it was kept with".to_owned()
            );
        }
        Ok(Some(KeptCopy { head, bytes }))
    }

    /// What stands before the copy of a list, if one was ever fetched. The copy itself is not looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn head(&self, remote: &Remote) -> Result<Option<Head>, String> {
        Ok(self.open(remote)?.map(|(head, _)| head))
    }

    fn open(&self, remote: &Remote) -> Result<Option<(Head, BufReader<File>)>, String> {
        let file = match regular::open(&self.path(remote, "list")) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        let read = file.by_ref().take(LONGEST_HEAD).read_until(b'\n', &mut line);
        read.map_err(|error| format!("it cannot be read: {error}"))?;
        let head: Head = serde_json::from_slice(&line)
            .map_err(|error| format!("it is damaged: what stands before it is wrong: {error}"))?;
        let fits = remote.sha256.as_ref().is_none_or(|wanted| *wanted == head.sha256);
        if head.schema != SCHEMA || head.url != remote.url.as_str() || !fits {
            return Err("it is damaged: it is that of another list or version".to_owned());
        }
        Ok(Some((head, file)))
    }

    /// What came of fetching a list until now. A record that is damaged is told as a failure.
    pub fn attempts(&self, remote: &Remote, now: Timestamp) -> Attempts {
        let damaged = |message: String| {
            let message = format!("the record of its attempts {message}");
            let failure = Some(Failure { time: now, reason: Reason::State, message });
            Attempts { failure, ..Attempts::default() }
        };
        match regular::read(&self.path(remote, "json"), LARGEST) {
            Ok(bytes) => match serde_json::from_slice::<Attempts>(&bytes) {
                Ok(attempts) if attempts.schema == SCHEMA => attempts,
                Ok(_) => damaged("is of another version".to_owned()),
                Err(error) => damaged(format!("is damaged: {error}")),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Attempts::default(),
            Err(error) => damaged(format!("cannot be read: {error}")),
        }
    }

    /// Puts a copy in the place of the one that is there.
    ///
    /// # Errors
    ///
    /// When it cannot be written: then the other one stays.
    pub fn keep(&self, remote: &Remote, head: &Head, bytes: &[u8]) -> io::Result<()> {
        let mut line = serde_json::to_vec(head)?;
        line.push(b'\n');
        self.replace(&self.path(remote, "list"), &[&line, bytes])
    }

    /// Writes down what came of fetching a list.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn note(&self, remote: &Remote, attempts: &Attempts) -> io::Result<()> {
        let mut line = serde_json::to_vec(attempts)?;
        line.push(b'\n');
        self.replace(&self.path(remote, "json"), &[&line])
    }

    fn path(&self, remote: &Remote, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", remote.key()))
    }

    fn replace(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let _lock = self.lock()?;
        // Who can read the folder can read what is in it.
        replace(path, 0o644, parts)
    }

    /// One writes at a time. The lock is let go of with the file.
    fn lock(&self) -> io::Result<File> {
        // Nobody else may open it: who can, could hold it.
        let mut options = File::options();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(self.folder.join(".lock"))?;
        file.lock()?;
        Ok(file)
    }
}

impl Files for Store {
    fn read(&self, path: &Path) -> Result<Contents, String> {
        Disk.read(path)
    }

    fn real(&self, path: &Path) -> PathBuf {
        Disk.real(path)
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        Disk.user(name)
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Disk.group(name)
    }

    fn moment(&self) -> Option<Moment> {
        if self.keeps_time { Disk.moment() } else { None }
    }

    fn kept(&self, remote: &Remote) -> Kept {
        let now = Timestamp::now();
        Kept { copy: self.copy(remote), attempts: self.attempts(remote, now), now }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Validators;
    use super::*;
    use crate::lists::{self, Format};

    const LIST: &[u8] = b"a.example\nb.example\n";

    fn remote(path: &str) -> Remote {
        Remote {
            url: format!("https://example.org/{path}").parse().unwrap(),
            format: None,
            sha256: None,
            refresh: Remote::REFRESH,
        }
    }

    fn head(remote: &Remote) -> Head {
        let report = lists::parse(None, std::str::from_utf8(LIST).unwrap()).unwrap().report;
        let validators = Validators { etag: Some("\"1\"".to_owned()), last_modified: None };
        Head::new(remote, validators, LIST, &report, Timestamp::from_second(1_700_000_000).unwrap())
    }

    #[test]
    fn a_copy_comes_back_as_it_was_kept() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(&state.path().join("not/there/yet"));
        let remote = remote("x");
        assert_eq!(store.copy(&remote), Ok(None));
        store.prepare().unwrap();
        let head = head(&remote);
        store.keep(&remote, &head, LIST).unwrap();
        assert_eq!(store.head(&remote), Ok(Some(head.clone())));
        let kept = KeptCopy { head, bytes: LIST.to_vec().into() };
        assert_eq!(store.copy(&remote), Ok(Some(kept)));
        let path = store.path(&remote, "list");
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
        {"schema":1,"url":"https://example.org/x","fetched":"2023-11-14T22:13:20Z","etag":"\"1\"","bytes":20,"sha256":"8fb9a6ebbf9e0b506b9478b431e6e9dcd34fc2153daea407fc818280551cfed5","format":"domains","entries":2}
        a.example
        b.example
        "#);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        // What asks for something else has a copy of its own.
        for other in [
            Remote { format: Some(Format::Hosts), ..remote.clone() },
            Remote { sha256: Some("0".repeat(64)), ..remote.clone() },
        ] {
            assert_eq!(store.copy(&other), Ok(None), "{other:?}");
        }
        let often = Remote { refresh: Remote::REFRESH / 2, ..remote };
        assert!(store.copy(&often).unwrap().is_some());
        let names = fs::read_dir(store.folder()).unwrap();
        let new = names.filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "new")
        });
        assert_eq!(new.count(), 0);
    }

    #[test]
    fn what_is_damaged_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        store.prepare().unwrap();
        let remote = remote("x");
        store.keep(&remote, &head(&remote), LIST).unwrap();
        let path = store.path(&remote, "list");
        let good = fs::read(&path).unwrap();
        let line = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut flipped = good.clone();
        flipped[line] ^= 1;
        let longer = [&good[..], b"c.example\n"].concat();
        let other =
            String::from_utf8(good.clone()).unwrap().replace("example.org/x", "example.org/y");
        let newer =
            String::from_utf8(good.clone()).unwrap().replace("\"schema\":1", "\"schema\":2");
        for bad in [
            &[][..],
            &good[..line / 2],
            &good[..line],
            &good[..good.len() - 1],
            &flipped,
            &longer,
            other.as_bytes(),
            newer.as_bytes(),
            b"a.example\n",
        ] {
            fs::write(&path, bad).unwrap();
            let shown = String::from_utf8_lossy(bad);
            assert!(store.copy(&remote).unwrap_err().contains("damaged"), "{shown}");
        }
        fs::write(&path, &good).unwrap();
        assert!(store.copy(&remote).unwrap().is_some());
        let pinned = Remote { sha256: Some("0".repeat(64)), ..remote.clone() };
        store.keep(&pinned, &head(&pinned), LIST).unwrap();
        assert!(store.copy(&pinned).unwrap_err().contains("damaged"));

        let now = Timestamp::from_second(1_800_000_000).unwrap();
        fs::write(store.path(&remote, "json"), "{").unwrap();
        let attempts = store.attempts(&remote, now);
        assert!(attempts.failure.unwrap().message.contains("damaged"));
        assert_eq!(attempts.tried, None);
    }

    #[test]
    fn attempts_count_failures_until_one_succeeds() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        store.prepare().unwrap();
        let remote = remote("x");
        let at = |second| Timestamp::from_second(second).unwrap();
        let failure = |second| Failure {
            time: at(second),
            reason: Reason::Status,
            message: "the server answers 404 Not Found".to_owned(),
        };
        let mut found = Vec::new();
        for (second, failure) in
            [(1, None), (2, Some(failure(2))), (3, Some(failure(3))), (4, None)]
        {
            let attempts = store.attempts(&remote, at(second)).then(&remote, at(second), failure);
            store.note(&remote, &attempts).unwrap();
            let kept = store.attempts(&remote, at(second));
            assert_eq!(kept, attempts);
            found.push((kept.failures, kept.current, kept.failure.is_some()));
        }
        let wanted = [(0, 1, false), (1, 1, true), (2, 1, true), (0, 4, false)];
        assert_eq!(
            found,
            wanted.map(|(failures, second, failed)| (failures, Some(at(second)), failed))
        );
    }
}
