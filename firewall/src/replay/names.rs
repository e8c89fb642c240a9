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
    layout::{CHAIN, MAX_WAIT},
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
    since: u64,
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
pub struct Answers {
    names: [Answer; NAMES],
    /// Until when there were more names than fit, in seconds.
    more_until: u64,
    /// Bits by place: more than one name was kept there.
    several: u32,
}

#[derive(Clone, Debug, Default)]
struct Answer {
    /// The name asked for, and what it is an alias of.
    names: Arc<[String]>,
    named: Named,
    /// In seconds; 0 is an empty place.
    until: u64,
}

/// Of the names of an address, those that can be meant.
pub struct Meant<'a> {
    answers: &'a Answers,
    bits: u32,
    /// The client itself asked.
    pub own: bool,
    /// There are more than are kept.
    pub more: bool,
}

/// All that is known of names.
#[derive(Debug, Default)]
pub struct Names {
    answers: HashMap<(Who, Address), Answers>,
    pending: HashMap<(Asked, String), Pending>,
}

/// Seconds of a capture's clock; never 0.
pub fn seconds(time: u64) -> u64 {
    time / 1_000_000_000 + 1
}

/// A name for people and rules; the root is `.`.
pub fn text(name: &Text) -> String {
    if name.as_bytes().is_empty() { ".".to_owned() } else { name.to_string() }
}

impl Names {
    /// Notes a question: whether there is room for it.
    pub fn ask(
        &mut self,
        asked: Asked,
        name: &Text,
        time: u64,
        trusted: bool,
        denied: bool,
    ) -> bool {
        let now = seconds(time);
        if self.pending.len() >= MAX_PENDING {
            self.pending.retain(|_, pending| now.abs_diff(pending.since) <= u64::from(MAX_WAIT));
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
        let now = seconds(time);
        let Pending { since, trusted, denied } = self.pending.remove(&(asked, text(&told.name)))?;
        if now.abs_diff(since) > u64::from(MAX_WAIT) {
            return None;
        }
        let mut named = Named {
            classes: [generation.class_of_text(&told.name), 0, 0, 0],
            trusted: u32::from(trusted),
        };
        let mut more = false;
        for (alias, resolved) in &told.aliases {
            let trusted = u32::from(trusted && *resolved);
            more |= !named.add_alias(generation.class_of_text(alias), trusted);
        }
        let all = std::iter::once(&told.name).chain(told.aliases.iter().map(|(alias, _)| alias));
        let names: Arc<[String]> = all.take(1 + CHAIN).map(text).collect();
        let (client, anybody) = match denied {
            false => (Who::Client(asked.client.0), Who::Anybody),
            true => (Who::ClientDenied(asked.client.0), Who::AnybodyDenied),
        };
        let mut lost = 0;
        for (address, lifetime) in &told.addresses {
            let until = now + u64::from(answers::lifetime(*lifetime));
            let answer = Answer { names: Arc::clone(&names), named, until };
            for who in [client, anybody] {
                lost += u64::from(!self.keep((who, *address), &answer, more, now));
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
        shown: Option<(&str, u32)>,
    ) -> Option<Meant<'_>> {
        let now = seconds(time);
        let who =
            [Who::Client(client), Who::ClientDenied(client), Who::Anybody, Who::AnybodyDenied];
        let (place, answers) = who
            .into_iter()
            .enumerate()
            .filter_map(|(place, who)| Some((place, self.answers.get(&(who, address))?)))
            .find(|(_, answers)| answers.meant(now, None) != 0)?;
        let bits = answers.meant(now, shown);
        let more = answers.more_until > now;
        (bits != 0).then_some(Meant { answers, bits, own: place < 2, more })
    }

    fn keep(&mut self, key: (Who, Address), answer: &Answer, more: bool, now: u64) -> bool {
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&key) {
            self.answers.retain(|_, answers| answers.names.iter().any(|name| name.until > now));
            if self.answers.len() >= MAX_ANSWERS {
                return false;
            }
        }
        self.answers.entry(key).or_default().keep(answer, more, now);
        true
    }
}

impl Answers {
    /// In its own place, or a free one, or that of the one that ends first.
    fn keep(&mut self, answer: &Answer, more: bool, now: u64) {
        let rank = |one: &Answer| match one {
            one if one.until != 0 && one.named == answer.named => 0,
            one if one.until <= now => 1,
            one => one.until,
        };
        let places = self.names.iter().map(rank).enumerate();
        let Some((place, rank)) = places.min_by_key(|(_, rank)| *rank) else { return };
        // Until what is pushed out would have run out.
        let pushed_out = if rank > 1 { rank } else { 0 };
        let more = if more { answer.until } else { 0 };
        self.more_until = self.more_until.max(more).max(pushed_out);
        let to = &mut self.names[place];
        if rank != 0 {
            self.several &= !(1 << place);
        } else if to.names.first() != answer.names.first() {
            self.several |= 1 << place;
        }
        let until = if rank == 0 { to.until.max(answer.until) } else { answer.until };
        *to = Answer { until, ..answer.clone() };
    }

    /// Bits of the names that hold and can be meant.
    fn meant(&self, now: u64, shown: Option<(&str, u32)>) -> u32 {
        let bits = |fits: &dyn Fn(&Answer) -> bool| {
            let places = self.names.iter().enumerate();
            places.filter(|(_, one)| fits(one)).fold(0, |bits, (place, _)| bits | 1 << place)
        };
        let hold = bits(&|one| one.until > now);
        let Some((name, class)) = shown else { return hold };
        let exact = hold & bits(&|one| one.names.first().is_some_and(|first| first == name));
        if exact != 0 {
            return exact;
        }
        hold & bits(&|one| one.named.classes[0] == class) & self.several
    }
}

impl Meant<'_> {
    /// What rules know of the name in a place, and whether it can be meant.
    pub fn named(&self, place: usize) -> (bool, &Named) {
        (self.bits >> place & 1 != 0, &self.answers.names[place].named)
    }

    /// The name in a place, and what it is an alias of.
    pub fn names(&self, place: usize) -> Arc<[String]> {
        self.answers.names.get(place).map(|one| Arc::clone(&one.names)).unwrap_or_default()
    }

    /// Whether more than one name was kept in a place.
    pub fn is_several(&self, place: usize) -> bool {
        self.answers.several >> place & 1 != 0
    }
}
