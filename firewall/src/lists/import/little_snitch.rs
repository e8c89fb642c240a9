//! Rule groups of Little Snitch.

use super::super::collect::{Collector, networks};
use super::super::lsrules::{File, Lines, LsRule, take_denied};
use super::super::{Error, Format, Reason};
use super::{Draft, Imported, Rule, port_range, ports};
use crate::policy::{Action, Domain, Scope};

/// A rule group: what it denies becomes a list, its rules become rules.
///
/// Little Snitch lets the most specific rule decide, a policy the first: so rules about hosts and
/// addresses come first, then those about domains, then the rest, and denials before what they equal.
pub fn import(text: &str, origin: &str, stem: &str) -> Result<Imported, Error> {
    let File { denied, rules, unknown } = File::read(text)?;
    let mut collector = Collector::new();
    collector.count_lines(text);
    take_denied(text, denied, &mut collector);
    let mut lines = Lines::new(text);
    for value in unknown {
        collector.at(lines.of(value.get()), value.get());
        collector.skip(Reason::Setting);
    }
    let parsed = collector.finish(Format::Lsrules);
    let mut policy = Draft::new(origin, stem, "rules of Little Snitch");
    let mut drafts = Vec::new();
    for raw in rules {
        let line = lines.of(raw.get());
        let Ok(rule) = serde_json::from_str::<LsRule>(raw.get()) else {
            policy.leave_out(Reason::Malformed, &format!("line {line}"));
            continue;
        };
        match draft(&rule, line) {
            Ok(draft) => drafts.push(draft),
            Err(reason) => policy.leave_out(reason, &format!("line {line}")),
        }
    }
    drafts.sort_by_key(|(rank, rule)| (*rank, rule.action != Action::Drop));
    let hosts = drafts.partition_point(|(rank, _)| *rank == Rank::Host);
    for (_, rule) in &drafts[..hosts] {
        policy.rule(rule);
    }
    policy.list(&parsed);
    for (_, rule) in &drafts[hosts..] {
        policy.rule(rule);
    }
    Ok(policy.finish(Some(parsed.report)))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Host,
    Domain,
    Rest,
}

fn draft(rule: &LsRule, line: usize) -> Result<(Rank, Rule), Reason> {
    let action = match rule.action.as_deref() {
        _ if rule.disabled => return Err(Reason::Off),
        Some("deny") => Action::Drop,
        Some("allow") | None => Action::Allow,
        Some("ask") => return Err(Reason::Setting),
        Some(_) => return Err(Reason::Malformed),
    };
    match rule.direction.as_deref() {
        None | Some("outgoing" | "both") => {}
        Some(_) => return Err(Reason::Port),
    }
    let mut domains = Vec::new();
    for (names, scope) in [(&rule.remote_domains, Scope::Tree), (&rule.remote_hosts, Scope::Exact)]
    {
        for name in names.iter() {
            let domain = Domain::parse(name).ok().filter(|domain| domain.scope == Scope::Tree);
            domains.push(Domain { scope, ..domain.ok_or(Reason::Malformed)? });
        }
    }
    let mut nets = Vec::new();
    for text in rule.remote_addresses.iter().flat_map(|all| all.split(',')) {
        nets.extend(networks(text.trim())?);
    }
    match rule.remote.as_deref() {
        None | Some("any") => {}
        Some(_) => return Err(Reason::Pattern),
    }
    let rank = match (rule.remote_hosts.is_empty() && nets.is_empty(), domains.is_empty()) {
        (false, _) => Rank::Host,
        (true, false) => Rank::Domain,
        (true, true) => Rank::Rest,
    };
    let mut ranges = Vec::new();
    let any_port = LsRule::is_any(rule.ports.as_ref());
    for text in rule.ports.iter().filter(|_| !any_port).flat_map(|all| all.split(',')) {
        ranges.push(port_range(text.trim()).ok_or(Reason::Port)?);
    }
    let protocol: &[&str] = match rule.protocol.as_deref() {
        None | Some("any") => &[],
        Some("tcp") => &["tcp"],
        Some("udp") => &["udp"],
        Some("icmp") if ranges.is_empty() => &["icmp"],
        Some("icmpv6") if ranges.is_empty() => &["icmpv6"],
        Some(_) => return Err(Reason::Port),
    };
    let mut apps = Vec::new();
    if !LsRule::is_any(rule.process.as_ref()) {
        apps.extend(rule.process.iter().map(|path| format!("exe:{path}")));
    }
    apps.extend(rule.via.iter().map(|path| format!("exe:{path}")));
    let name = rule.notes.as_deref().and_then(|notes| notes.lines().next()).unwrap_or_default();
    let name = if name.trim().is_empty() { format!("line-{line}") } else { name.to_owned() };
    let ports = ports(protocol, &ranges);
    Ok((rank, Rule { name, action, domains, networks: nets, ports, apps }))
}
