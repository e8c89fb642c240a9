//! QUIC: the server name in what a client sends first is encrypted, with keys that anybody can
//! derive who sees the packet, but not a kernel program. So user space reads it ([`crate::held`]) and
//! tells what it says ([`crate::tell`]). Until then the packet is dropped silently, and the client
//! sends it again.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_get_socket_cookie,
    programs::SkBuffContext,
};
use firewall_common::{
    forget::forget,
    layout::{Active, Connection, SocketState, flags, held},
    parse::{
        Bytes as _,
        ip::Packet,
        quic::{self, Cid, DCID, Long, Start, kind},
    },
    verdict::{Hook, Reason, Verdict},
};

use crate::{
    egress::DROP_SILENTLY,
    held::{hand_over, is_attended},
    inspect::{self, JUDGED},
    maps::{CONNECTIONS, HEADERS, Scratch},
    packet::Skb,
    policy::{self, Judgement},
    repeat::repeat,
    scratch, socket,
};

/// Settings under which user space reads what QUIC shows.
pub const QUIC_READ: u32 = flags::QUIC_INSPECT | flags::QUIC_WATCH;

/// Datagrams in one packet that are looked at (`UDP_SEGMENT`); the kernel makes no more.
const MAX_DATAGRAMS: u32 = 128;

/// Initials of a flow that may go out before user space has said that they show what was shown
/// before: a client sends its flight at once.
const MAX_UNVERIFIED: i32 = 8;

/// The port that HTTP/3 is usually on, where every long header is one of QUIC.
const HTTPS: u32 = 443;

/// What comes of a datagram; of several in one packet, the highest.
mod outcome {
    /// Nothing that shows a name.
    pub const OPAQUE: u32 = 0;
    /// Of a connection that may pass.
    pub const PASS: u32 = 1;
    /// Cannot be read.
    pub const UNREADABLE: u32 = 2;
    /// To be sent again.
    pub const BACK: u32 = 3;
    /// The judgement in scratch memory denies it.
    pub const DENY: u32 = 4;
}

/// Whether the payload of datagrams has a say; `named` is whether the name of the flow matters to
/// anybody.
#[inline(always)]
pub const fn is_read(settings: u32, named: bool) -> bool {
    settings & flags::QUIC_BLOCK != 0 || (settings & QUIC_READ != 0 && named)
}

/// Whether a packet whose UDP header is at `transport` can begin a connection.
#[inline(always)]
pub fn can_begin(skb: Skb, transport: u32) -> bool {
    // SAFETY: reading a context member.
    if unsafe { (*skb.0).gso_segs } > 1 {
        return true;
    }
    let at = transport.wrapping_add(8);
    match first_byte(skb, at).map_or_else(|| skb.read(at), |first| Some([first])) {
        Some([first]) if first >= 0xc0 => true,
        // Media streams (RTP) begin so too, and need not be looked at.
        Some([first]) if first >= 0x80 => matches!(quic::version(&skb, at), quic::V1 | quic::V2),
        _ => false,
    }
}

/// The byte at `at`, if it lies where it can be read without a helper.
#[inline(always)]
fn first_byte(skb: Skb, at: u32) -> Option<u8> {
    // SAFETY: reading context members; both are packet pointers to the verifier.
    let (data, end) = unsafe { ((*skb.0).data as usize, (*skb.0).data_end as usize) };
    let at = data + (at as usize & 0x7f);
    if at + 1 > end {
        return None;
    }
    // SAFETY: the bounds were just compared.
    Some(unsafe { *(at as *const u8) })
}

/// A packet of UDP that goes out.
#[inline(always)]
pub fn inspect(ctx: &SkBuffContext) -> i32 {
    inspect::with_payload(ctx, |index, skb, _| look(index, skb))
}

/// What one call of the loop's body leaves to the next.
struct Walk {
    skb: Skb,
    index: u32,
    offset: u32,
    end: u32,
    stride: u32,
    outcome: u32,
}

/// What the program returns, or [`JUDGED`].
#[inline(always)]
fn look(index: u32, skb: Skb) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY as u32 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DROP_SILENTLY as u32 };
    scratch.flags = header.flags;
    if header.name_lines == 0 && header.flags & flags::QUIC_INSPECT != 0 {
        // No verdict depends on a name: it is only recorded.
        scratch.flags = flags::QUIC_WATCH;
    }
    scratch.hook = Hook::Packet as u32;
    // SAFETY: the helper takes the context of this program type.
    scratch.key.cookie = unsafe { bpf_get_socket_cookie(skb.context()) };
    scratch.key.address = scratch.server;
    scratch.key.port = scratch.port;
    let offset = scratch.transport.wrapping_add(8);
    // SAFETY: reading context members.
    let (segments, size) = unsafe { ((*skb.0).gso_segs, (*skb.0).gso_size) };
    let stride = forget(if segments > 1 && size != 0 { size } else { u32::MAX });
    let (offset, end) = (forget(offset), forget(skb.size()));
    let mut walk = Walk { skb, index, offset, end, stride, outcome: forget(outcome::OPAQUE) };
    repeat(MAX_DATAGRAMS, judge_datagram, &mut walk);
    if walk.offset < walk.end && walk.outcome < outcome::UNREADABLE {
        walk.outcome = outcome::UNREADABLE;
    }
    conclude(index, forget(walk.outcome))
}

