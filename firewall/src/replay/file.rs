//! Files of captures: pcap and pcapng, of either order of bytes.

use std::{
    io::{self, Read},
    ops::ControlFlow,
};

use pcap_parser::{
    Block, PcapBlockOwned, PcapError, create_reader,
    pcapng::{InterfaceDescriptionBlock, OptionCode},
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};

use super::tally::Cause;

/// A packet as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Counts from 1.
    pub number: u64,
    /// Of <https://www.tcpdump.org/linktypes.html>.
    pub link: i32,
    /// Nanoseconds since 1970; that of the packet before if it has none.
    pub time: u64,
    /// What was captured of it.
    pub data: &'a [u8],
    /// Bytes that it had.
    pub len: usize,
}

/// Why a file is no capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read at all.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It has nothing in it.
    #[error("it is empty{}", hint(&[]))]
    Empty,
    /// It is something else.
    #[error("it is neither pcap nor pcapng{}", hint(.0))]
    Other(Vec<u8>),
}

fn hint(begin: &[u8]) -> String {
    let by = match begin {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', ..] => "xz",
        _ => return "\n\nhint: `tcpdump -w FILE` writes one".to_owned(),
    };
    format!("\n\nhint: it is compressed: unpack it with {by} first")
}

/// Where and why reading stopped before the end of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} at byte {offset}, behind packet {packets}")]
pub struct Stop {
    /// Why.
    pub why: String,
    /// Where what could not be read begins.
    pub offset: u64,
    /// Packets before.
    pub packets: u64,
}

/// Bytes of a block at most; packets have 256 KiB.
const MAX_BLOCK: usize = 16 << 20;
/// Bytes that are read at once.
const CAPACITY: usize = 256 << 10;
/// Interfaces of a section that are known.
const MAX_INTERFACES: usize = 4096;

/// Reads a file to its end, or to where it cannot be read on. `take` gets each packet, or the number of
/// one that is not understood and why, and says whether to go on.
///
/// # Errors
///
/// When nothing of it can be read.
pub fn read(
    input: impl Read + Send,
    mut take: impl FnMut(Result<Frame<'_>, (u64, Cause)>) -> ControlFlow<()>,
) -> Result<(u64, Option<Stop>), Error> {
    let mut begin = Vec::new();
    let mut input = Whole(input);
    Read::by_ref(&mut input).take(CAPACITY as u64 - 1).read_to_end(&mut begin)?;
    if begin.is_empty() {
        return Err(Error::Empty);
    }
    let first = begin.iter().copied().take(6).collect();
    let whole = io::Cursor::new(begin).chain(input);
    let mut reader = match create_reader(CAPACITY, whole) {
        Ok(reader) => reader,
        Err(_) => return Err(Error::Other(first)),
    };
    let mut state = State::default();
    let stop = blocks(&mut *reader, &mut state, &mut take);
    let stop =
        stop.map(|why| Stop { why, offset: reader.consumed() as u64, packets: state.packets });
    Ok((state.packets, stop))
}

/// Reads as many bytes at once as are asked for, if there are so many: what is read first is to have
/// the header of the file.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut len = 0;
        while len < buffer.len() {
            match self.0.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if len == 0 => return Err(error),
                // The next read meets it again.
                Err(_) => break,
            }
        }
        Ok(len)
    }
}

