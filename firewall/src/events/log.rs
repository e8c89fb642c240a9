//! A file of JSON lines: whole lines are appended, and what cannot be written is counted and said.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::regular;

/// Bytes of lines that are written at once.
const PIECE: usize = 64 << 10;

/// An open log.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    rotate: Option<u64>,
    /// Files that were begun before this one, and stay.
    files: u32,
    /// Bytes that the file has.
    size: u64,
    /// The file ends in the middle of a line.
    torn: bool,
    /// Whole lines that are still to be written.
    lines: Vec<u8>,
    /// Lines that could not be written.
    pub failed: u64,
    /// Since it cannot be written: how many lines had failed before.
    unwritable: Option<u64>,
    unrotatable: bool,
    /// What is still to be said.
    news: Vec<String>,
}

/// The path of the file that holds what came before.
fn older(path: &Path) -> PathBuf {
    numbered(path, 1)
}

/// The path of the file that was begun so many before this one.
fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_added_extension(number.to_string())
}

impl Log {
    /// Opens a file to append to, and makes it if it is missing. With `rotate`, a file that would get
    /// larger than so many bytes becomes `older`, in place of the one before it. Such a log is kept
    /// for long and tells of all users: others than its owner and group may not read it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: &Path, rotate: Option<u64>) -> io::Result<Self> {
        let file = open(path, rotate.is_some())?;
        let size = file.metadata()?.len();
        // Whoever wrote before may have been killed within a line.
        let mut last = *b"\n";
        if rotate.is_some() && size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            rotate,
            files: 1,
            size,
            torn: last != *b"\n",
            lines: Vec::new(),
            failed: 0,
            unwritable: None,
            unrotatable: false,
            news: Vec::new(),
        })
    }

    /// With so many older files in place of one: what becomes `older` gets the number 2 with the next one,
    /// and so on.
    pub const fn keeping(mut self, files: u32) -> Self {
        self.files = files;
        self
    }

    /// Adds a line of JSON.
    pub fn write(&mut self, line: &impl Serialize) {
        let start = self.lines.len();
        if serde_json::to_writer(&mut self.lines, line).is_ok() {
            self.end_line();
        } else {
            // What is written has no keys that are not text: does not happen, and is counted.
            self.lines.truncate(start);
            self.failed += 1;
        }
    }

    /// Adds a line as it is; its end is added here.
    pub fn write_line(&mut self, line: &str) {
        self.lines.extend_from_slice(line.as_bytes());
        self.end_line();
    }

    fn end_line(&mut self) {
        self.lines.push(b'\n');
        if self.lines.len() >= PIECE {
            self.write_out();
        }
    }

    /// Writes what is held, and returns what a user should know: once that lines cannot be written, and
    /// once that they can again.
    pub fn flush(&mut self) -> Option<String> {
        self.write_out();
        let news = std::mem::take(&mut self.news);
        (!news.is_empty()).then(|| news.join("; "))
    }

    /// Writes whole lines in one go, so that lines of several who share a file do not mix. A full
    /// disk is no reason to end, and none to be silent about.
    fn write_out(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let size = self.size.saturating_add(self.lines.len() as u64);
        if self.size > 0 && self.rotate.is_some_and(|most| size > most) {
            self.rotate();
        }
        let mut lines = std::mem::take(&mut self.lines);
        let before = self.failed;
        let (written, outcome) = match self.mend() {
            Ok(()) => self.append(&lines),
            Err(error) => (0, Err(error)),
        };
        self.failed += lines[written..].iter().filter(|byte| **byte == b'\n').count() as u64;
        lines.clear();
        self.lines = lines;
        let path = self.path.display();
        match (outcome, self.unwritable) {
            (Ok(()), Some(before)) => {
                let missing = self.failed - before;
                self.news.push(format!(
                    "the log {path} can be written again; lines that are missing: {missing}"
                ));
                self.unwritable = None;
            }
            (Err(error), None) => {
                self.news.push(format!("cannot write the log {path}: {error}"));
                self.unwritable = Some(before);
            }
            (Ok(()), None) | (Err(_), Some(_)) => {}
        }
        // If it cannot be ended now, the line that was cut short is ended before the next one.
        let _ = self.mend();
    }

    /// Ends a line that was cut short.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn { self.append(b"\n").1 } else { Ok(()) }
    }

    /// Appends bytes, and says how many of them were written.
    fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        let outcome = loop {
            match self.file.write(&bytes[written..]) {
                Ok(0) if written < bytes.len() => break Err(ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if written == bytes.len() {
                break Ok(());
            }
        };
        self.size = self.size.saturating_add(written as u64);
        if let Some(last) = bytes[..written].last() {
            self.torn = *last != b'\n';
        }
        (written, outcome)
    }

    /// Begins the file anew. If that fails it goes on growing: lines are worth more than room.
    fn rotate(&mut self) {
        let old = older(&self.path);
        let begun = self.move_on().and_then(|()| {
            open(&self.path, true).inspect_err(|_| {
                let _ = fs::rename(&old, &self.path);
            })
        });
        match begun {
            Ok(file) => {
                self.file = file;
                self.size = 0;
                self.torn = false;
                self.unrotatable = false;
            }
            Err(error) if !self.unrotatable => {
                let path = self.path.display();
                self.news.push(format!("the log {path} cannot be begun anew, and grows: {error}"));
                self.unrotatable = true;
            }
            Err(_) => {}
        }
    }

    /// Gives each file the number after its own; the oldest one makes room.
    fn move_on(&self) -> io::Result<()> {
        for number in (1..self.files).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        rename(&self.path, &older(&self.path))
    }
}

