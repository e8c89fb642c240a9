//! Going through the tree of a TOML file: typed access that reports what does not fit.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Diagnostic, Diagnostics, FileId, Place, Severity, quoted};
use super::super::source::Files;
use super::nearest;
use super::values::Complaint;
use crate::intel::organisations::Organisations;

/// One file on its way from tree to model.
pub(crate) struct Walker<'a> {
    pub file: FileId,
    pub organisations: &'a Organisations,
    pub files: &'a dyn Files,
    /// What paths in the file start at; none in a shipped one.
    pub folder: Option<&'a Path>,
    pub diagnostics: &'a mut Diagnostics,
    /// Where TOML itself is broken, sorted. What stands there, and what seems to be missing
    /// elsewhere, is guesswork of the recovering parser and not reported a second time.
    pub broken: Vec<Range<usize>>,
}

/// A key of a table with its value.
pub(crate) struct Field<'t> {
    pub key: &'t str,
    pub span: Range<usize>,
    pub value: &'t Spanned<DeValue<'t>>,
}

/// The known keys that a table has.
pub(crate) struct Fields<'t>(HashMap<&'t str, Field<'t>>);

impl<'t> Fields<'t> {
    pub fn field(&self, key: &str) -> Option<&Field<'t>> {
        self.0.get(key)
    }
}

/// What an array may hold: how its key is shown in hints, and what to write for a bare number.
pub(super) struct Elements {
    pub example: &'static str,
    pub number: Option<fn(&str) -> String>,
}