/// Turns what came of the datagrams into what the program returns.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn conclude(index: u32, came: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY as u32 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DROP_SILENTLY as u32 };
    match came {
        outcome::DENY | outcome::PASS => return JUDGED,
        outcome::BACK => return DROP_SILENTLY as u32,
        outcome::UNREADABLE => {
            scratch.hook = Hook::Quic as u32;
            scratch.judgement = policy::unparsable(header);
            return JUDGED;
        }
        _ => {}
    }
    let active = Active::new(scratch.generation, scratch.slot);
    scratch.judgement = match flow(scratch) {
        Some(flow) if flow.generation == scratch.generation && !is_inbound(flow) => {
            scratch.hook = Hook::Quic as u32;
            judgement(flow)
        }
        _ => policy::judge_silent(active, header, scratch.who(), &scratch.destination()),
    };
    JUDGED
}

/// What is known of the flow.
#[inline(always)]
pub fn flow(scratch: &mut Scratch) -> Option<&'static mut Connection> {
    scratch.key.flow = 1;
    scratch.key.cid = Cid::EMPTY;
    // SAFETY: the entry is not freed while the program runs; what two CPUs write at a time are
    // words.
    CONNECTIONS.get_ptr_mut(&scratch.key).map(|flow| unsafe { &mut *flow })
}

/// Whether a flow began with an Initial that came in: whoever is there is the server.
#[inline(always)]
pub fn is_inbound(flow: &Connection) -> bool {
    flow.reason == Reason::Inbound as u32
}

#[inline(always)]
fn judgement(of: &Connection) -> Judgement {
    Judgement {
        verdict: of.verdict as u8,
        reason: of.reason as u8,
        decision: of.decision,
        known: of.known,
    }
}

/// Whether the loop is to end.
extern "C" fn judge_datagram(_: u32, walk: &mut Walk) -> i64 {
    // Or the verifier follows each place through the next datagram.
    let offset = forget(walk.offset);
    let left = walk.end.wrapping_sub(offset);
    let len = if left < walk.stride { left } else { walk.stride };
    let came = forget(datagram(walk.skb.0, walk.index, offset, len));
    if came > walk.outcome {
        walk.outcome = came;
    }
    walk.outcome = forget(walk.outcome);
    walk.offset = forget(offset.wrapping_add(len));
    // The judgement in scratch memory is not to become that of another datagram.
    i64::from(walk.offset >= walk.end || walk.outcome == outcome::DENY)
}

/// One of [`outcome`]. `skb` is the program's context.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn datagram(skb: *mut __sk_buff, index: u32, at: u32, len: u32) -> u32 {
    let skb = Skb(skb);
    let Some(scratch) = scratch::get(index) else { return outcome::BACK };
    let (start, long) = parts(quic::start(&skb, at));
    if start == OPAQUE {
        return outcome::OPAQUE;
    }
    let came = match start {
        LONG => match read_cid(skb, at, long.dcid) {
            Some(cid) => {
                scratch.cid = cid;
                connection(index, long.kind)
            }
            None => unknown(index, MALFORMED),
        },
        _ => unknown(index, start),
    };
    let came = forget(came);
    if came < KNOWN {
        return came;
    }
    if len > MAX_DATAGRAM || is_in_pages(skb) {
        return if came == WATCHED { outcome::OPAQUE } else { outcome::UNREADABLE };
    }
    let mut why = held::WATCHED;
    if came == UNKNOWN {
        why = held::BACK;
    }
    if came == KNOWN {
        // Less than none if the flow's entry had to make room and was made anew.
        let unverified =
            scratch.connection.passed.wrapping_sub(scratch.connection.verified).cast_signed();
        let shows = forget(shows(skb, &long, at.wrapping_add(len)));
        // Nothing more goes out before it is known that all that went out was in order.
        if unverified >= MAX_UNVERIFIED || (unverified > 0 && shows != HELLO) {
            return outcome::BACK;
        }
        if shows == NO_HELLO {
            return outcome::PASS;
        }
        why = held::PASSED;
    }
    let handed = match state(skb) {
        Some(state) => hand_over(scratch, skb, state, (at, len), forget(why)),
        None => false,
    };
    match came {
        WATCHED => {
            scratch.told = u32::from(handed);
            outcome::OPAQUE
        }
        KNOWN if handed => {
            if let Some(flow) = flow(scratch) {
                count_passed(flow);
            }
            outcome::PASS
        }
        _ => outcome::BACK,
    }
}

