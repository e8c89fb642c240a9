//! `firewall list update`: fetches lists by URL.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::check::{POLICIES, count, print_findings};
use super::list::title;
use super::{progress, set};
use crate::config::Config;
use crate::policy::diagnostic::printable;
use crate::policy::source::Disk;
use crate::policy::{self, List, ListSource};
use crate::remote::{self, Failure, Head, Limits, Outcome, Reason, Refresher, Remote};
use crate::set::organisations;

/// Fetches the lists of policies that are at a URL, and keeps those that are good.
///
/// Exits with 0 if all are good, 1 if one could not be fetched or was refused: then the last good
/// copy stays.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Lists by their names in the policies [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Fetch the lists of this policy: a path, or the name of a shipped one. May be repeated
    /// [default: those of /etc/firewall/policies.d]
    #[arg(long = "policy", value_name = "P")]
    policies: Vec<String>,
    /// Fetch what has not changed too, and take a list that has far fewer entries than before
    #[arg(long)]
    force: bool,
    /// Give up on a list that takes longer
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().total.as_secs())]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print one JSON object a list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: set::State,
}

/// A list by URL with the policy's file that it stands in.
struct Wanted<'a> {
    policy: &'a str,
    list: &'a List,
    remote: &'a Arc<Remote>,
}

/// Runs `firewall list update`.
///
/// # Errors
///
/// When standard output or standard error cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sources = match set::sources(&args.policies) {
        Ok(sources) => sources,
        Err(failure) => {
            eprintln!("{failure}");
            return Ok(ExitCode::from(super::USAGE));
        }
    };
    if sources.is_empty() {
        eprintln!("there is nothing to fetch: no policy is enabled in {POLICIES}");
        eprintln!("\nhint: `--policy P` names one");
        return Ok(ExitCode::SUCCESS);
    }
    let organisations = organisations(&Config::load(None)?, &Disk)?;
    // What was fetched before plays no part here.
    let (_, findings) = policy::load(&sources, &organisations, &Disk);
    if findings.has_errors() {
        print_findings(&findings.without_warnings())?;
        eprintln!("error: the policies are not valid, so nothing is fetched");
        return Ok(ExitCode::FAILURE);
    }
    let all: Vec<Wanted<'_>> = findings
        .lists()
        .filter_map(|(policy, list)| match &list.source {
            ListSource::Url(found) => Some(Wanted { policy, list, remote: &found.remote }),
            ListSource::Policy | ListSource::File(_) => None,
        })
        .collect();
    if all.is_empty() {
        eprintln!("there is nothing to fetch: no list of the policies has a `url`");
        let found = args.names.is_empty();
        return Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(super::USAGE) });
    }
    if let Some(name) = args.names.iter().find(|name| all.iter().all(|w| w.list.name != **name)) {
        let known: Vec<&str> = all.iter().map(|wanted| wanted.list.name.as_str()).collect();
        eprintln!("error: there is no list `{}` with a `url` in the policies", printable(name));
        eprintln!("\nhint: those that there are: {}", known.join(", "));
        return Ok(ExitCode::from(super::USAGE));
    }
    let asked =
        |wanted: &Wanted<'_>| args.names.is_empty() || args.names.contains(&wanted.list.name);
    let wanted: Vec<Wanted<'_>> = all.into_iter().filter(asked).collect();
    let limits = Limits { total: Duration::from_secs(args.timeout), ..Limits::default() };
    let refresher = match Refresher::new(args.state.store(), limits) {
        Ok(refresher) => refresher,
        Err(error) => {
            eprintln!("error: {error}\n\nhint: {}", hint(&error));
            return Ok(ExitCode::from(super::CANNOT));
        }
    };
    let outcomes = fetch(refresher, &wanted, args.force)?;
    let mut out = io::stdout().lock();
    for (wanted, outcome) in wanted.iter().zip(&outcomes) {
        if args.json {
            serde_json::to_writer(&mut out, &Shown::of(wanted, outcome))?;
            out.write_all(b"\n")?;
        } else {
            let line = format!("{}: {}", title(wanted.policy, wanted.list), human(outcome));
            writeln!(out, "{}", printable(&line))?;
        }
    }
    let failed = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(..)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn hint(error: &remote::Error) -> &'static str {
    match error {
        remote::Error::State { .. } => {
            "run it as root, or name a folder of your own: `--state DIR`"
        }
        remote::Error::Client(_) => {
            "install the package ca-certificates, or name a file of roots in SSL_CERT_FILE"
        }
    }
}

/// What became of each list. Lists that ask for the same are fetched once.
fn fetch(mut refresher: Refresher, wanted: &[Wanted<'_>], force: bool) -> io::Result<Vec<Outcome>> {
    let mut remotes = Vec::new();
    let mut names = Vec::new();
    let mut places = HashMap::new();
    let mut place = |wanted: &Wanted<'_>| {
        *places.entry(wanted.remote.key()).or_insert_with(|| {
            remotes.push(Arc::clone(wanted.remote));
            names.push(wanted.list.name.clone());
            remotes.len() - 1
        })
    };
    let placed: Vec<usize> = wanted.iter().map(&mut place).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let progress = progress::downloads(names);
    let outcomes = runtime.block_on(refresher.refresh(&remotes, force, &progress));
    // A look-up of a name that nobody waits for any more can hang on.
    runtime.shutdown_background();
    Ok(placed.into_iter().map(|place| outcomes[place].clone()).collect())
}

/// What became of a list, for people.
fn human(outcome: &Outcome) -> String {
    let entries = |number| count(number, "entry", "entries");
    match outcome {
        Outcome::Updated { head, before } => {
            let before = before.map(|before| format!(" ({before} before)")).unwrap_or_default();
            format!("updated, {}{before}", entries(head.entries))
        }
        Outcome::NotModified(head) => {
            format!("not modified, {}, fetched {}", entries(head.entries), head.fetched)
        }
        Outcome::Failed(Failure { reason, message, .. }, copy) => {
            let what = outcome.word();
            let mut text = format!("{what} ({}): {message}", reason.word());
            let _ = match copy {
                Some(Head { entries: number, fetched, .. }) => {
                    write!(text, "; the copy of {fetched} with {} stays", entries(*number))
                }
                None => write!(text, "; there is no copy, so the list is empty"),
            };
            if *reason == Reason::Shrunk {
                text += "; `--force` takes it all the same";
            }
            text
        }
    }
}

/// What `--json` prints of a list; the keys are stable. Of a list that could not be fetched they are
/// those of the copy that stays.
#[derive(Serialize)]
struct Shown<'a> {
    list: &'a str,
    policy: &'a str,
    url: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries_before: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(wanted: &'a Wanted<'_>, outcome: &'a Outcome) -> Self {
        let (failure, copy) = (outcome.failure(), outcome.copy());
        let before = match outcome {
            Outcome::Updated { before, .. } => *before,
            Outcome::NotModified(_) | Outcome::Failed(..) => None,
        };
        Self {
            list: &wanted.list.name,
            policy: wanted.policy,
            url: wanted.remote.url.as_str(),
            result: outcome.word(),
            reason: failure.map(|failure| failure.reason),
            message: failure.map(|failure| failure.message.as_str()),
            entries: copy.map(|copy| copy.entries),
            entries_before: before,
            fetched: copy.map(|copy| copy.fetched),
            sha256: copy.map(|copy| copy.sha256.as_str()),
        }
    }
}
