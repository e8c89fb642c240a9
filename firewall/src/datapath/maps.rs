//! The maps of the kernel programs, by their names: those that this process has made, or has been handed.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error("there is no map `{0}`")]
    Missing(&'static str),
    /// It is of another shape.
    #[error("the map `{name}` cannot be used: {source}")]
    Shape {
        /// The map.
        name: &'static str,
        /// What is wrong with it.
        source: MapError,
    },
    /// It could not be held.
    #[error("cannot hold the map `{name}`: {source}")]
    Hold {
        /// The map.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

/// Descriptors of maps.
#[derive(Debug, Default)]
pub struct Maps(BTreeMap<String, OwnedFd>);

impl Maps {
    /// Those of loaded programs.
    pub fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        let held = ebpf.maps().map(|(name, map)| {
            let fd = data(map)
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| Error::Hold { name: name.to_owned(), source })?;
            Ok((name.to_owned(), fd))
        });
        Ok(Self(held.collect::<Result<_, Error>>()?))
    }

    /// Those that were handed over.
    pub fn handed(held: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        Self(held.into_iter().collect())
    }

    /// Every map with its name.
    pub fn all(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }

    /// The descriptor of a map.
    pub fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, Error> {
        Ok(self.0.get(name).ok_or(Error::Missing(name))?.as_fd())
    }

    /// A map, as what its keys and values are.
    pub fn open<M: TryFrom<Map, Error = MapError>>(&self, name: &'static str) -> Result<M, Error> {
        let fd = self
            .fd(name)?
            .try_clone_to_owned()
            .map_err(|source| Error::Hold { name: name.to_owned(), source })?;
        MapData::from_fd(fd)
            .and_then(Map::from_map_data)
            .and_then(M::try_from)
            .map_err(|source| Error::Shape { name, source })
    }
}

/// What all kinds of maps have.
const fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(map)
        | Map::ArrayOfMaps(map)
        | Map::BloomFilter(map)
        | Map::CgroupArray(map)
        | Map::CgroupStorage(map)
        | Map::CgrpStorage(map)
        | Map::CpuMap(map)
        | Map::DevMap(map)
        | Map::DevMapHash(map)
        | Map::HashMap(map)
        | Map::HashOfMaps(map)
        | Map::InodeStorage(map)
        | Map::LpmTrie(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::PerCpuCgroupStorage(map)
        | Map::PerCpuHashMap(map)
        | Map::PerCpuLruHashMap(map)
        | Map::PerfEventArray(map)
        | Map::ProgramArray(map)
        | Map::Queue(map)
        | Map::ReusePortSockArray(map)
        | Map::RingBuf(map)
        | Map::SockHash(map)
        | Map::SockMap(map)
        | Map::SkStorage(map)
        | Map::Stack(map)
        | Map::StackTraceMap(map)
        | Map::Unsupported(map)
        | Map::XskMap(map) => map,
    }
}
