//! `dnsmasq`: the settings `local`, `address` and `server` with names (dnsmasq(8)).

use super::collect::{Collector, is_sink, without_comment};
use super::report::Reason;
use crate::policy::Scope;

/// A name stands for itself and all under it, and the longest one that fits decides.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.nearest_decides();
    out.each_line(text, |out, line| {
        let setting = without_comment(line);
        if setting.is_empty() {
            return out.comment();
        }
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        let (key, value) = (key.trim_ascii_end(), value.trim_ascii());
        let names = value.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
        let Some((names, target)) = names.filter(|_| matches!(key, "local" | "address" | "server"))
        else {
            return out.skip(Reason::Setting);
        };
        let meaning = match (key, target) {
            (_, "") => Meaning::Block,
            // To the usual servers: what a shorter name says does not hold for it.
            ("local" | "server", "#") => Meaning::Exception,
            ("address", "#") => Meaning::Block,
            ("address", target) if target.parse().is_ok_and(is_sink) => Meaning::Block,
            _ => Meaning::Redirect,
        };
        for name in names.split('/') {
            // A dot before the name is an old way to write the same.
            let name = name.strip_prefix('.').unwrap_or(name);
            let (name, scope) = match name.strip_prefix("*.") {
                Some(name) => (name, Scope::Below),
                None => (name, Scope::Tree),
            };
            match meaning {
                _ if name.is_empty() || name == "#" || name.contains('*') => {
                    out.skip(Reason::Pattern);
                }
                Meaning::Block => out.domain(name, scope),
                Meaning::Exception => out.exception(name, scope),
                Meaning::Redirect => out.skip(Reason::Redirect),
            }
        }
    });
}

#[derive(Clone, Copy)]
enum Meaning {
    Block,
    Exception,
    Redirect,
}
