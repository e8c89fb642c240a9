//! Rules of OpenSnitch: a JSON file each.

use serde::Deserialize;

use super::super::collect::networks;
use super::super::report::Reason;
use super::{Draft, Imported, Rule, port_range, ports};
use crate::policy::{Action, Domain, Scope};

#[derive(Deserialize)]
struct OsRule {
    name: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    precedence: bool,
    action: String,
    #[serde(default)]
    duration: String,
    operator: Operator,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Operator {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    operand: String,
    #[serde(default)]
    data: String,
    /// The parts of a `list`, all of which must hold.
    #[serde(default)]
    list: Option<Vec<Operator>>,
}

/// What the parts of an operator ask for, all of it together.
#[derive(Default)]
struct Conditions {
    domains: Option<Vec<Domain>>,
    networks: Option<Vec<ipnet::IpNet>>,
    ranges: Option<Vec<String>>,
    protocol: Option<&'static str>,
    apps: Vec<String>,
}

/// A policy from rules of OpenSnitch, given as the names of files and what stands in them.
///
/// OpenSnitch lets denials decide whatever allows, but for rules with `precedence`; a policy the
/// first that matches. So those with `precedence` come first, then denials, then the rest, each in
/// the order of their names.
pub fn opensnitch(files: &[(String, String)], origin: &str, stem: &str) -> Imported {
    let mut policy = Draft::new(origin, stem, "rules of OpenSnitch");
    let mut rules = Vec::new();
    for (file, text) in files {
        let one_or_more = match text.trim_ascii_start().starts_with('[') {
            true => serde_json::from_str::<Vec<OsRule>>(text),
            false => serde_json::from_str(text).map(|rule| vec![rule]),
        };
        match one_or_more {
            Ok(read) => rules.extend(read),
            Err(error) => policy.leave_out(Reason::Malformed, &format!("{file}: {error}")),
        }
    }
    rules.sort_by(|a, b| {
        let rank = |rule: &OsRule| (!rule.precedence, rule.action == "allow");
        rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
    });
    for rule in rules {
        match draft(&rule) {
            Ok(draft) => policy.rule(&draft),
            Err(reason) => policy.leave_out(reason, &rule.name),
        }
    }
    policy.finish(None)
}

fn draft(rule: &OsRule) -> Result<Rule, Reason> {
    let action = match rule.action.as_str() {
        _ if !rule.enabled || rule.duration == "once" => return Err(Reason::Off),
        "allow" => Action::Allow,
        "deny" | "reject" => Action::Drop,
        _ => return Err(Reason::Malformed),
    };
    let mut all = Conditions::default();
    all.take(&rule.operator, 0)?;
    let Conditions { domains, networks, ranges, protocol, apps } = all;
    if domains.is_some() && networks.is_some() {
        return Err(Reason::Combination);
    }
    let ranges = ranges.unwrap_or_default();
    let protocols: Vec<&str> = protocol.into_iter().collect();
    Ok(Rule {
        name: rule.name.clone(),
        action,
        domains: domains.unwrap_or_default(),
        networks: networks.unwrap_or_default(),
        ports: ports(&protocols, &ranges),
        apps,
    })
}

impl Conditions {
    fn take(&mut self, operator: &Operator, depth: usize) -> Result<(), Reason> {
        let Operator { kind, operand, data, list } = operator;
        if kind == "list" {
            let parts = list.as_deref().filter(|parts| !parts.is_empty() && depth < 4);
            let parts = parts.ok_or(Reason::Malformed)?;
            return parts.iter().try_for_each(|part| self.take(part, depth + 1));
        }
        match (kind.as_str(), operand.as_str()) {
            (_, "true") => Ok(()),
            ("lists", _) => Err(Reason::Include),
            ("simple", "dest.host") => {
                let domain = Domain::parse(data).ok().filter(|domain| domain.scope == Scope::Tree);
                let domain = Domain { scope: Scope::Exact, ..domain.ok_or(Reason::Malformed)? };
                once(&mut self.domains, vec![domain])
            }
            ("regexp", "dest.host") => {
                once(&mut self.domains, vec![tree(data).ok_or(Reason::Regexp)?])
            }
            ("simple", "dest.ip") | ("network" | "simple", "dest.network") => {
                // Names of networks, as `LAN`, stand for what is in a file of OpenSnitch.
                let alias = !data.contains(['.', ':']);
                let nets =
                    networks(data).map_err(|why| if alias { Reason::Include } else { why })?;
                once(&mut self.networks, nets)
            }
            ("simple" | "range", "dest.port") => {
                once(&mut self.ranges, vec![port_range(data).ok_or(Reason::Malformed)?])
            }
            ("regexp", "dest.port") => {
                once(&mut self.ranges, alternatives(data).ok_or(Reason::Regexp)?)
            }
            ("simple", "protocol") => {
                let protocol = match data.to_ascii_lowercase().as_str() {
                    "tcp" | "tcp6" => "tcp",
                    "udp" | "udp6" => "udp",
                    "udplite" | "udplite6" => "udplite",
                    "sctp" | "sctp6" => "sctp",
                    _ => return Err(Reason::Port),
                };
                match self.protocol.replace(protocol) {
                    None => Ok(()),
                    Some(_) => Err(Reason::Combination),
                }
            }
            ("simple", "process.path") => {
                self.apps.push(format!("exe:{data}"));
                Ok(())
            }
            ("simple", "user.id" | "user.name") => {
                self.apps.push(format!("user:{data}"));
                Ok(())
            }
            (_, operand) if operand.starts_with("process.") || operand.starts_with("user.") => {
                Err(Reason::App)
            }
            ("regexp", _) => Err(Reason::Regexp),
            _ => Err(Reason::Setting),
        }
    }
}

/// Two conditions about the same are one too many for a rule.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Reason> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reason::Combination),
    }
}

/// What `^(.*\.)?x\.y$` and its like mean: a name, with or without all under it.
fn tree(regexp: &str) -> Option<Domain> {
    let body = regexp.strip_prefix('^')?.strip_suffix('$')?;
    let trees = [r"(.*\.)?", r"(|.*\.)", r"(.+\.)?", r"(?:.*\.)?", r"([^.]+\.)*"];
    let below = [r".*\.", r".+\."];
    let strip = |all: &[&str]| all.iter().find_map(|prefix| body.strip_prefix(prefix));
    let (name, scope) = match (strip(&trees), strip(&below)) {
        (Some(name), _) => (name, Scope::Tree),
        (None, Some(name)) => (name, Scope::Below),
        (None, None) => (body, Scope::Exact),
    };
    let plain = name.replace(r"\.", "/");
    // A dot that stands alone means any character; everything else that is no letter means more.
    if plain.contains('.') {
        return None;
    }
    let domain = Domain::parse(&plain.replace('/', ".")).ok()?;
    (domain.scope == Scope::Tree).then_some(Domain { scope, ..domain })
}

/// The numbers of `^(53|80|443)$`.
fn alternatives(regexp: &str) -> Option<Vec<String>> {
    let body = regexp.strip_prefix('^')?.strip_suffix('$')?;
    let body = body.strip_prefix('(').and_then(|b| b.strip_suffix(')')).unwrap_or(body);
    body.split('|').map(|number| number.parse::<u16>().ok().map(|n| n.to_string())).collect()
}
