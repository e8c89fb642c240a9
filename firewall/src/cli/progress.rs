//! What a terminal shows while something takes long. Nothing else gets to see it.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::remote::Progress;

/// A download that takes no longer than this is not worth showing.
const SHORT_DOWNLOAD: Duration = Duration::from_millis(500);
/// Work that takes no longer than this is not worth showing.
const SHORT_WORK: Duration = Duration::from_secs(1);
/// How often what is shown moves.
const TICK: Duration = Duration::from_millis(100);

/// Work that is shown, if it takes long, until this is dropped.
#[derive(Debug)]
pub struct Busy(Option<(Sender<()>, JoinHandle<()>)>);

impl Busy {
    /// Begins now.
    pub fn new(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (done, ended) = mpsc::channel();
        let show = move || {
            let still = |wait| ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
            if still(SHORT_WORK) {
                let spinner = ProgressBar::new_spinner().with_message(what);
                while still(TICK) {
                    spinner.tick();
                }
                spinner.finish_and_clear();
            }
        };
        // Where there is no thread to be had, there is nothing to look at.
        Self(thread::Builder::new().spawn(show).ok().map(|thread| (done, thread)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            // What is printed next must not be mixed with it.
            let _ = thread.join();
        }
    }
}

/// Shows downloads that take long: of each its name, bytes and rate.
pub fn downloads(names: Vec<String>) -> Progress {
    if !io::stderr().is_terminal() {
        return Arc::new(|_, _| {});
    }
    let begin = Instant::now();
    let bars = MultiProgress::new();
    let shown: Mutex<HashMap<usize, ProgressBar>> = Mutex::default();
    Arc::new(move |index, received| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(received) = received else {
            if let Some(bar) = shown.remove(&index) {
                bar.finish_and_clear();
            }
            return;
        };
        if begin.elapsed() < SHORT_DOWNLOAD {
            return;
        }
        let bar = shown.entry(index).or_insert_with(|| {
            let template = match received.of {
                Some(_) => "{msg}  {bytes} of {total_bytes}, {bytes_per_sec}",
                None => "{msg}  {bytes}, {bytes_per_sec}",
            };
            let style = ProgressStyle::with_template(template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            let name = names.get(index).cloned().unwrap_or_default();
            let bar = ProgressBar::new(received.of.unwrap_or_default()).with_style(style);
            bars.add(bar.with_message(name).with_elapsed(begin.elapsed()))
        });
        bar.set_position(received.bytes);
    })
}
