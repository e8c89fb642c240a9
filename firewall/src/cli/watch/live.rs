//! Verdicts on a terminal, above a line that says how many there were.

use std::{
    io::{self, BufRead as _, BufReader, Write},
    path::Path,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use nix::sys::signal::{SigSet, Signal};
use unicode_width::UnicodeWidthStr as _;

use super::super::{
    colour,
    table::{self, Table, fit},
};
use crate::{
    api::{
        Client,
        client::Lines,
        dto::{Losses, State, Status},
    },
    events::record::{self, Line, Record, Verdict},
};

/// How often the line below is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often the daemon is asked what it lost.
const ASKS: Duration = Duration::from_secs(5);
/// Lines that wait to be shown; then the daemon has to wait, and tells what it lost meanwhile.
const WAITING: usize = 1024;
/// Seconds of which the rate is told.
const SECONDS: usize = 5;

/// What is to be shown.
enum Told {
    Line(Vec<u8>),
    Status(Losses, State),
    Ended(Signal),
    /// The daemon has stopped.
    Stopped,
}

/// Shows what comes, until Ctrl-C or until the daemon stops.
///
/// # Errors
/// When the terminal cannot be written to.
pub fn run(lines: BufReader<Lines>, socket: &Path) -> anyhow::Result<ExitCode> {
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // Before there are threads, so that it holds for all of them.
    ends.thread_block()?;
    let (to, from) = mpsc::sync_channel(WAITING);
    for task in [read(lines, to.clone()), ask(socket.to_owned(), to.clone()), wait(ends, to)] {
        thread::Builder::new().spawn(task)?;
    }
    let out = io::stdout();
    let mut screen = Screen::new(TimeZone::system(), colour(&out));
    let mut out = out.lock();
    let mut sums = Sums::new(Instant::now());
    let ended = loop {
        let mut all = match from.recv_timeout(TICK) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => break None,
        };
        all.extend(from.try_iter().take(WAITING));
        let mut ended = None;
        screen.fit();
        let mut rows = String::new();
        for told in all {
            match told {
                Told::Line(line) => match record::read(line.trim_ascii()) {
                    Ok(Line::Verdict(record)) => {
                        sums.add(&record, Instant::now());
                        screen.row(&record, &mut rows);
                    }
                    Ok(Line::Lost(count)) => sums.lost = sums.lost.saturating_add(count),
                    Err(_) => sums.unread += 1,
                },
                Told::Status(losses, state) => sums.daemon = Some((losses, state)),
                Told::Ended(signal) => ended = Some(Some(signal)),
                Told::Stopped => ended = ended.or(Some(None)),
            }
        }
        screen.draw(&mut out, &rows, sums.line(Instant::now()))?;
        if let Some(ended) = ended {
            break ended;
        }
    };
    screen.leave(&mut out, &sums.line(Instant::now()))?;
    match ended {
        Some(signal) => Ok(ExitCode::from(128 + signal as u8)),
        None => {
            eprintln!("note: the daemon has stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}

type Task = Box<dyn FnOnce() + Send>;

fn read(mut lines: BufReader<Lines>, to: SyncSender<Told>) -> Task {
    Box::new(move || {
        loop {
            let mut line = Vec::new();
            let told = match lines.read_until(b'\n', &mut line) {
                // A daemon that was killed says no good-bye.
                Ok(0) | Err(_) => Told::Stopped,
                Ok(_) => Told::Line(line),
            };
            let is_last = matches!(told, Told::Stopped);
            if to.send(told).is_err() || is_last {
                return;
            }
        }
    })
}

fn ask(socket: std::path::PathBuf, to: SyncSender<Told>) -> Task {
    Box::new(move || {
        let Ok(client) = Client::new(&socket) else { return };
        loop {
            // That it does not answer is told when the verdicts end.
            if let Ok(Status { losses, state, .. }) = client.get("/v1/status")
                && to.send(Told::Status(losses, state)).is_err()
            {
                return;
            }
            thread::sleep(ASKS);
        }
    })
}

fn wait(signals: SigSet, to: SyncSender<Told>) -> Task {
    Box::new(move || {
        if let Ok(signal) = signals.wait() {
            let _ = to.send(Told::Ended(signal));
        }
    })
}

/// What is on the terminal.
struct Screen {
    table: Table,
    colour: bool,
    columns: usize,
    /// Rows since the head was written.
    rows: Option<usize>,
    /// The line below, as it stands there.
    below: String,
}

impl Screen {
    fn new(zone: TimeZone, colour: bool) -> Self {
        let columns = table::columns();
        let table = Table::of_today(columns, zone, colour);
        Self { table, colour, columns, rows: None, below: String::new() }
    }

    /// Looks how large the terminal is now.
    fn fit(&mut self) {
        let columns = table::columns();
        if columns != self.columns {
            self.table.fit_into(columns);
            self.rows = None;
        }
        self.columns = columns;
    }

    /// Adds the row of a verdict; the head again where the last one may be out of sight.
    fn row(&mut self, record: &Record, rows: &mut String) {
        let height = rustix::termios::tcgetwinsize(io::stdout());
        let height = height.map_or(0, |size| usize::from(size.ws_row));
        let since = match self.rows {
            Some(since) if since + 2 < height.max(8) => since,
            _ => {
                rows.push_str(&self.table.head());
                rows.push('\n');
                0
            }
        };
        self.rows = Some(since + 1);
        rows.push_str(&self.table.row(record));
        rows.push('\n');
    }

    /// Writes rows, and the line below anew, in one go so that nothing flickers.
    fn draw(&mut self, out: &mut impl Write, rows: &str, below: String) -> io::Result<()> {
        // In the last column some terminals begin a new line, and Ctrl-C is shown as two characters.
        let below = fit(&below, self.columns.saturating_sub(3));
        if rows.is_empty() && below == self.below {
            return Ok(());
        }
        let (on, off) = if self.colour { ("\x1b[7m", "\x1b[0m") } else { ("", "") };
        let text = format!("{}{rows}{on}{below}{off}", self.clearing());
        self.below = below;
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Leaves the terminal as it was, with the sums as the last line.
    fn leave(&self, out: &mut impl Write, sums: &str) -> io::Result<()> {
        writeln!(out, "{}{sums}", self.clearing())?;
        out.flush()
    }

    /// What removes the line below. Of a terminal that has become narrower it takes several.
    fn clearing(&self) -> String {
        let lines = self.below.width().div_ceil(self.columns.max(1));
        match lines {
            0 | 1 => "\r\x1b[J".to_owned(),
            _ => format!("\r\x1b[{}A\x1b[J", lines - 1),
        }
    }
}

/// How many there were.
struct Sums {
    deny: u64,
    audit: u64,
    allow: u64,
    lost: u64,
    unread: u64,
    daemon: Option<(Losses, State)>,
    begin: Instant,
    /// Of the last seconds, by the second since the beginning.
    recent: [(u64, u64); SECONDS + 1],
}

impl Sums {
    fn new(begin: Instant) -> Self {
        let recent = [(0, 0); SECONDS + 1];
        Self { deny: 0, audit: 0, allow: 0, lost: 0, unread: 0, daemon: None, begin, recent }
    }

    fn add(&mut self, record: &Record, now: Instant) {
        let sum = match record.verdict {
            Verdict::Deny => &mut self.deny,
            Verdict::Audit => &mut self.audit,
            Verdict::Allow => &mut self.allow,
        };
        *sum = sum.saturating_add(record.count);
        let second = now.duration_since(self.begin).as_secs();
        let slot = &mut self.recent[second as usize % (SECONDS + 1)];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 = slot.1.saturating_add(record.count);
    }

    /// Verdicts a second, of the last seconds that are over.
    fn rate(&self, now: Instant) -> u64 {
        let second = now.duration_since(self.begin).as_secs();
        let over = second.min(SECONDS as u64);
        let since = second - over;
        let all = self.recent.iter().filter(|(at, _)| (since..second).contains(at));
        all.map(|(_, count)| count).sum::<u64>().checked_div(over).unwrap_or_default()
    }

    fn line(&self, now: Instant) -> String {
        let Self { deny, audit, allow, lost, unread, .. } = self;
        let mut line =
            format!("deny {deny}  audit {audit}  allow {allow}  {}/s  lost {lost}", self.rate(now));
        if *unread > 0 {
            line += &format!("  not understood {unread}");
        }
        let Some((Losses { events, unread, unwritten, .. }, state)) = self.daemon else {
            return line;
        };
        let all = [(events, "lost"), (unread, "unread"), (unwritten, "not stored")];
        let told: Vec<String> = all
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .chain((state == State::Degraded).then(|| "degraded".to_owned()))
            .collect();
        if !told.is_empty() {
            line += &format!("  daemon: {}", told.join(", "));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(verdict: &str, count: u64) -> Box<Record> {
        let event = serde_json::json!({
            "schema": 1, "time": "2026-11-22T01:25:18Z", "verdict": verdict, "count": count,
            "app": {"name": "curl", "uid": 0}, "dst": {"ip": "192.0.2.7"},
        });
        match record::read(event.to_string().as_bytes()) {
            Ok(Line::Verdict(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let at = |tenths: u64| begin + Duration::from_millis(tenths * 100);
        let mut sums = Sums::new(begin);
        sums.add(&record("deny", 10), at(1));
        assert_eq!(sums.rate(at(2)), 0, "the first second is not over");
        assert_eq!(sums.rate(at(11)), 10);
        sums.add(&record("allow", 20), at(12));
        assert_eq!(sums.rate(at(25)), 15);
        assert_eq!(sums.rate(at(55)), 6);
        assert_eq!(sums.rate(at(65)), 4);
        assert_eq!(sums.rate(at(75)), 0);
        // A second that has the place of one that is long over.
        sums.add(&record("audit", 5), at(71));
        assert_eq!(sums.rate(at(80)), 1);
        assert_eq!(sums.line(at(300)), "deny 10  audit 5  allow 20  0/s  lost 0");
    }

    #[test]
    fn what_was_lost_is_told() {
        let mut sums = Sums::new(Instant::now());
        (sums.lost, sums.unread) = (7, 1);
        let losses = Losses { events: 3, unread: 0, unwritten: 5, streams: 9 };
        sums.daemon = Some((losses, State::Degraded));
        let says = "deny 0  audit 0  allow 0  0/s  lost 7  not understood 1  daemon: 3 lost, 5 not \
                    stored, degraded";
        assert_eq!(sums.line(sums.begin), says);
    }

    #[test]
    fn a_line_that_was_wrapped_is_removed_whole() {
        let mut screen = Screen::new(TimeZone::UTC, false);
        screen.columns = 100;
        let mut out = Vec::new();
        screen.draw(&mut out, "", "x".repeat(300)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().matches('x').count(), 96);
        screen.columns = 40;
        let mut out = Vec::new();
        screen.draw(&mut out, "row\n", String::new()).unwrap();
        assert!(out.starts_with(b"\r\x1b[2A\x1b[Jrow\n"), "{out:?}");
    }
}
