//! The report for people at a terminal.

use jiff::{Timestamp, tz::TimeZone};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{
    Kind, Name, Others, Owner, Report, Row, Stopped, Stopper, Sums, Talker, Would, judge::Place,
};
use crate::{intel::country::Country, policy::diagnostic::printable};

/// Rows of a list of one app.
const ROWS: usize = 5;
/// Columns that can hold a report.
const NARROW: usize = 60;
/// Columns beyond which lines are hard to follow.
const WIDE: usize = 120;

/// How it is to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether there are colours.
    pub colour: bool,
    /// Times are told in this zone.
    pub zone: TimeZone,
}

/// The report as text.
pub fn render(report: &Report, look: &Look) -> String {
    let width = look.width.clamp(NARROW, WIDE);
    let by_bytes = report.sums.bytes() > 0;
    let mut page = Page { text: String::new(), look: look.clone(), width, by_bytes };
    page.head(report);
    report.apps.iter().for_each(|talker| page.talker(talker));
    page.text
}

/// Bytes in the units that people read: a kB is 1000 bytes.
pub fn bytes(number: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (number as f64 / 1000.0, 0);
    if number < 1000 {
        return format!("{number} B");
    }
    // As it is rounded: 999.95 would be a thousand.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// A number with its thousands apart.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of a thing.
pub fn count(times: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(times), if times == 1 { one } else { many })
}

/// What an app is called, and what else tells it from others.
pub fn title(talker: &Talker) -> (String, String) {
    let app = &talker.app;
    let container = app.container.as_ref().and_then(|one| one.name.as_ref().or(one.id.as_ref()));
    let user = app.user.clone().unwrap_or_else(|| app.uid.to_string());
    let labels = [
        ("unit", app.unit.as_ref()),
        ("flatpak", app.flatpak.as_ref()),
        ("snap", app.snap.as_ref()),
        ("container", container),
        ("user", Some(&user)),
    ];
    let paths = app.exe.iter().chain(&app.script).map(|path| printable(path));
    let labels = labels
        .into_iter()
        .filter_map(|(kind, value)| Some(format!("{kind}:{}", printable(value?))));
    (printable(&app.name), paths.chain(labels).collect::<Vec<_>>().join("  "))
}

/// A country by its name.
pub fn country(code: &str) -> String {
    match (code, Country::from_code(code)) {
        (_, Some(country)) => country.name().to_owned(),
        ("local", None) => "this machine and its networks".to_owned(),
        ("unknown", None) => "not known".to_owned(),
        (other, None) => printable(other),
    }
}

/// An owner by its name.
pub fn owner(owner: &Owner) -> String {
    match owner.kind {
        Kind::Organisation | Kind::As => printable(&owner.name),
        Kind::Local => country("local"),
        Kind::Unknown => country("unknown"),
    }
}

/// Verdicts by their kinds, without those that there are none of.
pub fn flows(sums: &Sums) -> String {
    let flows = sums.flows;
    let kinds = [(flows.deny, "denied"), (flows.audit, "audited"), (flows.allow, "allowed")];
    let kinds: Vec<String> = kinds
        .into_iter()
        .filter(|(times, _)| *times > 0)
        .map(|(times, what)| format!("{} {what}", number(times)))
        .collect();
    if kinds.is_empty() { "no flow".to_owned() } else { kinds.join(", ") }
}

/// What stopped flows, as people write it.
pub fn stopper(by: &Stopper) -> String {
    match (&by.policy, &by.rule) {
        (Some(policy), Some(rule)) => format!("{}/{}", printable(policy), printable(rule)),
        (Some(policy), None) => format!("{}, its default", printable(policy)),
        _ => format!("no policy ({})", printable(&by.reason)),
    }
}

/// A rule of a policy that is not enabled.
pub fn would(of: &Would) -> String {
    let rule =
        of.rule.as_ref().map_or(", its default".to_owned(), |rule| format!("/{}", printable(rule)));
    let observed = if of.place == Place::Observed { " (observes)" } else { "" };
    format!("{}{rule}{observed}", printable(&of.policy))
}

/// What is missing in it, in words.
pub fn missing(report: &Report) -> Vec<String> {
    let of = &report.missing;
    let all = [
        (of.lost, "events that were lost before they were written"),
        (of.unreadable, "lines that could not be read"),
        (of.apps, "verdicts on apps beyond those that fit"),
        (of.unmeasured, "bytes of records whose flows are beyond those that fit"),
        (
            of.unjudged,
            "verdicts that policies which are not enabled were not asked about, for too many differ",
        ),
    ];
    let all = all.into_iter().filter(|(times, _)| *times > 0);
    all.map(|(times, what)| format!("{what}: {}", number(times))).collect()
}

/// Text on its way.
struct Page {
    text: String,
    look: Look,
    width: usize,
    /// Bars are of bytes, and of flows only where no bytes are known.
    by_bytes: bool,
}

