//! What flows have moved that are still open.
//!
//! The end of a flow is told by itself. For flows that go on, the program `moved_bytes` is run now and
//! then: it tells of each that has moved bytes since it was last told of.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::{iterate, load::Loaded, maps, sys};

/// How often.
const INTERVAL: Duration = Duration::from_mins(1);

/// Why flows are not looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program.
    #[error(transparent)]
    Iterate(#[from] iterate::Error),
    /// The map of sockets.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// It cannot be run.
    #[error("cannot go through the sockets: {0}")]
    Run(#[from] io::Error),
}

/// A way through all sockets of which something is known.
pub fn visit(loaded: &mut Loaded) -> Result<File, Error> {
    iterate::load(loaded)?;
    let maps = loaded.maps()?;
    let program = iterate::program(loaded, iterate::MOVED_BYTES)?;
    let program = program.fd().map_err(iterate::Error::from)?.as_fd();
    Ok(sys::iterate_map(program, maps.fd("SOCKETS")?)?.into())
}

/// Has it told, as events, what flows have moved, by a way that [`visit`] has made.
pub fn tell(mut way: File) -> io::Result<()> {
    // The program writes events and nothing to the file.
    way.read_to_end(&mut Vec::new()).map(|_| ())
}

/// Has it told now and then.
#[derive(Debug)]
pub struct Progress {
    due: Instant,
    /// What is in the way is said once.
    failed: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { due: Instant::now() + INTERVAL, failed: false }
    }
}

impl Progress {
    /// Has it told if it is time to. Returns what is to be said of what is in the way.
    pub fn tell_if_due<E: Display>(
        &mut self,
        visit: impl FnOnce() -> Result<File, E>,
    ) -> Option<String> {
        let now = Instant::now();
        if now < self.due {
            return None;
        }
        self.due = now + INTERVAL;
        self.tell(visit)
    }

    /// Has it told now.
    pub fn tell<E: Display>(&mut self, visit: impl FnOnce() -> Result<File, E>) -> Option<String> {
        let told = visit()
            .map_err(|error| error.to_string())
            .and_then(|way| tell(way).map_err(|error| error.to_string()));
        let known = std::mem::replace(&mut self.failed, told.is_err());
        let error = told.err().filter(|_| !known)?;
        Some(format!("what open flows have moved is not told: {error}"))
    }
}
