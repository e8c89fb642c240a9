//! Datagrams of QUIC that the kernel hands over: the names in them are read here, and told.

use std::{
    future::pending,
    hash::{Hash, Hasher},
    os::fd::OwnedFd,
    time::Duration,
};

use firewall_common::{
    event::{FlowEvent, HeldDatagram},
    layout::{Told, held, told},
    name::Text,
    parse::payload::{answer, flags},
};

use nix::time::ClockId;

use super::{
    enrich::nanoseconds,
    reader::{self, Reader},
    recorder::AT_ONCE,
};
use crate::{
    datapath::{
        maps::Maps,
        tell::{self, Lead, Teller, nothing},
    },
    intel::{
        ahead::{Ahead, Fact},
        resolver::Resolver,
    },
    quic::{self, Cid, Found, Hello, Inspector},
};

/// Tells the kernel what it waits for: the names in Initials, and where names lead.
pub struct Attendant {
    reader: Reader,
    initials: Initials,
    teller: Teller,
}

impl Attendant {
    /// With the program `tell` and the maps of loaded programs. To be called in a runtime.
    pub fn new(program: OwnedFd, maps: &Maps) -> Result<Self, Error> {
        Ok(Self {
            reader: Reader::new(maps, "HELD")?,
            initials: Initials::default(),
            teller: Teller::new(program, maps)?,
        })
    }

    /// Waits until there is something to read.
    pub async fn ready(&mut self) -> Result<(), reader::Error> {
        self.reader.ready().await
    }

    /// Reads some, and tells whether there is more.
    pub fn read(&mut self) -> bool {
        let Self { reader, initials, teller } = self;
        (0..AT_ONCE).all(|_| {
            let now = boot_time();
            let read = reader.read_next(|bytes| {
                initials.take(&HeldDatagram::try_from(bytes)?, now, teller);
                Ok(())
            });
            read.is_some()
        })
    }

    /// Tells where names lead.
    pub fn lead_to(&mut self, leads: &[Lead]) {
        self.teller.lead_to(leads);
    }

    /// Gives the sign that somebody reads, which holds for a second.
    pub fn is_here(&mut self) -> Result<(), Error> {
        Ok(self.teller.is_here()?)
    }

    /// Time goes on.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.is_here()?;
        self.read();
        self.initials.expire(boot_time(), &mut self.teller);
        Ok(())
    }

    /// When nothing more comes: what came last is still to be told.
    pub fn finish(&mut self) {
        while self.read() {}
        self.initials.finish(&mut self.teller);
    }

    /// Datagrams that could not be decoded.
    pub const fn malformed(&self) -> u64 {
        self.reader.malformed
    }

    /// How often the kernel could not take in what it was told.
    pub const fn not_taken(&self) -> u64 {
        self.teller.not_taken
    }
}

/// What the next look-up tells, of names that are to be known ahead.
pub async fn learn(ahead: &mut Option<Ahead<Resolver>>) -> Vec<Lead> {
    let Some(ahead) = ahead else { return pending().await };
    let mut leads = Vec::new();
    let sink = |fact: Fact<'_>| {
        leads.push(Lead {
            name: fact.name.to_owned(),
            address: fact.address,
            lifetime: fact.lifetime,
        });
    };
    ahead.learn(sink).await;
    leads
}

