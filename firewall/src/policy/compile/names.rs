//! Which rules match by name: from the entries of rules and lists to name classes.
//!
//! An entry stands at a suffix. What holds for a name is said by the entries at all of its suffixes;
//! so each suffix takes over what the next shorter one that has an entry says of the names below
//! it, and the longest one answers. There can be a million entries: they are hashed as they are
//! read, sorted by hash, and nothing is allocated for one of them.

use std::{collections::HashMap, ops::Range, sync::Arc};

use firewall_common::name_table::{Entry, Keys, MAX_CLASSES, MAX_LABELS};

use super::{
    Error, Rules, both,
    table::{self, Table},
};
use crate::policy::{Destinations, Domain, DomainSet, List, domains::Scope};

/// What a rule has to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    /// Index of the rule in [`Rules`].
    pub rule: u32,
    /// Whether the name is one that its `to` means.
    pub to: bool,
    /// Whether its `except` does.
    pub except: bool,
}

/// The names that rules speak of.
pub struct Names {
    /// What is said of the names of each class, by ascending rules; nothing of class 0.
    pub classes: Vec<Vec<Said>>,
    /// The table.
    pub made: Arc<Made>,
}

/// A table of names, and all that it was made of. It does not depend on what rules do with the names, as long as they
/// tell the same names apart: so it can be that of the next generation too.
pub struct Made {
    keys: Keys,
    /// Its first block.
    pub first: usize,
    sources: Vec<Owned>,
    /// The sets of claims that names have.
    states: Vec<Vec<Claim>>,
    /// Their classes.
    of_state: Vec<u32>,
    /// The most labels of an entry.
    pub depth: u32,
    /// The table.
    pub table: Table,
}

/// What [`Entries`] are.
#[derive(PartialEq, Eq)]
enum Owned {
    Domains(Vec<Domain>),
    List { domains: DomainSet, exceptions: DomainSet },
}

impl Names {
    /// With a table from block `first` on: the one that was made before if it is the same.
    pub fn new(
        rules: &Rules<'_>,
        keys: Keys,
        first: usize,
        before: Option<Arc<Made>>,
    ) -> Result<Self, Error> {
        let sources = Sources::new(rules);
        let before = before.filter(|made| made.is_of(&sources, keys));
        let (mut suffixes, states) = match &before {
            Some(made) => (None, made.states.clone()),
            None => {
                let (suffixes, states) = Suffixes::with_states(&sources, keys);
                (Some(suffixes), states)
            }
        };
        let mut classes = Classes { rules, all: vec![Vec::new()], numbers: HashMap::new() };
        classes.numbers.insert(Vec::new(), 0);
        let of_state: Vec<u32> =
            states.iter().map(|state| classes.of(&sources.said(state))).collect();
        if classes.all.len() as u64 > u64::from(MAX_CLASSES) {
            return Err(Error::TooLarge {
                what: format!("{} classes of names", classes.all.len()),
                limit: MAX_CLASSES,
            });
        }
        let Classes { all: classes, .. } = classes;
        if let Some(made) = before
            && made.of_state == of_state
            && made.first == first
        {
            return Ok(Self { classes, made });
        }
        let suffixes = suffixes.take().unwrap_or_else(|| Suffixes::with_states(&sources, keys).0);
        let (entries, depth) = suffixes.entries(&of_state);
        let table = table::table(&entries, first);
        let sources = sources.owned();
        let made = Made { keys, first, sources, states, of_state, depth, table };
        Ok(Self { classes, made: Arc::new(made) })
    }
}

impl Made {
    /// Whether it is a table of the same names, each said by the same source.
    fn is_of(&self, sources: &Sources<'_>, keys: Keys) -> bool {
        let same = |(owned, source): (&Owned, &Source<'_>)| match (owned, &source.names) {
            (Owned::Domains(owned), Entries::Domains(domains)) => owned == domains,
            (Owned::List { domains, exceptions }, Entries::List(list)) => {
                *domains == list.domains && *exceptions == list.exceptions
            }
            _ => false,
        };
        self.keys == keys
            && self.sources.len() == sources.all.len()
            && self.sources.iter().zip(&sources.all).all(same)
    }
}

/// Name classes, numbered from 1; two names of which rules say the same are of one.
struct Classes<'a> {
    rules: &'a Rules<'a>,
    all: Vec<Vec<Said>>,
    numbers: HashMap<Vec<Said>, u32>,
}

