//! Verdicts as a table that fits the terminal.

use std::net::SocketAddr;

use jiff::tz::TimeZone;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::verdict;
use crate::{
    events::{View, record::Record},
    policy::diagnostic::printable,
};

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// How wide the columns are.
#[derive(Debug)]
pub struct Table {
    /// What stands above the numbers, and above the apps.
    heads: [&'static str; 2],
    time: &'static str,
    when: usize,
    app: usize,
    to: usize,
    place: usize,
    by: usize,
    zone: TimeZone,
    colour: bool,
}

/// Digits of numbers.
const SEQ: usize = 8;
/// The longest word for a verdict.
const VERDICT: usize = 5;
/// Of a country.
const COUNTRY: usize = 2;
/// Where this is left beside number, time and verdict, there is room for more than the country.
const ROOMY: usize = 100;

impl Table {
    /// Of a terminal of so many columns.
    pub fn new(columns: usize, zone: TimeZone, colour: bool) -> Self {
        Self::with_time(("%m-%d %H:%M:%S", 14), columns, zone, colour)
    }

    /// The same without the day.
    pub fn of_today(columns: usize, zone: TimeZone, colour: bool) -> Self {
        Self::with_time(("%H:%M:%S", 8), columns, zone, colour)
    }

    /// Of the terminal that standard output is.
    pub fn of_terminal(zone: TimeZone, colour: bool) -> Self {
        Self::new(columns(), zone, colour)
    }

    /// The same for flows of which not the app is known, but where they come from.
    pub const fn of_sources(mut self) -> Self {
        self.heads = ["FLOW", "SOURCE"];
        self
    }