/// Why nobody attends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be read.
    #[error(transparent)]
    Reader(#[from] reader::Error),
    /// Nothing can be told.
    #[error(transparent)]
    Tell(#[from] tell::Error),
}

fn boot_time() -> Duration {
    let now = u64::try_from(nanoseconds(ClockId::CLOCK_BOOTTIME)).unwrap_or_default();
    Duration::from_nanos(now)
}

/// A flow that has connections: what is known of it, told apart by its socket and its other end.
#[derive(Clone, Copy, Debug)]
struct Flow {
    event: FlowEvent,
    app: u64,
    why: u32,
}

impl Flow {
    const fn key(&self) -> (u64, u64, u64, u16) {
        let FlowEvent { cookie, dst, dst_port, .. } = self.event;
        (cookie, dst.high, dst.low, dst_port)
    }
}

impl PartialEq for Flow {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Flow {}

impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Reads what was handed over, and tells the kernel what it says.
#[derive(Default)]
pub struct Initials {
    inspector: Inspector<Flow>,
}

impl Initials {
    /// Takes a datagram. `now` is the time since any fixed moment.
    pub fn take(&mut self, handed: &HeldDatagram<'_>, now: Duration, teller: &mut Teller) {
        let flow = Flow { event: handed.event, app: handed.app, why: handed.why };
        if flow.why == held::CAME {
            if quic::is_of_client(handed.datagram) {
                teller.tell(&Told { kind: told::INBOUND, ..of(&flow, &Cid::default()) });
            }
            return;
        }
        let taken = self.inspector.take(flow, handed.datagram, now);
        if let Some(told) = what_to_tell(&flow, &taken.cid, taken.found) {
            teller.tell(&told);
        }
    }

    /// Tells of connections that passed, of which no more will be said.
    pub fn finish(&mut self, teller: &mut Teller) {
        for (flow, cid) in self.inspector.expire(Duration::MAX) {
            // Of what was held back nothing got out.
            if flow.why == held::WATCHED {
                teller.tell(&unreadable(&flow, &cid));
            }
        }
    }

    /// Gives up on connections whose hello was never completed.
    pub fn expire(&mut self, now: Duration, teller: &mut Teller) {
        for (flow, cid) in self.inspector.expire(now) {
            teller.tell(&unreadable(&flow, &cid));
        }
    }
}

fn what_to_tell(flow: &Flow, cid: &Cid, found: Found) -> Option<Told> {
    match (flow.why, found) {
        // It is recorded once.
        (held::WATCHED, Found::Same(_)) => None,
        (_, Found::Hello(hello) | Found::Same(hello)) => Some(told_hello(flow, cid, hello)),
        (_, Found::Malformed) => Some(unreadable(flow, cid)),
        // Nothing in it contradicts what was said before.
        (held::PASSED, Found::More | Found::NoHello) => {
            Some(Told { kind: told::VERIFIED, ..of(flow, cid) })
        }
        (_, Found::More | Found::NoHello) => None,
    }
}

fn told_hello(flow: &Flow, cid: &Cid, Hello { answer, flags, name }: Hello) -> Told {
    Told { kind: told::HELLO, answer, flags, name, ..of(flow, cid) }
}

/// Of what passed in any case, only the name is missing.
fn unreadable(flow: &Flow, cid: &Cid) -> Told {
    let flags = if flow.why == held::WATCHED { 0 } else { flags::MALFORMED };
    told_hello(flow, cid, Hello { answer: answer::NO_NAME, flags, name: Text::EMPTY })
}

fn of(flow: &Flow, cid: &Cid) -> Told {
    Told { why: flow.why, app: flow.app, cid: *cid, event: flow.event, ..nothing() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(why: u32, found: Found) -> Option<(u32, u32, u32)> {
        let flow = Flow { event: FlowEvent::default(), app: 1, why };
        let told = what_to_tell(&flow, &Cid::default(), found)?;
        Some((told.kind, told.answer, told.flags))
    }

    #[test]
    fn what_is_told_of_a_datagram() {
        let hello = Hello { answer: answer::NAME, flags: flags::TLS, name: Text::EMPTY };
        let shown = Some((told::HELLO, answer::NAME, flags::TLS));
        let malformed = Some((told::HELLO, answer::NO_NAME, flags::MALFORMED));
        let verified = Some((told::VERIFIED, 0, 0));
        for (found, back, passed, watched) in [
            (Found::Hello(hello), shown, shown, shown),
            (Found::Same(hello), shown, shown, None),
            (Found::More, None, verified, None),
            (Found::NoHello, None, verified, None),
            (Found::Malformed, malformed, malformed, Some((told::HELLO, answer::NO_NAME, 0))),
        ] {
            let all = [held::BACK, held::PASSED, held::WATCHED].map(|why| told(why, found));
            assert_eq!(all, [back, passed, watched], "{found:?}");
        }
    }

    #[test]
    fn flows_are_told_apart_by_socket_and_destination() {
        let flow = |cookie, dst_port| Flow {
            event: FlowEvent { cookie, dst_port, ..FlowEvent::default() },
            app: 0,
            why: 0,
        };
        assert_eq!(flow(1, 443), Flow { app: 2, why: 1, ..flow(1, 443) });
        assert_ne!(flow(1, 443), flow(2, 443));
        assert_ne!(flow(1, 443), flow(1, 444));
    }
}
