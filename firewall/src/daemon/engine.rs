//! What is in force: one generation after the other, each built beside the one that decides and switched
//! to at once.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashSet},
    fs,
    io::ErrorKind,
    num::NonZeroU32,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use firewall_common::{event::OpenSocket, name_table::Keys};
use jiff::Timestamp;

use super::{
    Options,
    errands::{self, Errands},
    inputs::{self, Inputs, Packed},
};
use crate::{
    api::dto::{self, Origin},
    cache::Cache,
    cgroup,
    config::{self, Config},
    datapath::{
        apply::{self, apply_in},
        attach::Taken,
        bring,
        maps::Maps,
        sockets, sys,
    },
    events::enrich::Generations,
    intel::Intel,
    memory::give_memory_back,
    policy::{
        DeniedNames, List, ListSource,
        compile::Generation,
        diagnostic::Diagnostics,
        source::{Disk, Files as _, NotFound, Source},
    },
    remote::Store,
    set::{self, Set},
};

/// Why a generation is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What there is cannot be compiled: it is not valid.
    #[error(transparent)]
    Inputs(#[from] inputs::Error),
    /// A policy that is named is not there.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The keeper.
    #[error(transparent)]
    Errands(#[from] errands::Error),
    /// What was learned of names.
    #[error(transparent)]
    Bring(#[from] bring::Error),
    /// The tables.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether it is the policies or settings that are wrong.
    pub const fn is_invalid(&self) -> bool {
        matches!(self, Self::Inputs(_) | Self::NotFound(_))
    }

    /// In a line: of policies or settings that are not valid, the first mistake with its place.
    pub fn line(&self) -> String {
        let (what, first) = match self {
            Self::Inputs(inputs::Error::Set(set::Error::Invalid(invalid))) => {
                ("policies", invalid.policies.first_error())
            }
            Self::Inputs(inputs::Error::Config(config::Error::Invalid { findings, .. })) => {
                ("settings", findings.first_error())
            }
            _ => ("", None),
        };
        match first {
            Some(first) => format!("the {what} are not valid: {first}"),
            None => self.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }
}

/// What was compiled, and from what.
pub struct Built {
    /// From what.
    pub inputs: Inputs,
    /// What.
    pub set: Set,
    /// What to say of it.
    pub said: Vec<String>,
}

/// Compiles the policies as they stand.
pub fn build(options: &Options, keys: Keys, cache: &Cache) -> Result<Built, Error> {
    let mut said = Vec::new();
    let sources = match fs::metadata(&options.policies) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        // A policy alone is none: what is not in force would seem to be.
        Ok(there) if !there.is_dir() => {
            let error = ErrorKind::NotADirectory.into();
            return Err(NotFound::Path { path: options.policies.clone(), error }.into());
        }
        // What cannot be looked into is not empty, and is told by who reads it.
        _ => Source::at(&options.policies)?,
    };
    if sources.is_empty() {
        said.push(format!(
            "no policy is enabled in {}: `firewall policy enable NAME` enables one",
            options.policies.display()
        ));
    }
    build_of(options, &sources, keys, cache, said)
}

/// Compiles the boot policy, if there is one.
pub fn build_boot(options: &Options, keys: Keys, cache: &Cache) -> Result<Option<Built>, Error> {
    // Settings that are wrong name none, and then the usual one counts.
    let config = Config::load(options.config.as_deref()).unwrap_or_default();
    match config.boot() {
        Some(path) => build_of(options, &Source::at(&path)?, keys, cache, Vec::new()).map(Some),
        None => Ok(None),
    }
}

fn build_of(
    options: &Options,
    sources: &[Source],
    keys: Keys,
    cache: &Cache,
    said: Vec<String>,
) -> Result<Built, Error> {
    let store = Store::new(&options.state);
    let (inputs, set) = Inputs::record(options.config.as_deref(), sources, &store, keys, cache)?;
    Ok(Built { inputs, set, said })
}

/// Compiles what was recorded in the state folder, as it was compiled then.
pub fn rebuild(path: &Path, keys: Keys, cache: &Cache) -> Result<Built, Error> {
    compile(Inputs::load(path)?, keys, cache)
}

/// Compiles what was recorded in the state folder, without the rules that are over by now.
pub fn rebuild_now(path: &Path, keys: Keys, cache: &Cache) -> Result<Built, Error> {
    compile(Inputs::load(path)?.at(Disk.moment()), keys, cache)
}

fn compile(inputs: Inputs, keys: Keys, cache: &Cache) -> Result<Built, Error> {
    let inputs::Again { set, differs } = inputs.compile(keys, cache)?;
    Ok(Built { inputs, set, said: differs })
}

/// A list by URL, as a policy has it.
pub struct RemoteList {
    /// Name of the policy.
    pub policy: String,
    /// The list.
    pub list: List,
}

/// What is in force.
pub struct InForce {
    /// The number of the generation.
    pub number: NonZeroU32,
    /// Where it comes from.
    pub origin: Origin,
    /// Since when.
    pub since: Timestamp,
    /// The generation, without its tables.
    pub generation: Arc<Generation>,
    /// Names that are to be known ahead.
    pub ahead: DeniedNames,
    /// The settings.
    pub config: Config,
    /// Lists by URL.
    pub lists: Vec<RemoteList>,
    /// Where policies come from, by their names.
    pub sources: BTreeMap<String, String>,
    /// What was found about policies and settings.
    pub warnings: String,
}

impl InForce {
    /// Whether the time of a rule is over.
    pub fn is_over(&self) -> bool {
        let mut rules = self.generation.policies.iter().flat_map(|policy| &policy.rules);
        let now = LazyCell::new(|| Disk.moment());
        rules.any(|rule| rule.until.is_some() && !rule.counts(now.as_ref()))
    }
}

/// Generations whose events can still come.
const KNOWN: usize = 8;

/// How long events of a generation can still come that does not decide any more.
const LATE: Duration = Duration::from_secs(10);

/// Generations by their numbers, and since when each does not decide any more. Each holds the lists of its
/// policies, which can be large.
#[derive(Default)]
struct Known(BTreeMap<u32, (Arc<Generation>, Option<Instant>)>);

impl Known {
    /// Adds the one that decides now.
    fn add(&mut self, number: NonZeroU32, generation: Arc<Generation>, now: Instant) {
        for (_, replaced) in self.0.values_mut() {
            replaced.get_or_insert(now);
        }
        self.0.insert(number.get(), (generation, None));
        while self.0.len() > KNOWN {
            self.0.pop_first();
        }
    }

    /// Forgets those that no event comes of any more, and says whether there were some.
    fn forget(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (_, replaced)| replaced.is_none_or(|at| now - at < LATE));
        self.0.len() < before
    }
}

/// Puts generations in force.
pub struct Engine<'e> {
    errands: &'e Errands,
    loaded: errands::Loaded,
    state: PathBuf,
    cgroup: Option<PathBuf>,
    netns: u64,
    /// What decides.
    pub now: InForce,
    known: Known,
    /// What is known of addresses.
    pub intel: Intel,
    /// What was worked out for the generation that decides.
    pub cache: Arc<Cache>,
    /// Where what it was compiled from is compressed.
    packed: Packed,
    /// What a rollback would bring back.
    pub previous: Option<NonZeroU32>,
}