/// Counts an Initial that goes out. In one step, so that none is lost to another CPU: what is not
/// counted would let one go out that nobody has read.
#[inline(always)]
fn count_passed(flow: &mut Connection) {
    let passed = &raw mut flow.passed;
    // SAFETY: the pointer is valid and aligned; `core` has no atomics for this target.
    unsafe { asm!("lock *(u32 *)({to} + 0) += {one}", to = in(reg) passed, one = in(reg) 1_u64) };
}

/// Whether a packet is in pages that the app may still write to (sendfile, MSG_ZEROCOPY): what is sent
/// need not be what is read here. Datagrams that are written are in pages only if there are several.
#[inline(always)]
fn is_in_pages(skb: Skb) -> bool {
    // SAFETY: reading a context member.
    !skb.is_linear() && unsafe { (*skb.0).gso_segs } <= 1
}

/// The state of the socket that sends.
#[inline(always)]
fn state(skb: Skb) -> Option<&'static mut SocketState> {
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb.0).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { socket::existing_state(sk.cast()) }
}

/// In place of an outcome: the connection may pass, if all that it shows is what it has shown.
const KNOWN: u32 = 8;
/// In place of an outcome: what the connection shows is still to be read.
const UNKNOWN: u32 = 9;
/// In place of an outcome: it passes, and what it shows is recorded.
const WATCHED: u32 = 10;

/// Kinds of [`Start`], as numbers.
const OPAQUE: u32 = 0;
const OTHER_VERSION: u32 = 1;
const MALFORMED: u32 = 2;
const LONG: u32 = 3;

/// A start of which the verifier knows nothing.
#[inline(always)]
fn parts(start: Start) -> (u32, Long) {
    let none = Long { kind: 0, dcid: 0, scid: 0 };
    let (start, long) = match start {
        Start::Opaque => (OPAQUE, none),
        Start::OtherVersion => (OTHER_VERSION, none),
        Start::Malformed => (MALFORMED, none),
        Start::Long(long) => (LONG, long),
    };
    let Long { kind, dcid, scid } = long;
    (forget(start), Long { kind: forget(kind), dcid: forget(dcid), scid: forget(scid) })
}

/// For a long header of no version that is known, or a malformed one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unknown(index: u32, start: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return outcome::BACK };
    if start == OTHER_VERSION && scratch.port != HTTPS {
        // Another protocol's.
        return outcome::OPAQUE;
    }
    if scratch.flags & flags::QUIC_BLOCK != 0 {
        return deny(scratch, Reason::Quic);
    }
    match scratch.flags & flags::QUIC_INSPECT {
        0 => outcome::OPAQUE,
        _ => outcome::UNREADABLE,
    }
}

/// For a packet of a kind with a long header: an outcome, [`KNOWN`], [`UNKNOWN`] or [`WATCHED`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn connection(index: u32, packet: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return outcome::BACK };
    scratch.connection = NO_CONNECTION;
    if let Some(flow) = flow(scratch) {
        scratch.connection = *flow;
    }
    if is_inbound(&scratch.connection) {
        return outcome::OPAQUE;
    }
    if scratch.flags & flags::QUIC_BLOCK != 0 {
        return deny(scratch, Reason::Quic);
    }
    let attended = forget(u32::from(is_attended()));
    if scratch.flags & flags::QUIC_INSPECT == 0 {
        let watched = packet == kind::INITIAL && attended != 0;
        return if watched { WATCHED } else { outcome::OPAQUE };
    }
    scratch.key.flow = 0;
    scratch.key.cid = scratch.cid;
    // SAFETY: the entry is not freed while the program runs.
    let known = match unsafe { CONNECTIONS.get(&scratch.key) } {
        Some(known) if known.generation == scratch.generation => Some(known),
        _ => None,
    };
    if is_denied(&scratch.connection, scratch) {
        scratch.judgement = judgement(&scratch.connection);
        scratch.hook = Hook::Quic as u32;
        return outcome::DENY;
    }
    if let Some(known) = known {
        scratch.judgement = judgement(known);
        scratch.hook = Hook::Quic as u32;
        if known.verdict == Verdict::Deny as u32 {
            return outcome::DENY;
        }
    }
    if attended == 0 {
        return match scratch.flags & flags::UNATTENDED_ALLOW {
            0 => deny(scratch, Reason::Unattended),
            _ => outcome::OPAQUE,
        };
    }
    match known {
        Some(known) if known.begun == scratch.connection.begun => KNOWN,
        _ => UNKNOWN,
    }
}

const MAX_DATAGRAM: u32 = firewall_common::layout::MAX_DATAGRAM as u32;

