//! `hosts`: an address and the names that it is to have (hosts(5)).

use std::net::IpAddr;

use super::collect::{Collector, is_sink, without_comment};
use super::report::Reason;
use crate::policy::Scope;

const LOCAL: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",
];

/// Each name alone is meant, as the file's own readers take it; `*.x` is x and all under it.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.each_line(text, |out, line| match without_comment(line) {
        "" => out.comment(),
        entry if !entries(entry, out) => out.skip(Reason::Malformed),
        _ => {}
    });
}

/// Takes the names of a line; whether it begins with an address.
pub fn entries(line: &str, out: &mut Collector<'_>) -> bool {
    let mut words = line.split_ascii_whitespace();
    let Some(address) = words.next().and_then(address) else { return false };
    for name in words {
        if LOCAL.iter().any(|local| local.eq_ignore_ascii_case(name)) {
            out.skip(Reason::LocalName);
        } else if !is_sink(address) {
            out.skip(Reason::Redirect);
        } else if let Some(name) = name.strip_prefix("*.") {
            out.domain(name, Scope::Tree);
        } else {
            out.domain(name, Scope::Exact);
        }
    }
    true
}

/// An address, perhaps with a zone: `fe80::1%lo0`.
pub fn address(word: &str) -> Option<IpAddr> {
    word.split_once('%').map_or(word, |(address, _)| address).parse().ok()
}
