//! Every packet of a local socket on its way out: the authority that nothing gets around.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes,
        bpf_skc_to_mptcp_sock,
    },
    programs::SkBuffContext,
};
use firewall_common::{
    event::app,
    flow::{Destination, TCP, fingerprint},
    forget::forget,
    layout::{Active, Counter, SocketState, flags, socket as socket_flags},
    parse::{Bytes, ip},
    verdict::{Hook, Reason, Verdict},
};

use crate::{
    emit, identity,
    maps::{self, OFFSETS, count},
    policy::{self, Judgement},
    socket::{self, Origin},
};

/// Lets the packet go on.
pub const PASS: i32 = 1;
/// Drops the packet; the sender gets EPERM.
pub const DROP: i32 = 0;
/// Drops the packet; the sender is not told and sends it again.
const DROP_SILENTLY: i32 = 2;

const SOCK_STREAM: u32 = 1;
const SOCK_RAW: u32 = 3;
const TCP_LISTEN: u32 = 10;

/// A packet, read by copying: its bytes need not be in one piece.
struct Skb(*mut __sk_buff);

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

/// Judges a packet. `rewrite` is for measurements: it sees every packet that was not decided yet.
#[inline(always)]
pub fn judge(ctx: &SkBuffContext, rewrite: impl FnOnce(&mut ip::Packet, &mut SocketState)) -> i32 {
    let skb = ctx.skb.skb;
    let active = policy::active();
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    let state = if sk.is_null() { None } else { socket::state(sk.cast()) };
    let Some(state) = state else {
        // Fails closed: the kernel has no memory for a hundred bytes. As with any packet lost to
        // that, the sender tries again.
        count(Counter::NoState);
        return DROP_SILENTLY;
    };
    match kept_verdict(skb, active, state) {
        DENY => {
            count(Counter::DeniedPackets);
            emit::record(state, skb.cast());
            return DROP;
        }
        ALLOW | AUDIT => return PASS,
        _ => {}
    }
    // SAFETY: `sk` is not null, or it would have no state.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        // Does not happen: the kernel runs this hook for full sockets only, and others have no
        // state. Fails closed.
        return DROP_SILENTLY;
    }
    undecided(skb, active, sk, state, rewrite)
}