    /// With times in a format that takes so many columns.
    fn with_time(
        (time, when): (&'static str, usize),
        columns: usize,
        zone: TimeZone,
        colour: bool,
    ) -> Self {
        let heads = ["EVENT", "APP"];
        let mut table = Self { heads, time, when, app: 0, to: 0, place: 0, by: 0, zone, colour };
        table.fit_into(columns);
        table
    }

    /// Makes the most of so many columns.
    pub fn fit_into(&mut self, columns: usize) {
        // With a blank behind each of the first six.
        let left = columns.saturating_sub(SEQ + self.when + VERDICT + 6).max(24);
        self.place = if left < ROOMY { COUNTRY } else { (left / 5).min(32) };
        let left = left - self.place;
        // What is longer than that is rare, and the destination has more to say.
        (self.app, self.by) = ((left * 2 / 9).min(20), (left / 3).min(40));
        self.to = left - self.app - self.by;
    }

    /// The line above.
    pub fn head(&self) -> String {
        let place = if self.place == COUNTRY { "CC" } else { "WHERE" };
        let [number, app] = self.heads;
        let line = self.cells(number, "TIME", "WHAT", [app, "DESTINATION", place, "BY"]);
        if self.colour { format!("\x1b[1m{line}\x1b[0m") } else { line }
    }

    /// The line of a record.
    pub fn row(&self, record: &Record) -> String {
        self.line(record.seq, &View::from(record))
    }

    /// The line of what has this number.
    pub fn line(&self, number: u64, view: &View<'_>) -> String {
        let time = view.time.unwrap_or_default().to_zoned(self.zone.clone());
        let time = time.strftime(self.time).to_string();
        let address = match (view.port, view.proto) {
            (None, proto) => format!("{}/{proto}", view.ip),
            (Some(443), "tcp") => view.ip.to_string(),
            (Some(port), "tcp") => SocketAddr::new(view.ip, port).to_string(),
            (Some(port), proto) => format!("{}/{proto}", SocketAddr::new(view.ip, port)),
        };
        let to = match (view.host, view.port, view.hook) {
            (None, _, _) => address,
            (Some(host), _, "dns") => format!("{host}?"),
            (Some(host), ..) => {
                let host = match (view.port, view.proto) {
                    (None | Some(443), "tcp") => host.to_owned(),
                    (None, proto) => format!("{host}/{proto}"),
                    (Some(port), "tcp") => format!("{host}:{port}"),
                    (Some(port), proto) => format!("{host}:{port}/{proto}"),
                };
                let both = format!("{host} {}", view.ip);
                if both.width() <= self.to { both } else { host }
            }
        };
        let owner = view.organisation.or(view.as_name).unwrap_or_default();
        let country = view.country.unwrap_or("-");
        let place = match self.place {
            COUNTRY => country.to_owned(),
            _ => format!("{country} {owner}"),
        };
        let mut by = match (view.policy, view.rule) {
            (Some(policy), Some(rule)) => format!("{policy}/{rule}"),
            (Some(policy), None) => format!("{policy} (default)"),
            _ => view.reason.to_owned(),
        };
        if view.count != 1 {
            by = format!("{}x {by}", view.count);
        }
        self.cells(&number.to_string(), &time, view.verdict, [&view.app.name, &to, &place, &by])
    }

    fn cells(&self, seq: &str, time: &str, what: &str, rest: [&str; 4]) -> String {
        let [app, to, place, by] = rest;
        let (on, off) = verdict::colours(self.colour, what);
        let line = format!(
            "{:>SEQ$} {} {on}{}{off} {} {} {} {}",
            seq,
            fit(time, self.when),
            fit(what, VERDICT),
            fit(app, self.app),
            fit(to, self.to),
            fit(place, self.place),
            fit(by, self.by),
        );
        line.trim_end().to_owned()
    }
}

/// Columns of the terminal that standard output is.
pub fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    match size.map_or(0, |size| usize::from(size.ws_col)) {
        0 => COLUMNS,
        columns => columns,
    }
}

/// A text that takes so many columns: cut with a sign, or filled with blanks.
pub fn fit(text: &str, columns: usize) -> String {
    // A process calls itself what it likes.
    let mut text = printable(text);
    if text.width() > columns {
        let mut room = columns.saturating_sub(1);
        let end = text.char_indices().find_map(|(at, letter)| {
            match room.checked_sub(letter.width().unwrap_or_default()) {
                Some(left) => {
                    room = left;
                    None
                }
                None => Some(at),
            }
        });
        text.truncate(end.unwrap_or(text.len()));
        text.push('…');
    }
    let blanks = columns.saturating_sub(text.width());
    text + &" ".repeat(blanks)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::events::record::{self, Line};

    fn record(name: &str, host: &str, rule: &str) -> Box<Record> {
        let event = json!({
            "schema": 1, "seq": 1234, "time": "2026-11-22T01:25:18Z", "verdict": "deny",
            "reason": "rule", "policy": "baidu-tongji", "rule": rule, "hook": "connect",
            "app": {"name": name, "uid": 0}, "proto": "tcp",
            "dst": {"ip": "103.235.46.191", "port": 443}, "host": {"name": host},
            "geo": {"country": "HK", "organisation": "baidu"}, "count": 12,
        });
        match record::read(event.to_string().as_bytes()) {
            Ok(Line::Verdict(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    fn at(columns: usize) -> String {
        let table = Table::new(columns, TimeZone::UTC, false);
        let mut lines = vec![table.head()];
        for (name, host, rule) in [
            ("curl", "hm.baidu.com", "tongji"),
            ("x\u{1b}[2J\ny", "hm.baidu.com", "tongji"),
            (
                "\u{202e}\u{200b}名前がとても長いアプリの名前です",
                "例え.テスト.とても長い名前.example",
                "r",
            ),
            ("e\u{301}e\u{301}e\u{301}", &"long.".repeat(30), &"r".repeat(60)),
        ] {
            lines.push(table.row(&record(name, host, rule)));
        }
        lines.join("\n")
    }

    #[test]
    fn columns_stand_below_each_other() {
        let row =
            "    1234 11-22 01:25:18 deny  curl       hm.baidu.com         HK 12x baidu-tong…";
        assert_eq!(at(80).lines().nth(1), Some(row));
        for columns in 60..250 {
            let table = at(columns);
            let (head, rows) = table.split_once('\n').unwrap();
            let country = head.find("CC").or_else(|| head.find("WHERE")).unwrap();
            for row in rows.lines() {
                assert!(row.width() <= columns, "{columns}: {row}");
                let start = (0..row.len()).find(|at| {
                    row.is_char_boundary(*at)
                        && row[..*at].width() == country
                        && row[*at..].starts_with("HK")
                });
                assert!(start.is_some(), "{columns}:\n{head}\n{row}");
            }
        }
    }
}