/// Why reading stopped, if not at the end.
fn blocks(
    reader: &mut (dyn PcapReaderIterator + Send),
    state: &mut State,
    take: &mut impl FnMut(Result<Frame<'_>, (u64, Cause)>) -> ControlFlow<()>,
) -> Option<String> {
    let mut capacity = CAPACITY;
    loop {
        let room = match reader.next() {
            Ok((size, block)) => {
                let goes_on = state.block(&block, take);
                drop(block);
                reader.consume(size);
                match goes_on {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(()) => return None,
                }
            }
            Err(PcapError::Eof) => return None,
            Err(PcapError::UnexpectedEof) => {
                let cut = !reader.data().is_empty();
                return cut.then(|| "the file ends in the middle of a block".to_owned());
            }
            Err(PcapError::Incomplete(_)) => false,
            Err(PcapError::BufferTooSmall) => true,
            Err(_) => return Some("a block that is broken".to_owned()),
        };
        let before = reader.data().len();
        if reader.refill().is_err() {
            return Some("the file cannot be read".to_owned());
        }
        if reader.data().len() > before || (reader.reader_exhausted() && !room) {
            continue;
        }
        if reader.reader_exhausted() {
            return Some("the file ends in the middle of a block".to_owned());
        }
        if capacity >= MAX_BLOCK {
            return Some(format!("a block of more than {} MiB", MAX_BLOCK >> 20));
        }
        capacity *= 2;
        reader.grow(capacity);
    }
}

/// How packets of an interface are to be read.
#[derive(Clone, Copy)]
struct Interface {
    link: i32,
    /// Bytes of a packet that were kept; 0 for all.
    snap: u32,
    unit: Unit,
    /// Seconds that are to be added.
    offset: i64,
}

/// What times are counted in.
#[derive(Clone, Copy)]
enum Unit {
    /// So many to a second.
    PerSecond(u64),
    /// Two to the power of this to a second.
    Binary(u32),
}

#[derive(Default)]
struct State {
    packets: u64,
    /// Of the section; of pcap, its one.
    interfaces: Vec<Interface>,
    big_endian: bool,
    nanoseconds: bool,
    /// Of the packet before.
    time: u64,
}

impl State {
    fn block(
        &mut self,
        block: &PcapBlockOwned<'_>,
        take: &mut impl FnMut(Result<Frame<'_>, (u64, Cause)>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.nanoseconds = header.is_nanosecond_precision();
                // The upper half has the length of the frame check sequence.
                let link = header.network.0 & 0xffff;
                let unit = Unit::PerSecond(1);
                self.interfaces = vec![Interface { link, snap: 0, unit, offset: 0 }];
            }
            PcapBlockOwned::Legacy(packet) => {
                let fraction = u64::from(packet.ts_usec);
                let fraction = if self.nanoseconds { fraction } else { fraction * 1000 };
                self.time = u64::from(packet.ts_sec) * SECOND + fraction;
                return self.packet(0, packet.data, packet.origlen as usize, take);
            }
            PcapBlockOwned::NG(block) => return self.section(block, take),
        }
        ControlFlow::Continue(())
    }

    fn section(
        &mut self,
        block: &Block<'_>,
        take: &mut impl FnMut(Result<Frame<'_>, (u64, Cause)>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match block {
            Block::SectionHeader(header) => {
                self.interfaces.clear();
                self.big_endian = header.big_endian();
            }
            // Packets of further ones are counted.
            Block::InterfaceDescription(description) if self.interfaces.len() < MAX_INTERFACES => {
                self.interfaces.push(Interface::of(description, self.big_endian));
            }
            Block::EnhancedPacket(packet) => {
                let number = packet.if_id as usize;
                if let Some(interface) = self.interfaces.get(number) {
                    let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    self.time = interface.time(units);
                }
                return self.packet(number, packet.packet_data(), packet.origlen as usize, take);
            }
            Block::SimplePacket(packet) => {
                let data = packet.packet_data();
                let snap = self.interfaces.first().map_or(0, |interface| interface.snap as usize);
                let kept = if snap == 0 { data } else { &data[..data.len().min(snap)] };
                return self.packet(0, kept, packet.origlen as usize, take);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn packet(
        &mut self,
        interface: usize,
        data: &[u8],
        len: usize,
        take: &mut impl FnMut(Result<Frame<'_>, (u64, Cause)>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.packets += 1;
        let number = self.packets;
        take(match self.interfaces.get(interface) {
            // A packet that was shorter than what was captured of it cannot be.
            Some(Interface { link, .. }) => {
                Ok(Frame { number, link: *link, time: self.time, data, len: len.max(data.len()) })
            }
            None => Err((number, Cause::NoInterface)),
        })
    }
}

const SECOND: u64 = 1_000_000_000;

impl Interface {
    fn of(description: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        let mut read = Self {
            link: description.linktype.0,
            snap: description.snaplen,
            unit: Unit::PerSecond(1_000_000),
            offset: 0,
        };
        for option in &description.options {
            match (option.code, &*option.value) {
                (OptionCode::IfTsresol, [digits, ..]) if *digits & 0x80 != 0 => {
                    read.unit = Unit::Binary(u32::from(digits & 0x7f));
                }
                (OptionCode::IfTsresol, [digits, ..]) => {
                    // A finer unit than fits tells no time.
                    let unit = 10_u64.checked_pow(u32::from(*digits)).unwrap_or(u64::MAX);
                    read.unit = Unit::PerSecond(unit);
                }
                (OptionCode::IfTsoffset, value) => {
                    if let Some(eight) = value.first_chunk() {
                        let of = if big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
                        read.offset = of(*eight);
                    }
                }
                _ => {}
            }
        }
        read
    }

    fn time(&self, units: u64) -> u64 {
        let units = u128::from(units) * u128::from(SECOND);
        let since = match self.unit {
            Unit::PerSecond(unit) => units / u128::from(unit),
            Unit::Binary(power) => units >> power,
        };
        let offset = i128::from(self.offset) * i128::from(SECOND);
        let time = i128::try_from(since).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(time.max(0)).unwrap_or(u64::MAX)
    }
}
