//! What a capture has that was not understood or had no room: counted by cause, with the first place.

use std::{collections::BTreeMap, fmt};

/// Why a packet was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It names an interface that the capture does not describe.
    NoInterface,
    /// Of a link type that is not read.
    LinkType,
    /// Its link header is cut or broken.
    LinkHeader,
    /// The capture does not have all of its headers.
    Cut,
    /// Neither version 4 nor 6 of IP.
    IpVersion,
    /// Its IP header is broken, or says that there is more than was sent.
    IpHeader,
    /// A source route, or a routing header with hops left.
    SourceRoute,
    /// More extension headers or options than are followed.
    TooDeep,
    /// Its TCP or UDP header is broken.
    Transport,
    /// A fragment that cannot be one.
    Fragment,
    /// Fragments that overlap.
    Overlap,
    /// Fragments of which others are not in the capture.
    Incomplete,
    /// Fragments that there was no room for.
    NoRoom,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInterface => "of an interface that is not described",
            Self::LinkType => "of a link type that is not read",
            Self::LinkHeader => "with a broken link header",
            Self::Cut => "cut before their headers end",
            Self::IpVersion => "of no known version of IP",
            Self::IpHeader => "with a broken IP header",
            Self::SourceRoute => "with a source route",
            Self::TooDeep => "with too many extension headers or options",
            Self::Transport => "with a broken transport header",
            Self::Fragment => "broken fragments",
            Self::Overlap => "overlapping fragments",
            Self::Incomplete => "fragments without the others",
            Self::NoRoom => "fragments beyond what is kept",
        })
    }
}

/// What is told besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// Packets of other protocols than IP, like ARP.
    NotIp,
    /// Packets that the kernel sends for itself: they are not judged.
    Control,
    /// Packets of which the capture has the headers, and not all of the payload.
    Shortened,
    /// A stream whose beginning is not all in the capture: no name was read.
    Hole,
    /// A stream with more segments out of order than are kept.
    Reordered,
    /// A connection of QUIC whose hello is not all in the capture.
    QuicIncomplete,
    /// An answer to a question that is not in the capture, or was answered before.
    Unasked,
    /// A DNS message that cannot be read.
    MalformedDns,
    /// Flows that were told before the end, to make room.
    FlowsEarly,
    /// Questions of a flow that were not told, for there were too many.
    Questions,
    /// Names of addresses that there was no room for.
    Names,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotIp => "packets of other protocols than IP",
            Self::Control => "control packets of the kernel, not judged",
            Self::Shortened => "packets without all of their payload",
            Self::Hole => "streams whose beginning is not all there, so no name was read",
            Self::Reordered => "streams with more out of order than is kept",
            Self::QuicIncomplete => "QUIC connections whose hello is not all there",
            Self::Unasked => "DNS answers without their question",
            Self::MalformedDns => "DNS messages that cannot be read",
            Self::FlowsEarly => "flows told before the end, to make room",
            Self::Questions => "questions not told, too many in one flow",
            Self::Names => "names not kept, too many",
        })
    }
}

/// How often each, and the number of the first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally<K>(BTreeMap<K, (u64, u64)>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Tally<K> {
    /// One more, at the packet of this number.
    pub fn add(&mut self, what: K, packet: u64) {
        self.add_many(what, 1, packet);
    }

    /// So many more.
    pub fn add_many(&mut self, what: K, times: u64, packet: u64) {
        if times > 0 {
            self.0.entry(what).or_insert((0, packet)).0 += times;
        }
    }

    /// How often.
    pub fn of(&self, what: K) -> u64 {
        self.0.get(&what).map_or(0, |(times, _)| *times)
    }

    /// All that there is: what, how often, and the number of the first packet.
    pub fn iter(&self) -> impl Iterator<Item = (K, u64, u64)> {
        self.0.iter().map(|(what, (times, first))| (*what, *times, *first))
    }

    /// How often all together.
    pub fn total(&self) -> u64 {
        self.0.values().map(|(times, _)| times).sum()
    }
}