impl Generations for Engine<'_> {
    fn of(&self, number: u32) -> Option<&Generation> {
        self.known.0.get(&number).map(|(generation, _)| generation.as_ref())
    }
}

/// How a daemon begins.
pub struct Begun<'e> {
    /// Goes on from there.
    pub engine: Engine<'e>,
    /// What became of the links.
    pub taken: Taken,
    /// What to say.
    pub said: Vec<String>,
}

impl<'e> Engine<'e> {
    /// Goes on with what the kernel has, or puts the first generation in force, and has the programs
    /// attached.
    pub fn begin(
        errands: &'e Errands,
        loaded: errands::Loaded,
        options: &Options,
        built: Built,
        origin: Origin,
        cache: Arc<Cache>,
    ) -> Result<Begun<'e>, Error> {
        let netns = sys::netns_cookie().map_err(|source| Error::System {
            what: "cannot tell the network namespace",
            source,
        })?;
        let Built { inputs, mut set, mut said } = built;
        set.generation.header.netns = netns;
        let active = apply::active(&loaded.maps)?;
        let keys = set.generation.header.name_keys;
        let before = NonZeroU32::new(active.generation());
        let tables = before.map(|_| errands.tables()).transpose()?;
        let is_running = |generation: &Generation| match &tables {
            Some(tables) => apply::is_running(&loaded.maps, tables.as_fd(), generation),
            None => Ok(false),
        };
        let again = |path: &Path| {
            let mut built = rebuild(path, keys, &cache)?;
            built.set.generation.header.netns = netns;
            Ok::<_, Error>(built)
        };
        let mut known = Known::default();
        let path = options.state.join(inputs::GENERATION);
        if before.is_some() {
            // Whoever switched may have been killed before it waited for them.
            sys::wait_for_programs();
            bring_to_end(&loaded.maps, is_running, again, &path)?;
        }
        // Tables have no names: with others events of before would be told by the rules of now.
        let runs = is_running(&set.generation)?
            && Inputs::load(&path).is_ok_and(|saved| saved.names_the_same(&inputs));
        // Events of the one before wait to be read.
        if let Some(number) = before
            && !runs
        {
            let why = match again(&path) {
                Ok(Built { set: old, .. }) if is_running(&old.generation)? => {
                    let old = Arc::new(without_tables(old.generation));
                    known.add(number, old, Instant::now());
                    None
                }
                Ok(_) => Some("what is kept compiles to another one".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            said.extend(why.map(|why| {
                format!(
                    "what generation {number} was compiled from is not known, so its events name \
                     no rules: {why}"
                )
            }));
        }
        let mut packed = Packed::default();
        let (number, origin) = match before {
            Some(number) if runs => {
                // Where there was no room for what a switch was made of, nobody has done it.
                bring::names(&loaded.maps, &set.generation)?;
                (number, Origin::Adopted)
            }
            _ => {
                let kept = (&*path, &mut packed);
                let done = switch(errands, &loaded, &inputs, &set.generation, kept, &mut said)?;
                (done.number, origin)
            }
        };
        // Before and after: no packet is to meet a socket of nobody, and some are opened in between.
        if before.is_none() {
            adopt(errands, &loaded.maps)?;
        }
        let taken = errands.attach()?;
        said.extend(errands.backstop(set.generation.settings.backstop)?);
        if !runs || taken.attached > 0 {
            end_denied(errands, &loaded.maps, &set.generation, options.cgroup.as_deref())?;
        }
        let previous = inputs::previous(&path).exists().then_some(number.get() - 1);
        let (now, intel) = in_force(set, number, origin);
        known.add(number, Arc::clone(&now.generation), Instant::now());
        let engine = Self {
            errands,
            loaded,
            state: options.state.clone(),
            cgroup: options.cgroup.clone(),
            netns,
            now,
            known,
            intel,
            cache,
            packed,
            previous: previous.and_then(NonZeroU32::new),
        };
        Ok(Begun { engine, taken, said })
    }

    /// The maps and the notes.
    pub const fn loaded(&self) -> &errands::Loaded {
        &self.loaded
    }

    /// For the notes.
    pub const fn loaded_mut(&mut self) -> &mut errands::Loaded {
        &mut self.loaded
    }

    /// The secrets of the names that are kept.
    pub fn keys(&self) -> Keys {
        self.now.generation.header.name_keys
    }

    /// Puts a generation in force, and has the sockets ended that it denies. Returns what to say.
    pub fn put(&mut self, built: Built, origin: Origin) -> Result<Vec<String>, Error> {
        let Built { inputs, mut set, mut said } = built;
        set.generation.header.netns = self.netns;
        let before = self.now.number;
        let path = self.state.join(inputs::GENERATION);
        // Who has a socket open is asked for by the paths of app and cgroup, which can have made room for
        // others: they are found out again.
        adopt(self.errands, &self.loaded.maps)?;
        let kept = (&*path, &mut self.packed);
        let Switched { number, before_is_kept } =
            switch(self.errands, &self.loaded, &inputs, &set.generation, kept, &mut said)?;
        said.extend(self.errands.backstop(set.generation.settings.backstop)?);
        end_denied(self.errands, &self.loaded.maps, &set.generation, self.cgroup.as_deref())?;
        let (now, intel) = in_force(set, number, origin);
        self.known.add(number, Arc::clone(&now.generation), Instant::now());
        self.now = now;
        self.intel = intel;
        self.previous = before_is_kept.then_some(before);
        Ok(said)
    }

    /// Forgets generations that no event comes of any more.
    pub fn tick(&mut self) {
        if self.known.forget(Instant::now()) {
            give_memory_back();
        }
    }

    /// What a rollback would bring back, compiled anew.
    pub fn build_previous(&self) -> Result<Built, Error> {
        let path = inputs::previous(&self.state.join(inputs::GENERATION));
        rebuild_now(&path, self.keys(), &self.cache)
    }

    /// What the API says of it.
    pub fn shown(&self) -> dto::Generation {
        dto::Generation {
            number: self.now.number,
            since: self.now.since,
            origin: self.now.origin,
            previous: self.previous,
        }
    }
}

/// Charges sockets that are open to who has them, and tells which there are.
fn adopt(errands: &Errands, maps: &Maps) -> Result<Vec<OpenSocket>, errands::Error> {
    sockets::adopt(maps, || errands.sockets())
}

/// Has sockets ended that are connected to where they may not be, of processes in the cgroup that is
/// filtered; `None` is all of them.
fn end_denied(
    errands: &Errands,
    maps: &Maps,
    generation: &Generation,
    cgroup: Option<&Path>,
) -> Result<(), Error> {
    let mut open = adopt(errands, maps)?;
    if let Some(directory) = cgroup {
        let inside: HashSet<u64> = cgroup::below(directory);
        open.retain(|socket| inside.contains(&socket.identity.cgroup));
    }
    // Where an address is known by names, they have a say, and the next packet is judged with them.
    let named = bring::addresses(maps)?;
    // What the tables have no answer to is left to the kernel.
    for socket in sockets::denied(&open, generation).unwrap_or_default() {
        if !named.contains(&socket.peer) {
            errands.end(socket.cookie, socket.identity.pid, socket.protocol);
        }
    }
    Ok(())
}

/// What came of a switch.
struct Switched {
    number: NonZeroU32,
    /// What the generation before was compiled from is there.
    before_is_kept: bool,
}

/// Has a generation decide, names included. Killed at any moment, it is brought to its end by
/// [`bring_to_end`].
fn switch(
    errands: &Errands,
    loaded: &errands::Loaded,
    inputs: &Inputs,
    generation: &Generation,
    (path, packed): (&Path, &mut Packed),
    said: &mut Vec<String>,
) -> Result<Switched, Error> {
    let staged = inputs.stage(path, packed);
    let number = apply_in(&loaded.maps, generation, |count| errands.blocks(count))?;
    bring::names(&loaded.maps, generation)?;
    let mut before_is_kept = true;
    if let Err(error) = staged.and_then(|()| inputs::commit(path)) {
        said.push(format!(
            "what the generation was compiled from cannot be kept in {}: {error}",
            path.display()
        ));
        before_is_kept = inputs::set_aside(path).is_ok();
    }
    let number = NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Ok(Switched { number, before_is_kept })
}

/// Brings a switch to its end that somebody began. It has to be done before the next one, which takes
/// the place of the generation that still decides about names.
fn bring_to_end(
    maps: &Maps,
    is_running: impl Fn(&Generation) -> Result<bool, apply::Error>,
    again: impl Fn(&Path) -> Result<Built, Error>,
    path: &Path,
) -> Result<(), Error> {
    // Of a switch that did not happen, or nothing.
    let Ok(Built { set, .. }) = again(&inputs::staged(path)) else { return Ok(()) };
    if is_running(&set.generation)? {
        bring::names(maps, &set.generation)?;
        // Without it a rollback goes back further.
        let _ = inputs::commit(path);
    } else {
        let _ = fs::remove_file(inputs::staged(path));
    }
    Ok(())
}

fn without_tables(mut generation: Generation) -> Generation {
    generation.forget_tables();
    generation
}

fn in_force(set: Set, number: NonZeroU32, origin: Origin) -> (InForce, Intel) {
    let Set { config, findings, intel, ahead, generation } = set;
    let warnings = [&config.findings, &findings].map(|found| found.render(false)).concat();
    let sources = sources(&generation, &findings);
    let lists = remote_lists(&sources, &findings);
    let generation = Arc::new(without_tables(generation));
    let since = Timestamp::now();
    let now =
        InForce { number, origin, since, generation, ahead, config, lists, sources, warnings };
    (now, intel)
}

/// Where policies stand, by their names.
fn sources(generation: &Generation, findings: &Diagnostics) -> BTreeMap<String, String> {
    let of = |name: &str| Some((name.to_owned(), findings.file_of(name)?.to_owned()));
    generation.policies.iter().filter_map(|policy| of(&policy.name)).collect()
}

fn remote_lists(sources: &BTreeMap<String, String>, findings: &Diagnostics) -> Vec<RemoteList> {
    let by_url = findings.lists().filter(|(_, list)| matches!(list.source, ListSource::Url(_)));
    by_url
        .map(|(file, list)| {
            let policy = sources.iter().find(|(_, source)| *source == file);
            let policy = policy.map_or(file, |(name, _)| name).to_owned();
            // Its entries are in the tables.
            let list = List {
                report: list.report.clone(),
                source: list.source.clone(),
                ..List::empty(&list.name)
            };
            RemoteList { policy, list }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile::{self, Facts, Settings};

    #[test]
    fn what_was_replaced_is_known_as_long_as_its_events_come() {
        let facts = Facts { countries: None, asns: None, organisation: &|_| Vec::new() };
        let generation = compile::compile(Vec::new(), facts, Settings::default()).unwrap();
        let generation = Arc::new(generation);
        let start = Instant::now();
        let number = |number| NonZeroU32::new(number).unwrap();
        let mut known = Known::default();
        let numbers = |known: &Known| known.0.keys().copied().collect::<Vec<_>>();
        known.add(number(1), Arc::clone(&generation), start);
        known.add(number(2), Arc::clone(&generation), start + LATE);
        known.add(number(3), Arc::clone(&generation), start + LATE * 2);
        assert!(!known.forget(start + LATE + LATE / 2));
        assert_eq!(numbers(&known), [1, 2, 3]);
        assert!(known.forget(start + LATE * 2));
        assert_eq!(numbers(&known), [2, 3]);
        assert!(known.forget(start + LATE * 100));
        assert_eq!(numbers(&known), [3], "the one that decides stays");
        for more in 4..4 + KNOWN as u32 {
            known.add(number(more), Arc::clone(&generation), start);
        }
        assert_eq!(known.0.len(), KNOWN);
    }
}