/// Renames a file, if it is there: somebody can have taken it away.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

fn open(path: &Path, private: bool) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true);
    match private {
        true => regular::open_with(options.read(true).mode(0o640), path),
        // Who names a log may name a pipe.
        false => options.mode(0o666).open(path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::fs::PermissionsExt as _};

    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_are_appended_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut logs = [Log::open(&path, None).unwrap(), Log::open(&path, None).unwrap()];
        for log in &mut logs {
            log.write(&["a", "b\n"]);
            log.write_line("{}");
        }
        assert_eq!(text(&path), "");
        assert_eq!(logs.each_mut().map(Log::flush), [None, None]);
        assert_eq!(text(&path), "[\"a\",\"b\\n\"]\n{}\n".repeat(2));
        // More than is held is written without being asked to.
        let long = "x".repeat(PIECE);
        logs[0].write_line(&long);
        assert!(text(&path).ends_with(&format!("{long}\n")));
    }

    #[test]
    fn a_line_that_was_cut_short_is_ended_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "{}\n{\"half").unwrap();
        let mut log = Log::open(&path, Some(1 << 20)).unwrap();
        log.write_line("1");
        assert_eq!(log.flush(), None);
        assert_eq!(text(&path), "{}\n{\"half\n1\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said_once() {
        let mut log = Log::open(Path::new("/dev/full"), None).unwrap();
        log.write_line("1");
        log.write_line("2");
        let said = log.flush().unwrap();
        assert!(said.starts_with("cannot write the log /dev/full: No space left"), "{said}");
        log.write_line("3");
        assert_eq!((log.flush(), log.failed), (None, 3));
        log.file = File::options().write(true).open("/dev/null").unwrap();
        log.write_line("4");
        let said = log.flush().unwrap();
        assert_eq!(said, "the log /dev/full can be written again; lines that are missing: 3");
        assert_eq!((log.flush(), log.failed), (None, 3));
    }

    #[test]
    fn a_line_that_was_cut_short_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, None).unwrap();
        // A pipe takes a part, and then nothing more until it is read.
        let (mut there, here) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&here, true).unwrap();
        log.file = File::from(OwnedFd::from(here));
        let long = "x".repeat(1 << 20);
        log.write_line(&long);
        assert!(log.torn && log.failed == 1);
        let mut room = [0; 1 << 16];
        io::Read::read(&mut there, &mut room).unwrap();
        log.write_line("next");
        assert!(log.flush().is_some());
        drop(log);
        let mut rest = String::new();
        io::Read::read_to_string(&mut there, &mut rest).unwrap();
        assert_eq!(rest, "\nnext\n");
    }

    #[test]
    fn a_log_that_is_full_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "0\n").unwrap();
        let mut log = Log::open(&path, Some(8)).unwrap();
        for number in 1..=9 {
            log.write_line(&number.to_string());
            assert_eq!(log.flush(), None);
        }
        assert_eq!([text(&older(&path)), text(&path)], ["4\n5\n6\n7\n", "8\n9\n"]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
        // A line that is longer than a file may be has one to itself.
        log.write_line("a long line");
        log.write_line("x");
        assert_eq!(log.flush(), None);
        assert_eq!([text(&older(&path)), text(&path)], ["8\n9\n", "a long line\nx\n"]);
        assert_eq!(log.failed, 0);
    }

    #[test]
    fn as_many_older_files_stay_as_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, Some(4)).unwrap().keeping(3);
        for number in 1..=9 {
            log.write_line(&number.to_string());
            assert_eq!(log.flush(), None);
            if number == 7 {
                // Somebody has taken one away.
                fs::remove_file(numbered(&path, 1)).unwrap();
            }
        }
        let kept = [1, 2, 3].map(|number| fs::read_to_string(numbered(&path, number)).ok());
        assert_eq!(text(&path), "9\n");
        assert_eq!(kept, [Some("7\n8\n".to_owned()), None, Some("3\n4\n".to_owned())]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_stored_log_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Log::open(&path, Some(8)).is_err());
    }

    #[test]
    fn what_cannot_be_begun_anew_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, Some(8)).unwrap();
        // Nothing takes the place of a folder that has something in it.
        fs::create_dir_all(older(&path).join("x")).unwrap();
        let said: Vec<Option<String>> = (0..9)
            .map(|number| {
                log.write_line(&number.to_string());
                log.flush()
            })
            .collect();
        assert_eq!(said.iter().flatten().count(), 1, "{said:?}");
        assert_eq!(text(&path).lines().count(), 9);
        fs::remove_dir_all(older(&path)).unwrap();
        log.write_line("9");
        assert_eq!(log.flush(), None);
        assert_eq!([text(&older(&path)).lines().count(), text(&path).lines().count()], [9, 1]);
    }
}
