//! Reading the ring buffer and the counters.

use std::{io, time::Duration};

use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use firewall_common::{event::Malformed, layout::Counter};
use tokio::{
    io::unix::AsyncFd,
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::datapath::maps::{self, Maps};

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A map is missing or of another shape.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// A map cannot be read.
    #[error(transparent)]
    Read(#[from] MapError),
    /// It cannot be waited for.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] io::Error),
}

/// For longer than the kernel programs are quiet after an event that has woken (`emit.rs`).
const LINGER: Duration = Duration::from_millis(20);

/// Reads a ring buffer.
pub struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Whether everything was read: only then the kernel tells of more.
    drained: bool,
    /// When to look again, as the kernel does not tell of what comes right after what it has told of.
    again: Option<Instant>,
    /// Entries that could not be decoded: of another version, or damaged.
    pub malformed: u64,
}

impl Reader {
    /// Of the ring buffer of that name. To be called in a runtime.
    pub fn new(maps: &Maps, name: &'static str) -> Result<Self, Error> {
        let ring: RingBuf<MapData> = maps.open(name)?;
        // SAFETY: the ring buffer owns its descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        Ok(Self { ring, drained: true, again: None, malformed: 0 })
    }

    /// Waits until there is something to read. What was left goes on after others had their turn.
    pub async fn ready(&mut self) -> Result<(), Error> {
        if !self.drained {
            yield_now().await;
            return Ok(());
        }
        let again = self.again;
        let woken = async { self.ring.readable_mut().await.map(|mut ready| ready.clear_ready()) };
        match again {
            None => woken.await?,
            Some(again) => match timeout_at(again, woken).await {
                Ok(woken) => woken?,
                Err(_) => self.again = None,
            },
        }
        Ok(())
    }

    /// Gives the next entry to `read`, if there is one now that can be decoded.
    pub fn read_next<T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<T, Malformed>,
    ) -> Option<T> {
        loop {
            let Some(item) = self.ring.get_mut().next() else {
                if !self.drained {
                    self.again = Some(Instant::now() + LINGER);
                }
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
    /// Of loaded programs.
    pub fn new(maps: &Maps) -> Result<Self, Error> {
        Ok(Self(maps.open("COUNTERS")?))
    }

    /// The sum over all CPUs.
    pub fn sum(&self, counter: Counter) -> Result<u64, Error> {
        Ok(self.0.get(&(counter as u32), 0)?.iter().sum())
    }
}
