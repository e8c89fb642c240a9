//! What clients of a capture know addresses by, as the kernel programs keep it for apps: a few names
//! for each address, what rules cannot tell apart once, each with its lifetime.
//!
//! A client that knows no name of an address is taken to know what any other client was told: a
//! workstation has several addresses, and a resolver of its own. What a denied question was answered
//! comes last: with the firewall nobody would know it.

use std::{collections::HashMap, sync::Arc};

use firewall_common::{
    answers,
    evaluate::{NAMES, Named},
    flow::Address,
    layout::{Answer, Answers, CHAIN, MAX_WAIT},
    name::Text,
};

use super::answer::Told;
use crate::policy::compile::Generation;

/// Addresses of which a name is known, by client.
const MAX_ANSWERS: usize = 1 << 16;
/// Questions that wait for their answer.
const MAX_PENDING: usize = 1 << 16;

/// A client's question to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Who asks.
    pub client: (Address, u16),
    /// Who is asked.
    pub server: (Address, u16),
    /// As in IP headers.
    pub protocol: u8,
    /// The transaction.
    pub id: u16,
}

/// What became of a question.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// In seconds.
    since: u32,
    trusted: bool,
    denied: bool,
}

/// Who knows a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Client(Address),
    ClientDenied(Address),
    Anybody,
    AnybodyDenied,
}

/// The names of an address.
#[derive(Clone, Debug, Default)]
struct Known {
    answers: Answers,
    /// In its place the name asked for, and what it is an alias of.
    texts: [Arc<[String]>; NAMES],
}

/// Of the names of an address, those that can be meant.
pub struct Meant<'a> {
    known: &'a Known,
    bits: u32,
    /// The client itself asked.
    pub own: bool,
    /// There are more than are kept.
    pub more: bool,
}

/// All that is known of names.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<(Who, Address), Known>,
    pending: HashMap<(Asked, String), Pending>,
    /// When the first question was asked, in nanoseconds of the capture's clock.
    begin: u64,
}

/// A name for people and rules; the root is `.`.
pub fn text(name: &Text) -> String {
    if name.as_bytes().is_empty() { ".".to_owned() } else { name.to_string() }
}

impl Names {
    /// Seconds, as the kernel programs count them: from 1 up to 31 bits. The first question is in the middle, for
    /// packets of a capture need not be in order.
    fn seconds(&self, time: u64) -> u32 {
        const SECOND: u64 = 1_000_000_000;
        const MIDDLE: i64 = 1 << 30;
        let since = (time / SECOND).cast_signed() - (self.begin / SECOND).cast_signed();
        (MIDDLE + since).clamp(1, i32::MAX.into()) as u32
    }

    /// Notes a question: whether there is room for it.
    pub fn ask(
        &mut self,
        asked: Asked,
        name: &Text,
        time: u64,
        trusted: bool,
        denied: bool,
    ) -> bool {
        if self.begin == 0 {
            self.begin = time;
        }
        let now = self.seconds(time);
        if self.pending.len() >= MAX_PENDING {
            self.pending.retain(|_, pending| now.abs_diff(pending.since) <= MAX_WAIT);
        }
        let room = self.pending.len() < MAX_PENDING;
        if room {
            self.pending.insert((asked, text(name)), Pending { since: now, trusted, denied });
        }
        room
    }

    /// Takes an answer, if its question waits: whether it does, and how many addresses there was no
    /// room for.
    pub fn answer(
        &mut self,
        generation: &Generation,
        asked: Asked,
        told: &Told,
        time: u64,
    ) -> Option<u64> {
        let now = self.seconds(time);
        let Pending { since, trusted, denied } = self.pending.remove(&(asked, text(&told.name)))?;
        if now.abs_diff(since) > MAX_WAIT {
            return None;
        }
        let (name, class) = generation.hash_and_class(&told.name);
        let mut named = Named { classes: [class, 0, 0, 0], trusted: u32::from(trusted) };
        let mut more = false;
        for (alias, resolved) in &told.aliases {
            let trusted = u32::from(trusted && *resolved);
            more |= !named.add_alias(generation.hash_and_class(alias).1, trusted);
        }
        let all = std::iter::once(&told.name).chain(told.aliases.iter().map(|(alias, _)| alias));
        let names: Arc<[String]> = all.take(1 + CHAIN).map(text).collect();
        let (client, anybody) = match denied {
            false => (Who::Client(asked.client.0), Who::Anybody),
            true => (Who::ClientDenied(asked.client.0), Who::AnybodyDenied),
        };
        let mut lost = 0;
        for (address, lifetime) in &told.addresses {
            let until = now + answers::lifetime(*lifetime);
            let answer = Answer { name, named, until };
            for who in [client, anybody] {
                let known = self.room((who, *address), now);
                lost += u64::from(known.is_none());
                if let Some(Known { answers, texts }) = known {
                    texts[answers.keep(&answer, more, now)] = Arc::clone(&names);
                }
            }
        }
        Some(lost)
    }

    /// The names that a client knows an address by, those that hold; of these only the ones that can
    /// be meant by a name that the payload shows.
    pub fn of(
        &self,
        client: Address,
        address: Address,
        time: u64,
        shown: Option<(u64, u32)>,
    ) -> Option<Meant<'_>> {
        let now = self.seconds(time);
        let who =
            [Who::Client(client), Who::ClientDenied(client), Who::Anybody, Who::AnybodyDenied];
        let (place, known) = who
            .into_iter()
            .enumerate()
            .filter_map(|(place, who)| Some((place, self.known.get(&(who, address))?)))
            .find(|(_, known)| known.answers.meant(now, None) != 0)?;
        let bits = known.answers.meant(now, shown);
        let more = known.answers.more_until > now;
        (bits != 0).then_some(Meant { known, bits, own: place < 2, more })
    }

    /// Where the names of an address go, if there is room.
    fn room(&mut self, key: (Who, Address), now: u32) -> Option<&mut Known> {
        if self.known.len() >= MAX_ANSWERS && !self.known.contains_key(&key) {
            self.known.retain(|_, known| known.answers.meant(now, None) != 0);
            if self.known.len() >= MAX_ANSWERS {
                return None;
            }
        }
        Some(self.known.entry(key).or_default())
    }
}

impl Meant<'_> {
    /// What rules know of the name in a place, and whether it can be meant.
    pub fn named(&self, place: usize) -> (bool, &Named) {
        (self.bits >> place & 1 != 0, &self.known.answers.names[place].named)
    }

    /// The name in a place, and what it is an alias of.
    pub fn names(&self, place: usize) -> Arc<[String]> {
        self.known.texts.get(place).map(Arc::clone).unwrap_or_default()
    }

    /// Whether more than one name was kept in a place.
    pub fn is_several(&self, place: usize) -> bool {
        self.known.answers.several >> place & 1 != 0
    }
}
