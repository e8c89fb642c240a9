//! What is wrong with the policies: each finding with its place, the text underlined, and what to
//! write instead.
//!
//! A finding is text and byte ranges only; line and column numbers are looked up when it is shown,
//! by a search in the sorted starts of the lines, so that many findings in a long file stay cheap.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use codespan_reporting::diagnostic as codespan;
use codespan_reporting::files::{self, Files};
use codespan_reporting::term::{self, DisplayStyle, termcolor};
use serde::Serialize;

use super::model::List;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy set is not applied.
    Error,
    /// Valid, and probably not what was meant.
    Warning,
}

/// One of the files of a [`Diagnostics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(usize);

/// A range of bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which file.
    pub file: FileId,
    /// Which bytes of it.
    pub span: Range<usize>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub place: Place,
    /// Another place that has to do with it, and what it is.
    pub related: Option<(Place, String)>,
    /// What to write instead.
    pub hint: Option<String>,
}

/// All findings of all files of one policy set, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    files: Vec<File>,
    items: Vec<Diagnostic>,
    rule_places: HashMap<(String, String), Place>,
    lists: Vec<(FileId, Arc<List>)>,
    policies: usize,
    rules: usize,
}

/// The form for machines. Keys are stable; absent facts are absent keys.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    severity: Severity,
    file: &'a str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<Related<'a>>,
}

/// Another place that has to do with a finding.
#[derive(Debug, Serialize)]
pub struct Related<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    text: Arc<str>,
    line_starts: Vec<usize>,
}

/// A line longer than this is not printed with its finding, only the place is.
const LONGEST_SHOWN_LINE: usize = 1_000;

impl Diagnostics {
    /// Registers a file that findings can point into.
    pub fn add_file(&mut self, name: impl Into<String>, text: Arc<str>) -> FileId {
        let line_starts = files::line_starts(&text).collect();
        self.files.push(File { name: name.into(), text, line_starts });
        FileId(self.files.len() - 1)
    }

    /// Adds a finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.items.push(diagnostic);
    }

    /// Adds a warning at the name of a rule; `false` if no such rule was loaded.
    pub fn warn_rule(&mut self, policy: &str, rule: &str, message: String, hint: String) -> bool {
        let Some(place) = self.rule_places.get(&(policy.to_owned(), rule.to_owned())).cloned()
        else {
            return false;
        };
        let hint = Some(hint);
        self.push(Diagnostic { severity: Severity::Warning, message, place, related: None, hint });
        true
    }

    /// Whether the policies must not be applied.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// The first error with its place, and how many more there are: a line.
    pub fn first_error(&self) -> Option<String> {
        let mut errors = self.records().filter(|record| record.severity == Severity::Error);
        let Record { file, line, column, message, .. } = errors.next()?;
        let more = match errors.count() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(format!("{file}:{line}:{column}: {message}{more}"))
    }

    /// The errors alone.
    pub fn without_warnings(mut self) -> Self {
        self.items.retain(|item| item.severity == Severity::Error);
        self
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.items.iter().filter(|item| item.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.items.len() - self.errors()
    }

    /// How many policies were read, sound or not.
    pub fn policies(&self) -> usize {
        self.policies
    }

    /// How many rules were read, sound or not.
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// The findings, in the order of the files and of the places in them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// The lists that were read, sound ones only, each with the name of its policy's file.
    pub fn lists(&self) -> impl Iterator<Item = (&str, &List)> {
        self.lists.iter().map(|(file, list)| (self.files[file.0].name.as_str(), &**list))
    }

    /// The name of the file that a policy with rules stands in.
    pub fn file_of(&self, policy: &str) -> Option<&str> {
        let place = self.rule_places.iter().find(|((name, _), _)| name == policy)?.1;
        Some(&self.files[place.file.0].name)
    }

    pub(super) fn saw_list(&mut self, file: FileId, list: &Arc<List>) {
        self.lists.push((file, Arc::clone(list)));
    }

    pub(super) fn saw_policy(&mut self) {
        self.policies += 1;
    }

    pub(super) fn saw_rule(&mut self) {
        self.rules += 1;
    }

    pub(super) fn place_rule(&mut self, policy: &str, rule: &str, place: Place) {
        self.rule_places.insert((policy.to_owned(), rule.to_owned()), place);
    }

    /// Puts the findings in the order of their places.
    pub(crate) fn sort(&mut self) {
        self.items.sort_by_key(|item| (item.place.file, item.place.span.start));
    }

    /// The findings for people, an empty line after each.
    pub fn render(&self, colour: bool) -> String {
        let mut out = Shown::new(self, colour);
        for item in &self.items {
            out.add(item);
        }
        out.finish()
    }

    /// The findings for machines.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.items.iter().map(|item| {
            let file = &self.files[item.place.file.0];
            let (line, column) = file.position(item.place.span.start);
            let (end_line, end_column) = file.position(item.place.span.end);
            let related = item.related.as_ref().map(|(place, message)| {
                let file = &self.files[place.file.0];
                let (line, column) = file.position(place.span.start);
                Related { file: &file.name, line, column, message }
            });
            Record {
                severity: item.severity,
                file: &file.name,
                line,
                column,
                end_line,
                end_column,
                message: &item.message,
                hint: item.hint.as_deref(),
                related,
            }
        })
    }
}