impl Classes<'_> {
    /// The class of names of which `said`. What can make no difference is left out.
    fn of(&mut self, said: &[Said]) -> u32 {
        let mut signature = Vec::new();
        for one in said {
            let rule = &self.rules.all[one.rule as usize];
            if one.to || rule.addresses {
                signature.push(*one);
            }
            // Neither an address nor who told of the name changes that this one decides.
            let always = rule.drops() && !rule.excepts_addresses && self.rules.is_final(one.rule);
            if one.to && !one.except && always {
                break;
            }
        }
        if let Some(number) = self.numbers.get(&signature) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.all.push(signature.clone());
        self.numbers.insert(signature, number);
        number
    }
}

/// Some names, and for which rules they stand.
struct Source<'a> {
    names: Entries<'a>,
    /// Index of a rule, and whether they stand in its `except`.
    uses: Vec<(u32, bool)>,
}

enum Entries<'a> {
    Domains(&'a [Domain]),
    List(&'a List),
}

/// Each list once, however many rules it stands in.
struct Sources<'a> {
    all: Vec<Source<'a>>,
}

/// What an entry says: the number of its source, and whether it takes names out of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Claim(u32);

impl Claim {
    const fn new(source: usize, takes_out: bool) -> Self {
        Self((source as u32) << 1 | takes_out as u32)
    }

    const fn source(self) -> usize {
        (self.0 >> 1) as usize
    }

    const fn takes_out(self) -> bool {
        self.0 & 1 != 0
    }
}

impl<'a> Sources<'a> {
    fn new(rules: &Rules<'a>) -> Self {
        let mut all: Vec<Source<'a>> = Vec::new();
        let mut lists: HashMap<*const List, usize> = HashMap::new();
        for (rule, placed) in (0..).zip(&rules.all) {
            let Some(to) = &placed.rule.to else { continue };
            let except = to.except.as_deref().map(|except| (except, true));
            for (Destinations { domains, lists: named, .. }, except) in
                std::iter::once((to, false)).chain(except)
            {
                if !domains.is_empty() {
                    let names = Entries::Domains(domains);
                    all.push(Source { names, uses: vec![(rule, except)] });
                }
                for list in named.iter().filter(|list| !list.domains.is_empty()) {
                    let index = *lists.entry(Arc::as_ptr(list)).or_insert_with(|| {
                        all.push(Source { names: Entries::List(list), uses: Vec::new() });
                        all.len() - 1
                    });
                    all[index].uses.push((rule, except));
                }
            }
        }
        Self { all }
    }

    /// Calls `each` with one part of the entries out of [`PARTS`].
    fn for_each(&self, part: usize, mut each: impl FnMut(Claim, &str, Scope)) {
        let mut set = |claim, set: &DomainSet| {
            let share = share(set.len(), part);
            for (name, scope) in set.iter().skip(share.start).take(share.len()) {
                each(claim, name, scope);
            }
        };
        for (index, source) in self.all.iter().enumerate() {
            if let Entries::List(list) = source.names {
                set(Claim::new(index, false), &list.domains);
                set(Claim::new(index, true), &list.exceptions);
            }
        }
        for (index, source) in self.all.iter().enumerate() {
            if let Entries::Domains(domains) = source.names {
                for Domain { name, scope } in &domains[share(domains.len(), part)] {
                    each(Claim::new(index, false), name, *scope);
                }
            }
        }
    }

    /// How many entries there are.
    fn len(&self) -> usize {
        (0..PARTS).map(|part| self.len_of(part)).sum()
    }

    /// How many there are in a part.
    fn len_of(&self, part: usize) -> usize {
        let of = |source: &Source<'_>| match source.names {
            Entries::Domains(domains) => share(domains.len(), part).len(),
            Entries::List(list) => {
                share(list.domains.len(), part).len() + share(list.exceptions.len(), part).len()
            }
        };
        self.all.iter().map(of).sum()
    }

    /// What there is, to be compared with that of another time.
    fn owned(&self) -> Vec<Owned> {
        let owned = |source: &Source<'_>| match source.names {
            Entries::Domains(domains) => Owned::Domains(domains.to_vec()),
            Entries::List(list) => {
                Owned::List { domains: list.domains.clone(), exceptions: list.exceptions.clone() }
            }
        };
        self.all.iter().map(owned).collect()
    }

    /// What rules say where all of `claims` hold.
    fn said(&self, claims: &[Claim]) -> Vec<Said> {
        let mut said: Vec<Said> = Vec::new();
        for claim in claims {
            if claim.takes_out() || claims.contains(&Claim::new(claim.source(), true)) {
                continue;
            }
            for (rule, except) in &self.all[claim.source()].uses {
                said.push(Said { rule: *rule, to: !except, except: *except });
            }
        }
        said.sort_by_key(|one| one.rule);
        said.dedup_by(|next, one| {
            let same = next.rule == one.rule;
            if same {
                one.to |= next.to;
                one.except |= next.except;
            }
            same
        });
        said
    }
}

