//! From TOML text to policies, or to everything that is wrong with it.
//!
//! Pure: text in, model and findings out; the files of lists are read by a [`Files`]. The tree is
//! walked by hand rather than deserialised, so that one pass finds all mistakes of all files, each with
//! its place. The settings of `firewall.toml` are read by the same means.

mod apps;
mod destination;
mod list;
mod rule;
mod spec;
#[cfg(test)]
mod tests;
pub(crate) mod values;
pub(crate) mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, Place, Severity, quoted};
use super::model::{Mode, Moment, Policy, Rule};
use super::source::{Content, Files, Source};
use crate::intel::organisations::Organisations;
use walk::{Field, Fields, Walker};

pub use spec::SpecError;
pub(super) use spec::{parse_selector, parse_spec};

/// See [`super::load`]; what lists name is read from `files`.
pub(super) fn load(
    sources: &[Source],
    organisations: &Organisations,
    files: &dyn Files,
) -> (Vec<Policy>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let mut policies = Vec::new();
    let mut names: HashMap<String, Place> = HashMap::new();
    for source in sources {
        let Some(parsed) = file(source, organisations, files, &mut diagnostics) else { continue };
        let (policy, place) = parsed;
        if let Some(first) = names.get(&policy.name) {
            let message = format!("a second policy has the name `{}`", policy.name);
            let related = Some((first.clone(), "the first".to_owned()));
            let hint =
                Some("a name stands for one policy; rename or remove one of them".to_owned());
            let severity = Severity::Error;
            diagnostics.push(Diagnostic { severity, message, place, related, hint });
            continue;
        }
        names.insert(policy.name.clone(), place);
        policies.push(policy);
    }
    diagnostics.sort();
    if diagnostics.has_errors() {
        policies.clear();
    }
    leave_out_what_is_over(&mut policies, files.moment().as_ref(), &mut diagnostics);
    (policies, diagnostics)
}

fn leave_out_what_is_over(
    policies: &mut [Policy],
    now: Option<&Moment>,
    diagnostics: &mut Diagnostics,
) {
    let (why, hint) = match now {
        Some(_) => ("is over and lets nothing pass any more", "remove it"),
        None => (
            "is left out: it is for a time, which only the daemon keeps",
            "`firewall daemon` ends it; here a rule without `until` counts",
        ),
    };
    for Policy { name: policy, rules, .. } in policies {
        for Rule { name, .. } in rules.extract_if(.., |rule| !rule.counts(now)) {
            diagnostics.warn_rule(policy, &name, format!("rule `{name}` {why}"), hint.to_owned());
        }
    }
}

/// The policy of one file and the place of its name.
fn file(
    source: &Source,
    organisations: &Organisations,
    files: &dyn Files,
    diagnostics: &mut Diagnostics,
) -> Option<(Policy, Place)> {
    let text = match &source.content {
        Content::Text(text) => Arc::clone(text),
        Content::Bytes(bytes) => {
            not_utf8(&source.name(), bytes, diagnostics);
            return None;
        }
        Content::Unreadable { why, hint } => {
            let place =
                Place { file: diagnostics.add_file(source.name(), Arc::from("")), span: 0..0 };
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                message: format!("the file cannot be read: {why}"),
                place,
                related: None,
                hint: Some((*hint).to_owned()),
            });
            return None;
        }
    };
    let file = diagnostics.add_file(source.name(), Arc::clone(&text));
    let (root, errors) = DeTable::parse_recoverable(&text);
    let folder = source.folder();
    let mut walker = Walker { file, organisations, files, folder, diagnostics, broken: Vec::new() };
    walker.syntax(&text, &errors);
    walker.root(root.get_ref(), &text)
}

pub(crate) fn not_utf8(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) {
    let text = String::from_utf8_lossy(bytes);
    // The first byte that is not UTF-8 became the first character that was not there before.
    let start = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    let span = start..start + char::REPLACEMENT_CHARACTER.len_utf8();
    let file = diagnostics.add_file(name, Arc::from(text));
    diagnostics.push(Diagnostic {
        severity: Severity::Error,
        message: "the file is not UTF-8 text".to_owned(),
        place: Place { file, span },
        related: None,
        hint: Some("TOML is UTF-8 text; save the file in that encoding".to_owned()),
    });
}

const NOT_A_POLICY: &str = "a policy begins with `[policy]` and `name = \"…\"`";

