//! One command under policies, in a cgroup of its own.
//!
//! ```text
//! cgroup ─ load ─ apply ─ attach ─ pin ─▶ command ─▶ events ─▶ log, terminal
//! ```
//!
//! The command starts when everything is in place. What holds the programs is pinned, so that it stays
//! under its policies if this process is killed; what it leaves running when it ends is ended too.

pub mod child;
pub mod pins;
mod signals;

use std::{ffi::OsString, future::pending, io, os::fd::AsFd as _, path::PathBuf, time::Duration};

use firewall_common::{
    event::{FlowEvent, HeldDatagram},
    layout::Counter,
};
use nix::{
    sys::signal::kill,
    time::ClockId,
    unistd::{Pid, User},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cgroup::{self, Group, Hierarchy},
    datapath::{
        self, apply, attach,
        destroy::Destroyer,
        load, sys,
        tell::{self, Lead, Teller},
    },
    events::{
        Event, Lost, SCHEMA,
        apps::Apps,
        coalesce::Coalescer,
        enrich::{Enricher, nanoseconds},
        held::Initials,
        log::Log,
        messages::Messages,
        names::Names,
        reader::{self, Counters, Reader},
    },
    intel::{
        self, Intel,
        ahead::{Ahead, Fact},
        resolver::Resolver,
    },
    policy::{compile::Generation, diagnostic::printable, explain::Explainer},
};
use pins::{Pins, Runs};
use signals::Signals;

/// What is to be run.
pub struct Plan<'a> {
    /// The command and its arguments.
    pub command: &'a [OsString],
    /// Who it runs as; `None` is who runs this.
    pub user: Option<User>,
    /// What holds.
    pub generation: Generation,
    /// What is known of addresses.
    pub intel: &'a Intel,
    /// What looks denied names up, if they are to be known ahead.
    pub ahead: Option<Ahead<Resolver>>,
    /// Where events are appended to.
    pub log: Option<PathBuf>,
}

