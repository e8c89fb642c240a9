//! `[list.NAME]`: a named set of domains or networks. Checked in full, and refused until lists
//! can be enforced.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::quoted;
use super::nearest;
use super::values::{self, Complaint, complaint};
use super::walk::{Elements, Field, Fields, Walker};

const KEYS: &[&str] = &["domains", "networks", "file", "url", "format", "refresh", "sha256"];

const FORMATS: &[&str] = &[
    "auto", "hosts", "domains", "wildcard", "adblock", "dnsmasq", "unbound", "rpz", "netset",
    "lsrules", "geosite",
];

/// The names of the lists of a file.
#[derive(Default)]
pub(super) struct Lists(BTreeSet<String>);

impl Lists {
    /// The list that `lists = ["…"]` names.
    pub fn find(&self, text: &str) -> Result<String, Complaint> {
        if self.0.contains(text) {
            return Ok(text.to_owned());
        }
        let hint = match nearest(text, self.0.iter().map(String::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "define it in this file, below a `[list.NAME]`".to_owned(),
        };
        complaint(format!("there is no list {}", quoted(text)), hint)
    }
}

impl Walker<'_> {
    /// All `[list.NAME]` of a file.
    pub fn lists(&mut self, field: &Field<'_>) -> Lists {
        let mut names = BTreeSet::new();
        let Some(lists) = self.table(field, "`[list.NAME]`") else { return Lists(names) };
        for (key, value) in lists {
            let name: &str = key.get_ref();
            names.insert(name.to_owned());
            self.checked(key.span(), values::name(name));
            let field = Field { key: name, span: key.span(), value };
            if let DeValue::Table(table) = value.get_ref() {
                self.list(table, &field);
                let hint = "leave it out; a rule takes `jurisdictions`, `organisations`, `asns` and `networks`";
                self.refuse(key.span(), &format!("the list {}", quoted(name)), hint);
            } else {
                let hint = "write `[list.NAME]`, and `domains = […]` below it".to_owned();
                self.wrong_type(value.span(), name, "a list, so a table", value.get_ref(), hint);
            }
        }
        Lists(names)
    }

    fn list<'t>(&mut self, table: &'t DeTable<'t>, list: &Field<'t>) {
        let fields = self.fields(table, KEYS, "a list", |_| None);
        let strings = |example| Elements { example, number: None };
        if let Some(field) = fields.field("domains") {
            self.elements(field, &strings("baidu.com"), values::domain);
        }
        if let Some(field) = fields.field("networks") {
            self.elements(field, &strings("192.0.2.0/24"), values::network);
        }
        let has = |key: &str| fields.field(key).is_some();
        let sources = [has("domains") || has("networks"), has("file"), has("url")];
        match sources.iter().filter(|has| **has).count() {
            0 => {
                let hint = "give it `domains`, `networks`, a `file` or a `url`";
                self.missing(list.span.clone(), "the list is empty", hint);
            }
            1 => {}
            _ => {
                let hint = "keep one of them: its own entries, a `file` or a `url`";
                self.error(list.span.clone(), "the list comes from several places", hint);
            }
        }
        self.list_text(&fields, "file", "lists/my.txt", not_empty);
        self.list_text(&fields, "url", "https://…", url);
        self.list_text(&fields, "format", "auto", format);
        self.list_text(&fields, "refresh", "24h", refresh);
        self.list_text(&fields, "sha256", "…", sha256);
        let fetched = has("file") || has("url");
        let needs = [
            ("format", "a `file` or a `url`", fetched),
            ("sha256", "a `file` or a `url`", fetched),
            ("refresh", "a `url`", has("url")),
        ];
        for (key, origin, fits) in needs {
            let Some(field) = fields.field(key).filter(|_| !fits) else { continue };
            let message = format!("`{key}` is for a list from {origin}");
            self.missing(field.span.clone(), message, format!("leave `{key}` out"));
        }
    }

    fn list_text(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        example: &str,
        check: impl Fn(&str) -> Result<(), Complaint>,
    ) {
        let Some(field) = fields.field(key) else { return };
        if let Some(text) = self.string(field, example) {
            self.checked(field.value.span(), check(text));
        }
    }
}

fn not_empty(text: &str) -> Result<(), Complaint> {
    match text.trim().is_empty() {
        true => complaint("the path is empty", "write the path of the list's file"),
        false => Ok(()),
    }
}

fn url(text: &str) -> Result<(), Complaint> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    match host.is_empty() || text.contains(char::is_whitespace) {
        true => complaint(
            format!("{} is not a URL of a list", quoted(text)),
            "write `https://` and the rest of the address; a path is a `file`",
        ),
        false => Ok(()),
    }
}

fn format(text: &str) -> Result<(), Complaint> {
    if FORMATS.contains(&text) {
        return Ok(());
    }
    let hint = match nearest(text, FORMATS.iter().copied()) {
        Some(format) => format!("did you mean `{format}`?"),
        None => format!("one of {}", FORMATS.join(", ")),
    };
    complaint(format!("there is no format {}", quoted(text)), hint)
}

fn refresh(text: &str) -> Result<(), Complaint> {
    let number = text.trim_end_matches(['s', 'm', 'h', 'd', 'w']);
    let one_unit = text.len() == number.len() + 1;
    let sane = values::decimal(number) && number.len() <= 6 && number.bytes().any(|b| b != b'0');
    match one_unit && sane {
        true => Ok(()),
        false => complaint(
            format!("{} is not a time span", quoted(text)),
            "write a number and `m`, `h`, `d` or `w`, as `24h`",
        ),
    }
}

fn sha256(text: &str) -> Result<(), Complaint> {
    match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(()),
        false => complaint(
            format!("{} is not a SHA-256", quoted(text)),
            "write its 64 hexadecimal digits, as `sha256sum FILE` prints them",
        ),
    }
}
