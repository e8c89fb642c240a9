//! `adblock`: the network rules of browser blockers and of AdGuard's DNS filters.
//!
//! `||x^` is x and all names under it; `@@||x^` takes that out of the list again.

use std::collections::HashSet;

use super::collect::{Collector, without_comment};
use super::hosts;
use super::report::Reason;
use crate::policy::Scope;

/// Modifiers that a firewall can leave out: it sees no page, so what such rules stop elsewhere or in
/// part is stopped as a whole.
const NEUTRAL: &[&str] = &["third-party", "3p", "document", "doc", "all", "popup", "network"];
/// The same of exceptions: those for documents lift what is blocked *on* the page of a name.
const NEUTRAL_OF_EXCEPTIONS: &[&str] = &["third-party", "3p", "network"];

/// Reads all lines. Rules that `badfilter` takes back are not used wherever they stand.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    let disabled = disabled(text);
    out.each_line(text, |out, line| {
        let line = line.trim_ascii_start();
        if line.starts_with('!') || (line.starts_with('[') && line.ends_with(']')) {
            return out.comment();
        }
        if is_cosmetic(line) {
            return out.skip(Reason::Cosmetic);
        }
        if line.starts_with('#') {
            return out.comment();
        }
        if !line.starts_with(['|', '@']) && hosts::entries(without_comment(line), out) {
            return;
        }
        let rule = Rule::of(line);
        if rule.is("badfilter") || (!disabled.is_empty() && disabled.contains(&rule.key())) {
            return out.skip(Reason::Disabled);
        }
        rule.take(out);
    });
}

/// What the `badfilter` rules take back.
fn disabled(text: &str) -> HashSet<String> {
    let lines = text.lines().map(str::trim_ascii).filter(|line| line.contains("badfilter"));
    lines.map(Rule::of).filter(|rule| rule.is("badfilter")).map(|rule| rule.key()).collect()
}

struct Rule<'t> {
    exception: bool,
    pattern: &'t str,
    modifiers: &'t str,
}

impl<'t> Rule<'t> {
    fn of(line: &'t str) -> Self {
        let (exception, rest) = match line.strip_prefix("@@") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        // A regular expression has dollars of its own.
        let dollar = match rest.starts_with('/') {
            true => rest.rfind("/$").map(|slash| slash + 1),
            false => rest.find('$'),
        };
        let (pattern, modifiers) = match dollar {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, ""),
        };
        Self { exception, pattern, modifiers }
    }

    fn modifiers(&self) -> impl Iterator<Item = &'t str> {
        self.modifiers.split(',').map(str::trim_ascii).filter(|modifier| !modifier.is_empty())
    }

    fn is(&self, modifier: &str) -> bool {
        self.modifiers().any(|own| own == modifier)
    }

    /// The same for rules that differ in the order of their modifiers and in `badfilter` alone.
    fn key(&self) -> String {
        let mut modifiers: Vec<&str> = self.modifiers().filter(|m| *m != "badfilter").collect();
        modifiers.sort_unstable();
        let exception = if self.exception { "@@" } else { "" };
        format!("{exception}{}${}", self.pattern, modifiers.join(","))
    }

    fn take(&self, out: &mut Collector<'_>) {
        let Some(pattern) = self.pattern.strip_prefix("||") else {
            return out.skip(match self.pattern {
                regexp if regexp.len() > 1 && regexp.starts_with('/') && regexp.ends_with('/') => {
                    Reason::Regexp
                }
                path if path.contains('/') => Reason::Path,
                _ => Reason::Pattern,
            });
        };
        let ended = pattern.strip_suffix("^|").or_else(|| pattern.strip_suffix('^'));
        let name = ended.or_else(|| pattern.strip_suffix('|')).unwrap_or(pattern);
        if name.contains(['/', ':', '?', '=']) {
            return out.skip(Reason::Path);
        }
        let (name, scope) = match name.strip_prefix("*.") {
            Some(name) => (name, Scope::Below),
            None => (name, Scope::Tree),
        };
        // Without an end it is a beginning: a whole name at best.
        let whole = ended.is_some() || name.contains('.') && !name.ends_with('.');
        if !whole || name.contains(['*', '^', '|']) {
            return out.skip(Reason::Pattern);
        }
        let neutral = if self.exception { NEUTRAL_OF_EXCEPTIONS } else { NEUTRAL };
        let important = self.is("important");
        if !self.modifiers().all(|modifier| modifier == "important" || neutral.contains(&modifier))
        {
            return out.skip(Reason::Modifier);
        }
        match (self.exception, important) {
            (true, _) => out.exception(name, scope),
            (false, true) => out.important(name, scope),
            (false, false) if scope == Scope::Tree => out.domain_or_address(name, scope),
            (false, false) => out.domain(name, scope),
        }
    }
}

/// Whether a line hides parts of pages, changes styles or runs scripts: it has a `##`, a `#@#`, a
/// `$$` or one of their kind.
pub fn is_cosmetic(line: &str) -> bool {
    const MARKS: &[&str] =
        &["##", "#@#", "#?#", "#@?#", "#$#", "#@$#", "#$?#", "#@$?#", "#%#", "#@%#"];
    let hash = |at: usize| MARKS.iter().any(|mark| line[at..].starts_with(mark));
    line.match_indices('#').any(|(at, _)| hash(at)) || line.contains("$$") || line.contains("$@$")
}
