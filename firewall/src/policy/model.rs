//! What a policy is once it has been parsed: no spans, no text, nothing left to check.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::domains::{Domain, DomainSet};
use super::selector::Apps;
use crate::{
    intel::country::Country,
    lists::Report,
    remote::{Attempts, Head, Remote},
};

/// A named set of rules and the apps they hold for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Unique over all policies of a set.
    pub name: String,
    /// What it does, what it breaks, and what it cannot see.
    pub description: String,
    /// Whether its drops are carried out.
    pub mode: Mode,
    /// Lower runs first.
    pub priority: u32,
    /// What its apps get when no rule of any policy matched.
    pub default: Option<Default>,
    /// Which apps it holds for.
    pub apps: Apps,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// Whether a policy's drops are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are recorded as they would have happened, and the flow passes.
    Observe,
}

impl Mode {
    /// The word in policies and in machine output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// What a flow gets that no rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// It passes.
    Allow,
    /// It is dropped.
    Drop,
}

impl Default {
    /// The word in policies and in machine output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
        }
    }
}

/// Matchers and one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its policy.
    pub name: String,
    /// What it asks for.
    pub action: Action,
    /// Which destinations it matches; `None` is every destination.
    pub to: Option<Destinations>,
    /// Which protocols and ports it matches; empty is all of them.
    pub ports: Vec<Ports>,
    /// Which apps of its policy's it matches.
    pub apps: Apps,
    /// When it is over; `None` is never.
    pub until: Option<Moment>,
}

impl Rule {
    /// Whether it counts at a moment. Where nobody can tell the moment, what is for a time does not.
    pub fn counts(&self, now: Option<&Moment>) -> bool {
        self.until.as_ref().is_none_or(|until| now.is_some_and(|now| now.is_before(until)))
    }
}

/// A second of one start of the machine, on the clock that goes on while it sleeps and that nobody sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// Which start: what the kernel calls `boot_id`.
    pub boot: String,
    /// Seconds since.
    pub second: u64,
}

impl Moment {
    /// Whether it is of the same start, and earlier.
    pub fn is_before(&self, other: &Self) -> bool {
        self.boot == other.boot && self.second < other.second
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}s", self.boot, self.second)
    }
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Let it pass and record it.
    Log,
    /// Stop it.
    Drop,
}

impl Action {
    /// The word in policies and in machine output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Log => "log",
            Self::Drop => "drop",
        }
    }
}

/// A destination matches if anything here does and nothing in `except` does.
#[derive(Clone, Debug, PartialEq, Eq, std::default::Default)]
pub struct Destinations {
    /// Countries an address is registered in.
    pub jurisdictions: Vec<Country>,
    /// Owners by name, each a set of AS numbers in [`crate::intel::organisations`].
    pub organisations: Vec<String>,
    /// Origin AS numbers.
    pub asns: Vec<u32>,
    /// Address ranges.
    pub networks: Vec<IpNet>,
    /// Names.
    pub domains: Vec<Domain>,
    /// Sets of names and networks. A list that stands in several rules is one and the same.
    pub lists: Vec<Arc<List>>,
    /// Taken out again.
    pub except: Option<Box<Destinations>>,
}

impl Destinations {
    /// Whether names are meant, of its own or of a list.
    pub fn has_names(&self) -> bool {
        !self.domains.is_empty() || self.lists.iter().any(|list| !list.domains.is_empty())
    }
}

/// A named set of names and networks.
///
/// A name is in it if one of `domains` means it and none of `exceptions` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Unique in its policy, and what evidence calls it.
    pub name: String,
    /// Names that are meant.
    pub domains: DomainSet,
    /// Names taken out again: of this list alone.
    pub exceptions: DomainSet,
    /// Address ranges.
    pub networks: Vec<IpNet>,
    /// What became of its lines.
    pub report: Report,
    /// Where it stands.
    pub source: ListSource,
}

/// Where a list stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSource {
    /// In its policy.
    Policy,
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url(Box<RemoteList>),
}

/// A list by URL: what is asked for, and what is known of what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteList {
    /// What is asked for.
    pub remote: Arc<Remote>,
    /// Of the copy that was read, if there ever was one; or why it is not used.
    pub copy: Result<Option<Head>, String>,
    /// What came of fetching it.
    pub attempts: Attempts,
    /// When the copy was last known to be what the server has.
    pub current: Option<Timestamp>,
    /// Whether that is too long ago to rely on it.
    pub stale: bool,
}

impl List {
    /// One that means nothing, in its policy.
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            domains: DomainSet::default(),
            exceptions: DomainSet::default(),
            networks: Vec::new(),
            report: Report::inline(0),
            source: ListSource::Policy,
        }
    }

    /// The most specific entry by which `name` is in the list.
    pub fn find(&self, name: &str) -> Option<Domain> {
        let found = self.domains.find(name)?;
        match self.exceptions.find(name) {
            Some(_) => None,
            None => Some(found),
        }
    }
}

/// One entry of `ports`: a protocol, and of those that have ports, which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// IANA protocol number.
    pub protocol: u8,
    /// `0..=65535` for a protocol without ports.
    pub ports: RangeInclusive<u16>,
}
