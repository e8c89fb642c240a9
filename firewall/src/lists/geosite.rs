//! `geosite`: sources of v2ray's domain lists.

use super::collect::{Collector, without_comment};
use super::report::Reason;
use crate::policy::Scope;

/// `domain:x` and `x` are x and all under it, `full:x` is x alone. Attributes (`@ads`) and
/// affiliations (`&x`) behind a name only sort entries into other lists.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.each_line(text, |out, line| {
        let entry = without_comment(line);
        let mut words = entry.split_ascii_whitespace();
        let Some(rule) = words.next() else { return out.comment() };
        let (kind, value) = rule.split_once(':').unwrap_or(("domain", rule));
        match kind {
            "regexp" => out.skip(Reason::Regexp),
            "keyword" => out.skip(Reason::Pattern),
            "include" => out.skip(Reason::Include),
            _ if !words.all(|word| word.starts_with(['@', '&'])) => out.skip(Reason::Malformed),
            "domain" => out.domain(value, Scope::Tree),
            "full" => out.domain(value, Scope::Exact),
            _ => out.skip(Reason::Malformed),
        }
    });
}
