//! What waits for a sink, and the thread that hands it over.

use std::{
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Entry, Sink, Written};
use crate::events::Event;

/// How long what comes is gathered before it is handed over.
const GATHERED: Duration = Duration::from_millis(200);

/// Things to say that are held until somebody asks.
const MOST_NEWS: usize = 16;

/// Entries on their way to a sink.
#[derive(Debug)]
pub struct Queue {
    name: &'static str,
    shared: Arc<Shared>,
}

/// What became of the entries of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They wait, or are being written.
    pub queued: u64,
    /// There was no room for them in the queue.
    pub dropped: u64,
    /// They could not be written.
    pub failed: u64,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that may wait or be in hand.
    limit: usize,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// Something is done.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// They wait, and take so many bytes.
    entries: Vec<Entry>,
    waiting: usize,
    /// How many the sink has in hand.
    in_hand: u64,
    /// Of those that wait and those in hand.
    bytes: usize,
    /// How many were ever added; up to which the sink has got them; up to which it is done with them.
    handed: u64,
    taken: u64,
    settled: u64,
    dropped: u64,
    failed: u64,
    /// Dropped ones that the sink has not been told of.
    untold: u64,
    news: Vec<String>,
    closed: bool,
}

/// What is handed over at once.
struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    /// Dropped ones that it tells of.
    untold: u64,
}

impl Queue {
    /// Starts the thread of a sink, whose entries may take up `limit` bytes.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(mut sink: impl Sink + 'static, limit: usize) -> io::Result<Self> {
        let name = sink.name();
        let state = Mutex::default();
        let shared = Arc::new(Shared { limit, state, work: Condvar::new(), done: Condvar::new() });
        let queue = Self { name, shared: Arc::clone(&shared) };
        thread::Builder::new().name(format!("sink-{name}")).spawn(move || {
            while let Some(batch) = shared.take() {
                let written = sink.write(&batch.entries);
                shared.settle(name, &batch, written);
            }
        })?;
        Ok(queue)
    }

    /// The word of its sink.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Adds an entry, or counts it as dropped: never waits for the sink.
    pub fn push(&self, entry: &Entry) {
        let mut state = self.shared.lock();
        state.handed += 1;
        let size = size(entry);
        if state.bytes + size > self.shared.limit {
            state.dropped += 1;
            if state.untold == 0 {
                let name = self.name;
                state.say(format!(
                    "the sink `{name}` has not gone on for so long that events are lost to it"
                ));
            }
            state.untold += match entry {
                Entry::Event { .. } => 1,
                Entry::Lost { lost, .. } => lost.count,
            };
            return;
        }
        state.entries.push(entry.clone());
        state.bytes += size;
        state.waiting += size;
        if state.entries.len() == 1 || self.shared.is_pressing(&state) {
            self.shared.work.notify_one();
        }
    }

    /// What became of its entries.
    pub fn counts(&self) -> Counts {
        let state = self.shared.lock();
        let queued = state.entries.len() as u64 + state.in_hand;
        Counts { queued, dropped: state.dropped, failed: state.failed }
    }

    /// How many entries were ever added, dropped ones included.
    pub fn handed(&self) -> u64 {
        self.shared.lock().handed
    }

    /// The first so many of them are written, or counted as lost.
    pub fn settled(&self) -> u64 {
        self.shared.lock().settled
    }

    /// What is to be said since the last time.
    pub fn news(&self) -> Vec<String> {
        mem::take(&mut self.shared.lock().news)
    }

    /// Has all that waits be handed over at once, and nothing more after it.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }

    /// Waits until the sink is done with everything, but not longer than that; returns how many entries it is
    /// not done with.
    pub fn wait(&self, until: Instant) -> u64 {
        let left = until.saturating_duration_since(Instant::now());
        let busy = |state: &mut State| state.settled < state.handed;
        let waited = self.shared.done.wait_timeout_while(self.shared.lock(), left, busy);
        drop(waited);
        self.counts().queued
    }
}

