//! What `cargo xtask bench` measures, and what the tests compare with user space: the code that is
//! attached, beside an empty program.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros drop the comments of what they wrap")]

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_prandom_u32, bpf_sk_fullsock},
    macros::{cgroup_skb, map},
    maps::Array,
    programs::SkBuffContext,
};
use firewall_common::{
    event::{Identity, app},
    flow::Address,
    layout::SocketState,
    name::Text,
    parse::{Bytes as _, dns::HEADER, ip, payload::Payload},
    verdict::Verdict,
};
use firewall_ebpf::{
    answers, dns, egress, inspect,
    names::{self, which},
    packet::{self, Skb},
    payload, policy, quic as datagram, scratch, socket, stream,
};

firewall_ebpf::object!();

/// Nothing at all: what a call of any program costs.
#[cgroup_skb(egress)]
pub fn bench_empty(_ctx: SkBuffContext) -> i32 {
    egress::PASS
}

/// As attached: with the same packet again and again, a flow that is decided, or questions for a name
/// that are judged each.
#[cgroup_skb(egress)]
#[inline(always)]
pub fn bench_decided(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |_, _| {})
}

/// As attached: what the others jump to, which is found by its name.
#[cgroup_skb(egress)]
pub fn payload(ctx: SkBuffContext) -> i32 {
    inspect::inspect(&ctx)
}

/// As attached: datagrams that can be QUIC.
#[cgroup_skb(egress)]
pub fn quic(ctx: SkBuffContext) -> i32 {
    datagram::inspect(&ctx)
}

/// A new flow with every packet: a random IPv4 address takes the place of the packet's own, and
/// its state is stored in the socket. As with every socket made under the firewall, its app is known
/// from before.
#[cgroup_skb(egress)]
pub fn bench_new_v4(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |packet, state| {
        state.identity.kind = app::PROCESS;
        random_v4(&mut packet.destination.address);
    })
}

/// The same, and with every packet the class of the app is found anew.
#[cgroup_skb(egress)]
pub fn bench_new_app(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |packet, state| {
        state.identity.kind = app::PROCESS;
        state.identity.executable.inode = 1;
        state.class = 0;
        random_v4(&mut packet.destination.address);
    })
}

// Not inlined: the stack of its caller is small.
#[inline(never)]
fn random_v4(to: &mut Address) {
    *to = Address::v4(random());
}

/// Who sends the packets of [`sent_by`].
#[map]
static SENDER: Array<Identity> = Array::with_max_entries(1, 0);

/// As attached, for packets of who stands in a map, and a class of the app that is found anew.
#[cgroup_skb(egress)]
pub fn sent_by(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |_, state| set_sender(state))
}

// Not inlined: the stack of its caller is small.
#[inline(never)]
fn set_sender(state: &mut SocketState) {
    if let Some(sender) = SENDER.get(0) {
        scratch::copy(&mut state.identity, sender);
        state.class = 0;
    }
}

/// A new flow with every packet, to a random IPv6 address in 2000::/6, where the world's are.
#[cgroup_skb(egress)]
pub fn bench_new_v6(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |packet, state| {
        state.identity.kind = app::PROCESS;
        let high = u64::from(random()) << 32 | u64::from(random());
        packet.destination.address = Address { high: 0x2 << 60 | high >> 6, low: 1 };
    })
}

/// The payload of a flow that has not sent any yet.
#[cgroup_skb(egress)]
#[inline(always)]
pub fn bench_shown(ctx: SkBuffContext) -> i32 {
    start_again(&ctx);
    egress::judge(&ctx, |_, _| {})
}

/// What forgetting the payload before alone costs, to be taken into account.
#[cgroup_skb(egress)]
pub fn bench_again(ctx: SkBuffContext) -> i32 {
    start_again(&ctx);
    egress::PASS
}

/// A question for a name that nobody has asked for, without the way to where it is judged: the first
/// four letters of the packet's are random.
#[cgroup_skb(egress)]
pub fn bench_question(ctx: SkBuffContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(packet) = packet::plain(skb) else { return egress::DROP };
    let Some(taken) = prepare(&ctx, &packet, packet.src_port) else { return egress::DROP };
    let mut passes = false;
    if let Some(scratch) = scratch::get(taken.index) {
        let offset = packet.transport.wrapping_add(8);
        let len = skb.size().wrapping_sub(offset);
        scratch.len = skb.copy(offset, len, &mut scratch.message, 0);
        let random = random();
        for letter in 0..4 {
            scratch.message[HEADER as usize + 1 + letter] =
                b'a' + (random >> (8 * letter) & 15) as u8;
        }
        dns::judge_questions(taken.index);
        passes = scratch::get(taken.index).is_some_and(|scratch| dns::passes(scratch.result));
    }
    scratch::give_back(taken);
    if passes { egress::PASS } else { egress::DROP }
}

/// An answer as it arrives, to a question that waits for it.
#[cgroup_skb(ingress)]
pub fn bench_answer(ctx: SkBuffContext) -> i32 {
    ask(&ctx);
    answers::arrived(&ctx)
}