/// Why the command was not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command did not start.
    #[error(transparent)]
    Child(#[from] child::Error),
    /// The cgroup or the pins.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The programs.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// Their tables.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Their links.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The events.
    #[error(transparent)]
    Reader(#[from] reader::Error),
    /// What the kernel is told.
    #[error(transparent)]
    Tell(#[from] tell::Error),
    /// The tables of countries and owners.
    #[error(transparent)]
    Intel(#[from] intel::Error),
    /// The log.
    #[error("cannot write the log {}: {source}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// What the caller is told while the command runs.
pub enum Notice<'a> {
    /// A verdict.
    Verdict(&'a Event),
    /// Something that a user should know.
    Say(String),
    /// Time goes on.
    Tick,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Exit status of the command.
    pub status: u8,
    /// Flows by verdict.
    pub allowed: u64,
    /// Recorded and let through.
    pub audited: u64,
    /// Stopped.
    pub denied: u64,
    /// Events that found no room.
    pub lost: u64,
    /// Events that could not be written to the log.
    pub unwritten: u64,
}

/// Runs the command to its end.
///
/// # Errors
/// When anything is missing that the policies need: then the command is not started.
pub fn run(plan: Plan<'_>, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Summary, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start the runtime"))?;
    runtime.block_on(run_here(plan, tell))
}

async fn run_here(plan: Plan<'_>, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Summary, Error> {
    let log = plan.log.as_ref().map(|path| {
        Log::open(path, None).map_err(|source| Error::Log { path: path.clone(), source })
    });
    let log = log.transpose()?;
    // Everything that events are enriched with is at hand before the first of them.
    plan.intel.geo()?;
    plan.intel.asn()?;
    let signals = Signals::new().map_err(system("cannot take signals"))?;
    let hierarchy = Hierarchy::find()?;
    let runs = Runs::find()?;
    if let Some(path) = &runs.mounted {
        tell(Notice::Say(format!("mounted a bpf file system at {}", path.display())));
    }
    match runs.clear_up(&hierarchy) {
        (0, 0) => {}
        (gone, holding) => tell(Notice::Say(format!(
            "of runs that were killed: cleared up {gone}, {holding} still hold what they started"
        ))),
    }
    let inherited =
        child::close_inherited_sockets().map_err(system("cannot look at open sockets"))?;
    if !inherited.closed.is_empty() {
        tell(Notice::Say(format!(
            "network sockets opened before are closed to the command: {}",
            child::numbers(&inherited.closed)
        )));
    }
    if !inherited.kept.is_empty() {
        tell(Notice::Say(format!(
            "a standard stream of the command is a network socket, which no policy reaches: {}",
            child::numbers(&inherited.kept)
        )));
    }
    let path =
        hierarchy.own_by_root()?.join(format!("firewall-run-{}", pins::name(std::process::id())));
    // First the directory that the next run finds leftovers by.
    let pins = runs.create(&path)?;
    let place = Place { group: Group::create(&hierarchy, path)?, pins };
    place.run(plan, tell, log, &signals, &hierarchy).await
}

/// What a run has made in the system; gone when it is dropped.
struct Place {
    group: Group,
    pins: Pins,
}

/// How long processes may take to end that were killed.
const PATIENCE: Duration = Duration::from_secs(5);

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be ended stays under its policies, and the next run clears up.
        if self.group.kill(PATIENCE) && self.group.remove().is_ok() {
            let _ = self.pins.remove();
        }
    }
}

impl Place {
    async fn run(
        self,
        mut plan: Plan<'_>,
        tell: &mut dyn FnMut(Notice<'_>),
        log: Option<Log>,
        signals: &Signals,
        hierarchy: &Hierarchy,
    ) -> Result<Summary, Error> {
        let mut loaded = load::load(datapath::OBJECT, self.group.id()?)?;
        plan.generation.header.netns =
            sys::netns_cookie().map_err(system("cannot tell the network namespace"))?;
        let number = apply::apply(&mut loaded.ebpf, &plan.generation)?;
        debug_assert_ne!(number, 0, "0 is no generation");
        // From here on the kernel decides, and only what decisions mean is asked here.
        plan.generation.forget_tables();
        give_memory_back();
        let attached = attach::attach(&loaded, self.group.open()?.as_fd())?;
        attached.pin(&self.pins.directory)?;
        let reader = Reader::new(&mut loaded.ebpf, "EVENTS")?;
        let mut quic = Quic {
            reader: Reader::new(&mut loaded.ebpf, "HELD")?,
            initials: Initials::default(),
            teller: Teller::new(&mut loaded)?,
        };
        quic.teller.is_here()?;
        let counters = Counters::new(&mut loaded.ebpf)?;
        let explainer = Explainer { generation: &plan.generation, intel: plan.intel };
        let apps = Apps::new(&mut loaded.ebpf, hierarchy)?;
        let names = Names::new(&mut loaded.ebpf)?;
        let enricher = Enricher::new(explainer, apps, names);
        let mut recorder = Recorder {
            reader,
            enricher,
            messages: Messages::new(&mut loaded.ebpf),
            log,
            coalescer: Coalescer::default(),
            destroyer: Destroyer::default(),
            summary: Summary::default(),
        };

        let mut ahead = plan.ahead.take();
        let mut command =
            child::start(plan.command, self.group.door()?, plan.user.as_ref(), signals.before)?;
        let pid = command.id().map_or(Pid::from_raw(0), |id| Pid::from_raw(id.cast_signed()));
        let mut tick = interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                ended = command.wait() => break ended.map_err(system("cannot wait for the command"))?,
                signal = signals.next(pid) => {
                    let (signal, pass_on) = signal.map_err(system("cannot take a signal"))?;
                    if pass_on && pid.as_raw() > 0 {
                        // It may have ended just now.
                        let _ = kill(pid, signal);
                    }
                }
                ready = quic.reader.ready() => { ready?; let _more = quic.read(); }
                facts = learn(&mut ahead) => quic.teller.lead_to(&facts),
                ready = recorder.reader.ready() => { ready?; recorder.read(tell)?; }
                _ = tick.tick() => { quic.tick()?; recorder.tick(tell)?; }
            }
        };
        self.end_what_is_left(tell);
        quic.finish(tell);
        recorder.finish(&counters, tell)?;
        if let Some(failed) = ahead.map(|ahead| ahead.tally.failed).filter(|failed| *failed > 0) {
            tell(Notice::Say(format!("denied names could not be looked up ahead: {failed} times")));
        }
        drop(attached);
        Ok(Summary { status: child::status(ended), ..recorder.summary })
    }

    fn end_what_is_left(&self, tell: &mut dyn FnMut(Notice<'_>)) {
        let left = self.group.processes();
        if left.is_empty() {
            return;
        }
        let names: Vec<String> = left
            .iter()
            .map(|pid| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                format!("{} ({pid})", printable(name.unwrap_or_default().trim_end_matches('\n')))
            })
            .collect();
        tell(Notice::Say(format!("ended what the command left running: {}", names.join(", "))));
        if !self.group.kill(PATIENCE) {
            tell(Notice::Say(format!(
                "some of it does not end; it stays under the policies in the cgroup {}",
                self.group.path.display()
            )));
        }
    }
}

/// Gives back to the system what reading and compiling the policies took: the C library keeps what
/// is freed, and the command may run for long.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Counters that stay at zero on a sound machine, and what it means if they do not.
const UNEXPECTED: [(Counter, &str); 6] = [
    (Counter::NoState, "no memory for the state of a socket, packets were dropped"),
    (Counter::NoPolicy, "the tables in the kernel had no answer, flows were denied"),
    (Counter::NoScratch, "no memory was free to read packets in, they were dropped"),
    (Counter::MalformedDns, "DNS messages could not be read, names may be missing"),
    (
        Counter::LostInitials,
        "more QUIC connections began at once than could be read, packets were dropped",
    ),
    (Counter::NoName, "names or addresses of answers could not be kept, names may be missing"),
];

/// What the next look-up tells, of names that are to be known ahead.
async fn learn(ahead: &mut Option<Ahead<Resolver>>) -> Vec<Lead> {
    let Some(ahead) = ahead else { return pending().await };
    let mut leads = Vec::new();
    let sink = |fact: Fact<'_>| {
        leads.push(Lead {
            name: fact.name.to_owned(),
            address: fact.address,
            lifetime: fact.lifetime,
        });
    };
    ahead.learn(sink).await;
    leads
}