impl State {
    /// Keeps what is to be said, as far as there is room.
    fn say(&mut self, text: String) {
        if self.news.len() < MOST_NEWS {
            self.news.push(text);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is done under it that can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to hand over, as it gets full.
    const fn is_pressing(&self, state: &State) -> bool {
        state.waiting > self.limit / 4
    }

    /// What is to be handed over next, after it was gathered; `None` when no more will come.
    fn take(&self) -> Option<Batch> {
        let idle =
            |state: &mut State| state.entries.is_empty() && state.untold == 0 && !state.closed;
        let state = self.work.wait_while(self.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let gathers = |state: &mut State| !state.closed && !self.is_pressing(state);
        let gathered = self.work.wait_timeout_while(state, GATHERED, gathers);
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let mut entries = mem::take(&mut state.entries);
        // They came when there was no room: after those that wait, and before any that comes now.
        let untold = mem::take(&mut state.untold);
        if untold > 0 {
            entries.push(Entry::lost(untold));
        }
        state.taken = state.handed;
        state.in_hand = entries.len() as u64;
        let bytes = mem::take(&mut state.waiting);
        (!entries.is_empty()).then_some(Batch { entries, bytes, untold })
    }

    /// Notes what became of a batch.
    fn settle(&self, name: &str, batch: &Batch, written: Written) {
        let mut state = self.lock();
        state.bytes -= batch.bytes;
        state.settled = state.taken;
        state.in_hand = 0;
        state.failed += written.failed;
        written.news.into_iter().for_each(|text| state.say(text));
        // Of what could not be written the sink tells itself.
        if batch.untold > 0 && written.failed == 0 {
            let missing = batch.untold;
            state.say(format!("the sink `{name}` goes on; events that are missing: {missing}"));
        }
        self.done.notify_all();
    }
}

/// Bytes that an entry takes, about: several sinks share one.
fn size(entry: &Entry) -> usize {
    // What an event says in numbers and words of its own is about what its line says.
    size_of::<Event>() + 2 * entry.line().len()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Tells what it is given, and goes on when it is let.
    struct Slow {
        given: mpsc::Sender<Vec<Entry>>,
        go: mpsc::Receiver<Written>,
    }

    impl Sink for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn write(&mut self, entries: &[Entry]) -> Written {
            self.given.send(entries.to_vec()).unwrap();
            self.go.recv_timeout(PATIENCE).unwrap_or_default()
        }
    }

    fn slow(limit: usize) -> (Queue, mpsc::Receiver<Vec<Entry>>, mpsc::Sender<Written>) {
        let ((given, gets), (lets, go)) = (mpsc::channel(), mpsc::channel());
        (Queue::start(Slow { given, go }, limit).unwrap(), gets, lets)
    }

    fn counts(entries: &[Entry]) -> Vec<u64> {
        let count = |entry: &Entry| match entry {
            Entry::Lost { lost, .. } => lost.count,
            Entry::Event { .. } => 0,
        };
        entries.iter().map(count).collect()
    }

    #[test]
    fn what_comes_is_handed_over_in_order_and_at_once_at_the_end() {
        let (queue, gets, lets) = slow(1 << 20);
        for count in 1..=5 {
            queue.push(&Entry::lost(count));
        }
        let first = counts(&gets.recv_timeout(PATIENCE).unwrap());
        for count in 6..=9 {
            queue.push(&Entry::lost(count));
        }
        assert_eq!((queue.handed(), queue.settled(), queue.counts().queued), (9, 0, 9));
        queue.close();
        assert_eq!(queue.wait(Instant::now()), 9, "it is not waited for longer than that");
        let news = Some("full".to_owned());
        lets.send(Written { failed: 2, news }).unwrap();
        let mut rest = Vec::new();
        while rest.len() + first.len() < 9 {
            rest.extend(counts(&gets.recv_timeout(PATIENCE).unwrap()));
            lets.send(Written::default()).unwrap();
        }
        assert_eq!([first, rest].concat(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(queue.wait(Instant::now() + PATIENCE), 0);
        assert_eq!(queue.counts(), Counts { failed: 2, ..Counts::default() });
        assert_eq!((queue.settled(), queue.news()), (9, vec!["full".to_owned()]));
        assert_eq!(queue.news(), [""; 0]);
    }

    #[test]
    fn a_sink_that_hangs_loses_what_it_has_no_room_for_and_is_told() {
        let one = size(&Entry::lost(1));
        let (queue, gets, lets) = slow(4 * one);
        let (other, others, goes_on) = slow(1 << 20);
        queue.push(&Entry::lost(1));
        assert_eq!(counts(&gets.recv_timeout(PATIENCE).unwrap()), [1]);
        for _ in 0..10 {
            for queue in [&queue, &other] {
                queue.push(&Entry::lost(1));
            }
        }
        assert_eq!(queue.counts(), Counts { queued: 4, dropped: 7, failed: 0 });
        let said = "the sink `slow` has not gone on for so long that events are lost to it";
        assert_eq!(queue.news(), [said], "once");
        let mut got = 0;
        while got < 10 {
            got += others.recv_timeout(PATIENCE).unwrap().len();
            goes_on.send(Written::default()).unwrap();
        }
        assert_eq!(other.counts().dropped, 0);

        assert_eq!(queue.settled(), 0, "nothing after the first can be known");
        lets.send(Written::default()).unwrap();
        let next = counts(&gets.recv_timeout(PATIENCE).unwrap());
        assert_eq!(next, [1, 1, 1, 7], "the gap is told where it is");
        lets.send(Written::default()).unwrap();
        assert_eq!(queue.wait(Instant::now() + PATIENCE), 0);
        assert_eq!((queue.settled(), queue.counts().dropped), (11, 7));
        assert_eq!(queue.news(), ["the sink `slow` goes on; events that are missing: 7"]);
        queue.push(&Entry::lost(8));
        assert_eq!(counts(&gets.recv_timeout(PATIENCE).unwrap()), [8], "there is room again");
    }

    #[test]
    fn what_a_user_should_know_is_held_as_far_as_there_is_room() {
        let (queue, gets, lets) = slow(1 << 20);
        for number in 0..=MOST_NEWS {
            queue.push(&Entry::lost(1));
            gets.recv_timeout(PATIENCE).unwrap();
            lets.send(Written { failed: 0, news: Some(number.to_string()) }).unwrap();
            assert_eq!(queue.wait(Instant::now() + PATIENCE), 0);
        }
        assert_eq!(queue.news().len(), MOST_NEWS);
    }
}
