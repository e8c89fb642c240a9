//! `[list.NAME]`: a named set of domains and networks, of its own, from a file or from a URL.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use url::Url;

use super::super::diagnostic::{Severity, quoted};
use super::super::domains::DomainSet;
use super::super::model::{List, ListSource, RemoteList};
use super::super::source::Files;
use super::nearest;
use super::values::{self, Complaint, complaint};
use super::walk::{Elements, Field, Fields, Walker};
use crate::contents::Contents;
use crate::lists::{self, Format, Report};
use crate::remote::{Head, Kept, KeptCopy, Remote};
use crate::span;

const KEYS: &[&str] = &["domains", "networks", "file", "url", "format", "refresh", "sha256"];

/// The lists of a file.
#[derive(Default)]
pub(super) struct Lists {
    /// Where each name stands, and the list if it is sound.
    all: BTreeMap<String, (Range<usize>, Option<Arc<List>>)>,
    used: RefCell<BTreeSet<String>>,
}

impl Lists {
    /// The list that `lists = ["…"]` names.
    pub fn find(&self, text: &str) -> Result<String, Complaint> {
        if self.all.contains_key(text) {
            self.used.borrow_mut().insert(text.to_owned());
            return Ok(text.to_owned());
        }
        let hint = match nearest(text, self.all.keys().map(String::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "define it in this file, below a `[list.NAME]`".to_owned(),
        };
        complaint(format!("there is no list {}", quoted(text)), hint)
    }

    /// A list by its name, if it is sound.
    pub fn list(&self, name: &str) -> Option<Arc<List>> {
        self.all.get(name)?.1.clone()
    }
}

/// The file of a list, and what its keys ask of it.
struct Origin<'t> {
    file: &'t str,
    /// Of the value of `file`.
    span: Range<usize>,
    format: Option<Format>,
    sha256: Option<(&'t str, Range<usize>)>,
}

impl Walker<'_> {
    /// All `[list.NAME]` of a file.
    pub(super) fn lists(&mut self, field: &Field<'_>) -> Lists {
        let mut lists = Lists::default();
        let Some(table) = self.table(field, "`[list.NAME]`") else { return lists };
        for (key, value) in table {
            let name: &str = key.get_ref();
            self.checked(key.span(), values::name(name));
            let field = Field { key: name, span: key.span(), value };
            let list = if let DeValue::Table(table) = value.get_ref() {
                self.list(table, &field)
            } else {
                let hint = "write `[list.NAME]`, and `domains = […]` below it".to_owned();
                self.wrong_type(value.span(), name, "a list, so a table", value.get_ref(), hint);
                None
            };
            let list = list.map(Arc::new);
            if let Some(list) = &list {
                self.diagnostics.saw_list(self.file, list);
            }
            lists.all.insert(name.to_owned(), (key.span(), list));
        }
        lists
    }

    /// Warns of the lists that no rule names.
    pub(super) fn unused(&mut self, lists: &Lists) {
        let used = lists.used.borrow();
        for (name, (span, _)) in lists.all.iter().filter(|(name, _)| !used.contains(*name)) {
            let message = format!("no rule names the list {}", quoted(name));
            let hint = format!("a rule takes it as `to = {{ lists = [\"{name}\"] }}`");
            // A rule that is broken may well have meant it.
            if self.broken.is_empty() && !self.diagnostics.has_errors() {
                self.report(Severity::Warning, span.clone(), message, None, hint);
            }
        }
    }

