//! Names known ahead: denied names are looked up before any app asks for them, and kept fresh, so that
//! an app that learns their addresses where nothing sees it (in a question that is encrypted, or that
//! another process asks) does not reach them unseen.
//!
//! ```text
//! policies ─ denied_names ─▶ Schedule ─ due ─▶ Resolve ─▶ Fact: name, chain, address, lifetime
//!                                ▲                │
//!                                └── done: when next
//! ```
//!
//! Nobody is asked for a name that the policies do not deny. [`Schedule`] is pure; [`Ahead`] asks, and
//! hands on what it learns.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    future::{Future, pending},
    net::IpAddr,
    time::Duration,
};

use firewall_common::{
    flow::{Address, is_global_v4},
    layout::{MAX_ADDRESSES, MIN_LIFETIME},
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    task::{Id, JoinSet},
    time::sleep,
};

use super::resolver::{Answer, Failure, Resolver};

/// Names that are looked up at most.
pub const MOST_NAMES: usize = 1_000;

/// Time between two names that are asked for.
const PACE: Duration = Duration::from_millis(100);

/// Names that are asked for at once.
const AT_ONCE: usize = 4;

/// A name is asked for again after this time at the soonest, whatever its time to live.
const SOONEST: Duration = Duration::from_secs(60);

/// A name is asked for again after this time at the latest.
const LATEST: Duration = Duration::from_secs(3600);

/// Longest sleep: the clock of sleeping stands still while the machine is suspended, and lifetimes do
/// not.
const NAP: Duration = Duration::from_secs(60);

/// Looks up one name.
pub trait Resolve: Clone + Send + 'static {
    /// Where a name leads.
    fn resolve(&self, name: String) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

impl Resolve for Resolver {
    async fn resolve(&self, name: String) -> Result<Answer, Failure> {
        Self::resolve(self, &name).await
    }
}

/// An address of a denied name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// The name as the policies have it.
    pub name: &'a str,
    /// What it is an alias of, the first one first.
    pub chain: &'a [String],
    /// The address: one that the internet routes. A resolver that blocks names answers with the
    /// loopback or an address of its own, which others may reach for good reasons.
    pub address: IpAddr,
    /// How long it holds: longer than it takes to be told again.
    pub lifetime: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Look-ups with an address.
    pub found: u64,
    /// Look-ups of names that do not exist or have no address.
    pub empty: u64,
    /// Look-ups without an answer.
    pub failed: u64,
    /// Addresses that were not handed on: the internet does not route them, or the name has more than
    /// [`MAX_ADDRESSES`].
    pub unused: u64,
}

/// How long until a name is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// There was an answer that holds for this time.
    After(Duration),
    /// There is no such name, or it has no address.
    Empty,
    /// There was no answer.
    Failed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for the name with this number.
    Ask(usize),
    /// Nothing before this time.
    At(Duration),
    /// Nothing before something is [done](Schedule::done).
    Wait,
}

/// When which name is asked for. Time is counted from any moment and never goes back.
#[derive(Debug)]
pub struct Schedule {
    /// Of each name, how often there was no answer in a row.
    failures: Vec<u32>,
    /// When the names are due that are not being asked for; of those due at once the first one first.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    asking: usize,
    /// No name is asked for before this time.
    pace: Duration,
}

impl Schedule {
    /// Of so many names, all of them due now.
    pub fn new(names: usize, now: Duration) -> Self {
        Self {
            failures: vec![0; names],
            due: (0..names).map(|name| Reverse((now, name))).collect(),
            asking: 0,
            pace: now,
        }
    }

    /// What is to be done now. What is to be asked for counts as being asked for from now on.
    pub fn next(&mut self, now: Duration) -> Next {
        let Some(Reverse((due, name))) = self.due.peek().copied() else { return Next::Wait };
        if self.asking >= AT_ONCE {
            return Next::Wait;
        }
        let start = due.max(self.pace);
        if start > now {
            return Next::At(start);
        }
        self.due.pop();
        self.asking += 1;
        self.pace = now + PACE;
        Next::Ask(name)
    }

    /// A name was asked for. `random` is any number: names that were asked for together are not so
    /// the next time.
    pub fn done(&mut self, name: usize, again: Again, now: Duration, random: u32) {
        let Some(failures) = self.failures.get_mut(name) else { return };
        *failures = if again == Again::Failed { failures.saturating_add(1) } else { 0 };
        let wait = match again {
            Again::After(lifetime) => lifetime,
            Again::Empty => LATEST,
            Again::Failed => SOONEST.saturating_mul(1 << (*failures - 1).min(16)),
        };
        self.due.push(Reverse((now + early(wait.clamp(SOONEST, LATEST), random), name)));
        self.asking = self.asking.saturating_sub(1);
    }
}

