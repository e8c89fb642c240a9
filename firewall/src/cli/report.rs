//! `firewall report`: who sent how much to whom, what was stopped, and what is new. Needs no daemon.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    CANNOT, USAGE, apps, check, colour, log, run as run_command,
    set::{self, Failure, PolicySet, State},
};
use crate::{
    events::{
        filter::{Asked, Filter},
        record::{self, Line, Reader},
    },
    policy::diagnostic::printable,
    replace::replace,
    report::{Judge, Known, Report, Tally, known, page, terminal},
};

/// Reviews what was recorded: for each app who it talked to, how much, what was stopped and by which rule,
/// what policies that are not enabled would have stopped, and what is new since the report before.
///
/// Reads what the daemon has stored, or what `firewall run --log FILE` wrote, or runs a command under
/// policies that only observe and reports on it at its end. Exits with 0, with 1 if there is no log, with 3
/// if it may not be read; behind a command with its status, as `firewall run` does.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    asked: Asked,
    /// Read what `firewall run --log FILE` wrote; `-` is standard input. May be repeated, the oldest first
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    log: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a page with charts, for a browser, and print nothing but what else is asked for
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The machine's policies: of those that observe it is told what they would have stopped
    /// [default: /etc/firewall/policies.d]
    #[arg(long, value_name = "DIR")]
    policies: Option<String>,
    /// Settings [default: /etc/firewall/firewall.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    state: State,
    /// Run the command as the user who called sudo
    #[arg(long, requires = "command")]
    as_me: bool,
    /// Run this command, let everything pass, and report on it
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Columns where there is no terminal.
const COLUMNS: u16 = 80;

/// Runs `firewall report`.
///
/// # Errors
/// The log cannot be read, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let failed = |status: u8| match args.command.is_empty() {
        true => ExitCode::from(status),
        false => ExitCode::from(run_command::FAILED),
    };
    let Some(filter) = apps::filter(&args.asked) else { return Ok(failed(USAGE)) };
    let judge = match judge(args) {
        Ok(judge) => judge,
        Err(failure) => {
            eprintln!("{failure}");
            return Ok(failed(match failure {
                Failure::Usage(_) => USAGE,
                Failure::Invalid(_) | Failure::Other(_) => 1,
            }));
        }
    };
    if let Some(path) = &args.html
        && let Err(why) = may_replace(path)
    {
        eprintln!(
            "error: --html {}: {why}\n\nhint: name a file that is to hold the page",
            shown(path)
        );
        return Ok(failed(USAGE));
    }
    let mut takes = Takes { filter, tally: Tally::default() };
    let status = match args.command.is_empty() {
        true => match takes.stored(args)? {
            Ok(()) => ExitCode::SUCCESS,
            Err(status) => return Ok(status),
        },
        false => match takes.command(args) {
            (status, true) => ExitCode::from(status),
            (status, false) => return Ok(ExitCode::from(status)),
        },
    };
    let told = conclude(args, takes.tally, &judge);
    if args.command.is_empty() {
        return told.map(|()| status);
    }
    // The command has ended, and its status is what whoever called waits for.
    if let Err(error) = told {
        eprintln!("error: {error:#}");
    }
    Ok(status)
}

/// Makes the report, tells it, and remembers what it told.
fn conclude(args: &Args, tally: Tally, judge: &Judge) -> anyhow::Result<()> {
    let state = &args.state.state;
    let now = Timestamp::now();
    let known = Known::load(state);
    let unread = known.is_err();
    let mut known = known.unwrap_or_else(|error| {
        let path = state.join(known::FILE);
        eprintln!(
            "note: what is new is not told: cannot read {}: {error}; remove it to begin anew",
            shown(&path)
        );
        Known::default()
    });
    let report = tally.finish(judge, &mut known)?;
    tell(args, &report, now)?;
    if known.beyond > 0 {
        eprintln!(
            "note: {} organisations, countries and names are not remembered, for they are too many: the next report \
             takes them for new",
            known.beyond
        );
    }
    // One that cannot be read is not replaced by one that knows less.
    if !unread
        && !report.apps.is_empty()
        && let Err(error) = known.store(state, now)
    {
        let path = state.join(known::FILE);
        eprintln!(
            "note: the next report will not know what this one told: cannot write {}: {error}",
            shown(&path)
        );
    }
    Ok(())
}

