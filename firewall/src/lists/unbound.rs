//! `unbound`: local zones and local data (unbound.conf(5)).

use std::net::IpAddr;

use super::collect::{Collector, is_sink, without_comment};
use super::report::Reason;
use crate::policy::Scope;

/// A zone is its name and all under it, and the longest one that fits decides; data is of its name
/// alone.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.nearest_decides();
    out.each_line(text, |out, line| {
        let setting = without_comment(line);
        if setting.is_empty() {
            return out.comment();
        }
        let Some((key, value)) = setting.split_once(':') else {
            return out.skip(Reason::Malformed);
        };
        let value = value.trim_ascii();
        match key {
            // Where a clause begins.
            _ if value.is_empty() => out.comment(),
            "local-zone" => zone(value, out),
            "local-data" => data(value, out),
            _ => out.skip(Reason::Setting),
        }
    });
}

fn zone(value: &str, out: &mut Collector<'_>) {
    let Some((name, kind)) = value.rsplit_once([' ', '\t']) else {
        return out.skip(Reason::Malformed);
    };
    let name = unquoted(name.trim_ascii());
    match unquoted(kind) {
        "always_null" | "always_nxdomain" | "always_nodata" | "always_refuse" | "always_deny"
        | "static" | "redirect" | "refuse" | "deny" | "inform_deny" | "inform_redirect"
        | "block_a" => out.domain(name, Scope::Tree),
        "transparent" | "typetransparent" | "always_transparent" | "inform" => {
            out.exception(name, Scope::Tree);
        }
        "nodefault" => out.skip(Reason::Setting),
        _ => out.skip(Reason::Malformed),
    }
}

fn data(value: &str, out: &mut Collector<'_>) {
    let mut words = unquoted(value).split_ascii_whitespace();
    let Some(name) = words.next() else { return out.skip(Reason::Malformed) };
    let mut words = words.skip_while(|word| {
        word.eq_ignore_ascii_case("IN") || word.bytes().all(|b| b.is_ascii_digit())
    });
    let kind = words.next().unwrap_or_default().to_ascii_uppercase();
    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
    match (kind.as_str(), address) {
        ("A" | "AAAA", Some(address)) if is_sink(address) => out.domain(name, Scope::Exact),
        ("A" | "AAAA", Some(_)) => out.skip(Reason::Redirect),
        ("", _) | ("A" | "AAAA", None) => out.skip(Reason::Malformed),
        _ => out.skip(Reason::Setting),
    }
}

/// The text in quotes of either kind.
fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}