/// Between 7/10 and 9/10 of a time: before it is over, so that there is time to ask.
fn early(time: Duration, random: u32) -> Duration {
    let share = 0.7 + 0.2 * f64::from(random) / f64::from(u32::MAX);
    time.mul_f64(share)
}

/// Keeps names known ahead.
pub struct Ahead<R> {
    names: Vec<String>,
    schedule: Schedule,
    resolver: R,
    asking: JoinSet<Result<Answer, Failure>>,
    /// Which name each of them is about.
    asked: HashMap<Id, usize>,
    clock: Box<dyn Fn() -> Duration>,
    random: Box<dyn FnMut() -> u32>,
    /// What came of it until now.
    pub tally: Tally,
}

impl<R: Resolve> Ahead<R> {
    /// Looks these names up by a resolver. Nothing is asked before [`Self::learn`] is called.
    pub fn new(names: Vec<String>, resolver: R) -> Self {
        // Lifetimes go on while the machine is suspended, and so does this clock.
        let clock = || clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        let clock = move || clock().unwrap_or_default();
        Self::with(names, resolver, clock, random)
    }

    fn with(
        names: Vec<String>,
        resolver: R,
        clock: impl Fn() -> Duration + 'static,
        random: impl FnMut() -> u32 + 'static,
    ) -> Self {
        Self {
            schedule: Schedule::new(names.len(), clock()),
            names,
            resolver,
            asking: JoinSet::new(),
            asked: HashMap::new(),
            clock: Box::new(clock),
            random: Box::new(random),
            tally: Tally::default(),
        }
    }

    /// Asks for names as they are due until an answer comes, and hands on what it tells. To be called
    /// again and again, on a tokio runtime. Nothing is lost if it is dropped before it is ready.
    pub async fn learn(&mut self, mut sink: impl FnMut(Fact<'_>)) {
        loop {
            let now = (self.clock)();
            let nap = match self.schedule.next(now) {
                Next::Ask(name) => {
                    let resolver = self.resolver.clone();
                    let text = self.names[name].clone();
                    let task = self.asking.spawn(async move { resolver.resolve(text).await });
                    self.asked.insert(task.id(), name);
                    continue;
                }
                Next::At(time) => Some(time.saturating_sub(now).min(NAP)),
                Next::Wait => None,
            };
            let slept = async {
                match nap {
                    Some(nap) => sleep(nap).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.asking.join_next_with_id() => {
                    // A task that panicked has no answer, and its name is not to be lost.
                    let (id, told) = match done {
                        Ok((id, told)) => (id, told),
                        Err(error) => (error.id(), Err(Failure::NoAnswer(Vec::new()))),
                    };
                    if let Some(name) = self.asked.remove(&id) {
                        self.take(name, told, &mut sink);
                    }
                    return;
                }
                () = slept => {}
            }
        }
    }

    fn take(
        &mut self,
        name: usize,
        told: Result<Answer, Failure>,
        sink: &mut impl FnMut(Fact<'_>),
    ) {
        let again = match told {
            Ok(answer) => {
                self.tally.found += 1;
                self.hand_on(name, &answer, sink)
            }
            Err(Failure::NoSuchName | Failure::NoAddress) => {
                self.tally.empty += 1;
                Again::Empty
            }
            Err(Failure::NoUpstream | Failure::NoAnswer(_)) => {
                self.tally.failed += 1;
                Again::Failed
            }
        };
        self.schedule.done(name, again, (self.clock)(), (self.random)());
    }

    fn hand_on(&mut self, name: usize, answer: &Answer, sink: &mut impl FnMut(Fact<'_>)) -> Again {
        let mut shortest = LATEST;
        let mut used = 0;
        for found in &answer.addresses {
            if used >= MAX_ADDRESSES || !is_global(found.ip.into()) {
                self.tally.unused += 1;
                continue;
            }
            used += 1;
            let ttl = Duration::from_secs(found.ttl.into());
            shortest = shortest.min(ttl);
            let target = found.target.iter().cloned();
            let chain: Vec<String> = answer.chain.iter().cloned().chain(target).collect();
            let lifetime = ttl.clamp(Duration::from_secs(MIN_LIFETIME.into()), LATEST);
            sink(Fact { name: &self.names[name], chain: &chain, address: found.ip, lifetime });
        }
        Again::After(shortest)
    }
}

/// Any number. Nobody gains by guessing when a name is asked for.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Reads of up to 256 bytes are never short (random(7)); without, names come in step.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

/// Whether the internet routes an address; of one that carries an IPv4 address, that.
fn is_global(address: Address) -> bool {
    match address.as_v4().or(address.embedded_v4()) {
        Some(bits) => is_global_v4(bits),
        // 2000::/3 is all that is given out (RFC 4291 section 2.4).
        None => address.high >> 61 == 1,
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
