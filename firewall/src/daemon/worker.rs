//! The process that reads: settings, policies and lists, events, packets and requests. It may nothing.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use firewall_common::layout::Counter;
use jiff::Timestamp;
use nix::sys::{
    prctl,
    signal::{SigSet, Signal},
};
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, broadcast, mpsc},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Options,
    control::{Answer, Control, Refusal, Request},
    engine::{self, Built, Engine, build, rebuild, rebuild_now},
    errands::{self, Errands},
    inputs,
    refresh::Refresh,
    rights,
    seal::Asks,
    sinks::{Prepared, Sinks},
    start::{Start, Started, begin},
    status,
    watch::Watch,
    wire::Channel,
};
use crate::{
    api::{self, Rights, dto, dto::Origin},
    cgroup::Hierarchy,
    config::Stop,
    datapath::{apply, bytes::Progress, tell},
    events::{
        apps::Apps,
        enrich::Enricher,
        held::{self, Attendant, learn},
        names::Names,
        reader::{self, Counters, Reader},
        recorder::Recorder,
    },
    explanation,
    intel::{self, ahead::Ahead, resolver::Resolver},
    memory::give_memory_back,
    sink::audit::Audit,
    store,
};

/// Why the worker ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is to be in force.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The keeper.
    #[error(transparent)]
    Errands(#[from] errands::Error),
    /// Events.
    #[error(transparent)]
    Reader(#[from] reader::Error),
    /// What the kernel waits for.
    #[error(transparent)]
    Held(#[from] held::Error),
    /// The tables of countries and owners.
    #[error(transparent)]
    Intel(#[from] intel::Error),
    /// What the kernel is told.
    #[error(transparent)]
    Tell(#[from] tell::Error),
    /// A map.
    #[error(transparent)]
    Maps(#[from] crate::datapath::maps::Error),
    /// Which generation decides.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The pins.
    #[error(transparent)]
    Pins(#[from] crate::datapath::pins::Error),
    /// The API.
    #[error(transparent)]
    Bind(#[from] api::server::BindError),
    /// The audit store.
    #[error("cannot open the audit store: {0}")]
    Store(#[from] store::Error),
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// What was tried of the system, for `map_err`.
pub fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |source| Error::System { what: what.into(), source: source.into() }
}

/// Exit status where the policies or settings are not valid.
pub const INVALID: u8 = 1;
/// Exit status where the system does not let it.
const CANNOT: u8 = 3;

/// Does the work, and returns the exit status. To be called in the process that was made for it.
pub fn run(
    options: &Options,
    hierarchy: &Hierarchy,
    channel: Channel,
    seals: Asks,
    say: &mut dyn FnMut(&str),
) -> u8 {
    match try_run(options, hierarchy, channel, seals, say) {
        Ok(status) => status,
        Err(error) => {
            say(&format!("error: {error}"));
            match error {
                Error::Engine(error) if error.is_invalid() => INVALID,
                _ => CANNOT,
            }
        }
    }
}

fn try_run(
    options: &Options,
    hierarchy: &Hierarchy,
    channel: Channel,
    seals: Asks,
    say: &mut dyn FnMut(&str),
) -> Result<u8, Error> {
    rights::of_worker().map_err(system("cannot give up capabilities"))?;
    // Without the keeper there is nothing for it to do.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(system("cannot follow the keeper"))?;
    SigSet::all().thread_unblock().map_err(system("cannot take signals"))?;
    fs::create_dir_all(&options.state)
        .map_err(system(format!("cannot make the state folder {}", options.state.display())))?;
    let places = options.socket.parent().map(Path::to_owned);
    if let Some(place) = places.as_ref().filter(|_| !options.boot) {
        // What is wrong with it the API says.
        let _ = fs::create_dir_all(place);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start the runtime"))?;
    let within = runtime.enter();
    let prepared = match options.boot {
        true => Prepared::default(),
        false => Prepared::new(options.config.as_deref(), say),
    };
    let folders: Vec<PathBuf> =
        places.into_iter().chain([options.state.clone()]).chain(prepared.folders()).collect();
    match rights::confine(&folders) {
        Ok(true) => {}
        Ok(false) => say("this kernel cannot confine the worker wholly (Landlock)"),
        Err(error) => say(&format!("this kernel cannot confine the worker: {error}")),
    }
    let errands = Errands::new(channel);
    // What can be in the way is found before anything is in force.
    let open = if options.boot { None } else { Some(Open::new(options, prepared, seals, say)?) };
    let start = begin(options, &errands, say)?;
    drop(within);
    let status = match (start, open) {
        (Start::Serve(started), Some(open)) => {
            runtime.block_on(serve(options, hierarchy, &errands, *started, open, say))?
        }
        (Start::Serve(_), None) => 0,
        (Start::End(status), open) => {
            if let Some(open) = open {
                let _ = fs::remove_file(&options.socket);
                open.prepared.clear();
            }
            status
        }
    };
    // A look-up of a name that nobody waits for any more can hang on.
    runtime.shutdown_background();
    Ok(status)
}

/// What the daemon has open.
struct Open {
    audit: Audit,
    prepared: Prepared,
    listener: UnixListener,
    rights: Rights,
}

impl Open {
    fn new(
        options: &Options,
        prepared: Prepared,
        seals: Asks,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let (audit, said) = Audit::open(&options.state, prepared.limits(), seals)?;
        said.iter().for_each(|text| say(text));
        let rights = Rights::of_system().map_err(system("cannot look for the group `firewall`"))?;
        Ok(Self { audit, prepared, listener: api::bind(&options.socket)?, rights })
    }
}

/// How often something is looked at while something waits to be told, and while nothing does.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(1);

/// How long a rule that is over waits that could not be taken out.
const RETRY: Duration = Duration::from_secs(10);

/// Verdicts that wait for one who follows; beyond it the oldest are lost to them.
const FOLLOWED: usize = 4096;
/// Requests that wait.
const REQUESTS: usize = 64;

async fn serve(
    options: &Options,
    hierarchy: &Hierarchy,
    errands: &Errands,
    started: Started<'_>,
    open: Open,
    say: &mut dyn FnMut(&str),
) -> Result<u8, Error> {
    let Started { mut engine, degraded } = started;
    let since = Timestamp::now();
    let maps = &engine.loaded().maps;
    let tell =
        engine.loaded().tell.try_clone().map_err(system("cannot hold the program `tell`"))?;
    tell::own(tell.as_fd())?;
    let mut attendant = Attendant::new(tell, maps)?;
    attendant.is_here()?;
    let counters = Counters::new(maps)?;
    let enricher = Enricher::new(Apps::new(maps, hierarchy)?, Names::new(maps)?)
        .going_on_from(open.audit.seq());
    let mut recorder = Recorder::new(Reader::new(maps, "EVENTS")?, enricher);
    let Open { audit, prepared, listener, rights } = open;
    let (verdicts, _) = broadcast::channel(FOLLOWED);
    let mut sinks = Sinks::new(audit, prepared, maps, verdicts.clone(), errands)?;
    let mut losses = Losses::new(&mut engine, &counters, &mut sinks)?;
    engine.intel.geo()?;
    engine.intel.asn()?;

    let (requests, mut asked) = mpsc::channel(REQUESTS);
    let missed = Arc::new(AtomicU64::new(0));
    let control =
        Control { requests, verdicts, state: options.state.clone(), missed: Arc::clone(&missed) };
    let api = tokio::spawn(api::serve(listener, control, rights));

    let mut hangup = signal(SignalKind::hangup()).map_err(system("cannot take signals"))?;
    let mut end = signal(SignalKind::terminate()).map_err(system("cannot take signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot take signals"))?;

    let mut refresh = Refresh::new(&options.state);
    let mut ahead = follow(&engine, &mut recorder, &mut refresh, say);
    let mut watch = Watch::new(engine.now.config.watch == Some(true), &options.policies);
    if let Some(trouble) = watch.trouble() {
        say(&trouble);
    }
    let explaining = Arc::new(Semaphore::new(1));
    let mut building: Option<Building> = None;
    let mut told = status::Told { started: since, degraded, last_reload: None };
    let mut bytes = Progress::default();
    let watchdog = watchdog();
    let mut alive = Instant::now();
    let mut retry = alive;
    notify(&[NotifyState::Ready]);

    let mut next = Instant::now() + LATER;
    let off = loop {
        tokio::select! {
            ready = attendant.ready() => { ready?; attendant.read(); }
            leads = learn(&mut ahead) => attendant.lead_to(&leads),
            ready = recorder.reader.ready() => {
                ready?;
                recorder.read(&engine, &engine.intel, &mut sinks)?;
                next = next.min(Instant::now() + SOON);
            }
            Some(request) = asked.recv() => match request {
                Request::Off(answer) => {
                    let removed = errands.remove();
                    let done = removed.map(|_| ()).map_err(|error| Refusal::cannot(error.to_string()));
                    let is_off = done.is_ok();
                    let _ = answer.send(done);
                    if is_off {
                        say("enforcement is removed");
                        // The answer is still to be sent.
                        sleep(SOON).await;
                        break true;
                    }
                }
                Request::Reload(answer) => {
                    Building::add(&mut building, options, &engine, Some(answer));
                }
                Request::Rollback(answer) => {
                    let change = roll_back(&mut engine, &sinks, &mut told, say);
                    if change.is_ok() {
                        ahead = follow(&engine, &mut recorder, &mut refresh, say);
                    }
                    // Who asked can be gone.
                    let _ = answer.send(change);
                }
                Request::UpdateLists(answer) => refresh.now(&engine.now.lists, answer),
                Request::Lists(answer) => drop(answer.send(Ok(refresh.shown(&engine.now.lists)))),
                Request::Status(answer) => {
                    let status = status::of(options, &engine, &told, &sinks, &counters, &losses, &refresh);
                    let _ = answer.send(status.map_err(|error| Refusal::cannot(error.to_string())));
                }
                Request::Explain(question, answer) => explain(&explaining, options, &engine, question, answer),
            },
            built = Building::done(&mut building) => {
                let Some(Building { answers, again, origin, .. }) = building.take() else { continue };
                let change = put(&mut engine, built, origin, &sinks, &mut told, say);
                if change.is_ok() {
                    retry = Instant::now();
                    ahead = follow(&engine, &mut recorder, &mut refresh, say);
                }
                for answer in answers {
                    let _ = answer.send(change.clone());
                }
                if again {
                    Building::add(&mut building, options, &engine, None);
                }
            }
            fetched = refresh.done() => {
                let changed = refresh.take(fetched, &engine.now.lists, say);
                if changed {
                    Building::add(&mut building, options, &engine, None);
                }
            }
            () = watch.changed() => {
                say("the policies have changed");
                Building::add(&mut building, options, &engine, None);
            }
            _ = hangup.recv() => Building::add(&mut building, options, &engine, None),
            _ = end.recv() => break false,
            _ = interrupt.recv() => break false,
            () = sleep_until(next) => {
                attendant.tick()?;
                if let Some(trouble) = bytes.tell_if_due(|| errands.bytes()) {
                    say(&trouble);
                }
                recorder.read(&engine, &engine.intel, &mut sinks)?;
                recorder.tick(&engine, &engine.intel, &mut sinks)?;
                losses.look(&counters, &mut sinks)?;
                let waits = recorder.waits();
                sinks.look(losses.each(&sinks, &missed), &engine, say);
                losses.note(&mut engine, &sinks)?;
                engine.tick();
                if building.is_none() && retry <= Instant::now() && engine.now.is_over() {
                    say("the time of a rule is over");
                    retry = Instant::now() + RETRY;
                    building = Some(Building::without_what_is_over(options, &engine));
                }
                if watchdog.is_some_and(|every| alive.elapsed() >= every) {
                    alive = Instant::now();
                    notify(&[NotifyState::Watchdog]);
                }
                refresh.begin(&engine.now.lists);
                if refresh.came(&engine.now.lists) {
                    Building::add(&mut building, options, &engine, None);
                }
                next = Instant::now() + if waits { SOON } else { LATER };
            }
        }
    };
    notify(&[NotifyState::Stopping]);
    api.abort();
    let _ = fs::remove_file(&options.socket);
    attendant.finish();
    recorder.finish(&engine, &engine.intel, &mut sinks)?;
    sinks.finish(say);
    losses.note(&mut engine, &sinks)?;
    if !off && engine.now.config.stop == Some(Stop::Off) {
        errands.remove()?;
        say("enforcement is removed, as `stop` says");
    } else if !off {
        say(&format!("stopped; generation {} stays in force", engine.now.number));
    }
    Ok(0)
}

/// Losses of events, told once.
pub struct Losses {
    /// While no daemon was there.
    pub unread: u64,
    /// Since this one is there.
    pub events: u64,
    told: u64,
    /// What the log says of itself when it has what was told.
    told_at: u64,
    noted: u64,
}

impl Losses {
    fn new(
        engine: &mut Engine<'_>,
        counters: &Counters,
        sinks: &mut Sinks<'_>,
    ) -> Result<Self, Error> {
        let noted = engine.loaded().notes.told()?;
        let mut losses = Self { unread: 0, events: 0, told: noted, told_at: 0, noted };
        losses.unread = losses.tell(counters, sinks)?;
        Ok(losses)
    }

    fn look(&mut self, counters: &Counters, sinks: &mut Sinks<'_>) -> Result<(), Error> {
        self.events += self.tell(counters, sinks)?;
        Ok(())
    }

    fn tell(&mut self, counters: &Counters, sinks: &mut Sinks<'_>) -> Result<u64, Error> {
        let lost = counters.sum(Counter::LostEvents)?;
        let new = lost.saturating_sub(self.told);
        if new > 0 {
            self.told_at = sinks.lost(new);
            self.told = lost;
        }
        Ok(new)
    }

    /// By the words of `losses` in `status`.
    fn each(&self, sinks: &Sinks<'_>, missed: &AtomicU64) -> Vec<(&'static str, u64)> {
        let Self { events, unread, .. } = *self;
        let streams = missed.load(Ordering::Relaxed);
        let unwritten = sinks.unwritten();
        [("events", events), ("unread", unread), ("unwritten", unwritten), ("streams", streams)]
            .into()
    }

    /// The next daemon is not to tell of them again, once what was told is written: killed in between, it is
    /// told twice rather than never.
    fn note(&mut self, engine: &mut Engine<'_>, sinks: &Sinks<'_>) -> Result<(), Error> {
        if self.noted != self.told && sinks.wrote() >= self.told_at {
            engine.loaded_mut().notes.keep_told(self.told)?;
            self.noted = self.told;
        }
        Ok(())
    }
}

/// A set that is being compiled, and who waits for it.
struct Building {
    task: JoinHandle<Result<Built, engine::Error>>,
    origin: Origin,
    answers: Vec<Answer<dto::Change>>,
    /// Somebody has asked after it had begun: what it reads may be of before.
    again: bool,
}

impl Building {
    fn add(
        building: &mut Option<Self>,
        options: &Options,
        engine: &Engine<'_>,
        answer: Option<Answer<dto::Change>>,
    ) {
        match building {
            Some(building) => {
                building.again = true;
                building.answers.extend(answer);
            }
            None => {
                let (options, keys) = (options.clone(), engine.keys());
                let cache = Arc::clone(&engine.cache);
                let task = spawn_blocking(move || build(&options, keys, &cache));
                let (origin, answers) = (Origin::Policies, answer.into_iter().collect());
                *building = Some(Self { task, origin, answers, again: false });
            }
        }
    }

    /// What is in force, without rules that are over: nothing else that changed on the disk.
    fn without_what_is_over(options: &Options, engine: &Engine<'_>) -> Self {
        let (options, keys, cache) = (options.clone(), engine.keys(), Arc::clone(&engine.cache));
        let task = spawn_blocking(move || {
            rebuild_now(&options.state.join(inputs::GENERATION), keys, &cache)
                .or_else(|_| build(&options, keys, &cache))
        });
        Self { task, origin: Origin::Time, answers: Vec::new(), again: false }
    }

    async fn done(building: &mut Option<Self>) -> Result<Built, engine::Error> {
        match building {
            Some(building) => match (&mut building.task).await {
                Ok(built) => built,
                // Nothing here is cancelled, so it panicked.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            None => std::future::pending().await,
        }
    }
}

fn roll_back(
    engine: &mut Engine<'_>,
    sinks: &Sinks<'_>,
    told: &mut status::Told,
    say: &mut dyn FnMut(&str),
) -> Result<dto::Change, Refusal> {
    if engine.previous.is_none() {
        return Err(Refusal::invalid("there is no generation before this one"));
    }
    let built = engine.build_previous();
    put(engine, built, Origin::Rollback, sinks, told, say)
}

/// Puts a generation in force, or says why the one that runs stays.
fn put(
    engine: &mut Engine<'_>,
    built: Result<Built, engine::Error>,
    origin: Origin,
    sinks: &Sinks<'_>,
    told: &mut status::Told,
    say: &mut dyn FnMut(&str),
) -> Result<dto::Change, Refusal> {
    let done = built.and_then(|built| {
        let mut said = built.said.clone();
        said.extend(engine.put(built, origin)?);
        Ok(said)
    });
    give_memory_back();
    let time = Timestamp::now();
    match done {
        Ok(said) => {
            said.iter().for_each(|text| say(text));
            say(&format!("generation {} is in force", engine.now.number));
            if let Some(text) = sinks.outdated(engine) {
                say(&text);
            }
            told.degraded.clear();
            let message = engine.now.warnings.clone();
            told.last_reload = Some(dto::Reload { time, done: true, message });
            Ok(status::change(engine, sinks))
        }
        Err(error) => {
            let message = error.to_string();
            say(&format!("error: {message}"));
            say(&format!("generation {} stays in force", engine.now.number));
            told.last_reload = Some(dto::Reload { time, done: false, message: message.clone() });
            Err(if error.is_invalid() {
                Refusal::invalid(message)
            } else {
                Refusal::cannot(message)
            })
        }
    }
}

/// Has all else go by what is in force now.
fn follow(
    engine: &Engine<'_>,
    recorder: &mut Recorder,
    refresh: &mut Refresh,
    say: &mut dyn FnMut(&str),
) -> Option<Ahead<Resolver>> {
    recorder.enricher.forget_places();
    if let Some(trouble) = refresh.follow(&engine.now.lists) {
        say(&trouble);
    }
    names_ahead(engine, say)
}

/// Looks up denied names ahead, if the settings say so.
fn names_ahead(engine: &Engine<'_>, say: &mut dyn FnMut(&str)) -> Option<Ahead<Resolver>> {
    let names = engine.now.ahead.names.clone();
    if names.is_empty() {
        return None;
    }
    match Resolver::new(engine.now.config.upstreams()) {
        Ok(resolver) => Some(Ahead::new(names, resolver)),
        Err(error) => {
            say(&format!("denied names are not looked up ahead: {error}"));
            None
        }
    }
}

/// Answers one question after the other: each has the policies compiled, which takes memory.
fn explain(
    one_at_a_time: &Arc<Semaphore>,
    options: &Options,
    engine: &Engine<'_>,
    question: dto::Question,
    answer: Answer<serde_json::Value>,
) {
    let (state, keys, options) = (options.state.clone(), engine.keys(), options.clone());
    let cache = Arc::clone(&engine.cache);
    let turn = Arc::clone(one_at_a_time).acquire_owned();
    let explain = move || {
        let explained = rebuild(&state.join(inputs::GENERATION), keys, &cache)
            .or_else(|_| build(&options, keys, &cache))
            .map_err(|error| Refusal::cannot(error.to_string()))
            .and_then(|built| explanation::answer(&built.set, &question).map_err(Refusal::invalid));
        give_memory_back();
        // Who asked can be gone.
        let _ = answer.send(explained);
    };
    drop(tokio::spawn(async move {
        let _turn = turn.await;
        drop(spawn_blocking(explain).await);
    }));
}

fn notify(state: &[NotifyState<'_>]) {
    // Where nobody listens there is nothing to tell.
    let _ = sd_notify::notify(false, state);
}

/// How often the service manager wants to hear of it.
fn watchdog() -> Option<Duration> {
    let microseconds = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(microseconds) / 3)
}
