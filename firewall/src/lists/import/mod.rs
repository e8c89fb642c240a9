//! Policies from what other programs use: lists in every format, and the rules of two firewalls.
//!
//! Pure: text in, the text of a policy out, with an account of what could not be taken over.

mod little_snitch;
mod opensnitch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use ipnet::IpNet;

use super::report::Reason;
use super::{Error, Format, Parsed, Report};
use crate::policy::diagnostic::printable;
use crate::policy::{Action, Domain, DomainSet};

pub use opensnitch::opensnitch;

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The policy; empty if there is nothing to put into one.
    pub policy: String,
    /// How many rules it has.
    pub rules: usize,
    /// What became of the entries of a list, where there is one.
    pub report: Option<Report>,
    /// The rules that are not in it, or stand there as comments: why, and their names.
    pub left_out: BTreeMap<Reason, Vec<String>>,
}

/// A policy from a list. `origin` is what it says it was made from, `stem` becomes its name.
///
/// # Errors
///
/// As [`super::parse`].
pub fn list(format: Format, text: &str, origin: &str, stem: &str) -> Result<Imported, Error> {
    if format == Format::Lsrules {
        return little_snitch::import(text, origin, stem);
    }
    let parsed = super::parse(Some(format), text)?;
    let mut policy = Draft::new(origin, stem, &format!("a list ({})", format.word()));
    policy.list(&parsed);
    Ok(policy.finish(Some(parsed.report)))
}

/// A rule on its way into a policy.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    action: Action,
    domains: Vec<Domain>,
    networks: Vec<IpNet>,
    /// As they are written in a policy; empty is all.
    ports: Vec<String>,
    /// As they are written in a policy; a rule that has some is put out as a comment.
    apps: Vec<String>,
}

/// A policy on its way to text.
struct Draft {
    stem: String,
    head: String,
    rules: String,
    list: String,
    count: usize,
    names: HashSet<String>,
    left_out: BTreeMap<Reason, Vec<String>>,
}

impl Draft {
    fn new(origin: &str, stem: &str, what: &str) -> Self {
        let stem = name(stem, "imported");
        let origin = printable(origin);
        let head = format!(
            "# Made from {origin} by `firewall import`.\n\n[policy]\nname        = \"{stem}\"\n\
             description = {}\n",
            quoted(&format!("Made from {what}: {origin}"))
        );
        Self {
            stem,
            head,
            rules: String::new(),
            list: String::new(),
            count: 0,
            names: HashSet::new(),
            left_out: BTreeMap::new(),
        }
    }

    fn leave_out(&mut self, reason: Reason, rule: &str) {
        self.left_out.entry(reason).or_default().push(rule.to_owned());
    }

    /// A name that no rule has yet.
    fn unique(&mut self, wanted: &str) -> String {
        let wanted = name(wanted, "rule");
        let mut free = wanted.clone();
        let mut number = 1;
        while !self.names.insert(free.clone()) {
            number += 1;
            // The names of the language have at most 64 characters.
            let end = format!("-{number}");
            free = format!("{}{end}", &wanted[..wanted.len().min(64 - end.len())]);
        }
        free
    }