/// Sets of claims, numbered; 0 is the empty one.
struct States {
    all: Vec<Vec<Claim>>,
    numbers: HashMap<Vec<Claim>, u32>,
    /// The state of each claim alone, 0 if there is none yet: nearly all there is to look up.
    alone: Vec<u32>,
    with: HashMap<(u32, Claim), u32>,
}

impl States {
    fn new(sources: usize) -> Self {
        Self {
            all: vec![Vec::new()],
            numbers: HashMap::from([(Vec::new(), 0)]),
            alone: vec![0; sources * 2],
            with: HashMap::new(),
        }
    }

    /// A state and one claim more.
    fn with(&mut self, state: u32, claim: Claim) -> u32 {
        if state == 0 && self.alone[claim.0 as usize] != 0 {
            return self.alone[claim.0 as usize];
        }
        if let Some(number) = self.with.get(&(state, claim)) {
            return *number;
        }
        let mut claims = self.all[state as usize].clone();
        if let Err(place) = claims.binary_search(&claim) {
            claims.insert(place, claim);
        }
        let number = *self.numbers.entry(claims).or_insert_with_key(|claims| {
            self.all.push(claims.clone());
            self.all.len() as u32 - 1
        });
        self.with.insert((state, claim), number);
        if state == 0 {
            self.alone[claim.0 as usize] = number;
        }
        number
    }
}

/// An entry as it was read.
#[derive(Clone, Copy)]
struct Raw {
    hash: u64,
    claim: Claim,
    scope: Scope,
    labels: u8,
}

/// A suffix that has an entry.
#[derive(Clone, Copy)]
struct Suffix {
    hash: u64,
    /// The first of its entries; the next suffix's first is behind its last.
    raw: u32,
    /// The next shorter suffix that has an entry, or [`NONE`].
    parent: u32,
    /// States; [`NONE`] before they are found.
    exact: u32,
    below: u32,
}

const NONE: u32 = u32::MAX;

/// In how many parts entries are read at once.
const PARTS: usize = 2;
/// Entries that are worth another thread.
const MANY: usize = 20_000;
/// How many bits [`Suffixes::there`] has for a suffix, as a power of two.
const THERE_BITS: u32 = 4;

/// Which of `len` entries are in a part.
fn share(len: usize, part: usize) -> Range<usize> {
    len * part / PARTS..len * (part + 1) / PARTS
}

/// What `run` makes of each part.
fn in_parts<I: Send, T: Send>(
    entries: usize,
    [first, second]: [I; PARTS],
    run: impl Fn(usize, I) -> T + Sync,
) -> [T; PARTS] {
    both(entries >= MANY, || run(0, first), || run(1, second)).into()
}

struct Suffixes {
    raw: Vec<Raw>,
    /// By hash.
    all: Vec<Suffix>,
    /// Where in `all` the suffixes start whose hash starts with certain bits.
    index: Vec<u32>,
    /// Bits of the hash that are not in the index.
    shift: u32,
    /// A bit for certain bits of the hash: nearly all that is asked for is not there, and this is
    /// small enough to stay in the processor's cache.
    there: Vec<u64>,
    /// Bits of the hash that `there` does not look at.
    there_shift: u32,
}

impl Suffixes {
    /// All of them, and the sets of claims that names have.
    fn with_states(sources: &Sources<'_>, keys: Keys) -> (Self, Vec<Vec<Claim>>) {
        let mut suffixes = Self::new(sources, keys);
        suffixes.find_parents(sources, keys);
        let mut states = States::new(sources.all.len());
        suffixes.resolve(&mut states);
        (suffixes, states.all)
    }

