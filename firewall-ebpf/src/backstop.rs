//! What leaves by an interface without having been at the egress of a cgroup: frames of packet sockets,
//! forwarded packets, and the outer packets of tunnels. Decided by the same tables, packet by packet, and
//! by address alone: payloads are not looked at.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_current_task, bpf_sk_fullsock},
    programs::TcContext,
};
use firewall_common::{
    event::{Identity, app},
    flow::{ICMPV6, UDP},
    forget::forget,
    layout::{Counter, SocketState, Unowned, numbered},
    parse::{Bytes, ip},
    verdict::Hook,
};

use crate::{
    app as apps,
    maps::{UNOWNED, count},
    packet::Skb,
    policy::{self, Who},
    process,
    socket::{self, Keep, Origin},
};

/// `TCX_NEXT`: the frame goes on to other programs, and then out.
const NEXT: i32 = -1;
/// `TCX_DROP`: who sent it gets ENOBUFS or nothing, as with a frame that a full queue drops.
const DROP: i32 = 2;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// Of a socket that writes headers itself.
const IPPROTO_RAW: u32 = 255;

/// Protocols: IPv4 and IPv6 in IP, groups of IPv4, GRE.
const IPIP: u8 = 4;
const IP6: u8 = 41;
const IGMP: u8 = 2;
const GRE: u8 = 47;

/// Tags and labels before the IP header that are followed.
const MAX_TAGS: u32 = 4;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
/// IEEE 802.1Q, 802.1ad, and the latter's number before it was one.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// A session of PPPoE (RFC 2516): 6 bytes, then a protocol of PPP.
const PPPOE: u16 = 0x8864;
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

/// What a frame has behind its own header.
pub enum Inner {
    /// An IP packet, from this byte on.
    Packet(u32),
    /// What leads nowhere: who has which address.
    Arp,
    /// Something else.
    Other,
}

/// Where the packet of an Ethernet frame is.
#[inline(always)]
pub fn ethernet(skb: Skb) -> Inner {
    let mut at = 12;
    for _ in 0..MAX_TAGS {
        let Some(kind) = skb.read(at).map(u16::from_be_bytes) else { return Inner::Other };
        at += 2;
        if VLAN.contains(&kind) {
            at += 2;
            continue;
        }
        return match kind {
            IPV4 | IPV6 => Inner::Packet(at),
            ARP => Inner::Arp,
            PPPOE => match skb.read(at + 6).map(u16::from_be_bytes) {
                Some(PPP_IPV4 | PPP_IPV6) => Inner::Packet(at + 8),
                _ => Inner::Other,
            },
            _ => Inner::Other,
        };
    }
    Inner::Other
}

/// The frame of an interface that has no header of its own.
#[inline(always)]
pub fn bare(_: Skb) -> Inner {
    Inner::Packet(0)
}

/// A packet in a frame.
struct Framed {
    skb: Skb,
    at: u32,
}

impl Bytes for Framed {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.skb.read(self.at.wrapping_add(offset))
    }
}

/// Judges a frame that is about to leave, whose packet `find` finds.
#[inline(always)]
pub fn judge(ctx: &TcContext, find: impl FnOnce(Skb) -> Inner) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    // SAFETY: `sk` is not null.
    let judged = !sk.is_null() && matches!(unsafe { (*sk).family }, AF_INET | AF_INET6);
    let at = match find(Skb(skb)) {
        Inner::Packet(at) => forget(at),
        Inner::Arp => return NEXT,
        Inner::Other => {
            if !judged {
                count(Counter::UnreadFrames);
            }
            return NEXT;
        }
    };
    let framed = Framed { skb: Skb(skb), at };
    if judged && !is_outer(&framed, sk) {
        return NEXT;
    }
    let mut sender = None;
    if !judged && !sk.is_null() {
        // SAFETY: `sk` is not null.
        let full = unsafe { bpf_sk_fullsock(sk) };
        if !full.is_null() {
            sender = socket::state(full.cast());
        }
    }
    if let Some(state) = &mut sender {
        charge_sender(state);
    }
    if judge_packet(skb, at, sender) { NEXT } else { DROP }
}

/// Charges a packet socket to who is current: it sends in the call of who has it.
// Not inlined: the stack of what comes after is small.
#[inline(never)]
fn charge_sender(state: &mut SocketState) {
    // SAFETY: the helper has no preconditions.
    let charged = process::charge(state, unsafe { bpf_get_current_task() });
    if charged.is_none() && state.identity.kind == 0 {
        state.identity.uid = Identity::NO_USER;
        state.identity.gid = Identity::NO_GROUP;
    }
}

