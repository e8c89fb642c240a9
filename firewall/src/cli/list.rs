//! `firewall list`: what stands in lists, and where those by URL are from.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;

use super::check::{count, print_findings};
use super::{set, update};
use crate::config::Config;
use crate::lists::{self, Example, Format, Report, Skipped};
use crate::policy::diagnostic::printable;
use crate::policy::source::{Disk, Files as _, NotFound, Source};
use crate::policy::{self, DomainSet, List, ListSource, RemoteList};
use crate::remote::{Failure as FetchFailure, Store};
use crate::set::organisations;

/// Shows lists of domains and networks, and fetches those that are at a URL.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Says what lists have: entries, duplicates, and what in them is not used and why
    Show(Show),
    /// Fetches the lists of policies that are at a URL
    Update(update::Args),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Files of lists, and policies (*.toml, folders of them, names of shipped ones), of which the
    /// lists are shown [default: those of /etc/firewall/policies.d]
    #[arg(value_name = "FILE|POLICY")]
    of: Vec<String>,
    /// The format of the files [default: the one that the content of each tells]
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// Print one JSON object a list
    #[arg(long, conflicts_with = "names")]
    json: bool,
    /// Print the entries, one a line, as policies write them; `@@` before exceptions
    #[arg(long)]
    names: bool,
    #[command(flatten)]
    state: set::State,
}

/// The format of a word of the command line.
///
/// # Errors
///
/// When there is none of this word.
pub fn format(word: &str) -> Result<Format, String> {
    Format::from_word(word).ok_or_else(|| {
        let all = Format::ALL.map(Format::word).join(", ");
        format!("there is no such format; one of {all}")
    })
}

/// Runs `firewall list`.
///
/// # Errors
///
/// When standard output or standard error cannot be written to.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Show(show) => show.run(),
        Command::Update(args) => update::run(&args),
    }
}

/// A list with the policy's file that it stands in.
struct Found {
    policy: Option<String>,
    list: List,
}

