//! The connections that are known, within bounds.
//!
//! One flow has at most [`MAX_PER_FLOW`] of them. So whoever opens connections without end on one
//! flow drives out its own, and others only where flows without number are open.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::Hash,
    time::Duration,
};

use super::{Cid, Malformed, keys::Keys, packet::Version, stream::Stream};

/// Connections at once.
const MAX: usize = 4096;
/// Connections of one flow at once. Every packet of the flow is tried with the keys of each.
const MAX_PER_FLOW: usize = 64;
/// Bytes of memory for them, without the tables that they are in.
const MAX_BYTES: usize = 16 << 20;
/// Flows that can have the same connection, such as those to and from a proxy.
const MAX_FLOWS: usize = 8;
/// How long a hello may take.
const TO_COMPLETE: Duration = Duration::from_secs(10);
/// How long a connection is known after it was last heard of.
const TO_REMEMBER: Duration = Duration::from_secs(60);

/// A connection of a client.
pub(super) struct Connection {
    /// The destination connection id that it began with.
    pub cid: Cid,
    pub stream: Stream,
    /// The largest number of its packets.
    pub largest: Option<u64>,
    keys: [Option<Box<Keys>>; 2],
    /// Since when a hello is incomplete; `None` if all are whole.
    waiting: Option<Duration>,
    used: Duration,
    /// Its place in the order of use.
    place: u64,
}

impl Connection {
    pub fn new(cid: Cid) -> Self {
        Self {
            cid,
            stream: Stream::default(),
            largest: None,
            keys: [None, None],
            waiting: None,
            used: Duration::ZERO,
            place: 0,
        }
    }

    /// The keys of both versions follow from the same id (RFC 9369 section 4.1): a server can go on
    /// in another version than the client began with.
    pub fn keys(&mut self, version: Version) -> Result<&Keys, Malformed> {
        let keys = &mut self.keys[version as usize];
        Ok(match keys {
            Some(keys) => keys,
            None => keys.insert(Box::new(Keys::new(version, &self.cid)?)),
        })
    }

    /// Bytes of memory at most, by what it has to remember.
    fn size(&self) -> usize {
        size_of::<Self>() + self.keys.len() * size_of::<Keys>() + self.stream.size()
    }

    fn is_over(&self, now: Duration) -> bool {
        let since = |then| now.saturating_sub(then);
        self.waiting.is_some_and(|begin| since(begin) >= TO_COMPLETE)
            || since(self.used) >= TO_REMEMBER
    }
}

/// All connections.
pub(super) struct Connections<F> {
    flows: HashMap<F, Vec<Connection>>,
    /// The flows that have a connection with this id.
    ids: HashMap<Cid, Vec<F>>,
    /// The flow of each connection, the least recently used first.
    order: BTreeMap<u64, F>,
    /// The last place in the order that was given.
    last: u64,
    size: usize,
    /// Connections that had to make room for others.
    pub evicted: u64,
}

impl<F> Default for Connections<F> {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            ids: HashMap::new(),
            order: BTreeMap::new(),
            last: 0,
            size: 0,
            evicted: 0,
        }
    }
}

impl<F: Copy + Eq + Hash> Connections<F> {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Bytes of memory that they have at most.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Those of a flow.
    pub fn of(&mut self, flow: F) -> &mut [Connection] {
        self.flows.get_mut(&flow).map(Vec::as_mut_slice).unwrap_or_default()
    }

    /// Whether no other flow says anything else to this id. Servers tell connections by it, so a
    /// hello could come in halves of two, over two sockets.
    pub fn agree(&self, flow: F, cid: Cid, stream: &Stream) -> bool {
        let flows = self.ids.get(&cid).into_iter().flatten();
        let mut others = flows.filter(|other| **other != flow);
        let of = |flow| self.flows.get(flow).into_iter().flatten();
        others.clone().count() < MAX_FLOWS
            && others.all(|other| {
                let mut same = of(other).filter(|connection| connection.cid == cid);
                same.all(|connection| connection.stream.agrees(stream))
            })
    }

    /// Takes out the connection of a flow that began with this id, to be put back.
    pub fn take(&mut self, flow: F, cid: Cid) -> Option<Connection> {
        self.remove(flow, |connection| connection.cid == cid)
    }

    /// Puts a connection in, as the one that was used last.
    pub fn put(&mut self, flow: F, mut connection: Connection, now: Duration) {
        let of = self.of(flow);
        if of.len() >= MAX_PER_FLOW
            && let Some(place) = of.iter().map(|connection| connection.place).min()
        {
            self.evict(flow, place);
        }
        self.last += 1;
        connection.place = self.last;
        connection.used = now;
        connection.waiting =
            (!connection.stream.is_complete()).then(|| connection.waiting.unwrap_or(now));
        self.size += connection.size();
        self.order.insert(connection.place, flow);
        self.ids.entry(connection.cid).or_default().push(flow);
        self.flows.entry(flow).or_default().push(connection);
        while self.len() > MAX || self.size > MAX_BYTES {
            let Some((&place, &flow)) = self.order.first_key_value() else { break };
            self.evict(flow, place);
        }
    }

    /// Forgets connections that are over, and tells those with a hello that was never completed.
    pub fn expire(&mut self, now: Duration) -> Vec<(F, Cid)> {
        let over: Vec<(F, u64)> = self
            .flows
            .iter()
            .flat_map(|(&flow, of)| of.iter().map(move |connection| (flow, connection)))
            .filter(|(_, connection)| connection.is_over(now))
            .map(|(flow, connection)| (flow, connection.place))
            .collect();
        over.into_iter()
            .filter_map(|(flow, place)| Some((flow, self.remove_at(flow, place)?)))
            .filter(|(_, connection)| connection.waiting.is_some())
            .map(|(flow, connection)| (flow, connection.cid))
            .collect()
    }

    fn evict(&mut self, flow: F, place: u64) {
        self.remove_at(flow, place);
        self.evicted += 1;
    }

    fn remove_at(&mut self, flow: F, place: u64) -> Option<Connection> {
        self.remove(flow, |connection| connection.place == place)
    }

    fn remove(&mut self, flow: F, is: impl Fn(&Connection) -> bool) -> Option<Connection> {
        let of = self.flows.get_mut(&flow)?;
        let connection = of.swap_remove(of.iter().position(is)?);
        if of.is_empty() {
            self.flows.remove(&flow);
        }
        self.order.remove(&connection.place);
        if let Entry::Occupied(mut flows) = self.ids.entry(connection.cid) {
            flows.get_mut().retain(|other| *other != flow);
            if flows.get().is_empty() {
                flows.remove();
            }
        }
        self.size -= connection.size();
        Some(connection)
    }
}
