//! Answers to questions for names, on their way in: what they tell of addresses is in the maps
//! before the app sees it.

use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_sk_fullsock, programs::SkBuffContext};
use firewall_common::{
    answers::{DNS, lifetime},
    evaluate::NAMES as KEPT,
    flow::{Address, TCP, UDP},
    forget::forget,
    layout::{Answer, AnswerKey, CHAIN, Counter, MAX_ADDRESSES, flags::QUIC_BLOCK},
    parse::{
        dns::{HEADER, MAX_HINTS, MAX_PARAMETERS, MAX_RECORDS, Message, Record, parameter, record},
        ip,
    },
};

use crate::{
    bytes,
    dns::{self, MALFORMED, NOTHING},
    maps::{ANSWERS, FORMER, HEADERS, Led, NAMES, Scratch, count},
    names::{self, which},
    packet::{self, Skb},
    policy,
    quic::{self, QUIC_READ},
    scratch, socket,
    stream::{self, Way},
};

/// Lets the packet in.
const PASS: i32 = 1;
/// Drops the packet, which is sent again.
const DROP: i32 = 0;

/// A packet on its way in. Never refuses one, but a segment of DNS over TCP that comes before the
/// one it follows.
#[inline(always)]
pub fn arrived(ctx: &SkBuffContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(packet) = packet::plain(skb) else { return PASS };
    bytes::arrived(skb, &packet);
    let protocol = packet.destination.protocol;
    if protocol != UDP && protocol != TCP {
        return PASS;
    }
    let active = policy::active();
    let Some(header) = policy::header(active) else { return PASS };
    if header.service(packet.src_port) != DNS {
        let is_read = protocol == UDP && header.flags & (QUIC_BLOCK | QUIC_READ) != 0;
        if is_read && quic::can_begin(skb, packet.transport) {
            quic::arrived(active, skb, &packet);
        }
        return PASS;
    }
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb.0).__bindgen_anon_2.sk };
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: `sk` is not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return PASS;
    }
    let Some(state) = socket::existing_state(sk.cast()) else { return PASS };
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return DROP;
    };
    // The server is where it comes from.
    let mut from = packet;
    from.destination.address = packet.src;
    from.destination.port = packet.src_port;
    dns::prepare(taken.index, active, header, state, &from, packet.destination.port);
    let in_turn = if protocol == UDP {
        answered(taken.index, skb, packet.transport);
        true
    } else {
        answered_in_stream(taken.index, skb, sk, &packet)
    };
    scratch::give_back(taken);
    if in_turn { PASS } else { DROP }
}

#[inline(always)]
fn answered(index: u32, skb: Skb, transport: u32) {
    let offset = transport.wrapping_add(8);
    if let Some(scratch) = scratch::get(index)
        && offset < skb.size()
    {
        let len = skb.size().wrapping_sub(offset);
        scratch.len = skb.copy(offset, len, &mut scratch.message, 0);
        learn(index);
    }
}

#[inline(always)]
fn answered_in_stream(index: u32, skb: Skb, sk: *mut bpf_sock, packet: &ip::Packet) -> bool {
    let Some(segment) = packet::segment(skb, packet.transport) else { return true };
    if segment.len == 0 {
        return true;
    }
    let Some(stream) = stream::answered(sk.cast()) else {
        count(Counter::NoState);
        return false;
    };
    let in_turn = stream::feed(index, skb, stream, &segment, Way::In);
    if let Some(scratch) = scratch::get(index)
        && scratch.result == MALFORMED
    {
        count(Counter::MalformedDns);
    }
    in_turn
}

/// Takes what the message in scratch memory tells, if it answers a question that waits for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn(index: u32) -> u32 {
    let mut at = believed(index);
    if at == MALFORMED {
        count(Counter::MalformedDns);
        return MALFORMED;
    }
    if at == NOTHING {
        count(Counter::UnaskedAnswers);
        return NOTHING;
    }
    count(Counter::Answers);
    for left in 0..MAX_RECORDS {
        at = forget(read_record(index, at, left));
        if at < HEADER {
            break;
        }
    }
    if at == MALFORMED {
        // What was read before that was asked for all the same.
        count(Counter::MalformedDns);
    }
    names::keep_name(index, 1);
    for address in 0..MAX_ADDRESSES as u32 {
        if keep(index, address) == 0 {
            break;
        }
    }
    NOTHING
}