fn tell(args: &Args, report: &Report, now: Timestamp) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    if let Some(path) = &args.html {
        let page = page::render(report, now, &zone);
        replace(path, 0o644, &[page.as_bytes()])
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", shown(path)))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    } else if report.apps.is_empty() {
        let asked = if args.asked.is_all() { "" } else { " that is asked for" };
        eprintln!("note: there is no verdict{asked} to report on");
        terminal::missing(report).iter().for_each(|text| eprintln!("note: {text}"));
    } else if args.html.is_none() {
        let width = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0);
        let look = terminal::Look { width: width.into(), colour: colour(&io::stdout()), zone };
        out.write_all(terminal::render(report, &look).as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

/// What is not enabled.
fn judge(args: &Args) -> Result<Judge, Failure> {
    let config = set::config(args.config.as_deref())?;
    let folder = args.policies.iter().map(|folder| format!("{folder}/")).collect::<Vec<_>>();
    let machine = set::sources(&folder)?;
    let (judge, findings) = Judge::new(&config, &machine, &args.state.store())?;
    if findings.has_errors() {
        check::print_findings(&findings)?;
        eprintln!(
            "note: the machine's policies are not valid, so it is not told what they would have stopped"
        );
    }
    Ok(judge)
}

/// Whether a path is that of a file, or free.
fn may_replace(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => Ok(()),
        Ok(_) => Err("it is no regular file".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn shown(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => printable(&path.display().to_string()),
    }
}

/// Takes in what is asked for.
struct Takes {
    filter: Filter,
    tally: Tally,
}

impl Takes {
    fn take(&mut self, line: Line) {
        match line {
            Line::Verdict(record) if self.filter.passes(&*record) => self.tally.add(&record),
            Line::Verdict(_) => {}
            Line::Lost(count) => self.tally.lose(count),
        }
    }

    /// All that is stored, the oldest first; if it cannot be read, says why and returns the exit status.
    fn stored(&mut self, args: &Args) -> anyhow::Result<Result<(), ExitCode>> {
        if !args.log.is_empty() {
            return Ok(self.named(&args.log));
        }
        let Self { filter, tally } = self;
        Ok(log::each(&args.state.state, filter, |line| match line {
            Line::Verdict(record) => tally.add(&record),
            Line::Lost(count) => tally.lose(count),
        }))
    }

    /// Logs by their paths.
    fn named(&mut self, paths: &[PathBuf]) -> Result<(), ExitCode> {
        for path in paths {
            let read = match path.as_os_str() == "-" {
                true => self.all(io::stdin().lock(), path),
                false => File::open(path).and_then(|file| self.all(BufReader::new(file), path)),
            };
            if let Err(error) = read {
                eprintln!("error: cannot read {}: {error}", shown(path));
                return Err(match error.kind() {
                    ErrorKind::PermissionDenied => ExitCode::from(CANNOT),
                    _ => ExitCode::FAILURE,
                });
            }
        }
        Ok(())
    }

    fn all(&mut self, input: impl BufRead, path: &Path) -> io::Result<()> {
        let mut reader = Reader::new(input);
        while let Some(line) = reader.next_line(false)? {
            self.take(line);
        }
        let record::Unreadable { broken, unknown } = &reader.unreadable;
        self.tally.pass_over(broken.0.saturating_add(unknown.0));
        apps::tell(&reader.unreadable, path);
        Ok(())
    }

    /// A command, to its end: its exit status, and whether it ran.
    fn command(&mut self, args: &Args) -> (u8, bool) {
        let set = PolicySet::observing(
            args.policies.as_deref(),
            args.config.clone(),
            args.state.state.clone(),
        );
        let plan = run_command::Args::observing(set, args.as_me, args.command.clone());
        let ended = run_command::try_run(&plan, &mut |event| {
            // As it is read back from a log.
            match serde_json::to_vec(event).map(|line| record::read(&line)) {
                Ok(Ok(line)) => self.take(line),
                Ok(Err(_)) | Err(_) => self.tally.pass_over(1),
            }
        });
        match ended {
            Ok(run_command::Ended { status, summary: Some(summary) }) => {
                self.tally.lose(summary.lost);
                (status, true)
            }
            Ok(run_command::Ended { status, summary: None }) => (status, false),
            Err(failure) => {
                eprintln!("{failure}");
                (run_command::FAILED, false)
            }
        }
    }
}
