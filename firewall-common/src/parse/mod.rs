//! Parsers of what packets carry, over any source of bytes, and of the arguments of processes.

pub mod args;
pub mod dns;
mod http;
pub mod ip;
pub mod payload;
pub mod quic;
mod tls;

/// Bytes that may not all be there: a packet in the kernel, a slice elsewhere.
pub trait Bytes {
    /// `N` bytes from `offset`; `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}
