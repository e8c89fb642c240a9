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

use std::{ffi::OsString, io, os::fd::AsFd as _, path::PathBuf, time::Duration};

use firewall_common::{
    event::FlowEvent,
    layout::{Counter, flags},
};
use nix::{
    sys::signal::kill,
    unistd::{Pid, User},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cgroup::{self, Group, Hierarchy},
    datapath::{
        self, apply, attach,
        bytes::{Progress, visit},
        destroy::{Destroyer, Doom},
        load, maps, sys, tell,
    },
    events::{
        Event, Lost,
        apps::Apps,
        enrich::Enricher,
        held::{self, Attendant, learn},
        log::Log,
        messages::Messages,
        names::Names,
        reader::{self, Counters, Reader},
        recorder::{Recorder, Sink},
    },
    intel::{self, Intel, ahead::Ahead, resolver::Resolver},
    memory::give_memory_back,
    policy::{compile::Generation, diagnostic::printable},
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
    /// Their maps.
    #[error(transparent)]
    Maps(#[from] maps::Error),
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
    /// What it waits for.
    #[error(transparent)]
    Held(#[from] held::Error),
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
        let maps = loaded.maps()?;
        plan.generation.header.netns =
            sys::netns_cookie().map_err(system("cannot tell the network namespace"))?;
        // Of the interfaces other processes have their part.
        plan.generation.header.flags &= !flags::BACKSTOP;
        let number = apply::apply(&maps, &plan.generation)?;
        debug_assert_ne!(number, 0, "0 is no generation");
        // From here on the kernel decides, and only what decisions mean is asked here.
        plan.generation.forget_tables();
        give_memory_back();
        let attached = attach::attach(&loaded, self.group.open()?.as_fd())?;
        attached.pin(&self.pins.directory)?;
        let mut attendant = Attendant::new(tell::program(&loaded)?, &maps)?;
        attendant.is_here()?;
        let counters = Counters::new(&maps)?;
        let enricher = Enricher::new(Apps::new(&maps, hierarchy)?, Names::new(&maps)?);
        let mut recorder = Recorder::new(Reader::new(&maps, "EVENTS")?, enricher);
        let mut messages = Messages::new(&mut loaded.ebpf);
        let mut bytes = Progress::default();
        // Nobody else is told of them.
        let recorded = log.is_some();
        let (generation, intel) = (&plan.generation, plan.intel);
        let mut record = Record {
            log,
            doom: Doom::default(),
            destroyer: Destroyer::default(),
            summary: Summary::default(),
            tell,
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
                ready = attendant.ready() => { ready?; attendant.read(); }
                leads = learn(&mut ahead) => attendant.lead_to(&leads),
                ready = recorder.reader.ready() => {
                    ready?;
                    recorder.read(generation, intel, &mut record)?;
                }
                _ = tick.tick() => {
                    attendant.tick()?;
                    if recorded && let Some(trouble) = bytes.tell_if_due(|| visit(&mut loaded)) {
                        record.say(trouble);
                    }
                    recorder.read(generation, intel, &mut record)?;
                    pass_on(&mut messages, &mut record);
                    recorder.tick(generation, intel, &mut record)?;
                    record.flush_log();
                    (record.tell)(Notice::Tick);
                }
            }
        };
        self.end_what_is_left(record.tell);
        attendant.finish();
        // The last of what was sent can be under way.
        if recorded && let Some(trouble) = bytes.tell(|| visit(&mut loaded)) {
            record.say(trouble);
        }
        pass_on(&mut messages, &mut record);
        recorder.finish(generation, intel, &mut record)?;
        record.finish(&recorder, &attendant, &counters)?;
        if let Some(failed) = ahead.map(|ahead| ahead.tally.failed).filter(|failed| *failed > 0) {
            record.say(format!("denied names could not be looked up ahead: {failed} times"));
        }
        drop(attached);
        Ok(Summary { status: child::status(ended), ..record.summary })
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

/// Where events go: the log, the terminal, the summary.
struct Record<'r> {
    log: Option<Log>,
    doom: Doom,
    destroyer: Destroyer,
    summary: Summary,
    tell: &'r mut dyn FnMut(Notice<'_>),
}

impl Sink for Record<'_> {
    fn seen(&mut self, event: &FlowEvent) {
        let Self { doom, destroyer, .. } = self;
        doom.consider(event, |cookie, pid, protocol| destroyer.end(cookie, pid, protocol));
    }

    fn record(&mut self, event: Event) {
        let counter = match event.finding.verdict {
            "deny" => &mut self.summary.denied,
            "audit" => &mut self.summary.audited,
            _ => &mut self.summary.allowed,
        };
        *counter += u64::from(event.count);
        self.log.iter_mut().for_each(|log| log.write(&event));
        (self.tell)(Notice::Verdict(&event));
    }
}

impl Record<'_> {
    fn say(&mut self, text: String) {
        (self.tell)(Notice::Say(text));
    }

    fn flush_log(&mut self) {
        let Self { log, tell, .. } = self;
        log.iter_mut().filter_map(Log::flush).for_each(|news| tell(Notice::Say(news)));
    }

    /// What is said when everything is over.
    fn finish(
        &mut self,
        recorder: &Recorder<'_>,
        attendant: &Attendant,
        counters: &Counters,
    ) -> Result<(), Error> {
        for (counter, what) in UNEXPECTED {
            let times = counters.sum(counter)?;
            if times > 0 {
                self.say(format!("{what}: {times} times ({})", counter.word()));
            }
        }
        for (times, what) in [
            (
                recorder.enricher.missed_names(),
                "names had made room for others before they were read, the verdicts stood all the \
                 same",
            ),
            (attendant.malformed(), "QUIC packets that were held back could not be decoded"),
            (attendant.not_taken(), "the kernel could not take in what was told of names"),
            (
                recorder.enricher.unreadable(),
                "files about containers and packages could not be read",
            ),
        ] {
            if times > 0 {
                self.say(format!("{what}: {times} times"));
            }
        }
        self.summary.lost = counters.sum(Counter::LostEvents)? + recorder.reader.malformed;
        if self.summary.lost > 0 {
            let lost = Lost::new(self.summary.lost);
            self.log.iter_mut().for_each(|log| log.write(&lost));
        }
        self.flush_log();
        self.summary.unwritten = self.log.as_ref().map_or(0, |log| log.failed);
        Ok(())
    }
}

fn pass_on(messages: &mut Option<Messages>, record: &mut Record<'_>) {
    for message in messages.iter_mut().flat_map(Messages::take) {
        record.say(message);
    }
}
