//! A packet capture judged offline, by the same matcher and the same parsers as in the kernel.
//!
//! ```text
//! file ─ link ─ packet (fragments) ─▶ flow: stream, payload, DNS, QUIC ─ judge ─▶ Flow (JSON)
//! ```
//!
//! Everything in a capture is hostile: nothing is kept without a bound, and what is not understood or
//! has no room is counted.

mod answer;
pub mod dns;
mod file;
mod flow;
mod found;
mod fragments;
mod judge;
mod link;
mod names;
pub mod packet;
pub mod stream;
mod tally;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::ControlFlow,
};

pub use file::{Error, Stop};
use firewall_common::{
    flow::{Address, Destination, TCP, has_ports},
    parse::ip,
    verdict::Verdict,
};
pub use found::Name;
use jiff::{Timestamp, tz::TimeZone};
pub use judge::Trust;
use serde::Serialize;
pub use tally::{Cause, Note, Tally};

use self::{
    file::Frame,
    flow::Shared,
    fragments::Fragments,
    judge::Judge,
    packet::{Bytes, Carries, Segment},
};
use crate::{
    events::{Endpoint, Host, SCHEMA, View, protocol_word},
    intel,
    policy::{
        AppFacts,
        explain::{self, Explainer, Finding, Geo},
    },
};

/// Flows that are kept until the end.
const MAX_FLOWS: usize = 1 << 16;
/// Bytes that they hold together of what is not read yet.
const MAX_HELD: usize = 64 << 20;
/// Packets between two times that connections of QUIC are forgotten.
const TIDY: u64 = 4096;

/// What a flow of a capture would have got. The keys are those of a verdict event.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// [`SCHEMA`].
    pub schema: u32,
    /// RFC 3339 in UTC, with microseconds: of its first packet.
    pub time: String,
    /// What decides.
    #[serde(flatten)]
    pub finding: Finding,
    /// Where it is decided.
    pub hook: &'static str,
    /// By its word, or as in IP headers.
    pub proto: Cow<'static, str>,
    /// Where from.
    pub src: Endpoint,
    /// Where to; of a question, who is asked.
    pub dst: Endpoint,
    /// By what name that is known, or what is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Where it is, and whose.
    #[serde(skip_serializing_if = "Geo::is_empty")]
    pub geo: Geo,
    /// What policies that only observe would have done besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Finding>,
    /// How often a question was asked, else 1.
    pub count: u32,
    /// Transport payload that the source has sent.
    pub bytes_out: u64,
    /// Transport payload that it has received.
    pub bytes_in: u64,
}

impl Flow {
    /// What tables and lines for people look at.
    pub fn view<'a>(&'a self, app: &'a crate::events::App) -> View<'a> {
        let Self { finding, dst, host, geo, .. } = self;
        View {
            time: self.time.parse().ok(),
            hook: self.hook,
            proto: &self.proto,
            count: u64::from(self.count),
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            ..View::of(finding, app, dst, host.as_ref(), geo)
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets that the capture has.
    pub packets: u64,
    /// Verdicts that were told, by [`Verdict`]: allow, audit, deny.
    pub verdicts: [u64; 3],
    /// Packets that were not understood.
    pub causes: Tally<Cause>,
    /// What else there is to say.
    pub notes: Tally<Note>,
    /// Where and why reading stopped before the end of the file.
    pub stop: Option<Stop>,
}

/// Judges the packets of a capture.
pub struct Replay<'a> {
    shared: Shared<'a>,
    fragments: Fragments,
    flows: BTreeMap<u64, flow::Flow>,
    /// The latest flow between two places.
    between: HashMap<Between, u64>,
    last: u64,
    /// Bytes that flows hold.
    held: usize,
    counted: Counted,
}

/// Two places and a protocol, whoever sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Between(u8, (Address, u16), (Address, u16));

impl Between {
    fn of(protocol: u8, one: (Address, u16), other: (Address, u16)) -> Self {
        Self(protocol, one.min(other), one.max(other))
    }
}

/// Takes what is told. An error ends the reading.
pub type Tell<'t> = dyn FnMut(&Flow) -> anyhow::Result<()> + 't;

impl<'a> Replay<'a> {
    /// By these policies, for this app.
    pub fn new(explainer: Explainer<'a>, app: AppFacts, trust: Trust) -> Self {
        Self {
            shared: Shared::new(Judge::new(explainer, app, trust)),
            fragments: Fragments::default(),
            flows: BTreeMap::new(),
            between: HashMap::new(),
            last: 0,
            held: 0,
            counted: Counted::default(),
        }
    }