/// Whether a packet is the outer one of a tunnel, whose inner one the socket has sent: of another protocol
/// than the socket's. Encryption by IPsec is not: that packet was at the egress of the socket's cgroup.
#[inline(always)]
fn is_outer(framed: &Framed, sk: *mut bpf_sock) -> bool {
    let protocol = match framed.read(0) {
        Some([first]) if first >> 4 == 4 => framed.read(9),
        Some(_) => framed.read(6),
        None => None,
    };
    let Some([protocol]) = protocol else { return false };
    if !matches!(protocol, IPIP | IP6 | GRE | UDP) {
        return false;
    }
    // SAFETY: `sk` is not null.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() {
        // The kernel's own replies, of connections that begin or have ended.
        return false;
    }
    // SAFETY: `full` is a full socket.
    let own = unsafe { (*full).protocol };
    own != u32::from(protocol) && own != IPPROTO_RAW
}

/// Judges a packet that was not judged before, of a socket that is none of IP, or of none. Returns whether
/// it may go.
// Not inlined: see above.
#[inline(never)]
fn judge_packet(skb: *mut __sk_buff, at: u32, sender: Option<&'static mut SocketState>) -> bool {
    let (packet, error) = ip::parse(&Framed { skb: Skb(skb), at });
    let unreadable = forget(u32::from(error.is_some())) != 0;
    // SAFETY: reading a context member.
    let forwarded = unsafe { (*skb).ingress_ifindex } != 0;
    if sender.is_none() && !forwarded && is_membership(&packet) {
        count(Counter::Kernel);
        return true;
    }
    let nobody = if forwarded { &FORWARDED } else { &OF_KERNEL };
    let active = policy::deciding(policy::active(), 0, packet.destination.address);
    let header = policy::header(active);
    let judgement = match header {
        None => policy::no_policy(),
        Some(header) if unreadable => policy::unparsable(header),
        Some(header) => {
            let identity = sender.as_ref().map_or(&nobody.identity, |state| &state.identity);
            let class = numbered(active.generation(), apps::of(active, header, identity));
            let who = Who { app: &NO_APP, class: &class };
            policy::judge_silent(active, header, who, &packet.destination)
        }
    }
    .forget();
    let Some(state) = sender.or_else(|| unowned(&packet, nobody)) else {
        count(Counter::NoState);
        socket::count_verdict(judgement.verdict);
        return judgement.passes();
    };
    let origin = Origin {
        hook: Hook::Packet as u8,
        src: packet.src,
        src_port: packet.src_port,
        keep: Keep::Nothing,
        told: false,
    };
    let settings = header.map_or(socket::NO_SETTINGS, |header| header.flags);
    socket::settle(
        state,
        skb.cast(),
        forget(active.generation()),
        forget(settings),
        &packet.destination,
        &origin,
        judgement,
    );
    judgement.passes()
}

/// What an app is called that names are kept of, where there is none.
static NO_APP: u64 = 0;

/// Who listens to which group: IGMP, and MLD (RFC 3810), which the kernel sends from no socket.
#[inline(always)]
fn is_membership(packet: &ip::Packet) -> bool {
    let to = &packet.destination;
    to.protocol == IGMP || (to.protocol == ICMPV6 && to.address.high >> 48 == 0xff02)
}

/// What is told first of a packet that came in by another interface.
static FORWARDED: SocketState = unknown(0);
/// What is told first of a packet that the kernel made.
static OF_KERNEL: SocketState = unknown(app::KERNEL);

const fn unknown(kind: u32) -> SocketState {
    // SAFETY: made of integers alone.
    let mut state: SocketState = unsafe { core::mem::zeroed() };
    state.identity.kind = kind;
    state.identity.uid = Identity::NO_USER;
    state.identity.gid = Identity::NO_GROUP;
    state
}

/// What is told of a flow without a socket, made if there is nothing yet.
#[inline(always)]
fn unowned(packet: &ip::Packet, first: &SocketState) -> Option<&'static mut SocketState> {
    let to = &packet.destination;
    let key = Unowned {
        src: packet.src,
        dst: to.address,
        src_port: packet.src_port,
        dst_port: to.port,
        protocol: u32::from(to.protocol),
        kind: first.identity.kind,
        _pad: 0,
    };
    if UNOWNED.get_ptr(&key).is_none() {
        UNOWNED.insert(&key, first, 0).ok()?;
    }
    // SAFETY: the entry is not freed while the program runs. What others write to it meanwhile are plain
    // integers, and no verdict rests on them.
    UNOWNED.get_ptr_mut(&key).map(|state| unsafe { &mut *state })
}
