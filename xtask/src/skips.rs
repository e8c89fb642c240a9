//! Shows why tests skip. A test runner hides what a passing test prints, so the tests write their
//! reasons to a file as well (`FIREWALL_SKIP_LOG`), and this prints them as they come.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// Prints each reason once, from its making until it is dropped.
pub struct Skips {
    file: tempfile::NamedTempFile,
    stop: Arc<AtomicBool>,
    printer: Option<JoinHandle<()>>,
}

impl Skips {
    /// Makes the file and starts to watch it.
    pub fn watch() -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        let mut reader = file.reopen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let printer = std::thread::spawn(move || {
            let mut seen = std::collections::HashSet::new();
            let mut pending = String::new();
            loop {
                let last = stopped.load(Ordering::Acquire);
                // Reading goes on where it ended before.
                if reader.read_to_string(&mut pending).is_err() {
                    return;
                }
                while let Some(end) = pending.find('\n') {
                    let line: String = pending.drain(..=end).collect();
                    if seen.insert(line.clone()) {
                        eprint!("skipped: {line}");
                    }
                }
                if last {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(Self { file, stop, printer: Some(printer) })
    }

    /// Where tests append a line for each thing they skip.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for Skips {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(printer) = self.printer.take() {
            // A printer that panicked has nothing left to print.
            let _ = printer.join();
        }
    }
}
