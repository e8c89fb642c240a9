//! Telling the kernel what was found out here, while its programs run.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use aya::maps::{Array, MapData, MapError};
use firewall_common::{
    event::FlowEvent,
    flow::Address,
    layout::{Told, told},
    name::Text,
    parse::quic::Cid,
};
use nix::time::{ClockId, clock_gettime};

use super::{
    load::{self, Loaded},
    maps::{self, Maps},
    sys,
};

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object lacks a program.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// A map is missing or of another shape.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// The sign of life could not be given.
    #[error("cannot tell the kernel programs that somebody reads: {0}")]
    Sign(#[from] MapError),
    /// The program cannot be held.
    #[error("cannot hold the program `tell`: {0}")]
    Hold(#[source] io::Error),
    /// It does not find out who asks for names.
    #[error("cannot tell the kernel who asks for names: {0}")]
    Own(#[source] io::Error),
    /// It does not find the root directory.
    #[error("cannot tell the kernel where the root directory is: {0}")]
    Root(#[source] io::Error),
}

/// Tells the kernel programs what they cannot find out themselves.
pub struct Teller {
    program: OwnedFd,
    reader: Array<MapData, u64>,
    /// How often the kernel did not take in what it was told: it had no room, or no generation is in
    /// place.
    pub not_taken: u64,
}

/// A name leads to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// How long it holds.
    pub lifetime: Duration,
}

/// Bytes of an Ethernet header, which the kernel takes off.
const ETHERNET: usize = 14;

impl Teller {
    /// For the program `tell` and the maps of loaded programs.
    pub fn new(program: OwnedFd, maps: &Maps) -> Result<Self, Error> {
        Ok(Self { program, reader: maps.open("READER")?, not_taken: 0 })
    }

    /// Gives the sign that somebody reads what the kernel hands over.
    pub fn is_here(&mut self) -> Result<(), Error> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.reader.set(0, now, 0)?;
        Ok(())
    }

    /// Tells it.
    pub fn tell(&mut self, what: &Told) {
        let taken = run(self.program.as_fd(), what).unwrap_or_default();
        self.not_taken += u64::from(!taken);
    }

    /// Tells where names lead. It counts for apps that know no name of the address.
    pub fn lead_to(&mut self, leads: &[Lead]) {
        for Lead { name, address, lifetime } in leads {
            let Some(text) = Text::read(name) else { continue };
            let event = FlowEvent { dst: Address::from(*address), ..FlowEvent::default() };
            let lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
            self.tell(&Told { kind: told::AHEAD, lifetime, event, name: text, ..nothing() });
        }
    }
}

/// The program `tell` of loaded programs.
pub fn program(loaded: &Loaded) -> Result<OwnedFd, Error> {
    loaded.program("tell")?.try_clone_to_owned().map_err(Error::Hold)
}

/// Tells that this process asks for names on behalf of the firewall: its questions pass.
pub fn own(program: BorrowedFd<'_>) -> Result<(), Error> {
    match run(program, &Told { kind: told::OWN, ..nothing() }) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Own(io::Error::other("the kernel does not say who it is"))),
        Err(error) => Err(Error::Own(error)),
    }
}

/// Tells that the root directory of this process is the machine's own: paths of executables that
/// start there are what they look like.
pub fn own_root(loaded: &Loaded) -> Result<(), Error> {
    let told = run(loaded.program("tell")?, &Told { kind: told::ROOT, ..nothing() });
    match told {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Root(io::Error::other("the kernel does not say where it is"))),
        Err(error) => Err(Error::Root(error)),
    }
}

/// Whether it was taken in.
fn run(program: BorrowedFd<'_>, what: &Told) -> io::Result<bool> {
    let mut frame = [0; ETHERNET + size_of::<Told>()];
    // SAFETY: integers without padding, by the sizes that `layout` asserts.
    let bytes =
        unsafe { std::slice::from_raw_parts((&raw const *what).cast::<u8>(), size_of::<Told>()) };
    frame[ETHERNET..].copy_from_slice(bytes);
    Ok(sys::test_run(program, &frame, 1)?.returned == 1)
}

/// Nothing yet.
pub fn nothing() -> Told {
    Told {
        kind: u32::MAX,
        why: 0,
        answer: 0,
        flags: 0,
        app: 0,
        lifetime: 0,
        _pad: 0,
        cid: Cid::default(),
        event: FlowEvent::default(),
        name: Text::EMPTY,
    }
}
