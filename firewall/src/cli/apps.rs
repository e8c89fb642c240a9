//! `firewall apps`: the apps seen and what they reached. Of a file it needs no privileges and no daemon.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::Zoned;

use super::{CANNOT, USAGE, ask, ask::Socket, log};
use crate::{
    api::client,
    apps::digest::Digests,
    config::STATE,
    events::{
        filter::{Asked, Filter},
        record::{Line, Reader, Unreadable},
        seen::{Destination, Flows, Seen, Summary},
    },
    policy::{diagnostic::printable, source::Disk},
};

/// Shows the apps of a log and what they reached or tried to.
///
/// Reads what `firewall run --log FILE` writes, or what the daemon has recorded. What is counted are verdicts: a flow that a policy
/// observes has more than one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Logs; `-` is standard input [default: that of the daemon]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read the log in this state folder, and ask no daemon
    #[arg(long, value_name = "DIR", conflicts_with = "files")]
    state: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    asked: Asked,
    /// Print a JSON object a line for each app
    #[arg(long)]
    json: bool,
    /// Add the SHA-256 digest of each executable, as it is now
    #[arg(long)]
    sha256: bool,
}

/// Destinations that are shown to people.
const SHOWN: usize = 3;

/// Runs `firewall apps`.
///
/// # Errors
/// When a file cannot be read, or standard output cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(filter) = filter(&args.asked) else { return Ok(ExitCode::from(USAGE)) };
    let mut log = Log { filter, seen: Seen::default(), lost: 0 };
    if let Err(status) = log.read_all(args)? {
        return Ok(status);
    }
    let Log { seen, lost, .. } = log;
    if lost > 0 {
        eprintln!("note: {lost} events were lost before they were written");
    }
    if seen.beyond > 0 {
        eprintln!("note: {} verdicts are of apps beyond those that fit", seen.beyond);
    }
    let mut all = seen.summaries();
    if args.sha256 {
        let mut digests = Digests::default();
        for summary in &mut all {
            // What was in a container is not to be found by its path.
            let here = summary.app.exe.as_ref().filter(|_| summary.app.container.is_none());
            let Some(exe) = here else { continue };
            match digests.of(Path::new(exe)) {
                Ok(digest) => summary.sha256 = Some(digest),
                Err(error) => eprintln!("note: no digest of {}: {error}", printable(exe)),
            }
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        for summary in &all {
            writeln!(out, "{}", serde_json::to_string(summary)?)?;
        }
    } else if all.is_empty() {
        eprintln!(
            "note: no verdict of any app{}",
            if args.asked.is_all() { "" } else { " asked for" }
        );
    } else {
        out.write_all(table(&all).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Log {
    filter: Filter,
    seen: Seen,
    lost: u64,
}

impl Log {
    /// Reads what is asked for; if it cannot, says why and returns the exit status.
    fn read_all(&mut self, args: &Args) -> io::Result<Result<(), ExitCode>> {
        if !args.files.is_empty() {
            return Ok(self.read_files(&args.files));
        }
        let state = match &args.state {
            Some(state) => state,
            None => match args.socket.client()?.lines("/v1/log") {
                Ok(lines) => {
                    tell(&self.read(BufReader::new(lines))?, Path::new("the log"));
                    return Ok(Ok(()));
                }
                // What it has recorded is there without it.
                Err(client::Error::NoDaemon { .. }) => Path::new(STATE),
                Err(error) => return Ok(Err(ask::failed(&error))),
            },
        };
        let Self { filter, seen, lost } = self;
        Ok(log::each(state, filter, |line| match line {
            Line::Verdict(record) => seen.add(*record),
            Line::Lost(count) => *lost = lost.saturating_add(count),
        }))
    }

    fn read_files(&mut self, files: &[PathBuf]) -> Result<(), ExitCode> {
        for path in files {
            let unread = match path.as_os_str() == "-" {
                true => self.read(io::stdin().lock()),
                false => File::open(path).and_then(|file| self.read(BufReader::new(file))),
            };
            match unread {
                Ok(unread) => tell(&unread, path),
                Err(error) => {
                    eprintln!("error: cannot read {}: {error}", name(path));
                    return Err(match error.kind() {
                        io::ErrorKind::PermissionDenied => ExitCode::from(CANNOT),
                        _ => ExitCode::FAILURE,
                    });
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, input: impl BufRead) -> io::Result<Unreadable> {
        let mut reader = Reader::new(input);
        while let Some(line) = reader.next_line(false)? {
            match line {
                Line::Verdict(record) if self.filter.passes(&*record) => self.seen.add(*record),
                Line::Verdict(_) => {}
                Line::Lost(count) => self.lost = self.lost.saturating_add(count),
            }
        }
        Ok(reader.unreadable)
    }
}

/// What is asked for; what is wrong with it is told.
pub fn filter(asked: &Asked) -> Option<Filter> {
    match asked.filter(&Zoned::now(), &Disk) {
        Ok(filter) => Some(filter),
        Err(all) => {
            all.iter().for_each(|wrong| eprintln!("error: --{wrong}"));
            None
        }
    }
}

/// Tells of the lines of a file that were not understood.
pub fn tell(unreadable: &Unreadable, path: &Path) {
    let kinds =
        [(&unreadable.broken, "cannot be read"), (&unreadable.unknown, "are of another kind")];
    for ((times, first), what) in kinds {
        if let Some((line, why)) = first {
            let why = printable(why);
            eprintln!("note: {}:{line}: {why}; lines that {what}: {times}", name(path));
        }
    }
}

fn name(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => printable(&path.display().to_string()),
    }
}

/// For people.
fn table(all: &[Summary]) -> String {
    let user = |summary: &Summary| {
        let app = &summary.app;
        printable(&app.user.clone().unwrap_or_else(|| app.uid.to_string()))
    };
    let width = all.iter().map(|one| user(one).chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:>8} {:>8} {:>8}  {:width$}  {:19}  APP\n",
        "DENIED", "AUDITED", "ALLOWED", "USER", "LAST SEEN (UTC)"
    );
    for summary in all {
        let Flows { deny, audit, allow } = summary.flows;
        let last = summary.last.strftime("%Y-%m-%d %H:%M:%S");
        let app = describe(summary);
        text +=
            &format!("{deny:>8} {audit:>8} {allow:>8}  {:width$}  {last}  {app}\n", user(summary));
        let mut more = summary.more_destinations;
        for (number, to) in summary.destinations.iter().enumerate() {
            match number < SHOWN {
                true => text += &format!("{:26}  {}\n", "", destination(to)),
                false => more += 1,
            }
        }
        if more > 0 {
            text += &format!("{:26}  and {more} more\n", "");
        }
        if let Some(digest) = &summary.sha256 {
            text += &format!("{:26}  sha256 {digest}\n", "");
        }
    }
    text
}

/// An app in a line.
fn describe(summary: &Summary) -> String {
    let app = &summary.app;
    let mut text = printable(app.exe.as_ref().unwrap_or(&app.name));
    if let Some(script) = &app.script {
        text += &format!(" {}", printable(script));
    }
    let container = app.container.as_ref().and_then(|one| one.name.as_ref().or(one.id.as_ref()));
    let facts = [
        ("unit", app.unit.as_ref()),
        ("flatpak", app.flatpak.as_ref()),
        ("snap", app.snap.as_ref()),
        ("container", container),
    ];
    for (kind, value) in facts {
        if let Some(value) = value {
            text += &format!(" {kind}:{}", printable(value));
        }
    }
    text
}

fn destination(to: &Destination) -> String {
    let geo = &to.geo;
    let owner = geo.organisation.as_ref().or(geo.as_name.as_ref());
    let facts: Vec<String> = geo.country.iter().chain(owner).map(|fact| printable(fact)).collect();
    let mut text = printable(&to.host);
    if !facts.is_empty() {
        text += &format!(" ({})", facts.join(", "));
    }
    let Flows { deny, audit, allow } = to.flows;
    let flows = [(deny, "denied"), (audit, "audited"), (allow, "allowed")];
    let flows: Vec<String> = flows
        .into_iter()
        .filter(|(times, _)| *times > 0)
        .map(|(times, what)| format!("{times} {what}"))
        .collect();
    format!("{text}: {}", flows.join(", "))
}