/// Reads the names in QUIC Initials for the kernel.
struct Quic {
    reader: Reader,
    initials: Initials,
    teller: Teller,
}

/// Entries of a ring buffer that are read before something else has its turn.
const AT_ONCE: usize = 256;

impl Quic {
    /// Reads some, and tells whether there is more.
    fn read(&mut self) -> bool {
        let Self { reader, initials, teller } = self;
        (0..AT_ONCE).all(|_| {
            let now = boot_time();
            let read = reader.read_next(|bytes| {
                initials.take(&HeldDatagram::try_from(bytes)?, now, teller);
                Ok(())
            });
            read.is_some()
        })
    }

    /// When the command has ended: what it has sent last is still to be told.
    fn finish(&mut self, tell: &mut dyn FnMut(Notice<'_>)) {
        while self.read() {}
        self.initials.finish(&mut self.teller);
        for (times, what) in [
            (self.reader.malformed, "QUIC packets that were held back could not be decoded"),
            (self.teller.not_taken, "the kernel could not take in what was told of names"),
        ] {
            if times > 0 {
                tell(Notice::Say(format!("{what}: {times} times")));
            }
        }
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.teller.is_here()?;
        self.read();
        self.initials.expire(boot_time(), &mut self.teller);
        Ok(())
    }
}

fn boot_time() -> Duration {
    let now = u64::try_from(nanoseconds(ClockId::CLOCK_BOOTTIME)).unwrap_or_default();
    Duration::from_nanos(now)
}

/// Takes events from the kernel to the log.
struct Recorder<'a> {
    reader: Reader,
    enricher: Enricher<'a>,
    messages: Option<Messages>,
    coalescer: Coalescer,
    destroyer: Destroyer,
    log: Option<Log>,
    summary: Summary,
}

