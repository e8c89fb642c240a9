//! What the keeper does for the worker.

use std::{fs::File, io, os::fd::OwnedFd};

use aya::maps::{MapData, MapError};

use super::wire::{Ask, Channel, Told};
use crate::datapath::{
    apply,
    attach::Taken,
    maps::Maps,
    pins::{self, Notes},
    sockets,
};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keeper could not.
    #[error("{0}")]
    Refused(String),
    /// The keeper is gone, or says what nobody understands.
    #[error("cannot talk to the keeper: {0}")]
    Channel(#[from] io::Error),
    /// The tables of a generation.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Open sockets.
    #[error(transparent)]
    Sockets(#[from] sockets::Error),
    /// What was handed over is no such map.
    #[error("the keeper handed over something else: {0}")]
    Map(#[from] MapError),
    /// What was handed over are no notes.
    #[error(transparent)]
    Pins(#[from] pins::Error),
}

/// What loaded programs have.
pub struct Loaded {
    /// The program `tell`.
    pub tell: OwnedFd,
    /// What user space keeps.
    pub notes: Notes,
    /// The maps.
    pub maps: Maps,
}

/// Runs errands.
#[derive(Debug)]
pub struct Errands(Channel);

impl Errands {
    /// Through a channel to the keeper.
    pub const fn new(channel: Channel) -> Self {
        Self(channel)
    }

    fn ask(&self, ask: &Ask) -> Result<(Told, Vec<OwnedFd>), Error> {
        self.0.send(ask, &[])?;
        match self.0.receive()? {
            Some((Told::Failed(why), _)) => Err(Error::Refused(why)),
            Some(answer) => Ok(answer),
            None => Err(Error::Channel(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The maps that are pinned: those of who was here before.
    pub fn find(&self) -> Result<Maps, Error> {
        match self.ask(&Ask::Find)? {
            (Told::Found(names), held) if names.len() == held.len() => {
                Ok(Maps::handed(names.into_iter().zip(held)))
            }
            _ => Err(unexpected()),
        }
    }

    /// Loads the programs.
    pub fn load(&self) -> Result<Loaded, Error> {
        let (told, held) = self.ask(&Ask::Load)?;
        let mut held = held.into_iter();
        match (told, held.next(), held.next()) {
            (Told::Loaded(names), Some(tell), Some(notes)) if names.len() == held.len() => {
                Ok(Loaded {
                    tell,
                    notes: Notes::handed(notes)?,
                    maps: Maps::handed(names.into_iter().zip(held)),
                })
            }
            _ => Err(unexpected()),
        }
    }

    /// Opens the tables of the generation that decides.
    pub fn tables(&self) -> Result<OwnedFd, Error> {
        match self.one(&Ask::Tables)? {
            (Told::Tables, tables) => Ok(tables),
            _ => Err(unexpected()),
        }
    }

    /// Makes a map for the tables of a generation.
    pub fn blocks(&self, count: usize) -> Result<MapData, Error> {
        match self.one(&Ask::Blocks(count))? {
            (Told::Blocks, map) => Ok(MapData::from_fd(map)?),
            _ => Err(unexpected()),
        }
    }

    /// Puts the programs where they belong.
    pub fn attach(&self) -> Result<Taken, Error> {
        match self.ask(&Ask::Attach)?.0 {
            Told::Attached(taken) => Ok(taken),
            _ => Err(unexpected()),
        }
    }

    /// Puts programs at the interfaces, or takes them away. Returns why some have none.
    pub fn backstop(&self, wanted: bool) -> Result<Vec<String>, Error> {
        match self.ask(&Ask::Backstop(wanted))?.0 {
            Told::Backstop(failed) => Ok(failed),
            _ => Err(unexpected()),
        }
    }

    /// Opens a way through all open files.
    pub fn sockets(&self) -> Result<File, Error> {
        match self.one(&Ask::Sockets)? {
            (Told::Sockets, way) => Ok(way.into()),
            _ => Err(unexpected()),
        }
    }

    /// Opens a way through all sockets of which something is known.
    pub fn bytes(&self) -> Result<File, Error> {
        match self.one(&Ask::Bytes)? {
            (Told::Bytes, way) => Ok(way.into()),
            _ => Err(unexpected()),
        }
    }

    /// Has a socket ended. Returns whether the keeper will look at it: it does not while it is busy.
    pub fn end(&self, cookie: u64, pid: u32, protocol: u8) -> bool {
        self.0.try_send(&Ask::End { cookie, pid, protocol }).is_ok()
    }

    /// Ends enforcing. Returns how many links are gone.
    pub fn remove(&self) -> Result<usize, Error> {
        match self.ask(&Ask::Remove)?.0 {
            Told::Removed(links) => Ok(links),
            _ => Err(unexpected()),
        }
    }

    fn one(&self, ask: &Ask) -> Result<(Told, OwnedFd), Error> {
        let (told, held) = self.ask(ask)?;
        let held = held.into_iter().next().ok_or_else(unexpected)?;
        Ok((told, held))
    }
}

fn unexpected() -> Error {
    Error::Channel(io::Error::other("it says something else than what was asked"))
}
