//! One flow: what it says, and what it gets by that.

mod questions;

use std::{mem, time::Duration};

use firewall_common::{
    flow::{Address, Destination, TCP, UDP},
    layout::flags as settings,
    parse::{
        dns::MAX_QUESTION,
        payload::{Payload, answer, flags},
        quic::{self, Start},
    },
    verdict::{Hook, Via},
};

use self::questions::Dns;
use super::{
    dns::Framer,
    found::{Found, Source},
    judge::{Judge, Judgement, Known, Shown},
    names,
    packet::{Bytes, Segment},
    stream::Stream,
    tally::{Note, Tally},
};
use crate::quic::{Hello, Inspector, Taken};

/// The port that HTTP/3 is usually on, where every long header is one of QUIC.
const HTTPS: u16 = 443;

/// What flows have in common.
pub struct Shared<'a> {
    /// By whom they are judged.
    pub judge: Judge<'a>,
    /// Connections of QUIC.
    pub quic: Inspector<u64>,
    /// What there is to say.
    pub notes: Tally<Note>,
    /// Every name.
    pub found: Found,
}

impl<'a> Shared<'a> {
    /// With nothing in it yet.
    pub fn new(judge: Judge<'a>) -> Self {
        let (quic, notes, found) = Default::default();
        Self { judge, quic, notes, found }
    }

    /// The same, at a packet.
    pub const fn at(&mut self, number: u64, time: u64) -> Context<'_, 'a> {
        Context { shared: self, number, time }
    }
}

/// What flows have in common, at the packet that is looked at.
pub struct Context<'c, 'a> {
    shared: &'c mut Shared<'a>,
    /// Of the packet.
    number: u64,
    /// Of the packet.
    time: u64,
}

impl Context<'_, '_> {
    fn note(&mut self, note: Note) {
        self.shared.notes.add(note, self.number);
    }

    fn find(
        &mut self,
        name: &str,
        source: Source,
        addresses: impl IntoIterator<Item = Address>,
        encrypted_hello: bool,
    ) {
        if !self.shared.found.add(name, source, self.time, addresses, encrypted_hello) {
            self.note(Note::Names);
        }
    }
}

/// A flow.
pub struct Flow {
    /// Its own number.
    pub id: u64,
    /// The number of its first packet.
    pub number: u64,
    /// When that was.
    pub time: u64,
    /// Who began it.
    pub client: (Address, u16),
    /// Where it goes.
    pub to: Destination,
    /// Its beginning is not in the capture.
    middle: bool,
    /// Payload that its beginner sent.
    pub bytes_out: u64,
    /// Payload that it received.
    pub bytes_in: u64,
    judgement: Judgement,
    /// Names of the address get different verdicts, and the payload has shown none.
    differ: bool,
    /// What the payload shows, where it has no say.
    shown: Option<Known>,
    questions: Vec<Told>,
    carries: Carries,
}

/// A verdict on a flow or on a question of it.
pub struct Told {
    /// The verdict.
    pub judgement: Judgement,
    /// What the payload shows besides.
    pub shown: Option<Known>,
    /// It is on a question.
    pub asks: bool,
    /// When first.
    pub time: u64,
    /// How often.
    pub count: u32,
}

/// What there is to be read.
enum Carries {
    Nothing,
    Tcp(Box<Tcp>),
    Quic(Quic),
    Dns(Dns),
}

#[derive(Default)]
struct Tcp {
    out: Stream,
    into: Stream,
    reads: Reads,
}

/// What of a TCP connection is read.
#[derive(Default)]
enum Reads {
    #[default]
    Nothing,
    Payload(Box<Payload>),
    Dns {
        asked: Framer,
        answered: Framer,
        dns: Dns,
    },
}

#[derive(Default)]
struct Quic {
    /// An Initial was seen.
    begun: bool,
    /// And a whole hello.
    shown: bool,
}

impl Flow {
    /// The flow that a packet begins.
    pub fn new(
        id: u64,
        client: (Address, u16),
        to: Destination,
        middle: bool,
        context: &mut Context<'_, '_>,
    ) -> Self {
        let judge = &context.shared.judge;
        let (mut judgement, mut differ) = judge.judge(client.0, &to, context.time);
        let dns = Dns::of(judge, &to);
        if dns.is_some_and(|dns| dns.trusted) {
            (judgement, differ) = (judge.resolver(), false);
        }
        let carries = match (to.protocol, dns) {
            (TCP, Some(dns)) => {
                let (asked, answered) = Default::default();
                let reads = Reads::Dns { asked, answered, dns };
                Carries::Tcp(Box::new(Tcp { reads, ..Tcp::default() }))
            }
            (TCP, None) => {
                let reads = Reads::Payload(Box::new(Payload::START));
                Carries::Tcp(Box::new(Tcp { reads, ..Tcp::default() }))
            }
            (UDP, Some(dns)) => Carries::Dns(dns),
            (UDP, None) => Carries::Quic(Quic::default()),
            _ => Carries::Nothing,
        };
        Self {
            id,
            number: context.number,
            time: context.time,
            client,
            to,
            middle,
            bytes_out: 0,
            bytes_in: 0,
            judgement,
            differ,
            shown: None,
            questions: Vec::new(),
            carries,
        }
    }