impl Recorder<'_> {
    /// Records some events, and tells whether there are more.
    fn read(&mut self, tell: &mut dyn FnMut(Notice<'_>)) -> Result<bool, Error> {
        let mut due = Vec::new();
        let more = (0..AT_ONCE).all(|_| {
            let Some(event) = self.reader.read_next(|bytes| FlowEvent::try_from(bytes)) else {
                return false;
            };
            self.destroyer.consider(&event);
            self.coalescer.push(event, |event| due.push(event));
            true
        });
        self.record(&due, tell)?;
        Ok(more)
    }

    fn tick(&mut self, tell: &mut dyn FnMut(Notice<'_>)) -> Result<(), Error> {
        self.read(tell)?;
        self.pass_on_messages(tell);
        let now = boot_time().as_nanos() as u64;
        let mut due = Vec::new();
        self.coalescer.tick(now, |event| due.push(event));
        self.record(&due, tell)?;
        self.flush_log(tell);
        tell(Notice::Tick);
        Ok(())
    }

    fn finish(
        &mut self,
        counters: &Counters,
        tell: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), Error> {
        while self.read(tell)? {}
        self.pass_on_messages(tell);
        let mut due = Vec::new();
        self.coalescer.flush(|event| due.push(event));
        self.record(&due, tell)?;
        for (counter, what) in UNEXPECTED {
            let times = counters.sum(counter)?;
            if times > 0 {
                tell(Notice::Say(format!("{what}: {times} times ({})", counter.word())));
            }
        }
        let missed = self.enricher.missed_names();
        if missed > 0 {
            tell(Notice::Say(format!(
                "names had made room for others before they were read, the verdicts stood all the \
                 same: {missed} times"
            )));
        }
        let unreadable = self.enricher.unreadable();
        if unreadable > 0 {
            tell(Notice::Say(format!(
                "files about containers and packages that could not be read: {unreadable}"
            )));
        }
        self.summary.lost = counters.sum(Counter::LostEvents)? + self.reader.malformed;
        if self.summary.lost > 0 {
            let lost = Lost { schema: SCHEMA, kind: "lost", count: self.summary.lost };
            self.log.iter_mut().for_each(|log| log.write(&lost));
        }
        self.flush_log(tell);
        self.summary.unwritten = self.log.as_ref().map_or(0, |log| log.failed);
        Ok(())
    }

    fn flush_log(&mut self, tell: &mut dyn FnMut(Notice<'_>)) {
        self.log.iter_mut().filter_map(Log::flush).for_each(|news| tell(Notice::Say(news)));
    }

    fn pass_on_messages(&mut self, tell: &mut dyn FnMut(Notice<'_>)) {
        for message in self.messages.iter_mut().flat_map(Messages::take) {
            tell(Notice::Say(message));
        }
    }

    fn record(
        &mut self,
        events: &[FlowEvent],
        tell: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), Error> {
        for event in events {
            for event in self.enricher.enrich(event)? {
                let counter = match event.finding.verdict {
                    "deny" => &mut self.summary.denied,
                    "audit" => &mut self.summary.audited,
                    _ => &mut self.summary.allowed,
                };
                *counter += u64::from(event.count);
                self.log.iter_mut().for_each(|log| log.write(&event));
                tell(Notice::Verdict(&event));
            }
        }
        Ok(())
    }
}
