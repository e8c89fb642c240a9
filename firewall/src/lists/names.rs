//! A name a line: `domains` and `wildcard`.

use super::collect::{Collector, without_comment};
use super::report::Reason;
use crate::policy::Scope;

/// Each name stands for itself and all under it, as the publishers of such lists mean it; an address
/// for itself.
pub fn domains<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.each_line(text, |out, line| match without_comment(line) {
        "" => out.comment(),
        name if name.contains(':') => out.network(name),
        name => out.domain_or_address(name, Scope::Tree),
    });
}

/// `*.x` is x and all under it, as the publishers of such lists mean it: they write no second line
/// for x. A name without the star is that name alone.
pub fn wildcard<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.each_line(text, |out, line| {
        let entry = without_comment(line);
        match entry.strip_prefix("*.") {
            _ if entry.is_empty() => out.comment(),
            Some(name) => out.domain(name, Scope::Tree),
            None if entry.contains('*') => out.skip(Reason::Pattern),
            None => out.domain(entry, Scope::Exact),
        }
    });
}