    /// Whether a SYN of the client with this number is one of this connection, sent again.
    pub fn began_with(&self, sequence: u32) -> bool {
        match &self.carries {
            Carries::Tcp(tcp) => tcp.out.begins_with(sequence.wrapping_add(1)),
            _ => false,
        }
    }

    /// Bytes that it holds beside what every flow does, about.
    pub fn holds(&self) -> usize {
        const QUESTION: usize = 512;
        let questions = self.questions.len() * QUESTION;
        let Carries::Tcp(tcp) = &self.carries else { return questions };
        let messages = match &tcp.reads {
            Reads::Dns { asked, answered, .. } => asked.kept() + answered.kept(),
            Reads::Nothing | Reads::Payload(_) => 0,
        };
        questions + tcp.out.kept() + tcp.into.kept() + messages
    }

    /// Takes a packet that is not looked into.
    pub fn pass(&mut self, out: bool, len: usize) {
        self.count(out, len);
    }

    /// Takes a segment of TCP.
    pub fn segment(&mut self, segment: &Segment<'_>, out: bool, context: &mut Context<'_, '_>) {
        let Carries::Tcp(mut tcp) = mem::replace(&mut self.carries, Carries::Nothing) else {
            return;
        };
        let Tcp { out: sent, into, reads } = &mut *tcp;
        let stream = if out { sent } else { into };
        // The SYN has a number of its own, in front of the data that may come with it.
        let sequence = segment.sequence.wrapping_add(u32::from(segment.syn));
        if segment.syn {
            stream.start(sequence);
        }
        let reads_on = match reads {
            Reads::Nothing => false,
            Reads::Payload(_) => out,
            Reads::Dns { .. } => true,
        };
        if out && reads_on && segment.urgent && segment.data.len > 0 {
            self.urgent(context);
        }
        stream.done |= !reads_on;
        let crowded = stream.crowded;
        stream.put(sequence, &segment.data, |stream, data| match reads {
            Reads::Nothing => stream.done = true,
            Reads::Payload(payload) => {
                self.payload(payload, data, context);
                stream.done = payload.is_done();
            }
            Reads::Dns { asked, dns, .. } if out => {
                asked
                    .feed(data, MAX_QUESTION as usize, |message| self.asked(message, dns, context));
                if asked.malformed {
                    self.unreadable_question(dns, context);
                }
                stream.done = asked.malformed;
            }
            Reads::Dns { answered, dns, .. } => {
                let most = usize::from(u16::MAX);
                answered.feed(data, most, |message| self.answered(message, dns, context));
                if answered.malformed {
                    context.note(Note::MalformedDns);
                }
                stream.done = answered.malformed;
            }
        });
        if stream.crowded && !crowded {
            context.note(Note::Reordered);
        }
        let bytes = stream.bytes;
        if out {
            self.bytes_out = bytes;
        } else {
            self.bytes_in = bytes;
        }
        self.carries = Carries::Tcp(tcp);
    }

    /// Takes a datagram of UDP.
    pub fn datagram(&mut self, data: &Bytes<'_>, out: bool, context: &mut Context<'_, '_>) {
        self.count(out, data.len);
        match mem::replace(&mut self.carries, Carries::Nothing) {
            Carries::Dns(mut dns) => {
                // What is cut would read as malformed.
                if data.is_whole() && out {
                    self.asked(data.there, &mut dns, context);
                } else if data.is_whole() {
                    self.answered(data.there, &dns, context);
                }
                self.carries = Carries::Dns(dns);
            }
            Carries::Quic(mut quic) => {
                if out {
                    self.quic(data, &mut quic, context);
                }
                self.carries = Carries::Quic(quic);
            }
            other => self.carries = other,
        }
    }

    /// What there is to tell of it.
    pub fn finish(mut self, shared: &mut Shared<'_>) -> (Self, Vec<Told>) {
        let mut by_server = true;
        match &self.carries {
            Carries::Tcp(tcp) => match &tcp.reads {
                Reads::Payload(payload) => {
                    if !payload.is_done() && !self.is_denied() && tcp.out.has_hole() {
                        shared.notes.add(Note::Hole, self.number);
                    }
                }
                Reads::Dns { dns, .. } => by_server = dns.by_server,
                Reads::Nothing => {}
            },
            Carries::Quic(quic) => {
                if quic.begun && !quic.shown && !self.is_denied() {
                    shared.notes.add(Note::QuicIncomplete, self.number);
                }
            }
            Carries::Dns(dns) => by_server = dns.by_server,
            Carries::Nothing => {}
        }
        if self.differ {
            let sent = self.to.protocol != TCP || self.bytes_out > 0;
            self.judgement = shared.judge.no_name(self.judgement.clone(), sent);
        }
        let mut told = mem::take(&mut self.questions);
        if by_server || told.is_empty() {
            told.insert(
                0,
                Told {
                    judgement: self.judgement.clone(),
                    shown: self.shown.take(),
                    asks: false,
                    time: self.time,
                    count: 1,
                },
            );
        }
        (self, told)
    }