impl File {
    /// Line and column, both from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let offset = floor(&self.text, offset);
        let line = self.line_starts.partition_point(|start| *start <= offset);
        (line, self.text[self.line_starts[line - 1]..offset].chars().count() + 1)
    }

    fn line(&self, line_index: usize) -> Range<usize> {
        let start = self.line_starts.get(line_index).copied().unwrap_or(self.text.len());
        start..self.line_starts.get(line_index + 1).copied().unwrap_or(self.text.len())
    }

    fn line_of(&self, offset: usize) -> Range<usize> {
        self.line(self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1))
    }
}

/// Findings on their way to text.
struct Shown<'a> {
    files: Vec<ShownFile<'a>>,
    out: Out,
}

enum Out {
    Plain(termcolor::NoColor<Vec<u8>>),
    Colour(termcolor::Ansi<Vec<u8>>),
}

struct ShownFile<'a> {
    file: &'a File,
    name: String,
    text: String,
}

impl<'a> Shown<'a> {
    fn new(diagnostics: &'a Diagnostics, colour: bool) -> Self {
        let out = match colour {
            false => Out::Plain(termcolor::NoColor::new(Vec::new())),
            true => Out::Colour(termcolor::Ansi::new(Vec::new())),
        };
        let files = diagnostics.files.iter();
        let files = files.map(|file| ShownFile {
            file,
            name: harmless(&file.name.replace('\n', "?")),
            text: harmless(&file.text),
        });
        Self { files: files.collect(), out }
    }

    fn add(&mut self, item: &Diagnostic) {
        let severity = match item.severity {
            Severity::Error => codespan::Severity::Error,
            Severity::Warning => codespan::Severity::Warning,
        };
        let mut shown = codespan::Diagnostic::new(severity).with_message(&item.message);
        let mut long = false;
        let mut label = |place: &Place, style| {
            let file = self.files[place.file.0].file;
            let start = floor(&file.text, place.span.start);
            let line = file.line_of(start);
            long |= line.len() > LONGEST_SHOWN_LINE;
            // A table or a long string is told from its first line.
            let text = file.text[start..line.end.max(start)].trim_end_matches(['\r', '\n']);
            let end = floor(&file.text, place.span.end).clamp(start, start + text.len());
            codespan::Label::new(style, place.file.0, start..end)
        };
        shown.labels.push(label(&item.place, codespan::LabelStyle::Primary));
        if let Some((place, message)) = &item.related {
            let label = label(place, codespan::LabelStyle::Secondary);
            shown.labels.push(label.with_message(message));
        }
        shown.notes.extend(item.hint.iter().map(|hint| format!("hint: {hint}")));

        let config = term::Config {
            display_style: if long { DisplayStyle::Medium } else { DisplayStyle::Rich },
            ..term::Config::default()
        };
        let files = &ShownFiles(&self.files);
        let done = match &mut self.out {
            Out::Plain(out) => term::emit_to_write_style(out, &config, files, &shown),
            Out::Colour(out) => term::emit_to_write_style(out, &config, files, &shown),
        };
        // Writing to memory does not fail and every place was fitted into its file above.
        debug_assert!(done.is_ok(), "{done:?}");
        if long {
            match &mut self.out {
                Out::Plain(out) => out.get_mut().push(b'\n'),
                Out::Colour(out) => out.get_mut().push(b'\n'),
            }
        }
    }

    fn finish(self) -> String {
        let bytes = match self.out {
            Out::Plain(out) => out.into_inner(),
            Out::Colour(out) => out.into_inner(),
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

struct ShownFiles<'a, 'b>(&'b [ShownFile<'a>]);

impl<'f> Files<'f> for ShownFiles<'_, '_> {
    type FileId = usize;
    type Name = &'f str;
    type Source = &'f str;

    fn name(&'f self, id: usize) -> Result<&'f str, files::Error> {
        Ok(&self.0.get(id).ok_or(files::Error::FileMissing)?.name)
    }

    fn source(&'f self, id: usize) -> Result<&'f str, files::Error> {
        Ok(&self.0.get(id).ok_or(files::Error::FileMissing)?.text)
    }

    fn line_index(&'f self, id: usize, byte_index: usize) -> Result<usize, files::Error> {
        let starts = &self.0.get(id).ok_or(files::Error::FileMissing)?.file.line_starts;
        Ok(starts.partition_point(|start| *start <= byte_index).saturating_sub(1))
    }

    fn line_range(&'f self, id: usize, line: usize) -> Result<Range<usize>, files::Error> {
        Ok(self.0.get(id).ok_or(files::Error::FileMissing)?.file.line(line))
    }
}

/// `text` without anything that a terminal would obey or that would hide what stands there, each
/// such character replaced by one of the same length in UTF-8, so that byte ranges still hold.
fn harmless(text: &str) -> String {
    let mut chars = text.chars().peekable();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\n' | '\t' => c,
            '\r' if chars.peek() == Some(&'\n') => c,
            _ if !is_harmful(c) => c,
            _ => match c.len_utf8() {
                1 => '?',
                2 => '¿',
                3 => char::REPLACEMENT_CHARACTER,
                _ => '🛇',
            },
        });
    }
    out
}

/// Control characters and those that change the direction of writing or are not seen.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` on one line, with nothing in it that a terminal would obey or that would hide what
/// stands there.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { '?' } else { c }).collect()
}

/// `text` in backquotes, cut short where it is long, and safe to print.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out = String::from("`");
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            out.push('…');
            break;
        }
        match is_harmful(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.push('`');
    out
}

/// The nearest start of a character at or before `offset`.
fn floor(text: &str, offset: usize) -> usize {
    text.floor_char_boundary(offset.min(text.len()))
}
