//! `firewall log`: the verdicts that the daemon has stored. Needs no daemon.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Write as _},
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use jiff::tz::TimeZone;

use super::{CANNOT, USAGE, apps, colour, set::State, verdict};
use crate::{
    events::{
        View,
        filter::{Asked, Filter},
        log::{EVENTS, files, identity},
        record::{Line, Reader, Record},
    },
    policy::diagnostic::printable,
    regular,
};

/// Shows the verdicts that the daemon has stored, the oldest first.
///
/// Times are in local time. Exits with 0, with 1 if there is no log, with 3 if it may not be read.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    asked: Asked,
    /// Go on with what is appended, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Print the lines as they are stored, a JSON object each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: State,
}

/// How often is looked for what was appended.
const INTERVAL: Duration = Duration::from_millis(200);

/// Runs `firewall log`.
///
/// # Errors
/// The log cannot be read, or standard output cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(filter) = apps::filter(&args.asked) else { return Ok(ExitCode::from(USAGE)) };
    let path = args.state.state.join(EVENTS);
    let files = match files(&path) {
        Ok(files) if files.is_empty() => {
            eprintln!("error: there is no log in {}\n", shown(&args.state.state));
            eprintln!(
                "hint: `firewall daemon` writes it; `--state DIR` names another folder, and \
                 `firewall apps FILE` reads what `firewall run --log FILE` writes"
            );
            return Ok(ExitCode::FAILURE);
        }
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            eprintln!("error: you may not read {}: {error}\n", shown(&path));
            eprintln!("hint: use sudo, or be a member of the group `firewall`");
            return Ok(ExitCode::from(CANNOT));
        }
        Err(error) => anyhow::bail!("cannot read {}: {error}", shown(&path)),
    };
    let mut shows = Shows {
        filter,
        json: args.json,
        zone: TimeZone::system(),
        colour: colour(&io::stdout()),
        lost: 0,
    };
    let last = files.len() - 1;
    for (number, (path, file)) in files.into_iter().enumerate() {
        let mut reader = Reader::new(BufReader::new(file));
        if args.follow && number == last {
            shows.follow(reader, &path)?;
            break;
        }
        shows.all(&mut reader, false)?;
        apps::tell(&reader.unreadable, &path);
    }
    if shows.lost > 0 {
        eprintln!("note: {} events were lost before they were written", shows.lost);
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// Shows what passes.
struct Shows {
    filter: Filter,
    json: bool,
    zone: TimeZone,
    colour: bool,
    lost: u64,
}

impl Shows {
    /// What can be read now.
    fn all(&mut self, reader: &mut Reader<BufReader<File>>, more: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        while let Some(line) = reader.next_line(more)? {
            match line {
                Line::Verdict(record) if self.filter.passes(&*record) => match self.json {
                    true => {
                        out.write_all(reader.text())?;
                        out.write_all(b"\n")?;
                    }
                    false => writeln!(out, "{}", self.line(&record))?,
                },
                Line::Verdict(_) => {}
                Line::Lost(count) => self.lost = self.lost.saturating_add(count),
            }
        }
        Ok(())
    }

    fn line(&self, record: &Record) -> String {
        let time = record.time.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z");
        let view = View::from(record);
        format!("{time} {}{}", verdict::line(&view, self.colour), verdict::tail(&view))
    }

    /// Goes on for ever, with the next file when the log was begun anew.
    fn follow(&mut self, mut reader: Reader<BufReader<File>>, path: &Path) -> io::Result<()> {
        let mut told = reader.unreadable.clone();
        let mut lost = 0;
        loop {
            self.all(&mut reader, true)?;
            if told != reader.unreadable {
                apps::tell(&reader.unreadable, path);
                told = reader.unreadable.clone();
            }
            if lost != self.lost {
                eprintln!("note: {} events were lost before they were written", self.lost - lost);
                lost = self.lost;
            }
            let next = regular::open(path).ok();
            let next = match next {
                Some(next) if identity(&next)? != identity(reader.input().get_ref())? => next,
                _ => {
                    sleep(INTERVAL);
                    continue;
                }
            };
            // The last lines of the one before are there since it was put away.
            self.all(&mut reader, false)?;
            apps::tell(&reader.unreadable, path);
            reader = Reader::new(BufReader::new(next));
            told = reader.unreadable.clone();
        }
    }
}
