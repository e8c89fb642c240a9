//! Sockets that were open before the programs were attached.
//!
//! The program `open_files` is run over every open file of every process. It charges each socket to
//! the first process that has it, and says what it is. Whoever attaches has this done before, so
//! that no packet meets a socket of nobody, and again after it, for what was opened in between.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _},
};

use aya::{
    maps::{HashMap, MapData, MapError},
    programs::links::LinkError,
};
use firewall_common::{
    evaluate::{Fault, Named},
    event::{Malformed, OpenSocket},
    layout::Listener,
    verdict::Verdict,
};

use super::{
    iterate,
    load::Loaded,
    maps::{self, Maps},
    plain::Plain,
};
use crate::policy::compile::Generation;

/// Why it is not known which sockets were open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program.
    #[error(transparent)]
    Iterate(#[from] iterate::Error),
    /// A map is missing or of another shape.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// It cannot be run.
    #[error("cannot go through the open files: {0}")]
    Link(#[from] LinkError),
    /// It broke off.
    #[error("cannot read which sockets are open: {0}")]
    Read(#[from] io::Error),
    /// The map of listeners.
    #[error("cannot forget listeners: {0}")]
    Listeners(#[from] MapError),
    /// What it said is not of this version.
    #[error("what the kernel programs say of open sockets cannot be decoded")]
    Malformed,
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Charges every open socket to who has it open, and tells which there are, each once. To read what
/// `visit` opens is to run the program once.
pub fn adopt<E: From<Error>>(
    maps: &Maps,
    mut visit: impl FnMut() -> Result<File, E>,
) -> Result<Vec<OpenSocket>, E> {
    forget_listeners(maps)?;
    let mut read = || {
        let mut bytes = Vec::new();
        visit()?.read_to_end(&mut bytes).map_err(Error::Read)?;
        Ok::<_, E>(bytes)
    };
    // The first time all listeners become known, by which the second tells who was called.
    read()?;
    let bytes = read()?;
    let mut seen = HashSet::new();
    let mut open = Vec::new();
    for bytes in bytes.chunks(size_of::<OpenSocket>()) {
        let socket = OpenSocket::try_from(bytes).map_err(Error::from)?;
        if seen.insert(socket.cookie) {
            open.push(socket);
        }
    }
    Ok(open)
}

/// Those that are connected to where they may not be, by their address alone: which names were asked
/// for before, nobody has seen.
pub fn denied<'a>(
    open: &'a [OpenSocket],
    generation: &Generation,
) -> Result<Vec<&'a OpenSocket>, Fault> {
    let mut denied = Vec::new();
    for socket in open {
        if let Some(to) = socket.destination()
            && generation.evaluate(socket.class, &to, &Named::default())?.verdict == Verdict::Deny
        {
            denied.push(socket);
        }
    }
    Ok(denied)
}

/// Listeners of the last time may be gone.
fn forget_listeners(maps: &Maps) -> Result<(), Error> {
    let mut map: HashMap<MapData, Plain<Listener>, u8> = maps.open("LISTENERS")?;
    let known: Vec<Plain<Listener>> = map.keys().collect::<Result<_, _>>()?;
    for listener in known {
        map.remove(&listener)?;
    }
    Ok(())
}

/// A way through all open files: to read it is to run the program over them.
pub fn visit(loaded: &mut Loaded) -> Result<File, Error> {
    iterate::load(loaded)?;
    let program = iterate::program(loaded, iterate::OPEN_FILES)?;
    let link = program.attach().map_err(iterate::Error::from)?;
    Ok(program.take_link(link).map_err(iterate::Error::from)?.into_file()?)
}
