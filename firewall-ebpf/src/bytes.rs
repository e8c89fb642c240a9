//! Bytes of flows: the payload of their transport, each byte once however often it was sent.
//!
//! Connections of TCP are read off the kernel's own numbers when they end or somebody asks. All else is
//! counted packet by packet.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::bindings::{bpf_sock, seq_file};
use firewall_common::{
    event::tcp,
    flow::{ICMP, ICMPV6, TCP, UDP, UDPLITE},
    layout::{SocketState, socket as flags},
    parse::ip::Packet,
};

use crate::{emit, identity::member, offset, packet::Skb, socket};

const SOCK_STREAM: u16 = 1;

/// Bit of `sk_flags`: the other end has nothing more to send (`SOCK_DONE` of `enum sock_flags`).
const DONE: u32 = 1;

/// Counts a packet that goes out, of the flow in the state.
#[inline(always)]
pub fn sent(state: &mut SocketState, skb: Skb, protocol: u8, transport: u32) {
    if protocol != TCP {
        // Not in one step, which every packet would pay for: threads that send on one socket at the
        // same moment can take each other's away.
        state.bytes_out = state.bytes_out.wrapping_add(payload(skb, protocol, transport));
    }
}

/// Counts a packet that came in, if it is of the flow in the socket's state.
#[inline(always)]
pub fn arrived(skb: Skb, packet: &Packet) {
    let protocol = packet.destination.protocol;
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb.0).__bindgen_anon_2.sk };
    if protocol == TCP || sk.is_null() {
        return;
    }
    if let Some(state) = socket::existing_state(sk.cast())
        && state.flags & flags::OPEN != 0
        && state.dst == packet.src
        && state.dst_port == packet.src_port
        && state.protocol == protocol
    {
        let (to, bytes) = (&raw mut state.bytes_in, payload(skb, protocol, packet.transport));
        // In one step: packets come in on several CPUs at once.
        // SAFETY: the pointer is valid and aligned; `core` has no atomics for this target.
        unsafe { asm!("lock *(u64 *)({to} + 0) += {n}", to = in(reg) to, n = in(reg) bytes) };
    }
}

/// Bytes behind the transport header. Several datagrams in one packet (`UDP_SEGMENT`) have one.
#[inline(always)]
fn payload(skb: Skb, protocol: u8, transport: u32) -> u64 {
    let header = match protocol {
        UDP | UDPLITE | ICMP | ICMPV6 => 8,
        _ => 0,
    };
    u64::from(skb.size().saturating_sub(transport + header))
}

/// Puts into the state what its connection of TCP has moved so far; nothing of other sockets.
///
/// What was sent is told by sequence numbers: the kernel's `bytes_sent` has what a queue below TCP
/// refused and TCP sent again, and its `bytes_retrans` has not. SYN and FIN are a byte each in them.
#[inline(always)]
pub fn read_connection(state: &mut SocketState, sk: *mut c_void) {
    // The verifier forbids arithmetic on a socket pointer; through memory it becomes a number.
    state.socket = sk as u64;
    // SAFETY: a plain read of what was just written; volatile, so that it is really read.
    let at = unsafe { (&raw const state.socket).read_volatile() };
    if state.protocol != TCP || member(at, offset!(sock_type)) != Some(SOCK_STREAM) {
        return;
    }
    let word = |offset| member::<u32>(at, offset).unwrap_or_default();
    let long = |offset| member::<u64>(at, offset).unwrap_or_default();
    let (next, written) = (word(offset!(tcp_next)), word(offset!(tcp_written)));
    let ends = matches!(
        member::<u8>(at, offset!(sock_state)).unwrap_or_default(),
        tcp::FIN_WAIT1 | tcp::FIN_WAIT2 | tcp::CLOSING | tcp::LAST_ACK
    );
    let syn = u64::from(state.flags & flags::INBOUND == 0);
    let fin = u64::from(ends && next == written);
    let under_way = u64::from(next.wrapping_sub(word(offset!(tcp_unacked))));
    let sent = long(offset!(tcp_acked)).wrapping_add(under_way);
    state.bytes_out = sent.saturating_sub(syn + fin);
    let fin = long(offset!(sock_flags)) >> DONE & 1;
    state.bytes_in = long(offset!(tcp_received)).saturating_sub(fin);
}

/// A socket with a state: `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub struct Visit {
    meta: *const Meta,
    map: *const c_void,
    sk: *mut c_void,
    value: *mut c_void,
}

/// `struct bpf_iter_meta`
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// Tells what the flow of a socket has moved so far, if it has moved any since that was last told.
#[inline(always)]
pub fn visit(visit: &Visit) {
    // At the end it is null.
    if visit.sk.is_null() {
        return;
    }
    let Some(state) = socket::existing_state(visit.sk) else { return };
    if state.flags & flags::OPEN == 0 {
        return;
    }
    read_connection(state, visit.sk);
    emit::progress(state, visit.sk);
}
