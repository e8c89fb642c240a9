//! The one writer of the maps.
//!
//! A generation is built completely beside the running one, read back and compared, and then
//! switched to by one write of one word that the programs read once for each decision.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::{Array, ArrayOfMaps, MapData, MapError};
use aya_obj::generated::bpf_map_type;
use firewall_common::{
    evaluate::BLOCK,
    layout::{Active, Header, INNER_MAP, SLOTS},
};

use super::{
    maps::{self, Maps},
    plain::Plain,
    sys,
};
use crate::policy::compile::Generation;

/// The map that tells which generation decides.
pub const ACTIVE: &str = "ACTIVE";

/// Why a generation is not in place. The one before it still decides.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A map is missing or of another shape.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// A map was refused or could not be written.
    #[error("cannot write the policies into the kernel: {0}")]
    Write(#[from] MapError),
    /// The tables could not be written or read back.
    #[error("cannot write the policies into the kernel: {0}")]
    Tables(#[from] io::Error),
    /// What was read back is not what was written.
    #[error("the kernel's tables do not hold what was written to them; nothing was switched")]
    Differs,
}

/// Writes `generation` into the slot that is not in use and switches to it. Returns its number.
pub fn apply(maps: &Maps, generation: &Generation) -> Result<u32, Error> {
    apply_in(maps, generation, new_blocks)
}

/// As [`apply`], where somebody else makes the map for the tables.
pub fn apply_in<E: From<Error>>(
    maps: &Maps,
    generation: &Generation,
    blocks: impl FnOnce(usize) -> Result<MapData, E>,
) -> Result<u32, E> {
    let blocks = blocks(generation.blocks.len())?;
    Ok(switch(maps, generation, &blocks)?)
}

/// Which generation decides.
pub fn active(maps: &Maps) -> Result<Active, Error> {
    let active: Array<_, Plain<Active>> = maps.open(ACTIVE)?;
    Ok(active.get(&0, 0)?.0)
}

/// What the kernel has of the generation that decides, besides its tables; nothing before the first.
pub fn running(maps: &Maps) -> Result<Option<Header>, Error> {
    let active = active(maps)?;
    if active.generation() == 0 {
        return Ok(None);
    }
    let headers: Array<_, Plain<Header>> = maps.open("HEADERS")?;
    Ok(Some(headers.get(&active.slot(), 0)?.0))
}

/// The tables of the generation that decides. To open them takes `CAP_SYS_ADMIN`.
pub fn tables(maps: &Maps) -> Result<MapData, Error> {
    let outer: ArrayOfMaps<_, MapData> = maps.open("BLOCKS")?;
    Ok(outer.get(&active(maps)?.slot(), 0)?)
}

/// Whether `generation` is the one that decides, whose tables are given.
pub fn is_running(
    maps: &Maps,
    tables: BorrowedFd<'_>,
    generation: &Generation,
) -> Result<bool, Error> {
    let running = running(maps)?.map(|header| Header { number: 0, ..header });
    let same = running == Some(generation.header);
    // A map of another size cannot be read as this one.
    Ok(same && holds(tables, &generation.blocks).unwrap_or(false))
}

fn switch(maps: &Maps, generation: &Generation, blocks: &MapData) -> Result<u32, Error> {
    let mut active: Array<_, Plain<Active>> = maps.open(ACTIVE)?;
    let Plain(running) = active.get(&0, 0)?;
    let number = running.generation().checked_add(1).unwrap_or(1);
    let slot = if running.generation() == 0 { 0 } else { (running.slot() + 1) % SLOTS };

    let map = blocks.fd().as_fd();
    in_parts(&generation.blocks, |first, part| sys::write_array(map, first, part))?;
    if !holds(map, &generation.blocks)? {
        return Err(Error::Differs);
    }
    let mut outer: ArrayOfMaps<_, MapData> = maps.open("BLOCKS")?;
    outer.set(slot, blocks, 0)?;

    let mut headers: Array<_, Plain<Header>> = maps.open("HEADERS")?;
    let header = Header { number, ..generation.header };
    headers.set(slot, Plain(header), 0)?;
    if headers.get(&slot, 0)?.0 != header {
        return Err(Error::Differs);
    }
    active.set(0, Plain(Active::new(number, slot)), 0)?;
    // After it nothing is written any more by the generation before, nor is its slot read as its own.
    sys::wait_for_programs();
    Ok(number)
}

/// A map for the tables of a generation.
pub fn new_blocks(len: usize) -> Result<MapData, Error> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<[u32; BLOCK]>() as u32,
        len as u32,
        INNER_MAP,
    );
    Ok(MapData::create(map, "blocks", None)?)
}

/// Whether the map holds what was written, compared in pieces to bound the memory it takes.
fn holds(map: BorrowedFd<'_>, blocks: &[[u32; BLOCK]]) -> io::Result<bool> {
    const PIECE: usize = 1024;
    let same = in_parts(blocks, |first, part| {
        let mut reader = sys::ArrayReader::new(map, first);
        for piece in part.chunks(PIECE) {
            if reader.next::<[u32; BLOCK]>(piece.len())? != piece {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    Ok(same.into_iter().all(|same| same))
}

/// Has each part done at the same time: of large tables a processor copies one for long. `run` gets the number of its
/// first block.
fn in_parts<T: Send>(
    blocks: &[[u32; BLOCK]],
    run: impl Fn(u32, &[[u32; BLOCK]]) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    // Less is not worth another thread.
    const LEAST: usize = 4096;
    let (one, other) = blocks.split_at(if blocks.len() < LEAST { 0 } else { blocks.len() / 2 });
    std::thread::scope(|scope| {
        let first = one.len() as u32;
        let one = (first > 0).then(|| scope.spawn(|| run(0, one)));
        let other = run(first, other)?;
        match one.map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(one)) => Ok(vec![one?, other]),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(vec![other]),
        }
    })
}
