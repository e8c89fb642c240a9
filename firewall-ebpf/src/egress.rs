//! Every packet of a local socket on its way out: the authority that nothing gets around.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_cgroup_id,
        bpf_skb_load_bytes, bpf_skc_to_mptcp_sock,
    },
};
use firewall_common::{
    event::app,
    flow::{Address, TCP, has_ports},
    forget::forget,
    layout::{Active, Counter, SocketState, flags, socket as socket_flags},
    parse::{Bytes, ip},
    verdict::{Hook, Reason, Verdict},
};

use crate::{
    emit, identity,
    maps::{OFFSETS, count},
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
        let mut bytes = [0u8; N];
        // SAFETY: the helper writes `N` bytes or fails.
        let result = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
        };
        if result == 0 { Some(bytes) } else { None }
    }
}

/// Judges a packet. `rewrite` is for measurements: it sees every packet that was not decided yet.
#[inline(always)]
pub fn judge(skb: *mut __sk_buff, rewrite: impl FnOnce(&mut ip::Packet)) -> i32 {
    let active = policy::active();
    // SAFETY: reading a context member; the kernel runs this hook for full sockets only, and the
    // null checks tell the verifier so.
    let sk: *mut bpf_sock = unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() { sk } else { bpf_sk_fullsock(sk) }
    };
    let state = if sk.is_null() { None } else { socket::state(sk.cast()) };
    let Some(state) = state else {
        // Fails closed: the kernel has no memory for a hundred bytes. As with any packet lost to
        // that, the sender tries again.
        count(Counter::NoState);
        return DROP_SILENTLY;
    };
    if active.generation() != 0
        && state.kept_in == active.generation()
        && is_same_flow(skb, state)
    {
        if state.verdict == Verdict::Deny as u8 {
            count(Counter::DeniedPackets);
            // SAFETY: the verifier knows the context of this program type.
            emit::record(state, unsafe { bpf_get_socket_cookie(skb.cast()) });
            return DROP;
        }
        return PASS;
    }
    undecided(skb, active, sk, state, rewrite)
}

/// Whether the packet belongs to the flow in `state`, by its first bytes.
///
/// Only packets without options, extension headers or fragments are recognised: the parser has not
/// looked at what others may hide.
#[inline(always)]
fn is_same_flow(skb: *mut __sk_buff, state: &SocketState) -> bool {
    const V4: usize = 24;
    const V6: usize = 44;
    // SAFETY: reading context members; both are packet pointers to the verifier.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + V4 > end {
        return false;
    }
    // SAFETY: the bounds were just compared.
    let v4 = unsafe { &*(data as *const [u8; V4]) };
    let port = u16::from_be_bytes([v4[22], v4[23]]);
    if v4[0] == 0x45 {
        let dst = u32::from_be_bytes([v4[16], v4[17], v4[18], v4[19]]);
        let fragment = (v4[6] & 0x3f) | v4[7];
        return fragment == 0
            && v4[9] == state.protocol
            && state.dst == Address::v4(dst)
            && (port == state.dst_port || !has_ports(state.protocol));
    }
    if data + V6 > end {
        return false;
    }
    // SAFETY: the bounds were just compared.
    let v6 = unsafe { &*(data as *const [u8; V6]) };
    let word = |i: usize| u32::from_ne_bytes([v6[i], v6[i + 1], v6[i + 2], v6[i + 3]]);
    let dst = Address::v6([word(24), word(28), word(32), word(36)]);
    let port = u16::from_be_bytes([v6[42], v6[43]]);
    v6[0] >> 4 == 6
        && v6[6] == state.protocol
        && state.dst == dst
        && (port == state.dst_port || !has_ports(state.protocol))
}

/// A packet whose flow has no verdict of the running generation.
#[inline(always)]
fn undecided(
    skb: *mut __sk_buff,
    active: Active,
    sk: *mut bpf_sock,
    state: &mut SocketState,
    rewrite: impl FnOnce(&mut ip::Packet),
) -> i32 {
    // SAFETY: the verifier knows the context of this program type.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let control = forget(u32::from(state.identity.kind == 0 && identify(skb, sk, state))) != 0;
    let header = policy::header(active);
    let settings = header.map_or(socket::NO_SETTINGS, |header| header.flags);
    let (mut packet, error) = ip::parse(&Skb(skb));
    let unreadable = forget(u32::from(error.is_some())) != 0;
    rewrite(&mut packet);

    // 1. The kernel's own control packets: neighbour discovery, resets, errors.
    // 2. Replies on a connection that came from outside.
    // 3. What cannot be read.
    // 4. The generation.
    let judgement = if control {
        count(Counter::Kernel);
        Judgement::without_decision(Verdict::Allow, Reason::Kernel)
    } else if settings & flags::INBOUND_ENFORCE == 0
        && packet.destination.protocol == TCP
        && is_inbound(sk, state)
    {
        count(Counter::Inbound);
        Judgement::without_decision(Verdict::Allow, Reason::Inbound)
    } else {
        match header {
            None => policy::no_policy(),
            Some(header) if unreadable => policy::unparsable(header),
            Some(header) => policy::judge(active, header, &packet.destination),
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
        cookie,
        active.generation(),
        settings,
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

/// Finds out whose socket this is that no process was seen making. Returns whether it is one of
/// the kernel's control sockets.
///
/// Those are raw sockets: ICMP, neighbour discovery and MLD, TCP resets. Other sockets that the
/// kernel opens carry data for somebody (NFS, SMC, RxRPC, WireGuard), so they are judged.
#[inline(always)]
fn identify(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut SocketState) -> bool {
    // A subflow of an MPTCP connection is the kernel's socket too, but it sends for the app that
    // made the connection.
    // SAFETY: `sk` is a full socket; the helper returns null for any but an MPTCP subflow.
    let parent = unsafe { bpf_skc_to_mptcp_sock(sk.cast()) };
    if !parent.is_null() {
        if let Some(parent) = socket::existing_state(parent.cast()) {
            state.identity = parent.identity;
        }
        return false;
    }
    let offsets = OFFSETS.load();
    // The verifier forbids arithmetic on a socket pointer, so the address goes through memory,
    // where it becomes a number.
    state.recorded_at = sk as u64;
    // SAFETY: a plain read of what was just written; volatile, so that it is really read.
    let address = unsafe { (&raw const state.recorded_at).read_volatile() };
    state.recorded_at = 0;
    let kernel = identity::member::<u8>(address, offsets.sock_kern_byte)
        .is_some_and(|bits| u32::from(bits) & offsets.sock_kern_mask != 0);
    if kernel {
        state.identity.kind = app::KERNEL;
        // SAFETY: `sk` is a full socket.
        return unsafe { (*sk).type_ } == SOCK_RAW;
    }
    count(Counter::UnknownApp);
    // SAFETY: the helpers have no preconditions beyond a valid context.
    unsafe {
        state.identity.uid = bpf_get_socket_uid(skb);
        state.identity.cgroup = bpf_skb_cgroup_id(skb);
    }
    false
}