/// The packet, if it is one whose flow can be told by its first bytes and they are in one piece.
#[inline(always)]
fn plain(skb: *mut __sk_buff) -> Option<ip::Packet> {
    // SAFETY: reading context members; both are packet pointers to the verifier.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
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

const ALLOW: u64 = Verdict::Allow as u64;
const AUDIT: u64 = Verdict::Audit as u64;
const DENY: u64 = Verdict::Deny as u64;

/// The verdict that is kept for where the packet goes, or 0.
#[inline(always)]
fn kept_verdict(skb: *mut __sk_buff, active: Active, state: &SocketState) -> u64 {
    let Some(packet) = plain(skb) else { return 0 };
    let fingerprint = fingerprint(maps::seed, active.generation(), &packet.destination);
    // SAFETY: a plain read; volatile, so that it is one read of the whole word.
    let kept = unsafe { (&raw const state.kept).read_volatile() };
    if kept & !3 == fingerprint { kept & 3 } else { 0 }
}

/// A packet whose flow has no verdict of the running generation.
#[inline(always)]
fn undecided(
    skb: *mut __sk_buff,
    active: Active,
    sk: *mut bpf_sock,
    state: &mut SocketState,
    rewrite: impl FnOnce(&mut ip::Packet, &mut SocketState),
) -> i32 {
    if state.identity.kind == 0 {
        identify(skb, sk, state);
    }
    let control = forget(state.flags & socket_flags::CONTROL) != 0;
    let header = policy::header(active);
    let settings = header.map_or(socket::NO_SETTINGS, |header| header.flags);
    let plain = plain(skb);
    let is_plain = forget(u32::from(plain.is_some())) != 0;
    let (mut packet, error) = match is_plain {
        true => (plain.unwrap_or_default().forget(), None),
        false => ip::parse(&Skb(skb)),
    };
    let unreadable = forget(u32::from(error.is_some())) != 0;
    rewrite(&mut packet, state);
    // An accepted connection can be given a source route too: only what goes straight back to the
    // other end is a reply.
    let inbound = settings & flags::INBOUND_ENFORCE == 0
        && !unreadable
        && packet.plain != 0
        && forget(u32::from(packet.destination.protocol)) == u32::from(TCP)
        && is_inbound(sk, state);
    let inbound = forget(u32::from(inbound)) != 0;

    // A copy, so that what the matcher finds out of the address is not known of the packet: the
    // verifier would follow every kind of address through all that comes after.
    let address = packet.destination.address.forget();
    let destination = Destination { address, ..packet.destination };

    // 1. The kernel's own control packets: neighbour discovery, resets, errors.
    // 2. Replies on a connection that came from outside.
    // 3. What cannot be read.
    // 4. The generation.
    let judgement = if control {
        count(Counter::Kernel);
        Judgement::without_decision(Verdict::Allow, Reason::Kernel)
    } else if inbound {
        count(Counter::Inbound);
        Judgement::without_decision(Verdict::Allow, Reason::Inbound)
    } else {
        match header {
            None => policy::no_policy(),
            Some(header) if unreadable => policy::unparsable(header),
            Some(header) => policy::judge(active, header, &destination),
        }
    }
    .forget();
    let origin = Origin {
        hook: Hook::Packet,
        src: packet.src,
        src_port: packet.src_port,
        cacheable: !unreadable && packet.plain != 0,
    };
    socket::settle(
        state,
        skb.cast(),
        forget(active.generation()),
        forget(settings),
        &packet.destination,
        &origin,
        judgement,
    );
    if judgement.passes() { PASS } else { DROP }
}

/// Whether what a TCP socket sends is a reply: a listener's SYN-ACK, or an accepted connection.
#[inline(always)]
fn is_inbound(sk: *mut bpf_sock, state: &SocketState) -> bool {
    if state.flags & socket_flags::INBOUND != 0 {
        return true;
    }
    // SAFETY: `sk` is a full socket.
    unsafe { (*sk).type_ == SOCK_STREAM && (*sk).state == TCP_LISTEN }
}

/// Finds out whose socket this is that no process was seen making, and marks the kernel's control
/// sockets.
///
/// Those are raw sockets: ICMP, neighbour discovery and MLD, TCP resets. Other sockets that the
/// kernel opens carry data for somebody (NFS, SMC, RxRPC), so they are judged.
#[inline(always)]
fn identify(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut SocketState) {
    // A subflow of an MPTCP connection is the kernel's socket too, but it sends for the app that
    // made the connection.
    // SAFETY: `sk` is a full socket; the helper returns null for any but an MPTCP subflow.
    let parent = unsafe { bpf_skc_to_mptcp_sock(sk.cast()) };
    if !parent.is_null() {
        if let Some(parent) = socket::existing_state(parent.cast()) {
            state.identity = parent.identity;
        }
        return;
    }
    let offsets = OFFSETS.load();
    // The verifier forbids arithmetic on a socket pointer, so the address goes through memory,
    // where it becomes a number.
    state.socket = sk as u64;
    // SAFETY: a plain read of what was just written; volatile, so that it is really read.
    let address = unsafe { (&raw const state.socket).read_volatile() };
    let kernel = identity::member::<u8>(address, offsets.sock_kern_byte)
        .is_some_and(|bits| u32::from(bits) & offsets.sock_kern_mask != 0);
    if kernel {
        state.identity.kind = app::KERNEL;
        // SAFETY: `sk` is a full socket.
        if unsafe { (*sk).type_ } == SOCK_RAW {
            state.flags |= socket_flags::CONTROL;
        }
        return;
    }
    count(Counter::UnknownApp);
    // SAFETY: the helpers have no preconditions beyond a valid context.
    unsafe {
        state.identity.uid = bpf_get_socket_uid(skb);
        state.identity.cgroup = bpf_skb_cgroup_id(skb);
    }
}