impl Walker<'_> {
    /// What TOML itself objects to: at most one finding a line, as one slip makes several.
    pub(crate) fn syntax(&mut self, text: &str, errors: &[toml::de::Error]) {
        let mut errors: Vec<_> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        let mut reported_to = None;
        for (span, message) in &errors {
            self.broken.push(span.clone());
            let start = span.start.min(text.len());
            if reported_to.is_some_and(|end| start <= end) {
                continue;
            }
            let rest = text.as_bytes()[start..].iter().position(|b| *b == b'\n');
            reported_to = Some(rest.map_or(text.len(), |rest| start + rest));
            self.error(span.clone(), format!("not TOML: {message}"), syntax_hint(message));
        }
    }

    fn root<'t>(&mut self, root: &'t DeTable<'t>, text: &str) -> Option<(Policy, Place)> {
        if root.is_empty() && self.broken.is_empty() {
            let what =
                if text.trim().is_empty() { "the file is empty" } else { "the file has no policy" };
            self.error(0..0, what, NOT_A_POLICY);
            return None;
        }
        self.diagnostics.saw_policy();
        let fields = self.fields(root, &["policy", "rule", "list"], "a policy file", top_level);
        let policy = fields.field("policy");
        if policy.is_none() {
            self.missing(0..0, "there is no `[policy]`", NOT_A_POLICY);
        }
        let named = policy.and_then(|field| self.policy(field));
        let lists = fields.field("list").map(|field| self.lists(field)).unwrap_or_default();
        let head = named.as_ref().map(|(policy, ..)| policy);
        let rules = fields.field("rule").map(|field| self.rules(field, head, &lists));
        self.unused(&lists);
        let (mut policy_model, place, keys) = named?;
        let has_default = policy.is_some_and(|field| match field.value.get_ref() {
            DeValue::Table(table) => table.contains_key("default"),
            _ => false,
        });
        if fields.field("rule").is_none() && !has_default {
            let span = policy.map_or(0..0, |field| field.value.span());
            self.missing(
                span,
                "the policy has no rules and no `default`: it does nothing",
                "add a `[[rule]]`, or `default = \"drop\"` to `[policy]`",
            );
        }
        policy_model.rules = rules.unwrap_or_default();
        self.policy_apps(&keys, &policy_model);
        Some((policy_model, place))
    }

    /// `[policy]`, without the rules, the place of its name, and its keys.
    fn policy<'t>(&mut self, field: &Field<'t>) -> Option<(Policy, Place, Fields<'t>)> {
        let table = self.table(field, "`[policy]`, once, and `[[rule]]` for each rule")?;
        let known = ["name", "description", "mode", "priority", "apps", "except-apps", "default"];
        let fields = self.fields(table, &known, "`[policy]`", |key| match key {
            "rules" | "rule" => Some("each rule is a `[[rule]]` of its own".to_owned()),
            "enabled" => Some("a policy is on when its file is loaded".to_owned()),
            "action" | "to" | "ports" => Some(format!("`{key}` belongs in a `[[rule]]`")),
            _ => None,
        });
        let name = match fields.field("name") {
            None => {
                self.missing(
                    field.value.span(),
                    "the policy has no `name`",
                    "add `name = \"…\"`: verdicts are recorded under it",
                );
                None
            }
            Some(name) => self.string(name, "my-policy").and_then(|text| {
                let span = name.value.span();
                let name = self.checked(span.clone(), values::name(text))?;
                Some((name, self.place(span)))
            }),
        };
        let description = fields.field("description").and_then(|d| self.string(d, "What it does"));
        let mode = fields.field("mode").and_then(|mode| {
            let text = self.string(mode, "enforce")?;
            self.checked(mode.value.span(), values::mode(text))
        });
        let default = fields.field("default").and_then(|default| {
            let text = self.string(default, "allow")?;
            self.checked(default.value.span(), values::default(text))
        });
        let priority = fields.field("priority").and_then(|priority| self.priority(priority));
        let apps = self.apps(&fields, None);
        let (name, place) = name?;
        let policy = Policy {
            name,
            description: description.unwrap_or_default().to_owned(),
            mode: mode.unwrap_or(Mode::Enforce),
            priority: priority.unwrap_or(100),
            default,
            apps,
            rules: Vec::new(),
        };
        Some((policy, place, fields))
    }

    fn priority(&mut self, field: &Field<'_>) -> Option<u32> {
        let span = field.value.span();
        let form = "`priority` is 0 to 65535, lower runs first, 100 if left out";
        match field.value.get_ref() {
            DeValue::Integer(number) => {
                let priority = integer(number).and_then(|n| u16::try_from(n).ok());
                if priority.is_none() {
                    let number = quoted(number.as_str());
                    self.error(span, format!("{number} is not a priority"), form);
                }
                priority.map(u32::from)
            }
            DeValue::String(text) if values::decimal(text) && text.len() <= 5 => {
                let hint = format!("write `priority = {text}`, without quotes");
                self.wrong_type(span, "priority", "an integer", field.value.get_ref(), hint);
                None
            }
            other => {
                self.wrong_type(span, "priority", "an integer", other, form.to_owned());
                None
            }
        }
    }
}

pub(crate) fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn top_level(key: &str) -> Option<String> {
    match key {
        "rules" => Some("did you mean `[[rule]]`?".to_owned()),
        "lists" => Some("did you mean `[list.NAME]`?".to_owned()),
        "policies" => Some("did you mean `[policy]`? A file holds one".to_owned()),
        "name" | "description" | "mode" | "priority" | "apps" | "except-apps" | "default" => {
            Some(format!("`{key}` belongs below `[policy]`"))
        }
        "action" | "to" | "ports" => Some(format!("`{key}` belongs below `[[rule]]`")),
        _ => None,
    }
}

fn syntax_hint(message: &str) -> &'static str {
    let hints = [
        ("duplicate key", "keep one of the two"),
        ("key with no value", "write `key = value`"),
        ("string values must be quoted", "put the text in quotes: `\"…\"`"),
        ("missing comma", "separate the entries with `,`; is the `]` or `}` before it missing?"),
        ("unclosed array", "close it with `]`"),
        ("unclosed table", "close it with `]`, as in `[policy]`"),
        ("unclosed array table", "close it with `]]`, as in `[[rule]]`"),
        ("invalid basic string", "close the text with `\"`; a backslash is written `\\\\`"),
    ];
    let hint = hints.iter().rev().find(|(start, _)| message.starts_with(start));
    hint.map_or("text stands in quotes, arrays in `[ ]`, tables in `{ }`", |(_, hint)| hint)
}

/// The candidate that is nearest to `word`, if one is near enough to be meant.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // Nobody mistypes that much, and the distance costs the product of the lengths.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= ((candidate.len() + 1) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
