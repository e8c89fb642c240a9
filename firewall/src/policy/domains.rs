//! Names in policies: one of them, and large sets of them.
//!
//! A name is in lower case, without the final dot, and in punycode; whoever asks about one brings it
//! in that form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::diagnostic::quoted;

/// Longest name in bytes, without the final dot (RFC 1035, 2.3.4: 255 with lengths and root).
const LONGEST_NAME: usize = 253;
/// Longest label in bytes (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;
/// Most labels of a name: as many as the kernel programs look at.
const MOST_LABELS: usize = 32;

/// Which names an entry means. In the order in which entries of the same name are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The name alone: `=hm.baidu.com`.
    Exact,
    /// All names under it, and not itself: `*.baidu.com`.
    Below,
    /// The name and all names under it: `baidu.com`.
    Tree,
}

impl Scope {
    /// What stands before the name in a policy.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Exact => "=",
            Self::Below => "*.",
            Self::Tree => "",
        }
    }
}

/// One entry of `domains`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// In the form of this module.
    pub name: String,
    /// Which names it means.
    pub scope: Scope,
}

/// What is wrong with an entry of `domains`, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n\nhint: {hint}")]
pub struct DomainError {
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAName {
    /// It is an address.
    Address,
    /// Something stands in it that no name has, or a label is empty.
    Characters,
    /// The name is over 253 bytes or a label over 63.
    Length,
    /// It has more than 32 labels.
    Labels,
}

const FORM: &str = "write `baidu.com` (and all under it), `=hm.baidu.com` (that alone) or `*.baidu.com` (only under it)";

impl Domain {
    /// An entry as it is written in policies: `baidu.com`, `=hm.baidu.com` or `*.baidu.com`, in any
    /// case, with or without the final dot, in Unicode or punycode.
    ///
    /// # Errors
    ///
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let (bare, scope) = match (text.strip_prefix('='), text.strip_prefix("*.")) {
            (Some(bare), _) => (bare, Scope::Exact),
            (None, Some(bare)) => (bare, Scope::Below),
            (None, None) => (text, Scope::Tree),
        };
        let mut name = String::new();
        match normalise(bare, &mut name) {
            Ok(()) => Ok(Self { name, scope }),
            Err(why) => Err(complaint(text, bare, why)),
        }
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.scope {
            Scope::Exact => name == self.name,
            Scope::Below => is_below(name, &self.name),
            Scope::Tree => name == self.name || is_below(name, &self.name),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scope.mark(), self.name)
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

fn complaint(text: &str, bare: &str, why: NotAName) -> DomainError {
    if why == NotAName::Address || bare.parse::<IpAddr>().is_ok() {
        let message = format!("{} is an address", quoted(text));
        return DomainError { message, hint: "it belongs under `networks`".to_owned() };
    }
    // What is left of a URL, an adblock rule or a wildcard when its clothes are taken off. A
    // hint that is followed must not mean more than was written, least of all a top-level domain.
    let core = text.split_once("://").map_or(text, |(_, rest)| rest);
    let core = core.split(['/', ':', '^', '$', '?', '#']).next().unwrap_or_default();
    let core = core.trim_start_matches(['|', '.', '=', ' ']).trim_end_matches(['.', ' ']);
    let name = core.strip_prefix("*.").unwrap_or(core);
    let mark = if text.starts_with('=') && name == core { Scope::Exact.mark() } else { "" };
    let hint = match why {
        NotAName::Length => {
            format!(
                "a name has at most {LONGEST_NAME} bytes, each label between its dots {LONGEST_LABEL}"
            )
        }
        NotAName::Labels => format!("a name has at most {MOST_LABELS} labels"),
        _ if core != text && name.contains('.') && normalise(name, &mut String::new()).is_ok() => {
            format!("did you mean {}? {FORM}", quoted(&format!("{mark}{core}")))
        }
        _ if name.contains('*') => format!("`*` stands only in front, once; {FORM}"),
        _ => FORM.to_owned(),
    };
    DomainError { message: format!("{} is not a domain", quoted(text)), hint }
}

/// Appends `text` to `out` in the form of a name; on an error `out` stays as it was.
pub fn normalise(text: &str, out: &mut String) -> Result<(), NotAName> {
    if text.is_ascii() {
        let name = text.strip_suffix('.').unwrap_or(text);
        check(name)?;
        let start = out.len();
        out.push_str(name);
        out[start..].make_ascii_lowercase();
        return Ok(());
    }
    // Nothing that long has a short form, and mapping it costs.
    if text.len() > 4 * LONGEST_NAME {
        return Err(NotAName::Length);
    }
    let ascii = Uts46::new()
        .to_ascii(text.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
        .map_err(|_| NotAName::Characters)?;
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    check(name)?;
    out.push_str(name);
    Ok(())
}

/// The bytes of labels.
const LABEL: [bool; 256] = {
    let mut label = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        label[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_');
        byte += 1;
    }
    label
};

/// Whether ASCII without its final dot is a name.
fn check(name: &str) -> Result<(), NotAName> {
    if name.len() > LONGEST_NAME {
        return Err(NotAName::Length);
    }
    let (mut labels, mut label) = (1, 0);
    for byte in name.bytes() {
        if LABEL[usize::from(byte)] {
            label += 1;
        } else if byte != b'.' || label == 0 {
            return Err(NotAName::Characters);
        } else if label > LONGEST_LABEL {
            return Err(NotAName::Length);
        } else {
            (labels, label) = (labels + 1, 0);
        }
    }
    match label {
        0 => Err(NotAName::Characters),
        _ if label > LONGEST_LABEL => Err(NotAName::Length),
        _ if labels > MOST_LABELS => Err(NotAName::Labels),
        _ if name.as_bytes().last().is_some_and(u8::is_ascii_digit)
            && name.parse::<Ipv4Addr>().is_ok() =>
        {
            Err(NotAName::Address)
        }
        _ => Ok(()),
    }
}

/// Many entries in little room: for each four bytes and its name. What is cloned has them together.
///
/// Sorted by name, then scope; no entry stands there twice.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DomainSet(Arc<Packed>);

#[derive(PartialEq, Eq, Default)]
struct Packed {
    /// The names one after the other.
    text: Box<str>,
    /// Of each entry: where its name starts, and in the two highest bits its scope. The next one's
    /// start, or the end of the text, is its end.
    entries: Box<[u32]>,
}

const SCOPE_SHIFT: u32 = 30;
const START: u32 = (1 << SCOPE_SHIFT) - 1;

impl DomainSet {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// All entries, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Scope)> + Clone {
        (0..self.0.entries.len()).map(|index| (self.name(index), self.scope(index)))
    }

    /// The most specific entry that means `name`: the one with the most labels, and of several
    /// `=x` before `*.x` before `x`.
    pub fn find(&self, name: &str) -> Option<Domain> {
        let mut suffix = name;
        loop {
            let first = self.first_from(suffix);
            let same = (first..self.len()).take_while(|index| self.name(*index) == suffix);
            for scope in same.map(|index| self.scope(index)) {
                let means = match scope {
                    Scope::Exact => suffix.len() == name.len(),
                    Scope::Below => suffix.len() < name.len(),
                    Scope::Tree => true,
                };
                if means {
                    return Some(Domain { name: suffix.to_owned(), scope });
                }
            }
            suffix = suffix.split_once('.')?.1;
        }
    }

    /// Whether this very entry is in the set.
    pub fn contains(&self, name: &str, scope: Scope) -> bool {
        let first = self.first_from(name);
        let mut same = (first..self.len()).take_while(|index| self.name(*index) == name);
        same.any(|index| self.scope(index) == scope)
    }

    /// The first entry with this name or one behind it.
    fn first_from(&self, name: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle) < name {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    fn name(&self, index: usize) -> &str {
        let start = (self.0.entries[index] & START) as usize;
        let end = self.0.entries.get(index + 1).map_or(self.0.text.len(), |e| (e & START) as usize);
        &self.0.text[start..end]
    }

    fn scope(&self, index: usize) -> Scope {
        match self.0.entries[index] >> SCOPE_SHIFT {
            0 => Scope::Exact,
            1 => Scope::Below,
            _ => Scope::Tree,
        }
    }
}

/// A million names are no help in a message.
impl fmt::Debug for DomainSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainSet({} entries)", self.len())
    }
}

impl FromIterator<Domain> for DomainSet {
    fn from_iter<I: IntoIterator<Item = Domain>>(domains: I) -> Self {
        let mut builder = DomainSetBuilder::default();
        for domain in domains {
            builder.push(&domain);
        }
        builder.finish().0
    }
}

/// Collects a [`DomainSet`].
#[derive(Debug, Default)]
pub struct DomainSetBuilder {
    text: String,
    entries: Vec<Entry>,
}

/// One entry that was collected. In 24 bytes, so that sorting a million stays in the caches.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The first 16 bytes of the name, in numbers that compare as the bytes do. No name holds a
    /// zero, and nearly all names differ in them, so sorting rarely has to look at the rest.
    head: [u64; 2],
    start: u32,
    length: u8,
    scope: Scope,
}