    fn list<'t>(&mut self, table: &'t DeTable<'t>, list: &Field<'t>) -> Option<List> {
        let fields = self.fields(table, KEYS, "a list", |_| None);
        let strings = |example| Elements { example, number: None };
        let mut domains = Vec::new();
        if let Some(field) = fields.field("domains") {
            domains = self.elements(field, &strings("baidu.com"), values::domain);
        }
        let mut networks = Vec::new();
        if let Some(field) = fields.field("networks") {
            networks = self.elements(field, &strings("192.0.2.0/24"), values::network);
        }
        let has = |key: &str| fields.field(key).is_some();
        let sources = [has("domains") || has("networks"), has("file"), has("url")];
        let places = sources.iter().filter(|has| **has).count();
        match places {
            0 => {
                let hint = "give it `domains`, `networks` or a `file`";
                self.missing(list.span.clone(), "the list is empty", hint);
            }
            1 => {}
            _ => {
                let hint = "keep one of them: its own entries, a `file` or a `url`";
                self.error(list.span.clone(), "the list comes from several places", hint);
            }
        }
        let file = self.list_text(&fields, "file", "lists/my.txt", not_empty);
        let url = self.list_text(&fields, "url", "https://…", url);
        let format = self.list_text(&fields, "format", "auto", format);
        let refresh = self.list_text(&fields, "refresh", "24h", refresh);
        let sha256 = self.list_text(&fields, "sha256", "…", sha256);
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
        let broken = [("format", format.is_none()), ("sha256", sha256.is_none())];
        if places != 1 || broken.iter().any(|(key, broken)| *broken && has(key)) {
            return None;
        }
        if let Some(field) = fields.field("url") {
            let remote = Remote {
                url: url?,
                format: format.flatten(),
                sha256: sha256.map(str::to_ascii_lowercase),
                refresh: refresh.unwrap_or(Remote::REFRESH),
            };
            return Some(self.kept(list.key, remote, field.value.span()));
        }
        let Some(field) = fields.field("file") else {
            let domains: DomainSet = domains.into_iter().collect();
            let report = Report::inline(domains.len() + networks.len());
            return Some(List { domains, networks, report, ..List::empty(list.key) });
        };
        let sha256_span = fields.field("sha256").map(|field| field.value.span());
        let origin = Origin {
            file: file?,
            span: field.value.span(),
            format: format.flatten(),
            sha256: sha256.zip(sha256_span),
        };
        self.read(list.key, origin)
    }

    /// Reads a list's file.
    fn read(&mut self, name: &str, origin: Origin<'_>) -> Option<List> {
        let Some(folder) = self.folder else {
            let hint = "give it `domains` and `networks`";
            self.error(origin.span, "a shipped policy has no folder to read a list from", hint);
            return None;
        };
        let path = folder.join(origin.file);
        let bytes = match self.files.read(&path) {
            Ok(bytes) => bytes,
            Err(why) => {
                let message = format!("the list cannot be read: {why}");
                let shown = quoted(&path.display().to_string());
                let hint =
                    format!("it is looked for at {shown}: a path starts at the policy's folder");
                self.error(origin.span, message, hint);
                return None;
            }
        };
        if let Some((wanted, span)) = origin.sha256 {
            let found = bytes.sha256();
            if !found.eq_ignore_ascii_case(wanted) {
                let message = format!("the file is another one: its SHA-256 is `{found}`");
                let hint = "look at what changed; if it is right, write the new SHA-256";
                self.error(span, message, hint);
                return None;
            }
        }
        let source = ListSource::File(path);
        let list = self
            .checked(origin.span.clone(), parse(name, source, origin.format, &bytes, self.files))?;
        if list.report.entries == 0 {
            let message = format!("the list {} has no entries", quoted(name));
            let hint = match list.report.skipped() {
                0 => "nothing but comments stands in the file".to_owned(),
                _ => "nothing in the file can be used: `firewall list show` says why".to_owned(),
            };
            self.report(Severity::Warning, origin.span, message, None, hint);
        }
        Some(list)
    }

    /// Reads the copy of a list by URL. That there is none is no error, as no server decides whether a
    /// policy holds: the list is empty, and a warning says so.
    fn kept(&mut self, name: &str, remote: Remote, span: Range<usize>) -> List {
        let Kept { copy, attempts, now } = self.files.kept(&remote);
        let read = copy.and_then(|copy| {
            let Some(KeptCopy { head, bytes }) = copy else { return Ok(None) };
            match parse(name, ListSource::Policy, remote.format, &bytes, self.files) {
                Ok(list) => Ok(Some((head, list))),
                Err(complaint) => Err(complaint.message),
            }
        });
        let fetched = |(head, _): &(Head, List)| head.fetched;
        let current = read.as_ref().ok().and_then(|read| read.as_ref().map(fetched));
        let current = current.max(attempts.current).filter(|_| current.is_some());
        let age = current.and_then(|current| Duration::try_from(now.duration_since(current)).ok());
        let stale = age.is_some_and(|age| remote.is_stale(age));
        let shown = quoted(name);
        let warning = match (&read, current) {
            (Err(why), _) => Some(format!("the list {shown} is empty: {why}")),
            (Ok(None), _) => Some(format!("the list {shown} is empty: it was never fetched")),
            (Ok(Some(_)), Some(current)) if stale => {
                Some(format!("the list {shown} is old: last fetched or found unchanged {current}"))
            }
            (Ok(Some(_)), _) => None,
        };
        if let Some(mut message) = warning {
            if let Some(failure) = &attempts.failure {
                message += &format!("; the last attempt failed: {}", failure.message);
            }
            let hint = "`firewall list update` fetches it".to_owned();
            self.report(Severity::Warning, span, message, None, hint);
        }
        let (copy, list) = match read {
            Ok(Some((head, list))) => (Ok(Some(head)), list),
            Ok(None) => (Ok(None), List::empty(name)),
            Err(why) => (Err(why), List::empty(name)),
        };
        let remote = Arc::new(remote);
        let source = RemoteList { remote, copy, attempts, current, stale };
        List { source: ListSource::Url(Box::new(source)), ..list }
    }

    fn list_text<'t, T>(
        &mut self,
        fields: &Fields<'t>,
        key: &str,
        example: &str,
        check: impl Fn(&'t str) -> Result<T, Complaint>,
    ) -> Option<T> {
        let field = fields.field(key)?;
        let text = self.string(field, example)?;
        self.checked(field.value.span(), check(text))
    }
}

