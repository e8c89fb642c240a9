//! Packets as the kernel shows them to the programs at egress and ingress.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use firewall_common::{
    flow::{Address, Destination, TCP},
    parse::{Bytes, dns::MESSAGE, ip},
};

/// A packet, read by copying: its bytes need not be in one piece.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // Not zeroed first: of more than a few bytes that is a loop, and costs more than reading.
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes `N` bytes or fails.
        let result = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
        };
        // SAFETY: it did not fail.
        if result == 0 { Some(unsafe { bytes.assume_init() }) } else { None }
    }
}

impl Skb {
    /// The program's context, as helpers want it.
    #[inline(always)]
    pub fn context(self) -> *mut c_void {
        self.0.cast()
    }

    /// Bytes of the packet.
    #[inline(always)]
    pub fn size(self) -> u32 {
        // SAFETY: reading a context member.
        unsafe { (*self.0).len }
    }

    /// Whether all of it is in one piece of memory.
    #[inline(always)]
    pub fn is_linear(self) -> bool {
        // SAFETY: reading context members.
        let (data, end) = unsafe { ((*self.0).data, (*self.0).data_end) };
        u64::from(end) - u64::from(data) >= u64::from(self.size())
    }

    /// Copies up to `len` bytes from `offset` to `to[at..]`, and not past its end: how many.
    #[inline(always)]
    pub fn copy(self, offset: u32, len: u32, to: &mut [u8; MESSAGE], at: u32) -> u32 {
        // Where it begins and how long it is are bounded apart, so each by half of the room.
        const HALF: u32 = (MESSAGE / 2) as u32;
        let mut at = at;
        let mut len = len;
        if at >= MESSAGE as u32 || len == 0 {
            return 0;
        }
        if at == 0 {
            // SAFETY: keeps the bounds in one register, where the verifier sees them.
            unsafe {
                asm!(
                    "if {n} <= 4096 goto +1", "{n} = 4096", "if {n} > 0 goto +1", "{n} = 1",
                    n = inout(reg) len
                );
            }
            // SAFETY: `len` is at most the size of `to`.
            let result =
                unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to.as_mut_ptr().cast(), len) };
            return if result == 0 { len } else { 0 };
        }
        // What comes late in a long message is not read: it is as good as cut off.
        if at >= HALF {
            return 0;
        }
        // SAFETY: as above; the sum of both is less than the size of `to`.
        unsafe {
            asm!("if {n} <= 2048 goto +1", "{n} = 2048", "if {n} > 0 goto +1", "{n} = 1",
                n = inout(reg) len);
            asm!("{a} &= 2047", a = inout(reg) at);
        }
        // SAFETY: `at + len` is less than the size of `to`.
        let result = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, to.as_mut_ptr().add(at as usize).cast(), len)
        };
        if result == 0 { len } else { 0 }
    }
}

/// The packet, if it is one whose flow can be told by its first bytes and they are in one piece.
#[inline(always)]
pub fn plain(skb: Skb) -> Option<ip::Packet> {
    // SAFETY: reading context members; both are packet pointers to the verifier.
    let (data, end) = unsafe { ((*skb.0).data as usize, (*skb.0).data_end as usize) };
    if data + size_of::<[u32; 6]>() > end {
        return None;
    }
    // SAFETY: the bounds were just compared. The kernel aligns IP headers to words where the
    // processor needs that (`NET_IP_ALIGN`); by bytes, an address would be a dozen instructions.
    ip::plain(unsafe { &*(data as *const [u32; 6]) }, || {
        if data + size_of::<[u32; 11]>() > end {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { &*(data as *const [u32; 11]) })
    })
}

/// What a program tells the one that it jumps to: where the transport header is, its protocol, and
/// whether the packet is plain.
#[inline(always)]
pub fn hand_over(skb: Skb, packet: &ip::Packet) {
    let word = packet.transport & 0xffff
        | u32::from(packet.destination.protocol) << 16
        | u32::from(packet.plain) << 24;
    // SAFETY: writing a context member that is the programs' own.
    unsafe { (*skb.0).cb[0] = word };
}

/// Whether the packet that was handed over is a TCP segment without payload.
#[inline(always)]
pub fn is_bare_segment(skb: Skb) -> bool {
    // SAFETY: reading a context member.
    let word = unsafe { (*skb.0).cb[0] };
    (word >> 16) as u8 == TCP && segment(skb, word & 0xffff).is_some_and(|segment| segment.len == 0)
}

/// The packet that was handed over, as far as it is needed: `None` if it ends before its ports.
#[inline(always)]
pub fn handed_over(skb: Skb) -> Option<ip::Packet> {
    // SAFETY: reading a context member.
    let word = unsafe { (*skb.0).cb[0] };
    if word >> 24 & 1 != 0
        && let Some(packet) = plain(skb)
    {
        return Some(packet);
    }
    let transport = word & 0xffff;
    let [first] = skb.read(0)?;
    let (src, dst) = if first >> 4 == 4 {
        let [src, dst] = words(skb.read::<8>(12)?);
        (Address::v4(src), Address::v4(dst))
    } else {
        let [a, b, c, d, e, f, g, h] = words(skb.read::<32>(8)?);
        (Address::v6([a, b, c, d].map(u32::to_be)), Address::v6([e, f, g, h].map(u32::to_be)))
    };
    let [a, b, c, d] = skb.read(transport)?;
    Some(ip::Packet {
        src,
        src_port: u16::from_be_bytes([a, b]),
        destination: Destination {
            address: dst,
            port: u16::from_be_bytes([c, d]),
            protocol: (word >> 16) as u8,
            port_hidden: 0,
        },
        transport,
        plain: (word >> 24) as u8 & 1,
    })
}

#[inline(always)]
fn words<const BYTES: usize, const WORDS: usize>(bytes: [u8; BYTES]) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        let at = index * 4;
        *word = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    }
    words
}

/// A TCP segment.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Sequence number of the first byte of its payload.
    pub sequence: u32,
    /// Where the payload is.
    pub offset: u32,
    /// Bytes of the payload.
    pub len: u32,
    /// Whether a byte in it is urgent.
    pub urgent: bool,
}

const SYN: u8 = 2;
const URG: u8 = 32;

/// The TCP segment at `transport`; `None` if it ends before its header.
#[inline(always)]
pub fn segment(skb: Skb, transport: u32) -> Option<Segment> {
    let header: [u8; 14] = skb.read(transport)?;
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let offset = transport + u32::from(header[12] >> 4) * 4;
    // A SYN is a byte of its own in the sequence.
    let sequence = sequence.wrapping_add(u32::from(header[13] & SYN != 0));
    Some(Segment {
        sequence,
        offset,
        len: skb.size().saturating_sub(offset),
        urgent: header[13] & URG != 0,
    })
}