/// Whether the message answers a question that waits: where its records begin, or [`NOTHING`] or
/// [`MALFORMED`], which are less than any such place.
#[inline(always)]
fn believed(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOTHING };
    let message = Message { bytes: &scratch.message, len: scratch.len };
    let Some(start) = message.header() else { return MALFORMED };
    if !start.answer || start.questions != 1 {
        return NOTHING;
    }
    let id = start.id;
    let end = names::dns_name(index, HEADER, which::ASKED);
    if end == 0 {
        return MALFORMED;
    }
    let class = names::name_class(index, which::ASKED);
    let Some(scratch) = scratch::get(index) else { return NOTHING };
    let Some(header) = HEADERS.get(scratch.slot) else { return NOTHING };
    scratch.name = scratch.suffixes.whole;
    let Some(question) = names::answered(header, scratch, id) else { return NOTHING };
    scratch.now = names::now();
    // Not the class that the question had: the generation can be another one by now.
    scratch.named.classes = [class, 0, 0, 0];
    scratch.named.trusted = question.trusted;
    scratch.addresses = 0;
    scratch.aliases = 0;
    scratch.places = [HEADER, 0, 0, 0, 0];
    scratch.last = scratch.name;
    scratch.more = 0;
    scratch.asked.chain = [0; CHAIN];
    end.wrapping_add(4)
}

/// Reads the record at `at`, number `record` of the message: where the next one begins, or
/// [`NOTHING`] at the end or [`MALFORMED`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_record(index: u32, at: u32, number: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOTHING };
    let message = Message { bytes: &scratch.message, len: scratch.len };
    if number >= u32::from(message.u16(6)) {
        return NOTHING;
    }
    let Some(record) = message.record(names::dns_skip(index, at)) else { return MALFORMED };
    let Record { kind, lifetime, data, end } = record;
    if !record.is_read() {
        return end;
    }
    if is_asked(index, at) == 0 {
        count(Counter::UnaskedAnswers);
        return end;
    }
    match kind {
        record::A if record.size() == 4 => lead_v4(index, data, lifetime),
        record::AAAA if record.size() == 16 => lead_v6(index, data, lifetime),
        record::CNAME => alias(index, data, TOLD),
        record::SVCB | record::HTTPS => service(index, data, end, lifetime),
        _ => 0,
    };
    end
}

/// Whether the record at `at` is of the name asked for or of one that it is an alias of.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_asked(index: u32, at: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    // Nearly always it is told by a pointer to where that name was read.
    let pointer = u32::from(Message { bytes: &scratch.message, len: scratch.len }.u16(at));
    for place in scratch.places {
        if place != 0 && pointer == 0xc000 | place {
            return 1;
        }
    }
    if names::dns_name(index, at, which::ALIAS) == 0 {
        return 0;
    }
    names::name_class(index, which::ALIAS);
    let Some(scratch) = scratch::get(index) else { return 0 };
    let name = scratch.suffixes.whole;
    let mut known = name == scratch.name || name == scratch.last;
    for alias in scratch.asked.chain {
        known |= alias != 0 && alias == name;
    }
    u32::from(known)
}

/// Who says what a name is an alias of: the resolver, which has looked that name up.
const TOLD: u32 = 1;
/// The owner of the name, who can name any other and give addresses of his own.
const CLAIMED: u32 = 0;

