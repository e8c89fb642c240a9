//! Reading the ring buffer and the counters.

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
};
use firewall_common::{event::Malformed, layout::Counter};
use tokio::{io::unix::AsyncFd, task::yield_now};

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The map is missing.
    #[error("the embedded object has no map `{0}`")]
    Missing(&'static str),
    /// The map cannot be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It cannot be waited for.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] io::Error),
}

/// Reads a ring buffer.
pub struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Whether everything was read: only then the kernel tells of more.
    drained: bool,
    /// Entries that could not be decoded: of another version, or damaged.
    pub malformed: u64,
}

impl Reader {
    /// Takes the ring buffer of that name of loaded programs. To be called in a runtime.
    pub fn new(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let map = ebpf.take_map(name).ok_or(Error::Missing(name))?;
        let ring = RingBuf::try_from(map)?;
        // SAFETY: the ring buffer owns its descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        Ok(Self { ring, drained: true, malformed: 0 })
    }

    /// Waits until there is something to read. What was left goes on after others had their turn.
    pub async fn ready(&mut self) -> Result<(), Error> {
        if !self.drained {
            yield_now().await;
            return Ok(());
        }
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Gives the next entry to `read`, if there is one now that can be decoded.
    pub fn read_next<T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<T, Malformed>,
    ) -> Option<T> {
        loop {
            let Some(item) = self.ring.get_mut().next() else {
                self.drained = true;
                return None;
            };
            self.drained = false;
            match read(&item) {
                Ok(decoded) => return Some(decoded),
                Err(Malformed) => self.malformed += 1,
            }
        }
    }
}

/// The kernel's counters.
pub struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    /// Takes the counters of loaded programs.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map("COUNTERS").ok_or(Error::Missing("COUNTERS"))?;
        Ok(Self(PerCpuArray::try_from(map)?))
    }

    /// The sum over all CPUs.
    pub fn sum(&self, counter: Counter) -> Result<u64, Error> {
        Ok(self.0.get(&(counter as u32), 0)?.iter().sum())
    }
}
