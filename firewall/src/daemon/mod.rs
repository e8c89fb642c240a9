//! The service, as two processes: the keeper may load programs and reads nothing that others wrote, the
//! worker reads policies, lists, packets and requests, and may nothing.
//!
//! ```text
//! policies, lists ─▶ worker: compile ─▶ generation ─ apply ─▶ maps ◀─ kernel programs
//!                      │  ▲                                     │          ▲
//!              wire ask│  │descriptors of maps          EVENTS, HELD       │ load, attach, pin
//!                      ▼  │                                     ▼          │
//!                    keeper ───────────────────────────────▶ worker      keeper
//! ```
//!
//! What enforces is pinned, and neither process is needed for it.

pub mod control;
mod engine;
mod errands;
pub mod inputs;
mod keeper;
mod refresh;
mod rights;
mod seal;
mod sinks;
mod start;
mod status;
mod watch;
pub mod wire;
mod worker;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::exit,
};

use nix::{
    sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs},
    unistd::{ForkResult, fork},
};

use self::{
    keeper::Keeper,
    seal::{Asks, Sealer},
    wire::Channel,
};
use crate::{
    cgroup::{self, Hierarchy},
    datapath::pins::{self, Pins},
    memory::keep_no_large_pieces,
};

pub use crate::datapath::pins::{PINS as PIN, Removed};

/// What the daemon is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings; `None` is those of this machine, which need not be there.
    pub config: Option<PathBuf>,
    /// The folder of the policies.
    pub policies: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// Where the API is.
    pub socket: PathBuf,
    /// The cgroup that is filtered; `None` is the one that all are in.
    pub cgroup: Option<PathBuf>,
    /// Where to pin.
    pub pin: PathBuf,
    /// To put in place what was last in force, and no more.
    pub boot: bool,
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pins.
    #[error(transparent)]
    Pins(#[from] pins::Error),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The cgroup that was named cannot be opened.
    #[error("cannot open the cgroup {}: {source}", path.display())]
    Open {
        /// Its folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was named as the cgroup is none.
    #[error(
        "{} is no cgroup\n\nhint: name a folder below the mount of cgroup2, as /sys/fs/cgroup/user.slice",
        .0.display()
    )]
    NoCgroup(PathBuf),
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System { what, source: source.into() }
}

/// Runs the daemon to its end, and returns its exit status. To be called while there is one thread.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<u8, Error> {
    keep_no_large_pieces();
    // Where it is not mounted, it is there as long as this is held: in both processes.
    let hierarchy = Hierarchy::find()?;
    let cgroup = match &options.cgroup {
        Some(directory) => directory.clone(),
        None => hierarchy.directory(Path::new("/")),
    };
    let directory = open_cgroup(&cgroup)?;
    let pins = Pins::open(&options.pin, say)?;
    if pins.mounted {
        say(&format!("mounted a bpf file system at {}", pins::BPFFS));
    }
    let signals = keeper::block_signals().map_err(system("cannot take signals"))?;
    let pair = || Channel::pair().map_err(system("cannot make a socket pair"));
    let ((ours, theirs), (our_seals, their_seals)) = (pair()?, pair()?);
    // SAFETY: there is one thread.
    match unsafe { fork() }.map_err(system("cannot start the worker"))? {
        ForkResult::Parent { child } => {
            drop((theirs, their_seals));
            let sealer = Sealer::new(&options.state);
            Keeper::new(pins, directory, [ours, our_seals], sealer, child)
                .serve(&signals, say)
                .map_err(system("cannot serve the worker"))
        }
        ForkResult::Child => {
            drop((ours, our_seals));
            let status = worker::run(options, &hierarchy, theirs, Asks::new(their_seals), say);
            // As long as the worker is there, nobody else may have them.
            drop(pins);
            exit(status.into())
        }
    }
}

fn open_cgroup(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let directory = File::open(path).map_err(failed)?;
    let kind = fstatfs(&directory).map_err(|errno| failed(errno.into()))?;
    match kind.filesystem_type() == CGROUP2_SUPER_MAGIC {
        true => Ok(directory),
        false => Err(Error::NoCgroup(path.to_owned())),
    }
}

/// Takes away all that is pinned below a folder, and what enforces with it, while no daemon is there.
///
/// # Errors
/// When a daemon has it, or something stays.
pub fn off(pin: &Path, say: &mut dyn FnMut(&str)) -> Result<Removed, pins::Error> {
    pins::remove(pin, say)
}