/// Takes the name at `at` as one that the name asked for is an alias of.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn alias(index: u32, at: u32, told: u32) -> u32 {
    let end = names::dns_name(index, at, which::ALIAS);
    if end == 0 {
        count(Counter::MalformedDns);
        return 0;
    }
    let class = names::name_class(index, which::ALIAS);
    let Some(scratch) = scratch::get(index) else { return 0 };
    // The root stands for the name itself (RFC 9460 section 2.5).
    if scratch.alias.text.len == 0 {
        return end;
    }
    let trusted = scratch.named.trusted & told;
    if !scratch.named.add_alias(class, trusted) {
        scratch.more = 1;
    }
    scratch.last = scratch.suffixes.whole;
    let place = scratch.aliases;
    if place < CHAIN as u32 {
        scratch.asked.chain[forget(place) as usize % CHAIN] = scratch.suffixes.whole;
        scratch.places[1 + forget(place) as usize % CHAIN] = at;
        scratch.aliases = place.wrapping_add(1);
        let name = scratch.suffixes.whole;
        scratch.alias.chain = [0; CHAIN];
        if NAMES.insert(&name, &scratch.alias, 0).is_err() {
            count(Counter::NoName);
        }
    }
    end
}

/// Reads a service binding (RFC 9460 section 2.2).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn service(index: u32, at: u32, end: u32, lifetime: u32) -> u32 {
    let mut at = alias(index, at.wrapping_add(2), CLAIMED);
    if at == 0 {
        return 0;
    }
    for _ in 0..MAX_PARAMETERS {
        let Some(scratch) = scratch::get(index) else { return 0 };
        let message = Message { bytes: &scratch.message, len: scratch.len };
        let Some(parameter) = message.parameter(at, end) else { break };
        at = parameter.end;
        if at > end {
            count(Counter::MalformedDns);
            break;
        }
        for hint in 0..MAX_HINTS {
            let Some(from) = parameter.hint(hint) else { break };
            if parameter.key == parameter::IPV4_HINT {
                lead_v4(index, from, lifetime)
            } else {
                lead_v6(index, from, lifetime)
            };
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lead_v4(index: u32, at: u32, lifetime: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    let message = Message { bytes: &scratch.message, len: scratch.len };
    lead(scratch, message.v4(at), lifetime)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lead_v6(index: u32, at: u32, lifetime: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    let message = Message { bytes: &scratch.message, len: scratch.len };
    lead(scratch, message.v6(at), lifetime)
}

/// Takes an address that the answer leads to.
#[inline(always)]
fn lead(scratch: &mut Scratch, to: Address, lifetime: u32) -> u32 {
    let place = scratch.addresses;
    if place >= MAX_ADDRESSES as u32 {
        count(Counter::NoName);
        return 0;
    }
    scratch.led[forget(place) as usize % MAX_ADDRESSES] = Led { to, lifetime: u64::from(lifetime) };
    scratch.addresses = place.wrapping_add(1);
    0
}

/// Ties an address of the answer to the name asked for; 0 if there is no such address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep(index: u32, address: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    if address >= scratch.addresses {
        return 0;
    }
    let led = &scratch.led[forget(address) as usize % MAX_ADDRESSES];
    let until = scratch.now.wrapping_add(lifetime(led.lifetime as u32));
    let key = AnswerKey { app: scratch.app, address: led.to.destination() };
    let answer = Answer { name: scratch.name, named: scratch.named, until };
    if let Some(there) = ANSWERS.get_ptr_mut(&key) {
        // SAFETY: the entry is not freed while the program runs.
        let there = unsafe { &mut *there };
        if there.generation == scratch.generation {
            there.keep(&answer, scratch.more != 0, scratch.now);
            return 1;
        }
        if FORMER.insert(&key, &*there, 0).is_err() {
            count(Counter::NoName);
        }
    }
    scratch.fresh.names = [Answer::default(); KEPT];
    scratch.fresh.names[0] = answer;
    scratch.fresh.generation = scratch.generation;
    scratch.fresh.several = 0;
    scratch.fresh.more_until = if scratch.more != 0 { until } else { 0 };
    names::note(&key);
    if ANSWERS.insert(&key, &scratch.fresh, 0).is_err() {
        count(Counter::NoName);
    }
    1
}
