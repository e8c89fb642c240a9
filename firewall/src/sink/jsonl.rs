//! A file of JSON lines that is begun anew when it has its size.

use std::path::PathBuf;

use super::{Entry, Sink, Written, trouble::Trouble};
use crate::events::log::Log;

/// A file of JSON lines.
#[derive(Debug)]
pub struct JsonLines {
    name: &'static str,
    path: PathBuf,
    size: u64,
    files: u32,
    /// Not there as long as the file cannot be opened.
    log: Option<Log>,
    trouble: Trouble,
}

impl JsonLines {
    /// A file with `files` older ones beside it, each of at most `size` bytes. One that cannot be opened is
    /// tried again with what comes next.
    pub fn new(name: &'static str, path: PathBuf, size: u64, files: u32) -> Self {
        Self { name, path, size, files, log: None, trouble: Trouble::default() }
    }
}

impl Sink for JsonLines {
    fn name(&self) -> &'static str {
        self.name
    }

    fn write(&mut self, entries: &[Entry]) -> Written {
        let place = self.path.display().to_string();
        let mut news = Vec::new();
        let log = match &mut self.log {
            Some(log) => log,
            closed => match Log::open(&self.path, Some(self.size)) {
                Ok(log) => {
                    news.extend(self.trouble.over(&place));
                    closed.insert(log.keeping(self.files))
                }
                Err(error) => {
                    let failed = entries.len() as u64;
                    let news = self.trouble.failed(&place, failed, &error);
                    return Written { failed, news };
                }
            },
        };
        let before = log.failed;
        entries.iter().for_each(|entry| log.write_line(entry.line()));
        news.extend(log.flush());
        let news = (!news.is_empty()).then(|| news.join("; "));
        Written { failed: log.failed - before, news }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        // Nobody reads it, so to open it would wait for ever.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut sink = JsonLines::new("json", path.clone(), 1 << 20, 1);
        let entries = [Entry::lost(1), Entry::lost(2)];
        let Written { failed, news } = sink.write(&entries);
        let news = news.unwrap();
        assert!(failed == 2 && news.ends_with("/events: it is no regular file"), "{news}");
        assert_eq!(sink.write(&entries), Written { failed: 2, news: None }, "said once");

        fs::remove_file(&path).unwrap();
        let Written { failed, news } = sink.write(&entries);
        let news = news.unwrap();
        assert!(failed == 0 && news.ends_with("events that are missing: 4"), "{news}");
        assert_eq!(sink.write(&entries[..1]), Written::default());
        let line = |count| format!("{{\"schema\":1,\"kind\":\"lost\",\"count\":{count}}}\n");
        assert_eq!(fs::read_to_string(path).unwrap(), line(1) + &line(2) + &line(1));
    }
}