/// Styles of text.
mod style {
    pub const BOLD: &str = "1";
    pub const DIM: &str = "2";
    pub const RED: &str = "31";
    pub const GREEN: &str = "32";
    pub const YELLOW: &str = "33";
    pub const CYAN: &str = "36";
}

impl Page {
    fn paint(&self, style: &str, text: &str) -> String {
        match self.look.colour && !text.is_empty() {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn time(&self, time: Timestamp) -> String {
        time.to_zoned(self.look.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    fn head(&mut self, report: &Report) {
        let (Some(first), Some(last)) = (report.first, report.last) else { return };
        let zone = last.to_zoned(self.look.zone.clone()).strftime("%:z");
        let when = format!("{} to {} ({zone})", self.time(first), self.time(last));
        let title = self.paint(style::BOLD, "Who talked to whom");
        self.line(&title);
        self.line(&when);
        let apps = count(report.apps.len() as u64, "app", "apps");
        self.wrapped("", &format!("{apps}: {}", flows(&report.sums)), None);
        if self.by_bytes {
            let Sums { bytes_out, bytes_in, .. } = report.sums;
            self.line(&format!("{} sent, {} received", bytes(bytes_out), bytes(bytes_in)));
        }
        match report.last_report {
            None => self.line("Nothing to compare with: no report before is known."),
            Some(time) => {
                let new = |new: usize, one, many| count(new as u64, one, many);
                let apps = report.apps.iter().filter(|talker| talker.new).count();
                let organisations = report.organisations.iter().filter(|row| row.new).count();
                let countries = report.countries.iter().filter(|row| row.new).count();
                let names = report.apps.iter().flat_map(|talker| &talker.names);
                let names = names.filter(|row| row.new).count();
                let text = format!(
                    "New since the report of {}: {}, {}, {}, {}",
                    self.time(time),
                    new(apps, "app", "apps"),
                    new(organisations, "organisation", "organisations"),
                    new(countries, "country", "countries"),
                    new(names, "name", "names"),
                );
                self.wrapped("", &text, None);
            }
        }
        for text in missing(report) {
            self.wrapped("", &format!("Missing: {text}"), Some(style::YELLOW));
        }
        let what = if self.by_bytes { "bytes sent and received" } else { "flows" };
        let text = format!("Bars are {what}, within an app.");
        let text = self.paint(style::DIM, &text);
        self.line(&text);
    }

    fn talker(&mut self, talker: &Talker) {
        let (name, rest) = title(talker);
        let new = if talker.new { self.paint(style::CYAN, " (new)") } else { String::new() };
        self.line("");
        let room = self.width.saturating_sub(name.width().min(self.width / 2) + 8);
        let name = self.paint(style::BOLD, &fitted(&name, self.width / 2));
        let rest = fitted_end(&rest, room);
        let rest = self.paint(style::DIM, &rest);
        self.line(&format!("{name}{new}  {rest}"));
        let Sums { bytes_out, bytes_in, .. } = talker.sums;
        let mut what = flows(&talker.sums);
        if self.by_bytes {
            what += &format!("; {} sent, {} received", bytes(bytes_out), bytes(bytes_in));
        }
        self.wrapped("  ", &what, None);
        let seen = format!("  {} to {}", self.time(talker.first), self.time(talker.last));
        self.line(&seen);
        let most = |sums: &Sums| if self.by_bytes { sums.bytes() } else { sums.flows.all() };
        let most = talker
            .names
            .iter()
            .map(|row| most(&row.sums))
            .chain(talker.organisations.iter().map(|row| most(&row.sums)))
            .chain(talker.countries.iter().map(|row| most(&row.sums)))
            .max();
        let most = most.unwrap_or(0);
        self.rows("organisations", &talker.organisations, owner, talker.other_organisations, most);
        let in_words = |of: &Name| match Country::from_code(&of.name) {
            Some(known) => format!("{} {}", known.code(), known.name()),
            None => country(&of.name),
        };
        self.rows("countries", &talker.countries, in_words, None, most);
        self.rows(
            "names",
            &talker.names,
            |of: &Name| printable(&of.name),
            talker.other_names,
            most,
        );
        self.stopped(&talker.stopped);
        self.would(&talker.would);
    }

    /// A list with its bars.
    fn rows<K>(
        &mut self,
        heading: &str,
        rows: &[Row<K>],
        called: impl Fn(&K) -> String,
        others: Option<Others>,
        most: u64,
    ) {
        if rows.is_empty() {
            return;
        }
        let columns = if self.by_bytes { 30 } else { 20 };
        let bar = (self.width / 6).clamp(8, 20);
        let room = self.width - 4 - bar - 1 - columns;
        let columns = match self.by_bytes {
            true => format!("{:>10}{:>10}{:>10}", "sent", "received", "flows"),
            false => format!("{:>10}{:>10}", "denied", "flows"),
        };
        let heading = pad(heading, room + bar + 3);
        let heading = self.paint(style::DIM, &format!("  {heading}{columns}"));
        self.line(&heading);
        let hidden = rows.get(ROWS..).unwrap_or_default();
        let mut more = others.unwrap_or_default();
        more.number += hidden.len();
        hidden.iter().for_each(|row| more.sums.add(&row.sums));
        for row in rows.iter().take(ROWS) {
            let mark = if row.new { " (new)" } else { "" };
            let name = fitted(&called(&row.of), room - mark.len());
            let new = self.paint(style::CYAN, mark);
            let gap = " ".repeat(room.saturating_sub(name.width() + mark.len()));
            let drawn = self.bar(&row.sums, most, bar);
            let numbers = self.numbers(&row.sums);
            self.line(&format!("    {name}{new}{gap} {drawn}{numbers}"));
        }
        if more.number > 0 {
            let text = pad(&format!("and {} more", number(more.number as u64)), room + bar + 1);
            let numbers = self.numbers(&more.sums);
            self.line(&format!("    {text}{numbers}"));
        }
    }

    fn numbers(&self, sums: &Sums) -> String {
        let flows = number(sums.flows.all());
        match self.by_bytes {
            true => format!("{:>10}{:>10}{flows:>10}", bytes(sums.bytes_out), bytes(sums.bytes_in)),
            false => format!("{:>10}{flows:>10}", number(sums.flows.deny)),
        }
    }

    /// Eighths of a column.
    fn bar(&self, sums: &Sums, most: u64, columns: usize) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let value = if self.by_bytes { sums.bytes() } else { sums.flows.all() };
        let eighths = match (value, most) {
            (0, _) | (_, 0) => 0,
            // What is there is seen.
            _ => ((value as f64 / most as f64 * columns as f64 * 8.0).round() as usize)
                .clamp(1, columns * 8),
        };
        let bar = "█".repeat(eighths / 8) + PARTS[eighths % 8];
        let gap = " ".repeat(columns - bar.width());
        let style = if sums.flows.deny == sums.flows.all() && sums.flows.deny > 0 {
            style::RED
        } else {
            style::GREEN
        };
        self.paint(style, &bar) + &gap
    }

    fn stopped(&mut self, stopped: &[Stopped]) {
        if stopped.is_empty() {
            return;
        }
        let heading = self.paint(style::RED, "  stopped by");
        self.line(&heading);
        let lines = stopped.iter().map(|one| {
            let names = one.names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
            (stopper(&one.by), format!("{}: {names}", number(one.flows)))
        });
        self.pairs(lines.collect());
    }

    fn would(&mut self, all: &[Would]) {
        if all.is_empty() {
            return;
        }
        let heading = "  passed, but policies that are not enabled would stop it";
        let heading = self.paint(style::YELLOW, heading);
        self.line(&heading);
        let lines = all.iter().map(|one| {
            let names = one.names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
            (would(one), format!("{}: {names}", number(one.flows)))
        });
        self.pairs(lines.collect());
    }

    /// Two columns.
    fn pairs(&mut self, lines: Vec<(String, String)>) {
        let most = lines.iter().map(|(left, _)| left.width()).max().unwrap_or(0);
        let room = most.min(self.width / 2);
        let hidden = lines.len().saturating_sub(2 * ROWS);
        for (left, right) in lines.into_iter().take(2 * ROWS) {
            let left = pad(&fitted(&left, room), room);
            let right = fitted(&right, self.width - 6 - room);
            self.line(&format!("    {left}  {right}"));
        }
        if hidden > 0 {
            self.line(&format!("    and {} more", number(hidden as u64)));
        }
    }

    /// A text in as many lines as it takes.
    fn wrapped(&mut self, indent: &str, text: &str, style: Option<&str>) {
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let full = lines.last().map_or(0, |line| line.width());
            match lines.last_mut() {
                Some(line) if full == 0 => line.push_str(word),
                Some(line) if indent.len() + full + 1 + word.width() <= self.width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        for line in lines {
            let line = style.map_or(line.clone(), |style| self.paint(style, &line));
            self.line(&format!("{indent}{line}"));
        }
    }
}

/// At most so many columns of a text, and `…` where something is left out.
pub fn fitted(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut taken = 1;
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken > columns {
            break;
        }
        out.push(c);
    }
    out + "…"
}

/// As [`fitted`], with the end of the text: of a path it says most.
fn fitted_end(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut taken = 1;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken <= columns
    };
    let end: Vec<char> = text.chars().rev().take_while(fits).collect();
    std::iter::once('…').chain(end.into_iter().rev()).collect()
}

fn pad(text: &str, columns: usize) -> String {
    let gap = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(gap))
}