#[inline(always)]
fn is_denied(connection: &Connection, scratch: &Scratch) -> bool {
    connection.generation == scratch.generation && connection.verdict == Verdict::Deny as u32
}

/// Denies what no decision of the generation stands behind.
#[inline(always)]
fn deny(scratch: &mut Scratch, reason: Reason) -> u32 {
    scratch.judgement = Judgement::without_decision(Verdict::Deny, reason);
    scratch.hook = Hook::Quic as u32;
    outcome::DENY
}

/// The datagram has no Initial.
const NO_HELLO: u32 = 0;
/// It has one, and nothing else.
const HELLO: u32 = 1;
/// It has one beside others, or can have one.
const HELLO_AND_MORE: u32 = 2;

/// Whether a hello can be in a datagram that begins with `long` and ends at `end`.
#[inline(always)]
fn shows(skb: Skb, long: &Long, end: u32) -> u32 {
    let ends_at = quic::end(&skb, long);
    if long.kind == kind::INITIAL {
        return if ends_at == end { HELLO } else { HELLO_AND_MORE };
    }
    // What follows and has a short header is the last.
    if ends_at == end || skb.read(ends_at).is_some_and(|[first]| first < 0x80) {
        NO_HELLO
    } else {
        HELLO_AND_MORE
    }
}

/// The connection ID of `len` bytes that the packet at `at` goes to.
#[inline(always)]
fn read_cid(skb: Skb, at: u32, len: u32) -> Option<Cid> {
    Some(Cid::starting(len, skb.read(at.wrapping_add(DCID))?))
}

/// A datagram that came in: what connection ID the client is to use from now on, or that a client
/// out there may begin a connection.
#[inline(always)]
pub fn arrived(active: Active, skb: Skb, packet: &Packet) {
    let at = packet.transport.wrapping_add(8);
    let Start::Long(long) = quic::start(&skb, at) else { return };
    // After a Retry the client begins anew.
    if long.kind == kind::RETRY {
        return;
    }
    // Without memory the client's next packet is held back and read like its first.
    let Some(taken) = scratch::take() else { return };
    if let Some(scratch) = scratch::get(taken.index) {
        // SAFETY: the helper takes the context of this program type.
        scratch.key.cookie = unsafe { bpf_get_socket_cookie(skb.context()) };
        scratch.key.address = packet.src;
        scratch.key.port = u32::from(packet.src_port);
        scratch.generation = active.generation();
        match flow(scratch) {
            Some(flow) => answered(scratch, flow, source(skb, &long)),
            None if long.kind == kind::INITIAL => begun(scratch, skb, packet, at),
            None => {}
        }
    }
    scratch::give_back(taken);
}

/// Where a packet comes from.
#[inline(always)]
fn source(skb: Skb, long: &Long) -> Option<Cid> {
    let [len] = skb.read(long.scid)?;
    if len > quic::MAX_CID as u8 {
        return None;
    }
    Some(Cid::starting(u32::from(len), skb.read(long.scid.wrapping_add(1))?))
}

/// Has it read whether a client sent the datagram at `at`: what a server answers is an Initial too,
/// and can come to another socket than the one that began the connection.
#[inline(always)]
fn begun(scratch: &mut Scratch, skb: Skb, packet: &Packet, at: u32) {
    if !is_attended() {
        return;
    }
    let Some(state) = state(skb) else { return };
    scratch.app = state.app;
    scratch.src = packet.destination.address;
    scratch.src_port = u32::from(packet.destination.port);
    scratch.server = packet.src;
    scratch.port = u32::from(packet.src_port);
    hand_over(scratch, skb, state, (at, skb.size().wrapping_sub(at)), held::CAME);
}

#[inline(always)]
fn answered(scratch: &mut Scratch, flow: &Connection, cid: Option<Cid>) {
    let Some(cid) = cid else { return };
    if is_inbound(flow) || flow.verdict == Verdict::Deny as u32 {
        return;
    }
    scratch.connection = *flow;
    scratch.key.flow = 0;
    scratch.key.cid = cid;
    // SAFETY: only of which flow it is.
    let known = unsafe { CONNECTIONS.get(&scratch.key) };
    if known.is_some_and(|known| {
        known.generation == scratch.connection.generation
            && (known.begun == scratch.connection.begun || known.verdict == Verdict::Deny as u32)
    }) {
        return;
    }
    // Without room the client's next packet is held back and read like its first.
    let _ = CONNECTIONS.insert(&scratch.key, &scratch.connection, 0);
}

/// Nothing.
pub const NO_CONNECTION: Connection = Connection {
    generation: 0,
    decision: 0,
    verdict: 0,
    reason: 0,
    known: firewall_common::layout::Known { name: 0, via: 0, confidence: 0 },
    begun: 0,
    passed: 0,
    verified: 0,
};