    /// Reads a capture and tells of its flows, in the order in which they begin.
    ///
    /// # Errors
    ///
    /// When it is none, the tables cannot be read, or `tell` has an error.
    pub fn run(
        mut self,
        input: impl std::io::Read + Send,
        tell: &mut Tell<'_>,
    ) -> anyhow::Result<(Counted, Vec<Name>)> {
        let mut failed = None;
        let (packets, stop) = file::read(input, |frame| {
            let taken = match frame {
                Ok(frame) => self.frame(&frame, tell),
                Err((number, cause)) => {
                    self.counted.causes.add(cause, number);
                    Ok(())
                }
            };
            match taken {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.fragments.finish(&mut self.counted.causes);
        while let Some((id, _)) = self.flows.first_key_value() {
            let id = *id;
            self.tell(id, tell)?;
        }
        self.counted.packets = packets;
        self.counted.stop = stop;
        self.counted.notes = self.shared.notes;
        Ok((self.counted, self.shared.found.into_names()))
    }

    fn frame(&mut self, frame: &Frame<'_>, tell: &mut Tell<'_>) -> anyhow::Result<()> {
        if frame.number.is_multiple_of(TIDY) {
            self.shared.quic.expire(std::time::Duration::from_nanos(frame.time));
        }
        let bytes = match link::ip(frame.link, frame.data) {
            Ok(bytes) => bytes,
            Err(link::No::Ip(note)) => {
                self.shared.notes.add(note, frame.number);
                return Ok(());
            }
            Err(link::No::Read(cause)) => {
                self.counted.causes.add(cause, frame.number);
                return Ok(());
            }
        };
        let before = frame.data.len() - bytes.len();
        let taken = Bytes::of(bytes, frame.len - before)
            .and_then(|bytes| Ok((bytes, packet::piece(&bytes)?)))
            .and_then(|(bytes, piece)| match piece {
                None => self.packet(&bytes, frame),
                Some(piece) => {
                    let causes = &mut self.counted.causes;
                    match self.fragments.put(&piece, frame.number, frame.time, causes) {
                        Some(whole) => {
                            self.packet(&Bytes { there: &whole, len: whole.len() }, frame)
                        }
                        None => Ok(()),
                    }
                }
            });
        if let Err(cause) = taken {
            self.counted.causes.add(cause, frame.number);
        }
        while self.flows.len() > MAX_FLOWS || self.held > MAX_HELD {
            let Some((id, _)) = self.flows.first_key_value() else { break };
            let id = *id;
            self.shared.notes.add(Note::FlowsEarly, frame.number);
            self.tell(id, tell)?;
        }
        Ok(())
    }

    fn packet(&mut self, bytes: &Bytes<'_>, frame: &Frame<'_>) -> Result<(), Cause> {
        let (packet, carries) = packet::read(bytes)?;
        if matches!(carries, Carries::Control) {
            self.shared.notes.add(Note::Control, frame.number);
            return Ok(());
        }
        if !bytes.is_whole() {
            self.shared.notes.add(Note::Shortened, frame.number);
        }
        let (id, out) = self.flow(&packet, &carries, frame);
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        let mut context = self.shared.at(frame.number, frame.time);
        let before = flow.holds();
        match carries {
            Carries::Tcp(segment) => flow.segment(&segment, out, &mut context),
            Carries::Udp(data) => flow.datagram(&data, out, &mut context),
            Carries::Other(len) => flow.pass(out, len),
            Carries::Control => {}
        }
        self.held = self.held + flow.holds() - before;
        Ok(())
    }

    /// The flow that a packet belongs to, and whether its beginner sends it.
    fn flow(
        &mut self,
        packet: &ip::Packet,
        carries: &Carries<'_>,
        frame: &Frame<'_>,
    ) -> (u64, bool) {
        let to = packet.destination;
        let sender = (packet.src, packet.src_port);
        let receiver = (to.address, to.port);
        let between = Between::of(to.protocol, sender, receiver);
        let begins = match carries {
            Carries::Tcp(segment) if segment.syn && !segment.ack => Some(segment),
            _ => None,
        };
        if let Some(id) = self.between.get(&between)
            && let Some(flow) = self.flows.get(id)
        {
            let out = flow.client == sender;
            let again = begins.is_none_or(|segment| out && flow.began_with(segment.sequence));
            if again {
                return (*id, out);
            }
        }
        let out = begins.is_some() || is_beginner(packet, carries);
        let (client, server) = if out { (sender, receiver) } else { (receiver, sender) };
        let to = Destination { address: server.0.destination(), port: server.1, ..to };
        self.last += 1;
        let id = self.last;
        let middle = to.protocol == TCP && begins.is_none() && !is_answer(carries);
        let mut context = self.shared.at(frame.number, frame.time);
        let flow = flow::Flow::new(id, client, to, middle, &mut context);
        self.flows.insert(id, flow);
        self.between.insert(between, id);
        (id, out)
    }

    fn tell(&mut self, id: u64, tell: &mut Tell<'_>) -> anyhow::Result<()> {
        let Some(flow) = self.flows.remove(&id) else { return Ok(()) };
        self.held -= flow.holds();
        let server = (flow.to.address, flow.to.port);
        let between = Between::of(flow.to.protocol, flow.client, server);
        if self.between.get(&between) == Some(&id) {
            self.between.remove(&between);
        }
        let (flow, told) = flow.finish(&mut self.shared);
        let mut bytes = (flow.bytes_out, flow.bytes_in);
        for one in told {
            let line = line(&self.shared.judge, &flow, &one, std::mem::take(&mut bytes))?;
            let place = match one.judgement.reached.verdict {
                Verdict::Allow => 0,
                Verdict::Audit => 1,
                Verdict::Deny => 2,
            };
            self.counted.verdicts[place] += 1;
            tell(&line)?;
        }
        Ok(())
    }
}

/// What is told of a flow, or of a question of it.
fn line(
    judge: &Judge<'_>,
    flow: &flow::Flow,
    told: &flow::Told,
    (bytes_out, bytes_in): (u64, u64),
) -> Result<Flow, intel::Error> {
    let to = (!told.asks).then_some(&flow.to);
    let mut observed = judge.findings(&told.judgement, to)?;
    let finding = observed.pop().unwrap_or_else(|| Finding {
        verdict: told.judgement.reached.verdict.word(),
        mode: crate::policy::Mode::Enforce.word(),
        reason: firewall_common::verdict::Reason::NoPolicy.word(),
        action: None,
        policy: None,
        rule: None,
        evidence: Vec::new(),
        data: Default::default(),
    });
    let known = told.judgement.known.as_ref().or(told.shown.as_ref());
    let endpoint = |address: Address, port: u16| Endpoint {
        ip: IpAddr::from(address),
        port: has_ports(flow.to.protocol).then_some(port),
    };
    // Where the resolver is says nothing of what is asked for.
    let geo = match told.asks {
        true => Geo::default(),
        false => explain::geo(judge.intel(), flow.to.address)?,
    };
    Ok(Flow {
        schema: SCHEMA,
        time: time_of(told.time),
        finding,
        hook: told.judgement.hook,
        proto: protocol_word(flow.to.protocol),
        src: endpoint(flow.client.0, flow.client.1),
        dst: endpoint(flow.to.address, flow.to.port),
        host: known.and_then(Into::into),
        geo,
        observed,
        count: told.count,
        bytes_out,
        bytes_in,
    })
}

/// Whether who sends a packet of a flow that was not seen before has begun it: the other one has who
/// is answered, and who sends from a well-known port (RFC 6335 section 6) to another one.
fn is_beginner(packet: &ip::Packet, carries: &Carries<'_>) -> bool {
    const WELL_KNOWN: u16 = 1024;
    let to = &packet.destination;
    if is_answer(carries) {
        return false;
    }
    !has_ports(to.protocol) || packet.src_port >= WELL_KNOWN || to.port < WELL_KNOWN
}

/// Whether a segment answers one that begins a connection.
const fn is_answer(carries: &Carries<'_>) -> bool {
    matches!(carries, Carries::Tcp(Segment { syn: true, ack: true, .. }))
}

/// RFC 3339 in UTC, with microseconds.
fn time_of(nanoseconds: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::MAX);
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
