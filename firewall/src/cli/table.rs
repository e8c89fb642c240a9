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
pub struct Table {
    seq: usize,
    app: usize,
    to: usize,
    place: usize,
    by: usize,
    zone: TimeZone,
    colour: bool,
}

/// `MM-DD HH:MM:SS`
const TIME: usize = 14;
/// The longest word for a verdict.
const VERDICT: usize = 5;

impl Table {
    /// Of a terminal of so many columns, with numbers of so many digits.
    pub fn new(columns: usize, zone: TimeZone, colour: bool) -> Self {
        let seq = 7;
        // With a blank behind each of the first six.
        let left = columns.saturating_sub(seq + TIME + VERDICT + 6).max(40);
        // 48 at 80 columns.
        let (app, place) = (left / 5, left / 5);
        let by = left / 4;
        Self { seq, app, to: left - app - place - by, place, by, zone, colour }
    }

    /// Of the terminal that standard output is.
    pub fn of_terminal(zone: TimeZone, colour: bool) -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        Self::new(if columns == 0 { COLUMNS } else { columns }, zone, colour)
    }

    /// The line above.
    pub fn head(&self) -> String {
        let line = self.cells("EVENT", "TIME", "WHAT", ["APP", "DESTINATION", "WHERE", "BY"]);
        if self.colour { format!("\x1b[1m{line}\x1b[0m") } else { line }
    }

    /// The line of a record.
    pub fn row(&self, record: &Record) -> String {
        let view = View::from(record);
        let time = record.time.to_zoned(self.zone.clone()).strftime("%m-%d %H:%M:%S").to_string();
        let place = match (view.port, view.proto) {
            (None, proto) => format!("{}/{proto}", view.ip),
            (Some(443), "tcp") => view.ip.to_string(),
            (Some(port), "tcp") => SocketAddr::new(view.ip, port).to_string(),
            (Some(port), proto) => format!("{}/{proto}", SocketAddr::new(view.ip, port)),
        };
        let to = match (view.host, view.port, view.hook) {
            (None, _, _) => place,
            (Some(host), _, "dns") => format!("{host}?"),
            (Some(host), None | Some(443), _) => host.to_owned(),
            (Some(host), Some(port), _) => format!("{host}:{port}"),
        };
        let owner = view.organisation.or(view.as_name).unwrap_or_default();
        let place = format!("{} {owner}", view.country.unwrap_or("-"));
        let mut by = match (view.policy, view.rule) {
            (Some(policy), Some(rule)) => format!("{policy}/{rule}"),
            (Some(policy), None) => format!("{policy} (default)"),
            _ => view.reason.to_owned(),
        };
        if record.count != 1 {
            by = format!("{}x {by}", record.count);
        }
        let seq = record.seq.to_string();
        self.cells(&seq, &time, view.verdict, [&view.app.name, &to, &place, &by])
    }

    fn cells(&self, seq: &str, time: &str, what: &str, rest: [&str; 4]) -> String {
        let [app, to, place, by] = rest;
        let (on, off) = verdict::colours(self.colour, what);
        let line = format!(
            "{:>width$} {} {on}{}{off} {} {} {} {}",
            seq,
            fit(time, TIME),
            fit(what, VERDICT),
            fit(app, self.app),
            fit(to, self.to),
            fit(place, self.place),
            fit(by, self.by),
            width = self.seq,
        );
        line.trim_end().to_owned()
    }
}

/// A text that takes so many columns: cut with a sign, or filled with blanks.
fn fit(text: &str, columns: usize) -> String {
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