impl Show {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.state.store();
        let mut found = Vec::new();
        let mut sound = true;
        let of = match self.of.is_empty() {
            true => vec![super::check::POLICIES.to_owned()],
            false => self.of,
        };
        for name in &of {
            match read(name, self.format, &store)? {
                Ok(lists) => found.extend(lists),
                Err(Failure::Usage(message)) => {
                    eprintln!("error: {message}");
                    return Ok(ExitCode::from(super::USAGE));
                }
                Err(Failure::Invalid(message)) => {
                    if !message.is_empty() {
                        eprintln!("error: {message}");
                    }
                    sound = false;
                }
            }
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        for (index, Found { policy, list }) in found.iter().enumerate() {
            if self.json {
                serde_json::to_writer(&mut out, &Shown::of(policy.as_deref(), list))?;
                out.write_all(b"\n")?;
            } else if self.names {
                names(&mut out, list)?;
            } else {
                if index > 0 {
                    out.write_all(b"\n")?;
                }
                write_report(&mut out, policy.as_deref(), list)?;
            }
        }
        out.flush()?;
        if found.is_empty() && sound {
            eprintln!("there are no lists in {}", of.join(", "));
        }
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

enum Failure {
    Usage(String),
    /// Empty if it was said already.
    Invalid(String),
}

/// The list in a file, or those of a policy.
fn read(
    name: &str,
    format: Option<Format>,
    store: &Store,
) -> anyhow::Result<Result<Vec<Found>, Failure>> {
    let path = Path::new(name);
    let is_file = path.is_file() && path.extension().is_none_or(|extension| extension != "toml");
    if is_file {
        return Ok(read_file(name, path, format));
    }
    let sources = match path.is_dir() {
        true => Source::at(path),
        false => Source::find(name),
    };
    let sources = match sources {
        Ok(sources) => sources,
        Err(NotFound::Name { name, .. }) => {
            return Ok(Err(Failure::Usage(format!(
                "there is neither a file nor a shipped policy `{}`",
                printable(&name)
            ))));
        }
        Err(error) => return Ok(Err(Failure::Usage(error.to_string()))),
    };
    let organisations = organisations(&Config::load(None)?, &Disk)?;
    let (_, diagnostics) = policy::load(&sources, &organisations, store);
    if diagnostics.has_errors() {
        print_findings(&diagnostics)?;
        return Ok(Err(Failure::Invalid(String::new())));
    }
    let lists = diagnostics.lists();
    let found =
        |(file, list): (&str, &List)| Found { policy: Some(file.to_owned()), list: list.clone() };
    Ok(Ok(lists.map(found).collect()))
}

fn read_file(name: &str, path: &Path, format: Option<Format>) -> Result<Vec<Found>, Failure> {
    let bytes = Disk
        .read(path)
        .map_err(|why| Failure::Invalid(format!("the list {name} cannot be read: {why}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let lists::Parsed { domains, exceptions, networks, report } = lists::parse(format, &text)
        .map_err(|error| {
            let hint = "`--format` says which one it is";
            let hint = match error {
                lists::Error::Undetected => format!("\n\nhint: {hint}"),
                lists::Error::Json { .. } => String::new(),
            };
            Failure::Invalid(format!("the list {name} cannot be read: {error}{hint}"))
        })?;
    let source = ListSource::File(path.to_owned());
    let list = List { name: name.to_owned(), domains, exceptions, networks, report, source };
    Ok(vec![Found { policy: None, list }])
}

/// What `--json` prints of a list; the keys are stable.
#[derive(Serialize)]
struct Shown<'a> {
    list: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(flatten)]
    remote: Option<ShownRemote<'a>>,
    names: usize,
    exceptions: usize,
    networks: usize,
    #[serde(flatten)]
    report: &'a Report,
}

/// What `--json` prints besides of a list by URL.
#[derive(Serialize)]
struct ShownRemote<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Timestamp>,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unusable: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a FetchFailure>,
}

impl<'a> Shown<'a> {
    fn of(policy: Option<&'a str>, list: &'a List) -> Self {
        Self {
            list: &list.name,
            policy,
            file: match &list.source {
                ListSource::File(path) => Some(path.display().to_string()),
                ListSource::Policy | ListSource::Url(_) => None,
            },
            remote: match &list.source {
                ListSource::Url(list) => Some(ShownRemote {
                    url: list.remote.url.as_str(),
                    fetched: list.copy.as_ref().ok().and_then(Option::as_ref).map(|c| c.fetched),
                    unusable: list.copy.as_ref().err().map(String::as_str),
                    current: list.current,
                    stale: list.stale,
                    failure: list.attempts.failure.as_ref(),
                }),
                ListSource::Policy | ListSource::File(_) => None,
            },
            names: list.domains.len(),
            exceptions: list.exceptions.len(),
            networks: list.networks.len(),
            report: &list.report,
        }
    }
}

fn names(out: &mut impl Write, list: &List) -> io::Result<()> {
    let mut set = |mark: &str, set: &DomainSet| {
        set.iter().try_for_each(|(name, scope)| writeln!(out, "{mark}{}{name}", scope.mark()))
    };
    set("", &list.domains)?;
    set("@@", &list.exceptions)?;
    list.networks.iter().try_for_each(|network| writeln!(out, "{network}"))
}

/// What a list has, for people.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_report(out: &mut impl Write, policy: Option<&str>, list: &List) -> io::Result<()> {
    let mut title = match policy {
        Some(policy) => title(policy, list),
        None => list.name.clone(),
    };
    match &list.source {
        ListSource::File(path) if policy.is_some() => title += &format!(", {}", path.display()),
        ListSource::Url(list) => title += &format!(", {}", list.remote.url),
        ListSource::File(_) | ListSource::Policy => {}
    }
    if let Some(format) = list.report.format {
        title += &format!(" ({})", format.word());
    }
    writeln!(out, "{}", printable(&title))?;
    if let ListSource::Url(list) = &list.source {
        write_remote(out, list)?;
    }
    let mut parts = vec![count(list.domains.len(), "name", "names")];
    if !list.exceptions.is_empty() {
        parts.push(count(list.exceptions.len(), "exception", "exceptions"));
    }
    if !list.networks.is_empty() {
        parts.push(count(list.networks.len(), "network", "networks"));
    }
    writeln!(
        out,
        "  {} ({}), {}, {} skipped",
        count(list.report.entries, "entry", "entries"),
        parts.join(", "),
        count(list.report.duplicates, "duplicate", "duplicates"),
        list.report.skipped(),
    )?;
    write_skipped(out, &list.report.skipped)
}

/// A list and where its policy stands.
pub fn title(policy: &str, list: &List) -> String {
    format!("list `{}` of {policy}", list.name)
}

/// How old a list by URL is, for people.
fn write_remote(out: &mut impl Write, list: &RemoteList) -> io::Result<()> {
    match (&list.copy, list.current) {
        (Ok(Some(copy)), Some(current)) => {
            let old = if list.stale { ", which is too long ago" } else { "" };
            writeln!(out, "  fetched {}, current {current}{old}", copy.fetched)?;
        }
        (Err(why), _) => writeln!(out, "  no copy: {}", printable(why))?,
        (Ok(_), _) => writeln!(out, "  never fetched")?,
    }
    match &list.attempts.failure {
        Some(failure) => writeln!(out, "  last attempt {}", failed(failure)),
        None => Ok(()),
    }
}

/// Why there is no new copy, and when.
fn failed(failure: &FetchFailure) -> String {
    let FetchFailure { time, reason, message } = failure;
    let what = if reason.is_refusal() { "refused" } else { "failed" };
    format!("{time} {what} ({}): {}", reason.word(), printable(message))
}

/// What is not used of a list and why, for people.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_skipped(out: &mut impl Write, skipped: &[Skipped]) -> io::Result<()> {
    for Skipped { reason, count, examples } in skipped {
        writeln!(out, "  {count} skipped as {}: {}", reason.word(), reason.explanation())?;
        for Example { line, text } in examples {
            writeln!(out, "    line {line}: {}", printable(text))?;
        }
    }
    Ok(())
}
