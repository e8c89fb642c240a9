//! Which format a list is in, by its content.

use super::adblock::is_cosmetic;
use super::collect::{networks, without_comment};
use super::hosts::address;
use super::report::Format;
use crate::policy::domains::normalise;

/// As many lines that tell something are looked at.
const ENOUGH: usize = 2_000;

/// The format that most lines are in; none if no line tells one.
///
/// A text of comments alone is `domains`: a list with nothing in it yet.
pub fn detect(text: &str) -> Option<Format> {
    if text.trim_ascii_start().starts_with('{') {
        return Some(Format::Lsrules);
    }
    let mut votes = [0_usize; Format::ALL.len()];
    let mut comments_only = true;
    let mut scratch = String::new();
    let mut told = 0;
    for line in text.lines().map(str::trim_ascii).filter(|line| !line.is_empty()) {
        if is_comment(line) {
            continue;
        }
        comments_only = false;
        if let Some(format) = vote(line, &mut scratch) {
            votes[format as usize] += 1;
            told += 1;
            if told == ENOUGH {
                break;
            }
        }
    }
    if comments_only {
        return Some(Format::Domains);
    }
    // Bare names stand in these two as well, with a meaning of their own.
    for with_marks in [Format::Wildcard, Format::Geosite] {
        if votes[with_marks as usize] > 0 {
            votes[with_marks as usize] += std::mem::take(&mut votes[Format::Domains as usize]);
        }
    }
    let most = votes.iter().copied().max().filter(|most| *most > 0)?;
    Format::ALL.into_iter().find(|format| votes[*format as usize] == most)
}

fn is_comment(line: &str) -> bool {
    line.starts_with(';') || line.starts_with('#') && !is_cosmetic(line)
}

fn vote(line: &str, scratch: &mut String) -> Option<Format> {
    let starts = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
    if starts(&["!", "[", "||", "@@", "|"]) || is_cosmetic(line) {
        return Some(Format::Adblock);
    }
    if starts(&["local-zone:", "local-data:", "server:"]) {
        return Some(Format::Unbound);
    }
    if starts(&["local=/", "address=/", "server=/"]) {
        return Some(Format::Dnsmasq);
    }
    if starts(&["domain:", "full:", "keyword:", "regexp:", "include:"]) {
        return Some(Format::Geosite);
    }
    let is_record =
        |word: &str| ["CNAME", "SOA", "NS"].iter().any(|k| word.eq_ignore_ascii_case(k));
    if starts(&["$TTL", "$ORIGIN"]) || line.split_ascii_whitespace().take(4).any(is_record) {
        return Some(Format::Rpz);
    }
    let entry = without_comment(line);
    let mut words = entry.split_ascii_whitespace();
    let first = words.next()?;
    let second = words.next().filter(|word| !word.starts_with(';'));
    if address(first).is_some() && second.is_some_and(|word| word != "-") {
        return Some(Format::Hosts);
    }
    if networks(first.trim_end_matches(';')).is_ok() || networks(entry).is_ok() {
        return Some(Format::Netset);
    }
    let bare = first.strip_prefix("*.");
    scratch.clear();
    if normalise(bare.unwrap_or(first), scratch).is_ok() {
        return match (bare, second) {
            (_, Some(word)) if word.starts_with(['@', '&']) => Some(Format::Geosite),
            (_, Some(_)) => None,
            (Some(_), None) => Some(Format::Wildcard),
            (None, None) => Some(Format::Domains),
        };
    }
    line.contains(['/', '^', '$', '*']).then_some(Format::Adblock)
}