/// A list from the bytes of its file.
pub(super) fn parse(
    name: &str,
    source: ListSource,
    format: Option<Format>,
    contents: &Contents,
    files: &dyn Files,
) -> Result<List, Complaint> {
    match files.list(format, contents) {
        Ok(lists::Parsed { domains, exceptions, networks, report }) => {
            Ok(List { name: name.to_owned(), domains, exceptions, networks, report, source })
        }
        Err(error @ lists::Error::Undetected) => {
            let all = Format::ALL.map(Format::word).join(", ");
            let hint = format!("give its format: one of {all}");
            complaint(format!("the list cannot be read: {error}"), hint)
        }
        Err(error @ lists::Error::Json { .. }) => complaint(
            format!("the list cannot be read: {error}"),
            "`lsrules` is a JSON object with `denied-remote-domains` and its like",
        ),
    }
}

fn not_empty(text: &str) -> Result<&str, Complaint> {
    match text.trim().is_empty() {
        true => complaint("the path is empty", "write the path of the list's file"),
        false => Ok(text),
    }
}

fn url(text: &str) -> Result<Url, Complaint> {
    let url = match Url::parse(text) {
        Ok(url) if url.scheme() == "https" => url,
        Ok(url) if url.scheme() == "http" => {
            return complaint(
                "lists are not fetched over http: whoever is on the way could change them",
                format!("write {}", quoted(&url.as_str().replacen("http", "https", 1))),
            );
        }
        _ => {
            return complaint(
                format!("{} is not a URL of a list", quoted(text)),
                "write `https://` and the rest of the address; a path is a `file`",
            );
        }
    };
    match url.username().is_empty() && url.password().is_none() {
        true => Ok(url),
        false => complaint(
            "the URL has a name or a password in it",
            "leave it out: what is kept of lists can be read by everyone",
        ),
    }
}

/// The format of a word; none for `auto`.
fn format(text: &str) -> Result<Option<Format>, Complaint> {
    if text == "auto" {
        return Ok(None);
    }
    if let Some(format) = Format::from_word(text) {
        return Ok(Some(format));
    }
    let known = || std::iter::once("auto").chain(Format::ALL.map(Format::word));
    let hint = match nearest(text, known()) {
        Some(format) => format!("did you mean `{format}`?"),
        None => format!("one of {}", known().collect::<Vec<_>>().join(", ")),
    };
    complaint(format!("there is no format {}", quoted(text)), hint)
}

fn refresh(text: &str) -> Result<Duration, Complaint> {
    // Of six digits at most.
    let found = span::seconds(text, "mhdw").filter(|seconds| *seconds > 0 && text.len() <= 7);
    match found {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => complaint(
            format!("{} is not a time span", quoted(text)),
            "write a number and `m`, `h`, `d` or `w`, as `24h`",
        ),
    }
}

fn sha256(text: &str) -> Result<&str, Complaint> {
    match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(text),
        false => complaint(
            format!("{} is not a SHA-256", quoted(text)),
            "write its 64 hexadecimal digits, as `sha256sum FILE` prints them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_fetched_again_after_minutes_up_to_weeks() {
        for (text, seconds) in [("1m", 60), ("24h", 86_400), ("999999w", 604_799_395_200)] {
            assert_eq!(refresh(text).ok(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["0h", "90s", "h", "+1h", "1000000m", "0000001m"] {
            assert!(refresh(text).is_err(), "{text}");
        }
    }
}
