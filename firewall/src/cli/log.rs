//! `firewall log`: the audit store. Needs no daemon.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    CANNOT, USAGE, apps, colour, pager::Pager, set::State, story, table, table::Table, verdict,
};
use crate::{
    events::{
        View,
        filter::{Asked, Filter},
        record::{self, Line, Record},
    },
    policy::diagnostic::printable,
    store::{
        self,
        key::{self, Known},
        reader::Reader,
        verify::{self, Found, verify},
    },
};

/// Shows the verdicts that the daemon has stored, the oldest first.
///
/// On a terminal it is a table, through $PAGER; elsewhere each verdict is a line. Times are in local time.
/// Exits with 0, with 1 if there is no log, with 3 if it may not be read.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    asked: Asked,
    /// Go on with what is stored, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Print the records as they are stored, a JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Says whether every record is as it was stored
    ///
    /// Exits with 0 if so; with 1 if one was changed, removed, put elsewhere or cut off, and names the
    /// first; with 3 if the log or the key may not be read.
    Verify {
        /// The public key, or the folder that has it [default: the state folder with `-key` behind]
        #[arg(long, value_name = "PATH")]
        key: Option<PathBuf>,
        #[command(flatten)]
        state: State,
    },
    /// Tells the whole story of one verdict
    Show {
        /// The number of the event
        #[arg(value_name = "SEQ")]
        seq: u64,
        /// Print the record as it is stored
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: State,
    },
}

/// How often is looked for what was stored.
const INTERVAL: Duration = Duration::from_millis(200);

/// Records that are read at once.
const PIECE: usize = 256;

/// Runs `firewall log`.
///
/// # Errors
/// The log cannot be read, or standard output cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(Command::Verify { key, state }) => return verified(&state.state, key.as_deref()),
        Some(Command::Show { seq, json, state }) => return show(&state.state, *seq, *json),
        None => {}
    }
    let Some(filter) = apps::filter(&args.asked) else { return Ok(ExitCode::from(USAGE)) };
    let reader = match open(&args.state.state) {
        Ok(reader) => reader,
        Err(status) => return Ok(status),
    };
    let zone = TimeZone::system();
    let on_terminal = !args.json && io::stdout().is_terminal();
    let colour = colour(&io::stdout());
    let mut shows = Shows {
        reader,
        filter,
        json: args.json,
        table: on_terminal.then(|| Table::of_terminal(zone.clone(), colour)),
        zone,
        lost: 0,
        unread: 0,
    };
    if args.follow {
        let mut out = io::stdout().lock();
        let mut columns = 0;
        loop {
            if columns != table::columns() {
                columns = table::columns();
                shows.table.iter_mut().for_each(|table| table.fit_into(columns));
                shows.head(&mut out)?;
            }
            shows.all(&mut out)?;
            out.flush()?;
            shows.tell();
            sleep(INTERVAL);
        }
    }
    let mut pager = if on_terminal { Pager::start() } else { Pager::Plain(io::stdout().lock()) };
    let shown = shows.head(&mut pager).map_err(anyhow::Error::from);
    let shown = shown.and_then(|()| shows.all(&mut pager));
    pager.finish();
    match shown {
        // Whoever looked has seen enough.
        Err(error) if is_broken_pipe(&error) && on_terminal => {}
        other => other?,
    }
    shows.tell();
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Opens the store of a state folder; if it cannot, says why and returns the exit status.
pub fn open(state: &Path) -> Result<Reader, ExitCode> {
    match Reader::open(state) {
        Ok(Some(reader)) => Ok(reader),
        Ok(None) => {
            eprintln!("error: there is no log in {}\n", shown(state));
            eprintln!(
                "hint: `firewall daemon` writes it; `--state DIR` names another folder, and \
                 `firewall apps FILE` reads what `firewall run --log FILE` writes"
            );
            Err(ExitCode::FAILURE)
        }
        Err(error) => Err(failed(&error)),
    }
}

/// Reads the store of a state folder, the oldest first; if it cannot, says why and returns the exit status.
pub fn each(state: &Path, filter: &mut Filter, mut take: impl FnMut(Line)) -> Result<(), ExitCode> {
    let taken = read(&mut open(state)?, filter, |_, line| {
        take(line);
        Ok(())
    });
    tell_unread(taken.map_err(|error: store::Error| failed(&error))?);
    Ok(())
}