impl Entry {
    fn name<'t>(&self, text: &'t str) -> &'t str {
        &text[self.start as usize..self.start as usize + usize::from(self.length)]
    }
}

impl DomainSetBuilder {
    /// Adds an entry.
    ///
    /// # Panics
    ///
    /// When all names together reach 1 GiB.
    pub fn push(&mut self, domain: &Domain) {
        let start = self.text.len();
        self.text.push_str(&domain.name);
        self.entry(start, domain.scope);
    }

    /// Adds a name that is not in its form yet.
    ///
    /// # Errors
    ///
    /// When it is no name; nothing is added then.
    ///
    /// # Panics
    ///
    /// As [`Self::push`].
    pub fn push_text(&mut self, text: &str, scope: Scope) -> Result<(), NotAName> {
        let start = self.text.len();
        normalise(text, &mut self.text)?;
        self.entry(start, scope);
        Ok(())
    }

    fn entry(&mut self, start: usize, scope: Scope) {
        assert!(self.text.len() < START as usize, "names of a list reach 1 GiB");
        let name = &self.text.as_bytes()[start..];
        debug_assert!((1..=LONGEST_NAME).contains(&name.len()));
        let mut first = [0; 16];
        let length = name.len().min(16);
        first[..length].copy_from_slice(&name[..length]);
        let number = u128::from_be_bytes(first);
        self.entries.push(Entry {
            head: [(number >> 64) as u64, number as u64],
            start: start as u32,
            length: name.len() as u8,
            scope,
        });
    }

    /// The set, and how many entries stood there more than once.
    pub fn finish(self) -> (DomainSet, usize) {
        let Self { text, mut entries } = self;
        let before = entries.len();
        entries.sort_unstable_by(|a, b| {
            a.head
                .cmp(&b.head)
                .then_with(|| a.name(&text).cmp(b.name(&text)))
                .then_with(|| a.scope.cmp(&b.scope))
        });
        entries.dedup_by(|b, a| {
            a.head == b.head && a.scope == b.scope && a.name(&text) == b.name(&text)
        });
        let length = entries.iter().map(|entry| usize::from(entry.length)).sum();
        let mut sorted = String::with_capacity(length);
        let mut packed = Vec::with_capacity(entries.len());
        for entry in &entries {
            let scope = match entry.scope {
                Scope::Exact => 0,
                Scope::Below => 1,
                Scope::Tree => 2,
            };
            packed.push(sorted.len() as u32 | scope << SCOPE_SHIFT);
            sorted.push_str(entry.name(&text));
        }
        let set = DomainSet(Arc::new(Packed { text: sorted.into(), entries: packed.into() }));
        (set, before - entries.len())
    }
}

#[cfg(test)]
#[path = "domains_tests.rs"]
mod tests;