    fn count(&mut self, out: bool, len: usize) {
        let to = if out { &mut self.bytes_out } else { &mut self.bytes_in };
        *to += len as u64;
    }

    fn is_denied(&self) -> bool {
        !self.differ && !self.judgement.reached.verdict.passes()
    }

    /// Reads on in what a TCP client sends first.
    fn payload(&mut self, payload: &mut Payload, data: &[u8], context: &mut Context<'_, '_>) {
        let answer = payload.read(data, 0, data.len() as u32);
        if answer == answer::MORE {
            return;
        }
        let bits = payload.flags;
        if answer == answer::NAME {
            self.names(&Shown { name: &payload.name, flags: bits }, true, context);
        } else if bits & flags::MALFORMED != 0 && context.shared.judge.minds_names() && !self.middle
        {
            self.unreadable(Shown::hook(bits).1, context);
        } else {
            self.silent(context);
        }
        if self.is_denied() {
            payload.end();
        }
    }

    /// Takes a name that the payload shows.
    fn names(&mut self, shown: &Shown<'_>, judged: bool, context: &mut Context<'_, '_>) {
        let source = match Shown::hook(shown.flags).0 {
            Via::Tls => Source::Tls,
            Via::Quic => Source::Quic,
            _ => Source::Http,
        };
        let hidden = shown.flags & flags::ECH != 0;
        context.find(&names::text(shown.name), source, [self.to.address], hidden);
        if self.is_denied() || !judged {
            self.shown = Some(context.shared.judge.known(shown));
            return;
        }
        self.judgement =
            context.shared.judge.judge_shown(self.client.0, &self.to, context.time, shown);
        self.differ = false;
    }

    /// The payload shows no name.
    fn silent(&mut self, context: &mut Context<'_, '_>) {
        if mem::take(&mut self.differ) {
            self.judgement = context.shared.judge.no_name(self.judgement.clone(), true);
        }
    }

    /// The payload cannot be read.
    fn unreadable(&mut self, hook: Hook, context: &mut Context<'_, '_>) {
        if !self.is_denied() {
            self.judgement = context.shared.judge.unparsable(hook);
            self.differ = false;
        }
    }

    fn urgent(&mut self, context: &mut Context<'_, '_>) {
        if context.shared.judge.minds_names() {
            self.unreadable(Hook::Packet, context);
        } else {
            self.silent(context);
        }
    }

    /// Looks at a datagram that can be one of QUIC.
    fn quic(&mut self, data: &Bytes<'_>, quic: &mut Quic, context: &mut Context<'_, '_>) {
        let judge = &context.shared.judge;
        let inspects = judge.is_set(settings::QUIC_INSPECT) && judge.minds_names();
        let judged = judge.is_set(settings::QUIC_INSPECT | settings::QUIC_WATCH);
        match quic::start(data.there, 0) {
            Start::Opaque => return self.silent(context),
            Start::OtherVersion if self.to.port != HTTPS => return self.silent(context),
            _ if judge.is_set(settings::QUIC_BLOCK) => {
                if !self.is_denied() {
                    self.judgement = judge.blocked_quic();
                    self.differ = false;
                }
                // The name is told all the same.
            }
            Start::OtherVersion | Start::Malformed if inspects => {
                return self.unreadable(Hook::Quic, context);
            }
            Start::OtherVersion | Start::Malformed => return self.silent(context),
            Start::Long(_) => {}
        }
        if !data.is_whole() {
            quic.begun = true;
            return;
        }
        let now = Duration::from_nanos(context.time);
        let Taken { found, .. } = context.shared.quic.take(self.id, data.there, now);
        match found {
            crate::quic::Found::Hello(hello) | crate::quic::Found::Same(hello) => {
                (quic.begun, quic.shown) = (true, true);
                self.hello(&hello, judged, inspects, context);
            }
            crate::quic::Found::Malformed if inspects => self.unreadable(Hook::Quic, context),
            crate::quic::Found::Malformed => self.silent(context),
            crate::quic::Found::More => quic.begun = true,
            crate::quic::Found::NoHello => {}
        }
    }

    fn hello(
        &mut self,
        hello: &Hello,
        judged: bool,
        inspects: bool,
        context: &mut Context<'_, '_>,
    ) {
        let bits = hello.flags | flags::QUIC;
        if hello.answer == answer::NAME {
            self.names(&Shown { name: &hello.name, flags: bits }, judged, context);
        } else if bits & flags::MALFORMED != 0 && inspects {
            self.unreadable(Hook::Quic, context);
        } else {
            self.silent(context);
        }
    }
}