    /// A list with one rule that drops what stands in it.
    fn list(&mut self, parsed: &Parsed) {
        let Parsed { domains, exceptions, networks, report: _ } = parsed;
        if domains.is_empty() && networks.is_empty() {
            return;
        }
        let stem = self.stem.clone();
        let name = self.unique(&stem);
        let except = match exceptions.is_empty() {
            true => String::new(),
            false => format!(", except = {{ domains = [{}] }}", entries(exceptions).join(", ")),
        };
        self.count += 1;
        self.rules += &format!(
            "\n[[rule]]\nname   = \"{name}\"\naction = \"drop\"\nto     = {{ lists = [\"{stem}\"]{except} }}\n"
        );
        self.list = format!("\n[list.{stem:?}]\n");
        if !domains.is_empty() {
            self.list += "domains = [\n";
            for entry in entries(domains) {
                self.list += &format!("    {entry},\n");
            }
            self.list += "]\n";
        }
        if !networks.is_empty() {
            self.list += "networks = [\n";
            for network in networks {
                self.list += &format!("    \"{network}\",\n");
            }
            self.list += "]\n";
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let Rule { name, action, domains, networks, ports, apps } = rule;
        let unique = self.unique(name);
        let mut to = Vec::new();
        if !domains.is_empty() {
            let domains: Vec<_> = domains.iter().map(|domain| format!("\"{domain}\"")).collect();
            to.push(format!("domains = [{}]", domains.join(", ")));
        }
        if !networks.is_empty() {
            let networks: Vec<_> = networks.iter().map(|net| format!("\"{net}\"")).collect();
            to.push(format!("networks = [{}]", networks.join(", ")));
        }
        if to.is_empty() && ports.is_empty() {
            to.push("networks = [\"0.0.0.0/0\", \"::/0\"]".to_owned());
        }
        let mut text = format!("[[rule]]\nname   = \"{unique}\"\naction = \"{}\"\n", action.word());
        if !to.is_empty() {
            text += &format!("to     = {{ {} }}\n", to.join(", "));
        }
        if !ports.is_empty() {
            let ports: Vec<_> = ports.iter().map(|ports| quoted(ports)).collect();
            text += &format!("ports  = [{}]\n", ports.join(", "));
        }
        let quoted: Vec<_> = apps.iter().map(|app| quoted(app)).collect();
        if !apps.is_empty() {
            text += &format!("apps   = [{}]\n", quoted.join(", "));
        }
        if apps.is_empty() || matches!(&apps[..], [app] if is_selector(app)) {
            self.count += 1;
            self.rules += &format!("\n{text}");
            return;
        }
        let why = match apps.len() {
            1 => "this is no path or user as policies have them",
            _ => "a rule holds for apps that any of these selects, and all were asked for",
        };
        self.rules += &format!("\n# Not enforced: {why}.\n");
        for line in text.lines() {
            // A value with a line break must not end the comment.
            self.rules += &format!("# {}\n", printable(line));
        }
        self.leave_out(Reason::App, name);
    }

    fn finish(self, report: Option<Report>) -> Imported {
        let Self { head, rules, list, count, left_out, .. } = self;
        let policy = if count == 0 { String::new() } else { format!("{head}{rules}{list}") };
        Imported { policy, rules: count, report, left_out }
    }
}

/// Whether a policy can have an app of this form: a whole path, or a user.
fn is_selector(app: &str) -> bool {
    let plain = |text: &str| {
        !text.contains(['*', '?', '[', ']', '{', '}']) && !text.contains(char::is_control)
    };
    match app.split_once(':') {
        Some(("exe", path)) => path.starts_with('/') && !path.ends_with('/') && plain(path),
        Some(("user", user)) => {
            !user.is_empty()
                && user
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

fn entries(set: &DomainSet) -> Vec<String> {
    set.iter().map(|(name, scope)| format!("\"{}{name}\"", scope.mark())).collect()
}

/// A name of the policy language from any text.
fn name(text: &str, otherwise: &str) -> String {
    let tidy: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.') { c } else { '-' })
        .take(64)
        .collect();
    match tidy.trim_matches(['-', '_', '.']) {
        "" => otherwise.to_owned(),
        tidy => tidy.to_owned(),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `ports` of a policy from protocols and port ranges; without a protocol both that have most ports.
fn ports(protocols: &[&str], ranges: &[String]) -> Vec<String> {
    let both: &[&str] = if protocols.is_empty() { &["tcp", "udp"] } else { protocols };
    if ranges.is_empty() {
        return protocols.iter().map(|protocol| (*protocol).to_owned()).collect();
    }
    both.iter().flat_map(|p| ranges.iter().map(move |range| format!("{p}/{range}"))).collect()
}

/// A port or a range of ports as a policy writes it.
fn port_range(text: &str) -> Option<String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
    match first {
        _ if first > last => None,
        _ if first == last => Some(first.to_string()),
        _ => Some(format!("{first}-{last}")),
    }
}
