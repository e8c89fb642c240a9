//! What a terminal shows while something takes long. Nothing else gets to see it.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    let all: Mutex<HashMap<usize, (ProgressBar, bool)>> = Mutex::default();
    Arc::new(move |index, received| {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(received) = received else {
            if let Some((bar, _)) = all.remove(&index) {
                bar.finish_and_clear();
            }
            return;
        };
        // The rate is that since the beginning, so it is kept before there is anything to see.
        let (bar, shown) = all.entry(index).or_insert_with(|| (bar(received.of), false));
        bar.set_position(received.bytes);
        if !*shown && begin.elapsed() >= SHORT_DOWNLOAD {
            *shown = true;
            bar.set_message(names.get(index).cloned().unwrap_or_default());
            bars.add(bar.clone());
        }
    })
}

/// A line about bytes, of so many if that is known, which nobody sees yet.
fn bar(of: Option<u64>) -> ProgressBar {
    let template = match of {
        Some(_) => "{msg}  {bytes} of {total_bytes}, {bytes_per_sec}",
        None => "{msg}  {bytes}, {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::with_draw_target(of, ProgressDrawTarget::hidden());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
