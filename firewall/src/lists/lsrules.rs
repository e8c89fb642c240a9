//! `lsrules`: rule groups of Little Snitch, in JSON.
//!
//! As a list, what every app is denied on every port: `denied-remote-domains` (with all under them),
//! `denied-remote-hosts` (alone), `denied-remote-addresses`, and rules that say the same.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use super::collect::Collector;
use super::report::Reason;
use crate::policy::Scope;

/// One of `rules`. What a rule has beyond these keys does not narrow it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LsRule {
    /// `allow`, `deny` or `ask`; `allow` if left out.
    pub action: Option<String>,
    /// `any`, or the path of an executable.
    pub process: Option<String>,
    /// The process that it runs for.
    pub via: Option<String>,
    /// One or several, with all names under them.
    pub remote_domains: Texts,
    /// One or several, each alone.
    pub remote_hosts: Texts,
    /// Addresses, CIDRs and ranges, with commas between.
    pub remote_addresses: Texts,
    /// `any`, `local-net`, …
    pub remote: Option<String>,
    /// `443`, `8000-8999`, `any`, with commas between.
    pub ports: Option<String>,
    /// `tcp`, `udp`, `any`, …
    pub protocol: Option<String>,
    /// `outgoing` or `incoming`; outgoing if left out.
    pub direction: Option<String>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// What it is for.
    pub notes: Option<String>,
}

/// One text, or several.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// None.
    #[default]
    None,
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Texts {
    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let all = match self {
            Self::None => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts.as_slice(),
        };
        all.iter().map(String::as_str)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl LsRule {
    /// Whether a key stands for no limit.
    pub fn is_any(value: Option<&String>) -> bool {
        value.is_none_or(|value| value == "any")
    }
}

/// A file, its parts as they stand there.
#[derive(Default)]
pub struct File<'t> {
    /// What is denied: the kind of entry and each one's place.
    pub denied: Vec<(Kind, &'t RawValue)>,
    /// The rules.
    pub rules: Vec<&'t RawValue>,
    /// Keys that mean nothing here, with their values.
    pub unknown: Vec<&'t RawValue>,
}

/// What an entry of `denied-…` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name and all under it.
    Domain,
    /// A name alone.
    Host,
    /// An address, a CIDR or a range.
    Address,
}

impl<'t> File<'t> {
    /// Takes a file apart.
    pub fn read(text: &'t str) -> Result<Self, Error> {
        let json = |error: &serde_json::Error, base: usize| Error::Json {
            line: base + error.line().max(1),
            message: plain(error),
        };
        let keys: Keys<'t> = serde_json::from_str(text).map_err(|error| json(&error, 0))?;
        let mut file = File::default();
        for (key, value) in keys.0 {
            let within =
                |error: serde_json::Error| json(&error, Lines::new(text).of(value.get()) - 1);
            let kind = match key.as_ref() {
                "denied-remote-domains" => Some(Kind::Domain),
                "denied-remote-hosts" => Some(Kind::Host),
                "denied-remote-addresses" => Some(Kind::Address),
                _ => None,
            };
            match (kind, key.as_ref()) {
                (Some(kind), _) => {
                    let entries: Vec<&'t RawValue> =
                        serde_json::from_str(value.get()).map_err(within)?;
                    file.denied.extend(entries.into_iter().map(|entry| (kind, entry)));
                }
                (None, "rules") => {
                    let rules: Vec<&'t RawValue> =
                        serde_json::from_str(value.get()).map_err(within)?;
                    file.rules.extend(rules);
                }
                (None, "name" | "description" | "denied-remote-notes" | "priority") => {}
                (None, _) => file.unknown.push(value),
            }
        }
        Ok(file)
    }
}

/// The keys of the outermost object in their order; one may stand there twice.
struct Keys<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Keys<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Keys<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    keys.push((key.0, map.next_value()?));
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A string, borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

/// What the parser says, without the place that it adds.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |at| text[..at].to_owned())
}

/// Reads a file as a list.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) -> Result<(), Error> {
    out.count_lines(text);
    let File { denied, rules, unknown } = File::read(text)?;
    take_denied(text, denied, out);
    let mut lines = Lines::new(text);
    for raw in rules {
        out.at(lines.of(raw.get()), raw.get());
        match serde_json::from_str::<LsRule>(raw.get()) {
            Ok(rule) => take(&rule, out),
            Err(_) => out.skip(Reason::Malformed),
        }
    }
    for value in unknown {
        out.at(lines.of(value.get()), value.get());
        out.skip(Reason::Setting);
    }
    Ok(())
}

/// Takes what `denied-…` name.
pub fn take_denied<'t>(text: &'t str, denied: Vec<(Kind, &'t RawValue)>, out: &mut Collector<'t>) {
    let mut lines = Lines::new(text);
    for (kind, entry) in denied {
        out.at(lines.of(entry.get()), entry.get());
        match (serde_json::from_str::<Text<'_>>(entry.get()), kind) {
            (Ok(Text(name)), Kind::Domain) => out.domain(&name, Scope::Tree),
            (Ok(Text(name)), Kind::Host) => out.domain_or_address(&name, Scope::Exact),
            (Ok(Text(network)), Kind::Address) => out.network(&network),
            (Err(_), _) => out.skip(Reason::Malformed),
        }
    }
}

fn take(rule: &LsRule, out: &mut Collector<'_>) {
    if let Some(reason) = unfit(rule) {
        return out.skip(reason);
    }
    for name in rule.remote_domains.iter() {
        out.domain(name, Scope::Tree);
    }
    for name in rule.remote_hosts.iter() {
        out.domain_or_address(name, Scope::Exact);
    }
    for network in rule.remote_addresses.iter().flat_map(|all| all.split(',')) {
        out.network(network.trim_ascii());
    }
}

/// Why a rule is not an entry of a list.
fn unfit(rule: &LsRule) -> Option<Reason> {
    let named = !(rule.remote_domains.is_empty()
        && rule.remote_hosts.is_empty()
        && rule.remote_addresses.is_empty());
    match rule.action.as_deref() {
        _ if rule.disabled => Some(Reason::Off),
        None | Some("allow" | "ask") => Some(Reason::Allow),
        Some("deny") if !LsRule::is_any(rule.process.as_ref()) || rule.via.is_some() => {
            Some(Reason::App)
        }
        Some("deny")
            if !LsRule::is_any(rule.ports.as_ref())
                || !LsRule::is_any(rule.protocol.as_ref())
                || rule.direction.as_deref().is_some_and(|d| d != "outgoing" && d != "both") =>
        {
            Some(Reason::Port)
        }
        Some("deny") if !named => Some(Reason::Pattern),
        Some("deny") => None,
        Some(_) => Some(Reason::Malformed),
    }
}

/// Line numbers of parts of a text that come in their order, without a walk from the start for each.
pub struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
}

impl<'t> Lines<'t> {
    /// Of parts of `text`.
    pub const fn new(text: &'t str) -> Self {
        Self { text, offset: 0, line: 1 }
    }

    /// The line on which a part begins, from 1.
    pub fn of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        if offset < self.offset {
            (self.offset, self.line) = (0, 1);
        }
        let between = self.text.as_bytes().get(self.offset..offset).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}
