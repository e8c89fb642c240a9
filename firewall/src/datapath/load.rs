//! Loading: from the embedded object to verified programs with empty maps, each program where
//! others jump to it.

use std::{
    num::NonZero,
    os::fd::{AsFd as _, BorrowedFd},
    panic::resume_unwind,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapError, ProgramArray},
    programs::{Program, ProgramError, ProgramFd},
};
use firewall_common::flow::SEEDS;

use super::{
    btf,
    maps::{self, Maps},
    pins::{self, Pins},
    plain::Plain,
};

/// Why the kernel programs are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's type information is missing.
    #[error(transparent)]
    Btf(#[from] btf::Error),
    /// The object or its maps were refused.
    #[error("the kernel refuses the maps: {}", chain(.0))]
    Object(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("the kernel refuses the program `{name}`: {}", reason(.source))]
    Program {
        /// The program.
        name: String,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// A program could not be put where others jump to it.
    #[error("cannot put the program `{name}` where others jump to it: {source}")]
    Jump {
        /// The program.
        name: &'static str,
        /// What the kernel says.
        source: MapError,
    },
    /// What is pinned cannot be gone on with.
    #[error(transparent)]
    Pins(#[from] pins::Error),
    /// The kernel has no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[source] std::io::Error),
    /// The object has no such program or map.
    #[error("the embedded object has no `{0}`")]
    Missing(&'static str),
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// The verifier's log ends with what it objects to and a summary; the rest is too long to show.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let from = last.len().saturating_sub(if cfg!(debug_assertions) { 40 } else { 3 });
            format!("{io_error}\n{}", last[from..].join("\n"))
        }
        other => chain(other),
    }
}

/// What the verifier did with one program.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The program.
    pub name: String,
    /// Instructions the verifier went through; `None` before kernel 5.16.
    pub instructions: Option<u32>,
    /// How long loading it took.
    pub time: Duration,
}

/// Loaded programs with their maps.
pub struct Loaded {
    /// aya's own.
    pub ebpf: Ebpf,
    /// In any order: several are loaded at a time.
    pub verified: Vec<Verified>,
    /// How long making the maps took.
    pub maps_time: Duration,
    /// How long loading the programs took.
    pub programs_time: Duration,
}

/// Loads `object`, following the execs below the cgroup of this inode number, or all for 0. Its maps go
/// with it.
pub fn load(object: &[u8], cgroup: u64) -> Result<Loaded, Error> {
    load_with(object, cgroup, &seed()?, &[])
}

/// As [`load`], with the maps that are pinned, which are made and pinned where they are not there.
pub fn load_pinned(object: &[u8], cgroup: u64, pins: &Pins) -> Result<Loaded, Error> {
    pins.check(object)?;
    let mut notes = pins.notes()?;
    let seed = match notes.seed()? {
        Some(seed) => seed,
        None => seed()?,
    };
    // Before any map is filled by it.
    notes.keep_seed(&seed)?;
    let names = aya_obj::Object::parse(object)
        .map_err(|error| pins::Error::Object(error.to_string()))?
        .maps
        .into_keys()
        // Constants are of this load.
        .filter(|name| !name.starts_with('.'));
    let paths: Vec<_> = names.map(|name| (pins.maps().join(&name), name)).collect();
    load_with(object, cgroup, &seed, &paths)
}

