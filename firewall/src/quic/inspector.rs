//! Finds the connection that a datagram belongs to, and what it says.

use std::{hash::Hash, time::Duration};

use super::{
    Cid, Found, Malformed, Taken,
    connections::{Connection, Connections},
    frames,
    keys::Opened,
    packet::{self, Packet, Version},
    stream::Stream,
};

/// Initials of a datagram at most. Clients send one or two; each costs a try of all keys of the flow.
const MAX_INITIALS: usize = 8;

/// Reads the hellos of QUIC clients. `F` is a flow: a socket and its destination.
pub struct Inspector<F> {
    connections: Connections<F>,
    /// The packet that is being opened.
    copy: Vec<u8>,
    opened: u64,
    malformed: u64,
    incomplete: u64,
}

/// What an [`Inspector`] has seen and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Initial packets that were opened.
    pub opened: u64,
    /// Datagrams that are [`Found::Malformed`].
    pub malformed: u64,
    /// Connections whose hello was never completed.
    pub incomplete: u64,
    /// Connections that were forgotten to make room for others.
    pub evicted: u64,
    /// Connections that are known now.
    pub connections: usize,
    /// Bytes of memory that these take at most, without the tables that they are in.
    pub bytes: usize,
}

/// What the Initials of a datagram say of the one connection they are of.
struct Reading {
    /// The connection's own id.
    cid: Cid,
    stream: Stream,
    largest: Option<u64>,
    /// Whether anything was not said before.
    new: bool,
}

impl<F> Default for Inspector<F> {
    fn default() -> Self {
        let connections = Connections::default();
        Self { connections, copy: Vec::new(), opened: 0, malformed: 0, incomplete: 0 }
    }
}

impl<F: Copy + Eq + Hash> Inspector<F> {
    /// Reads a datagram, which is the payload of UDP. `now` is the time since any fixed moment.
    pub fn take(&mut self, flow: F, datagram: &[u8], now: Duration) -> Taken {
        let Ok(cid) = packet::destination(datagram) else {
            self.malformed += 1;
            return Taken { cid: Cid::default(), found: Found::Malformed };
        };
        let found = self.read(flow, cid, datagram, now).unwrap_or_else(|Malformed| {
            self.malformed += 1;
            Found::Malformed
        });
        Taken { cid, found }
    }

    /// Forgets connections of which nothing was heard for 60 s, and those with a hello that was not
    /// completed within 10 s. The latter are returned.
    pub fn expire(&mut self, now: Duration) -> Vec<(F, Cid)> {
        let incomplete = self.connections.expire(now);
        self.incomplete += incomplete.len() as u64;
        incomplete
    }

    /// What was seen until now.
    pub fn counters(&self) -> Counters {
        Counters {
            opened: self.opened,
            malformed: self.malformed,
            incomplete: self.incomplete,
            evicted: self.connections.evicted,
            connections: self.connections.len(),
            bytes: self.connections.size(),
        }
    }

    fn read(
        &mut self,
        flow: F,
        cid: Cid,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Found, Malformed> {
        let known = self.connections.of(flow);
        let is_known = known.iter().any(|connection| connection.cid == cid);
        let mut new = (!is_known).then(|| Connection::new(cid));
        let mut reading = None;
        let mut initials = 0;
        for packet in packet::split(datagram) {
            let packet = packet?;
            if !packet.is_initial {
                continue;
            }
            initials += 1;
            // Of another connection: a server may pass over it, or not.
            if packet.cid != cid || initials > MAX_INITIALS {
                return Err(Malformed);
            }
            let mut opened = false;
            // No server opens what has the keys of the other version, but there are clients that
            // send it (aioquic 1.7.2, when the server has changed the version).
            for version in [packet.version, packet.version.other()] {
                // After the first answer clients use the server's id, and the keys stay. An app can
                // make a packet that two keys open, to something else with each: so all are tried.
                for connection in known.iter_mut().chain(&mut new) {
                    opened |=
                        Reading::add(&mut reading, connection, version, &packet, &mut self.copy)?;
                }
                if opened {
                    break;
                }
            }
            if !opened {
                return Err(Malformed);
            }
            self.opened += 1;
        }
        let Some(mut reading) = reading else { return Ok(Found::NoHello) };
        let hello = reading.stream.next_hello()?;
        if !self.connections.agree(flow, reading.cid, &reading.stream) {
            return Err(Malformed);
        }
        let found = match (hello, reading.stream.last_hello()) {
            (Some(hello), _) => Found::Hello(hello),
            (None, Some(last)) if !reading.new => Found::Same(last),
            _ => Found::More,
        };
        if let Some(mut connection) = self.connections.take(flow, reading.cid).or(new) {
            connection.stream = reading.stream;
            connection.largest = reading.largest;
            self.connections.put(flow, connection, now);
        }
        Ok(found)
    }
}

impl Reading {
    fn of(connection: &Connection) -> Self {
        Self {
            cid: connection.cid,
            stream: connection.stream.clone(),
            largest: connection.largest,
            new: false,
        }
    }

    /// Adds what a packet says, if a connection's keys of this version open it. It must be the
    /// connection that the datagram is of.
    fn add(
        reading: &mut Option<Self>,
        connection: &mut Connection,
        version: Version,
        packet: &Packet<'_>,
        copy: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        let largest = match reading {
            Some(reading) if reading.cid == connection.cid => reading.largest,
            _ => connection.largest,
        };
        let keys = connection.keys(version)?;
        let Some(Opened { number, payload }) = keys.open(packet, largest, copy) else {
            return Ok(false);
        };
        let reading = reading.get_or_insert_with(|| Self::of(connection));
        if reading.cid != connection.cid {
            return Err(Malformed);
        }
        reading.largest = reading.largest.max(Some(number));
        frames::read(payload, |offset, said| {
            reading.new |= reading.stream.put(offset, said)?;
            Ok(())
        })?;
        Ok(true)
    }
}