/// What asking alone costs, to be taken into account: the question's name is not read for it.
#[cgroup_skb(ingress)]
pub fn bench_ask(ctx: SkBuffContext) -> i32 {
    ask(&ctx);
    egress::PASS
}

/// What the random numbers alone cost, to be taken into account.
#[cgroup_skb(egress)]
pub fn bench_random(_ctx: SkBuffContext) -> i32 {
    if random() == 0 { egress::DROP } else { egress::PASS }
}

fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// Nothing was read.
#[map]
static NO_PAYLOAD: Array<Payload> = Array::with_max_entries(1, 0);

/// Takes a flow back to where its payload is waited for.
#[inline(always)]
fn start_again(ctx: &SkBuffContext) {
    let Some(sk) = full_socket(ctx) else { return };
    let Some(state) = socket::existing_state(sk.cast()) else { return };
    if state.verdict == Verdict::Allow as u8 {
        state.kept &= !3;
    }
    let (Some(stream), Some(none)) = (stream::payload(sk.cast()), NO_PAYLOAD.get(0)) else {
        return;
    };
    stream.started = 0;
    scratch::copy(&mut stream.payload, none);
}

/// The hash of the name that [`bench_answer`] answers for.
#[map]
static ASKED_NAME: Array<u64> = Array::with_max_entries(1, 0);

/// Notes the question that a packet answers.
#[inline(always)]
fn ask(ctx: &SkBuffContext) {
    let skb = Skb(ctx.skb.skb);
    let Some(mut from) = packet::plain(skb) else { return };
    let Some([a, b]) = skb.read(from.transport.wrapping_add(8)) else { return };
    let own_port = from.destination.port;
    from.destination.address = from.src;
    from.destination.port = from.src_port;
    let Some(taken) = prepare(ctx, &from, own_port) else { return };
    if let (Some(scratch), Some(header), Some(name)) =
        (scratch::get(taken.index), policy::header(policy::active()), ASKED_NAME.get(0))
    {
        scratch.name = *name;
        names::ask(header, scratch, u16::from_be_bytes([a, b]));
    }
    scratch::give_back(taken);
}

/// Memory with what messages of a packet are judged by, as the attached programs have it.
#[inline(always)]
fn prepare(ctx: &SkBuffContext, packet: &ip::Packet, own_port: u16) -> Option<scratch::Taken> {
    let active = policy::active();
    let header = policy::header(active)?;
    let state = socket::state(full_socket(ctx)?.cast())?;
    let taken = scratch::take()?;
    dns::prepare(taken.index, active, header, state, packet, own_port);
    Some(taken)
}

#[inline(always)]
fn full_socket(ctx: &SkBuffContext) -> Option<*mut bpf_sock> {
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` is not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() { None } else { Some(sk) }
}

/// What [`read_dns`] found: where the name ends, where it would be skipped to, its class, its hash.
#[map]
static READ: Array<[u64; 4]> = Array::with_max_entries(1, 0);

/// The name that [`read_dns`] found.
#[map]
static READ_NAME: Array<Text> = Array::with_max_entries(1, 0);

/// Reads a name of the DNS message behind the first two bytes, which say where it is.
#[cgroup_skb(egress)]
pub fn read_dns(ctx: SkBuffContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some([a, b]) = skb.read(0) else { return egress::DROP };
    let at = u32::from(a) << 8 | u32::from(b);
    let Some(taken) = scratch::take() else { return egress::DROP };
    if let Some(scratch) = scratch::get(taken.index) {
        scratch.slot = policy::active().slot();
        scratch.len = skb.copy(2, skb.size().saturating_sub(2), &mut scratch.message, 0);
    }
    let past = names::dns_skip(taken.index, at);
    let end = names::dns_name(taken.index, at, which::ASKED);
    let class = names::name_class(taken.index, which::ASKED);
    if let (Some(scratch), Some(read), Some(name)) =
        (scratch::get(taken.index), READ.get_ptr_mut(0), READ_NAME.get_ptr_mut(0))
    {
        // SAFETY: the pointers are valid as long as the maps.
        unsafe {
            *read = [end.into(), past.into(), class.into(), scratch.suffixes.whole];
            scratch::copy(&mut *name, &scratch.asked.text);
        }
    }
    scratch::give_back(taken);
    egress::PASS
}

/// What [`read_payload`] has read so far.
#[map]
static PAYLOAD: Array<Payload> = Array::with_max_entries(1, 0);

/// Reads on in a stream: in the packet, which first says how many bytes are before it, these two
/// among them, and how many behind.
#[cgroup_skb(egress)]
pub fn read_payload(ctx: SkBuffContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let (Some([before, behind]), Some(state)) = (skb.read(0), PAYLOAD.get_ptr_mut(0)) else {
        return 3;
    };
    let end = skb.size().saturating_sub(u32::from(behind));
    // SAFETY: the pointer is valid as long as the map.
    (payload::feed(skb, unsafe { &mut *state }, u32::from(before), end) & 3) as i32
}