/// Reads what there is now, and returns how much of it was not understood.
fn read<E: From<store::Error>>(
    reader: &mut Reader,
    filter: &mut Filter,
    mut take: impl FnMut(&str, Line) -> Result<(), E>,
) -> Result<u64, E> {
    let end = reader.end()?;
    let mut unread = 0;
    loop {
        let found = reader.next(filter, end, PIECE)?;
        if found.is_empty() {
            return Ok(unread);
        }
        for event in found {
            match record::read(event.as_bytes()) {
                Ok(line) => take(&event, line)?,
                Err(_) => unread += 1,
            }
        }
    }
}

fn tell_unread(unread: u64) {
    if unread > 0 {
        eprintln!("note: {unread} records are of another version or were changed");
    }
}

/// Says why a store cannot be read, and returns the exit status.
pub fn failed(error: &store::Error) -> ExitCode {
    if error.is_denied() {
        eprintln!("error: you may not read the log: {error}\n");
        eprintln!("hint: use sudo, or be a member of the group `firewall`");
        return ExitCode::from(CANNOT);
    }
    eprintln!("error: the log cannot be read: {error}");
    ExitCode::from(CANNOT)
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// Shows what passes.
struct Shows {
    reader: Reader,
    filter: Filter,
    json: bool,
    table: Option<Table>,
    zone: TimeZone,
    lost: u64,
    unread: u64,
}

impl Shows {
    fn head(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.table {
            Some(table) => writeln!(out, "{}", table.head()),
            None => Ok(()),
        }
    }

    /// What can be read now.
    fn all(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        let Self { reader, filter, json, table, zone, lost, unread } = self;
        *unread += read(reader, filter, |event, line| {
            match line {
                Line::Verdict(_) if *json => writeln!(out, "{event}")?,
                Line::Verdict(record) => writeln!(out, "{}", shown_as(&record, table, zone))?,
                Line::Lost(count) => *lost = lost.saturating_add(count),
            }
            anyhow::Ok(())
        })?;
        Ok(())
    }

    /// Tells of what is not shown.
    fn tell(&mut self) {
        match std::mem::take(&mut self.lost) {
            0 => {}
            lost => eprintln!("note: {lost} events were lost before they were stored"),
        }
        tell_unread(std::mem::take(&mut self.unread));
    }
}

/// A row of the table; without one, a line.
fn shown_as(record: &Record, table: &Option<Table>, zone: &TimeZone) -> String {
    if let Some(table) = table {
        return table.row(record);
    }
    let time = record.time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z");
    let view = View::from(record);
    format!("{time} {}{}", verdict::line(&view, false), verdict::tail(&view))
}

fn verified(state: &Path, key: Option<&Path>) -> anyhow::Result<ExitCode> {
    if !matches!(state.join(store::FILE).try_exists(), Ok(true)) {
        return Ok(open(state).err().unwrap_or(ExitCode::FAILURE));
    }
    let place = key.map_or_else(|| key::folder(state), Path::to_owned);
    let known = match Known::read(&place) {
        Ok(known) => known,
        Err(error) => {
            eprintln!("error: the key cannot be read: {}: {error}\n", shown(&place));
            eprintln!("hint: `--key PATH` names it; it is kept apart from the log");
            return Ok(ExitCode::from(CANNOT));
        }
    };
    let found = match verify(state, Some(&known)) {
        Ok(found) => found,
        Err(error) => return Ok(failed(&error)),
    };
    match found {
        Found::Whole { head, times, .. } => {
            let of = |time: i64| Timestamp::from_microsecond(time).unwrap_or_default();
            match times {
                Some((first, last)) => println!(
                    "whole: records {} to {}, from {} to {}, signed by {}",
                    head.first,
                    head.last,
                    of(first),
                    of(last),
                    known.shown()
                ),
                None => println!("whole: there is no record yet"),
            }
            Ok(ExitCode::SUCCESS)
        }
        Found::Wrong(wrong) => {
            println!("not whole: {wrong}");
            if let verify::Wrong::NotSigned(_) = wrong {
                eprintln!("hint: if the daemon could not read its key, it said so: see its log");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn show(state: &Path, seq: u64, json: bool) -> anyhow::Result<ExitCode> {
    let reader = match open(state) {
        Ok(reader) => reader,
        Err(status) => return Ok(status),
    };
    let event = match reader.event(seq) {
        Ok(event) => event,
        Err(error) => return Ok(failed(&error)),
    };
    let Some(event) = event else {
        eprintln!("error: there is no event {seq} in the log of {}", shown(state));
        return Ok(ExitCode::FAILURE);
    };
    match json {
        true => println!("{event}"),
        false => print!("{}", story::of(&event, &TimeZone::system())),
    }
    Ok(ExitCode::SUCCESS)
}