fn load_with(
    object: &[u8],
    cgroup: u64,
    seed: &[u64; SEEDS],
    pinned: &[(PathBuf, String)],
) -> Result<Loaded, Error> {
    let start = Instant::now();
    let offsets = Plain(btf::kernel_offsets()?);
    let mut loader = EbpfLoader::new();
    for (path, name) in pinned {
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader
        .btf(None)
        .override_global("SEED", seed, false)
        .override_global("OFFSETS", &offsets, false)
        .override_global("SCOPE", &cgroup, false)
        .load(object)
        .map_err(|error| Error::Object(Box::new(error)))?;
    let maps_time = start.elapsed();
    let start = Instant::now();
    let verified = load_programs(&mut ebpf)?;
    let programs_time = start.elapsed();
    fill_jumps(&mut ebpf)?;
    Ok(Loaded { ebpf, verified, maps_time, programs_time })
}

/// Threads that load programs at a time: the kernel verifies each on the CPU of who loads it.
const LOADERS: usize = 4;

fn load_programs(ebpf: &mut Ebpf) -> Result<Vec<Verified>, Error> {
    let programs = Mutex::new(ebpf.programs_mut());
    let work = || -> Result<Vec<Verified>, Error> {
        let mut verified = Vec::new();
        loop {
            let next = programs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((name, program)) = next else { return Ok(verified) };
            // Loaded by who needs them, see [`super::iterate`] and [`super::backstop`].
            if matches!(program, Program::Iter(_) | Program::SchedClassifier(_)) {
                continue;
            }
            let start = Instant::now();
            load_program(program).map_err(|source| Error::Program {
                name: name.to_owned(),
                source: Box::new(source),
            })?;
            verified.push(Verified {
                name: name.to_owned(),
                time: start.elapsed(),
                instructions: program
                    .info()
                    .ok()
                    .and_then(|info| info.verified_instruction_count()),
            });
        }
    };
    let count = thread::available_parallelism().map_or(1, NonZero::get).min(LOADERS);
    thread::scope(|scope| {
        let loaders: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let mut verified = Vec::new();
        for loader in loaders {
            match loader.join() {
                Ok(loaded) => verified.extend(loaded?),
                Err(panic) => resume_unwind(panic),
            }
        }
        Ok(verified)
    })
}

/// The map of programs that others jump to.
pub const JUMPS: &str = "JUMPS";

/// Programs that others jump to, with their place in [`JUMPS`]: `Jump` of the kernel programs.
const JUMP_TARGETS: [(&str, u32); 2] = [("payload", 0), ("quic", 1)];

fn fill_jumps(ebpf: &mut Ebpf) -> Result<(), Error> {
    for (name, place) in JUMP_TARGETS {
        let program = ebpf.program(name).ok_or(Error::Missing(name))?;
        let fd = descriptor(name, program)?
            .try_clone()
            .map_err(|source| Error::Jump { name, source: MapError::IoError(source) })?;
        let map = ebpf.map_mut(JUMPS).ok_or(Error::Missing(JUMPS))?;
        ProgramArray::try_from(map)
            .and_then(|mut jumps| jumps.set(place, &fd, 0))
            .map_err(|source| Error::Jump { name, source })?;
    }
    Ok(())
}

fn descriptor<'a>(name: &str, program: &'a Program) -> Result<&'a ProgramFd, Error> {
    program
        .fd()
        .map_err(|source| Error::Program { name: name.to_owned(), source: Box::new(source) })
}

/// Numbers that nobody else knows.
fn seed() -> Result<[u64; SEEDS], Error> {
    let mut seed = [0; SEEDS];
    for number in &mut seed {
        let mut bytes = [0; size_of::<u64>()];
        let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::Random(errno.into()))?;
        // Reads of up to 256 bytes are never short (random(7)).
        debug_assert_eq!(read, bytes.len());
        *number = u64::from_ne_bytes(bytes);
    }
    Ok(seed)
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

impl Loaded {
    /// The maps.
    pub fn maps(&self) -> Result<Maps, maps::Error> {
        Maps::of(&self.ebpf)
    }

    /// A program's descriptor.
    pub fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, Error> {
        let program = self.ebpf.program(name).ok_or(Error::Missing(name))?;
        Ok(descriptor(name, program)?.as_fd())
    }

    /// The map of programs that others jump to.
    pub fn jumps(&self) -> Result<BorrowedFd<'_>, Error> {
        match self.ebpf.map(JUMPS) {
            Some(Map::ProgramArray(map)) => Ok(map.fd().as_fd()),
            _ => Err(Error::Missing(JUMPS)),
        }
    }
}