impl<'a> Walker<'a> {
    pub fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file, span }
    }

    pub fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(Severity::Error, span, message.into(), None, hint.into());
    }

    /// Something that should be there and is not.
    pub fn missing(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.broken.is_empty() {
            self.error(span, message, hint);
        }
    }

    pub fn report(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        message: String,
        related: Option<(Place, String)>,
        hint: String,
    ) {
        let place = self.place(span);
        self.diagnostics.push(Diagnostic { severity, message, place, related, hint: Some(hint) });
    }

    /// Whether TOML is broken in or right behind `span`.
    fn is_broken(&self, span: &Range<usize>) -> bool {
        let next = self.broken.partition_point(|broken| broken.start < span.start);
        let reaches_in = next > 0 && self.broken[next - 1].end > span.start;
        reaches_in || self.broken.get(next).is_some_and(|broken| broken.start <= span.end)
    }

    /// What was parsed; what is wrong with it is reported.
    pub fn checked<T>(&mut self, span: Range<usize>, parsed: Result<T, Complaint>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(Complaint { message, hint }) => {
                self.error(span, message, hint);
                None
            }
        }
    }

    /// The keys of a table, each unknown one reported.
    pub fn fields<'t>(
        &mut self,
        table: &'t DeTable<'t>,
        known: &[&str],
        of: &str,
        advice: impl Fn(&str) -> Option<String>,
    ) -> Fields<'t> {
        let mut fields = HashMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let span = key.span();
            if self.is_broken(&span)
                || (!has_tables(value.get_ref()) && self.is_broken(&value.span()))
            {
                continue;
            }
            if known.contains(&name) {
                fields.insert(name, Field { key: name, span, value });
                continue;
            }
            let hint = advice(name)
                .or_else(|| synonym(name, known).map(|meant| format!("did you mean `{meant}`?")))
                .unwrap_or_else(|| {
                    let all: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
                    format!("{of} has {}", all.join(", "))
                });
            self.error(span, format!("{of} has no key {}", quoted(name)), hint);
        }
        Fields(fields)
    }

    pub fn string<'t>(&mut self, field: &Field<'t>, example: &str) -> Option<&'t str> {
        match field.value.get_ref() {
            DeValue::String(text) => Some(text),
            other => {
                let hint = format!("write `{} = \"{example}\"`", field.key);
                self.wrong_type(field.value.span(), field.key, "a string", other, hint);
                None
            }
        }
    }

    pub fn table<'t>(&mut self, field: &Field<'t>, example: &str) -> Option<&'t DeTable<'t>> {
        match field.value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let hint = format!("write {example}");
                self.wrong_type(field.value.span(), field.key, "a table", other, hint);
                None
            }
        }
    }

    pub fn wrong_type(
        &mut self,
        span: Range<usize>,
        key: &str,
        wanted: &str,
        found: &DeValue<'_>,
        hint: String,
    ) {
        let found = type_name(found);
        self.error(span, format!("`{key}` is {wanted}, not {found}"), hint);
    }

    /// The strings of an array, parsed; an entry that stands there twice is warned of.
    pub(super) fn elements<'t, T: Clone + Eq + Hash>(
        &mut self,
        field: &Field<'t>,
        form: &Elements,
        parse: impl Fn(&str) -> Result<T, Complaint>,
    ) -> Vec<T> {
        let key = field.key;
        let example = format!("`{key} = [\"{}\"]`", form.example);
        let array = match field.value.get_ref() {
            DeValue::Array(array) => array,
            other => {
                let hint = match other {
                    DeValue::String(text) if text.len() < 60 => {
                        format!("write {}", quoted(&format!("{key} = [\"{text}\"]")).trim())
                    }
                    DeValue::Integer(number) if form.number.is_some() => {
                        let text = form.number.map(|f| f(number.as_str())).unwrap_or_default();
                        format!("write `{key} = [\"{text}\"]`")
                    }
                    _ => format!("write {example}"),
                };
                self.wrong_type(field.value.span(), key, "an array of strings", other, hint);
                return Vec::new();
            }
        };
        if array.is_empty() {
            let hint = format!("leave `{key}` out, or name something, as {example}");
            self.error(field.value.span(), format!("`{key}` is empty"), hint);
        }
        let mut seen: HashMap<T, Range<usize>> = HashMap::new();
        let mut values = Vec::with_capacity(array.len());
        for element in array.iter() {
            let span = element.span();
            let DeValue::String(text) = element.get_ref() else {
                let hint = match (element.get_ref(), form.number) {
                    (DeValue::Integer(number), Some(hint)) if number.radix() == 10 => {
                        format!("write `\"{}\"`", hint(number.as_str()))
                    }
                    _ => format!("write {example}"),
                };
                let found = type_name(element.get_ref());
                self.error(span, format!("`{key}` holds strings, not {found}"), hint);
                continue;
            };
            let Some(value) = self.checked(span.clone(), parse(text)) else { continue };
            if let Some(first) = seen.get(&value) {
                let related = Some((self.place(first.clone()), "the first".to_owned()));
                let message = format!("{} stands in `{key}` twice", quoted(text));
                let hint = "remove one of the two".to_owned();
                self.report(Severity::Warning, span, message, related, hint);
                continue;
            }
            seen.insert(value.clone(), span);
            values.push(value);
        }
        values
    }
}

/// Whether a slip in one place of it leaves the rest worth a look.
fn has_tables(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(array) => {
            !array.is_empty() && array.iter().all(|e| matches!(e.get_ref(), DeValue::Table(_)))
        }
        _ => false,
    }
}

/// The key of `known` that somebody meant who wrote `name`.
fn synonym<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = name.to_lowercase().replace('_', "-");
    let meant = match lower.as_str() {
        "country" | "countries" | "jurisdiction" | "geo" => "jurisdictions",
        "organization" | "organizations" | "org" | "orgs" | "owner" | "owners" => "organisations",
        "asn" | "as" => "asns",
        "ip" | "ips" | "cidr" | "cidrs" | "address" | "addresses" | "subnets" => "networks",
        "host" | "hosts" | "hostnames" | "names" => "domains",
        "proto" | "protocol" | "protocols" => "ports",
        "destination" | "destinations" | "dst" => "to",
        "exclude" | "not" | "exceptions" => "except",
        "desc" | "comment" | "summary" => "description",
        "verdict" | "decision" | "do" => "action",
        "id" | "title" => "name",
        "checksum" | "hash" => "sha256",
        "exclude-apps" | "not-apps" => "except-apps",
        other => other,
    };
    let exact = known.iter().find(|key| **key == meant).copied();
    exact.or_else(|| nearest(&lower, known.iter().copied()))
}

/// The type of a value, as it is called in messages.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
