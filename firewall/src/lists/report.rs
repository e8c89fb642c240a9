//! What became of each line of a list.

use serde::{Deserialize, Serialize};

/// A format of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `/etc/hosts`: an address and the names that it is to have. Each name alone is meant.
    Hosts,
    /// A name a line: it and all names under it.
    Domains,
    /// `*.x`: x and all names under it; `x` is that name alone.
    Wildcard,
    /// Network rules of browser blockers: `||x^` is x and all names under it.
    Adblock,
    /// Settings of dnsmasq: x and all names under it.
    Dnsmasq,
    /// Settings of unbound: a zone is the name and all names under it.
    Unbound,
    /// A response policy zone.
    Rpz,
    /// An address or a network a line.
    Netset,
    /// Rule groups of Little Snitch, in JSON.
    Lsrules,
    /// Sources of v2ray's geosite: `domain:`, `full:`.
    Geosite,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 10] = [
        Self::Hosts,
        Self::Domains,
        Self::Wildcard,
        Self::Adblock,
        Self::Dnsmasq,
        Self::Unbound,
        Self::Rpz,
        Self::Netset,
        Self::Lsrules,
        Self::Geosite,
    ];

    /// The word in policies and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Domains => "domains",
            Self::Wildcard => "wildcard",
            Self::Adblock => "adblock",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
            Self::Rpz => "rpz",
            Self::Netset => "netset",
            Self::Lsrules => "lsrules",
            Self::Geosite => "geosite",
        }
    }

    /// The format of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.word() == word)
    }
}

/// Why something of a list is not used. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is not in the form that its format asks for, or no name, address or network.
    Malformed,
    /// A network has bits behind its prefix.
    BitsBehindPrefix,
    /// The names every machine has for itself, as `localhost`.
    LocalName,
    /// It hides parts of web pages and stops no connection.
    Cosmetic,
    /// It is about paths of URLs, their schemes or ports.
    Path,
    /// A regular expression.
    Regexp,
    /// A pattern that is not a whole name.
    Pattern,
    /// A modifier narrows the rule to what cannot be told here.
    Modifier,
    /// Another rule of the list takes it back.
    Disabled,
    /// An exception that a stronger entry under it contradicts.
    Contradicted,
    /// It sends the name to other addresses or servers, which is no block.
    Redirect,
    /// It is about something else than which destinations are meant.
    Setting,
    /// It asks for another file.
    Include,
    /// It is for particular apps.
    App,
    /// It is for particular ports, protocols or directions.
    Port,
    /// It allows.
    Allow,
    /// It asks for several things of a destination at once.
    Combination,
    /// It is switched off in its source.
    Off,
}

impl Reason {
    /// The word in machine output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BitsBehindPrefix => "bits-behind-prefix",
            Self::LocalName => "local-name",
            Self::Cosmetic => "cosmetic",
            Self::Path => "path",
            Self::Regexp => "regexp",
            Self::Pattern => "pattern",
            Self::Modifier => "modifier",
            Self::Disabled => "disabled",
            Self::Contradicted => "contradicted",
            Self::Redirect => "redirect",
            Self::Setting => "setting",
            Self::Include => "include",
            Self::App => "app",
            Self::Port => "port",
            Self::Allow => "allow",
            Self::Combination => "combination",
            Self::Off => "off",
        }
    }

    /// What it means, for people.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Malformed => "not in the form that should stand there",
            Self::BitsBehindPrefix => "a network with bits behind its prefix",
            Self::LocalName => "a name of the machine itself",
            Self::Cosmetic => "hides parts of pages",
            Self::Path => "about paths, schemes or ports of URLs",
            Self::Regexp => "a regular expression",
            Self::Pattern => "a pattern that is not a whole name",
            Self::Modifier => "a modifier that a firewall cannot judge",
            Self::Disabled => "taken back by another rule of the list",
            Self::Contradicted => "an exception with a stronger entry under it",
            Self::Redirect => "sends the name elsewhere, which is no block",
            Self::Setting => "a setting that names no destination",
            Self::Include => "asks for another file",
            Self::App => "for particular apps",
            Self::Port => "for particular ports, protocols or directions",
            Self::Allow => "allows",
            Self::Combination => "asks for several things of a destination at once",
            Self::Off => "switched off in its source",
        }
    }
}

/// What became of a list: every line that is not empty is a comment or at least one item, and every
/// item is an entry, a duplicate or skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Given, or found by the content; none for a list that stands in its policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Lines that are not empty.
    pub lines: usize,
    /// Of these, such as hold only comments or what belongs to the form of the file.
    pub comments: usize,
    /// Names, exceptions and networks that are used.
    pub entries: usize,
    /// Such as stood there before.
    pub duplicates: usize,
    /// What is not used, by reason, the most frequent first.
    pub skipped: Vec<Skipped>,
}

/// What is not used for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: usize,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// Where something stands in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// From 1.
    pub line: usize,
    /// What stands there, cut short if it is long.
    pub text: String,
}

impl Report {
    /// Of a list that stands in its policy.
    pub const fn inline(entries: usize) -> Self {
        Self { format: None, lines: 0, comments: 0, entries, duplicates: 0, skipped: Vec::new() }
    }

    /// How many items are not used.
    pub fn skipped(&self) -> usize {
        self.skipped.iter().map(|skipped| skipped.count).sum()
    }
}
