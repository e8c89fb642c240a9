//! `rpz`: response policy zones, as text (draft-vixie-dnsop-dns-rpz; RFC 1035, 5.1).

use std::net::{IpAddr, Ipv6Addr};

use super::collect::{Collector, is_sink};
use super::report::Reason;
use crate::policy::Scope;

/// `x` is that name alone and `*.x` all under it. `rpz-passthru.` is an exception. An answer's
/// addresses (`rpz-ip`) are networks.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.nearest_decides();
    let mut zone = Zone { origin: None, owner: "", depth: 0 };
    out.each_line(text, |out, line| zone.line(line, out));
}

struct Zone<'t> {
    /// What relative names are below; the root is empty.
    origin: Option<&'t str>,
    /// Of the record before, for lines that begin with white space.
    owner: &'t str,
    /// Parentheses that are open.
    depth: usize,
}

impl<'t> Zone<'t> {
    fn line(&mut self, line: &'t str, out: &mut Collector<'t>) {
        let record = line.split(';').next().unwrap_or_default();
        let inside = self.depth > 0;
        for byte in record.bytes() {
            match byte {
                b'(' => self.depth += 1,
                b')' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        // Only the zone's own records (SOA) go over several lines.
        if inside || record.trim_ascii().is_empty() {
            return out.comment();
        }
        let mut words = record.split_ascii_whitespace();
        if !record.starts_with([' ', '\t']) {
            self.owner = words.next().unwrap_or_default();
        }
        if self.owner.starts_with('$') {
            return self.directive(words.next(), out);
        }
        let mut words = words.skip_while(|word| {
            word.eq_ignore_ascii_case("IN") || word.starts_with(|c: char| c.is_ascii_digit())
        });
        let Some(kind) = words.next() else { return out.skip(Reason::Malformed) };
        let data = words.next().unwrap_or_default();
        match kind.to_ascii_uppercase().as_str() {
            "SOA" => {
                if let (None, Some(origin)) = (self.origin, self.owner.strip_suffix('.')) {
                    self.origin = Some(origin);
                }
                out.comment();
            }
            "NS" => out.comment(),
            "CNAME" => match data.to_ascii_lowercase().as_str() {
                "." | "*." | "rpz-drop." => self.take(false, out),
                "rpz-passthru." => self.take(true, out),
                "" => out.skip(Reason::Malformed),
                _ => out.skip(Reason::Redirect),
            },
            "A" | "AAAA" => match data.parse::<IpAddr>() {
                Ok(address) if is_sink(address) => self.take(false, out),
                Ok(_) => out.skip(Reason::Redirect),
                Err(_) => out.skip(Reason::Malformed),
            },
            _ => out.skip(Reason::Setting),
        }
    }

    fn directive(&mut self, value: Option<&'t str>, out: &mut Collector<'t>) {
        match (self.owner.to_ascii_uppercase().as_str(), value) {
            ("$ORIGIN", Some(origin)) => {
                self.origin = Some(origin.strip_suffix('.').unwrap_or(origin));
                out.comment();
            }
            ("$TTL", Some(_)) => out.comment(),
            ("$INCLUDE", _) => out.skip(Reason::Include),
            _ => out.skip(Reason::Malformed),
        }
    }

    fn take(&self, exception: bool, out: &mut Collector<'t>) {
        let Some(trigger) = self.trigger() else { return out.skip(Reason::Malformed) };
        if let Some(address) = suffix(trigger, ".rpz-ip") {
            return match (network(address), exception) {
                (Some(network), false) => out.network(&network),
                (Some(_), true) => out.skip(Reason::Allow),
                (None, _) => out.skip(Reason::Malformed),
            };
        }
        if [".rpz-client-ip", ".rpz-nsip", ".rpz-nsdname"]
            .iter()
            .any(|s| suffix(trigger, s).is_some())
        {
            return out.skip(Reason::Setting);
        }
        let (name, scope) = match trigger.strip_prefix("*.") {
            Some(name) => (name, Scope::Below),
            None => (trigger, Scope::Exact),
        };
        match exception {
            _ if name.contains('*') => out.skip(Reason::Pattern),
            true => out.exception(name, scope),
            false => out.domain(name, scope),
        }
    }

    /// The owner without the zone's own name; none if it is outside of the zone, or of an absolute
    /// name nothing tells the zone.
    fn trigger(&self) -> Option<&'t str> {
        let Some(absolute) = self.owner.strip_suffix('.') else { return Some(self.owner) };
        match self.origin? {
            "" => Some(absolute),
            origin => suffix(absolute, origin)?.strip_suffix('.'),
        }
    }
}

/// The text before `suffix`, whatever the case.
fn suffix<'t>(text: &'t str, suffix: &str) -> Option<&'t str> {
    let at = text.len().checked_sub(suffix.len())?;
    let tail = text.get(at..)?;
    tail.eq_ignore_ascii_case(suffix).then(|| &text[..at])
}

/// `24.0.2.0.192` is `192.0.2.0/24`, `32.zz.db8.2001` is `2001:db8::/32`.
fn network(text: &str) -> Option<String> {
    let mut parts = text.rsplit('.').collect::<Vec<_>>();
    let prefix = parts.pop()?;
    if parts.len() == 4 && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit())) {
        return Some(format!("{}/{prefix}", parts.join(".")));
    }
    let zeros = parts.iter().position(|part| part.eq_ignore_ascii_case("zz"));
    let words: Vec<u16> = parts
        .iter()
        .filter(|part| !part.eq_ignore_ascii_case("zz"))
        .map(|part| u16::from_str_radix(part, 16).ok())
        .collect::<Option<_>>()?;
    let mut all = [0; 8];
    match zeros {
        None if words.len() == 8 => all.copy_from_slice(&words),
        Some(at) if words.len() < 8 && words.len() + 1 == parts.len() => {
            let behind = words.len() - at;
            all[..at].copy_from_slice(&words[..at]);
            all[8 - behind..].copy_from_slice(&words[at..]);
        }
        _ => return None,
    }
    Some(format!("{}/{prefix}", Ipv6Addr::from(all)))
}