    fn new(sources: &Sources<'_>, keys: Keys) -> Self {
        let nothing = Raw { hash: 0, claim: Claim(0), scope: Scope::Exact, labels: 0 };
        let mut raw = vec![nothing; sources.len()];
        let (first, second) = raw.split_at_mut(sources.len_of(0));
        in_parts(sources.len(), [first, second], |part, raw| {
            let mut free = raw.iter_mut();
            sources.for_each(part, |claim, name, scope| {
                let labels = name.bytes().filter(|byte| *byte == b'.').count() as u8 + 1;
                if let Some(to) = free.next() {
                    *to = Raw { hash: keys.hash(name), claim, scope, labels };
                }
            });
            raw.sort_unstable_by_key(|one| one.hash);
        });
        // Finds the two sorted parts and merges them.
        raw.sort_by_key(|one| one.hash);
        let mut all: Vec<Suffix> = Vec::with_capacity(raw.len());
        for (place, one) in (0..).zip(&raw) {
            if all.last().is_none_or(|last| last.hash != one.hash) {
                let (hash, parent) = (one.hash, NONE);
                all.push(Suffix { hash, raw: place, parent, exact: NONE, below: NONE });
            }
        }
        let bits = all.len().max(2).ilog2();
        let (shift, there_shift) = (u64::BITS - bits, u64::BITS - bits - THERE_BITS);
        let mut index = vec![0; (1 << bits) + 1];
        let mut there = vec![0; (1_usize << (bits + THERE_BITS)).div_ceil(u64::BITS as usize)];
        for suffix in &all {
            index[(suffix.hash >> shift) as usize + 1] += 1;
            let bit = suffix.hash >> there_shift;
            there[(bit / 64) as usize] |= 1u64 << (bit % 64);
        }
        for at in 1..index.len() {
            index[at] += index[at - 1];
        }
        Self { raw, all, index, shift, there, there_shift }
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let bit = hash >> self.there_shift;
        if self.there[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return None;
        }
        let bucket = (hash >> self.shift) as usize;
        let (start, end) = (self.index[bucket] as usize, self.index[bucket + 1] as usize);
        let found = self.all[start..end].iter().position(|suffix| suffix.hash == hash);
        found.map(|place| start + place)
    }

    /// Reads all names once more, for their shorter suffixes.
    fn find_parents(&mut self, sources: &Sources<'_>, keys: Keys) {
        let found = in_parts(sources.len(), [(), ()], |part, ()| {
            let mut found = Vec::new();
            let mut shorter = [0; MAX_LABELS];
            sources.for_each(part, |_, name, _| {
                let mut labels = 0;
                let mut state = keys.seed;
                for byte in name.bytes().rev() {
                    if byte == b'.' && labels < MAX_LABELS {
                        shorter[labels] = keys.finish(state);
                        labels += 1;
                    }
                    state = keys.step(state, byte);
                }
                let parent = shorter[..labels].iter().rev().find_map(|hash| self.find(*hash));
                if let Some(parent) = parent
                    && let Some(own) = self.find(keys.finish(state))
                {
                    found.push((own, parent as u32));
                }
            });
            found
        });
        for (own, parent) in found.into_iter().flatten() {
            self.all[own].parent = parent;
        }
    }

    /// Finds the states of each.
    fn resolve(&mut self, states: &mut States) {
        let mut open = Vec::with_capacity(MAX_LABELS);
        for index in 0..self.all.len() {
            // A parent before its children.
            let mut next = index as u32;
            while next != NONE && self.all[next as usize].below == NONE {
                open.push(next as usize);
                next = self.all[next as usize].parent;
            }
            while let Some(index) = open.pop() {
                let inherited = self.inherited(index);
                let (mut exact, mut below) = (inherited, inherited);
                for Raw { claim, scope, .. } in self.entries_of(index) {
                    if *scope != Scope::Below {
                        exact = states.with(exact, *claim);
                    }
                    if *scope != Scope::Exact {
                        below = states.with(below, *claim);
                    }
                }
                self.all[index] = Suffix { exact, below, ..self.all[index] };
            }
        }
    }

    /// What a shorter suffix says of the names below it.
    fn inherited(&self, index: usize) -> u32 {
        match self.all[index].parent {
            NONE => 0,
            parent => self.all[parent as usize].below,
        }
    }

    fn entries_of(&self, index: usize) -> &[Raw] {
        let end = self.all.get(index + 1).map_or(self.raw.len(), |next| next.raw as usize);
        &self.raw[self.all[index].raw as usize..end]
    }

    /// The entries of the table, and the most labels of one.
    fn entries(self, class_of_state: &[u32]) -> (Vec<(u64, Entry)>, u32) {
        let mut entries = Vec::with_capacity(self.all.len());
        let mut depth = 0;
        let class = |state: u32| class_of_state[state as usize];
        for (index, suffix) in self.all.iter().enumerate() {
            let entry = Entry { exact: class(suffix.exact), below: class(suffix.below) };
            let without = class(self.inherited(index));
            if entry != (Entry { exact: without, below: without }) {
                entries.push((suffix.hash, entry));
                depth = depth.max(self.raw[suffix.raw as usize].labels);
            }
        }
        (entries, depth.into())
    }
}
