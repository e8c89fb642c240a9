//! `firewall run`: one command under policies.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use nix::unistd::{Uid, User};

use super::{colour, set};
use crate::{
    events::{Endpoint, Event},
    run::{self, Notice, Plan, Summary},
};

/// Exit status of every failure that is not the command's.
pub const FAILED: u8 = 125;

/// Runs one command in a cgroup of its own under policies, and exits with the command's status.
///
/// Exits with 125 if firewall itself fails, 126 if the command cannot be run, 127 if it is not
/// found, and 128 + n if signal n ended it. What the command leaves running is ended.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    set: set::PolicySet,
    /// Append every verdict to FILE as a JSON line
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print no verdicts and no summary
    #[arg(long)]
    quiet: bool,
    /// Run the command as this user
    #[arg(long, value_name = "NAME", conflicts_with = "as_me")]
    user: Option<String>,
    /// Run the command as the user who called sudo
    #[arg(long)]
    as_me: bool,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs `firewall run`.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(FAILED)
        }
    }
}

fn try_run(args: &Args) -> Result<u8, set::Failure> {
    let user = user(args)?;
    let set::Set { intel, generation } = args.set.load()?;
    if !Uid::effective().is_root() {
        return Err(set::Failure::Usage(
            "only root can put programs into the kernel\n\n\
             hint: `sudo firewall run --as-me -- CMD` runs the command as yourself"
                .to_owned(),
        ));
    }
    let plan =
        Plan { command: &args.command, user, generation, intel: &intel, log: args.log.clone() };
    let colour = colour();
    let quiet = args.quiet;
    let mut tell = |notice: Notice<'_>| match notice {
        Notice::Say(text) => say(&format!("firewall: {text}")),
        Notice::Verdict(event) if !quiet && event.finding.verdict == "deny" => {
            say(&line(event, colour));
        }
        Notice::Verdict(_) => {}
    };
    match run::run(plan, &mut tell) {
        Ok(summary) => {
            if !quiet {
                say(&summarise(&summary));
            }
            Ok(summary.status)
        }
        Err(run::Error::Child(error)) => {
            say(&format!("error: {error}"));
            Ok(error.status())
        }
        Err(error) => Err(set::Failure::Other(error.into())),
    }
}

/// Writes a line for people. A standard error that is closed is no reason to end the command.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn user(args: &Args) -> Result<Option<User>, set::Failure> {
    let (name, from) = match (&args.user, args.as_me) {
        (Some(name), _) => (name.clone(), "--user"),
        (None, true) => match std::env::var("SUDO_USER") {
            Ok(name) => (name, "SUDO_USER"),
            Err(_) => {
                return Err(set::Failure::Usage(
                    "--as-me: SUDO_USER is not set\n\n\
                     hint: call firewall through sudo, or name the user with --user"
                        .to_owned(),
                ));
            }
        },
        (None, false) => return Ok(None),
    };
    match User::from_name(&name)? {
        Some(user) => Ok(Some(user)),
        None => Err(set::Failure::Usage(format!("{from}: there is no user `{name}`"))),
    }
}

/// A verdict in one line, for people.
pub fn line(event: &Event, colour: bool) -> String {
    let finding = &event.finding;
    let (on, off) = match (colour, finding.verdict) {
        (false, _) => ("", ""),
        (true, "deny") => ("\x1b[1;31m", "\x1b[0m"),
        (true, "audit") => ("\x1b[33m", "\x1b[0m"),
        (true, _) => ("\x1b[32m", "\x1b[0m"),
    };
    let mut text = format!(
        "firewall: {on}{}{off} {} -> {}/{}",
        finding.verdict,
        event.app.name,
        endpoint(event.dst),
        event.proto
    );
    let owner = event.geo.organisation.as_ref().or(event.geo.as_name.as_ref());
    let facts: Vec<String> = event
        .geo
        .country
        .map(str::to_owned)
        .into_iter()
        .chain(event.geo.asn.map(|asn| format!("AS{asn}")))
        .chain(owner.cloned())
        .collect();
    if !facts.is_empty() {
        text += &format!(" ({})", facts.join(", "));
    }
    match (&finding.policy, &finding.rule) {
        (Some(policy), Some(rule)) => text += &format!(" by {policy}/{rule}"),
        (Some(policy), None) => text += &format!(" by the default of {policy}"),
        _ => text += &format!(" ({})", finding.reason),
    }
    if event.count > 1 {
        text += &format!(" x{}", event.count);
    }
    text
}

/// An address and its port as they are written in a URL.
fn endpoint(Endpoint { ip, port }: Endpoint) -> String {
    match port {
        None => ip.to_string(),
        Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

fn summarise(summary: &Summary) -> String {
    let Summary { status: _, allowed, audited, denied, lost, unwritten } = summary;
    let mut text = format!("firewall: {denied} denied, {audited} audited, {allowed} allowed");
    if *lost > 0 {
        text += &format!("; {lost} events lost, the verdicts stood all the same");
    }
    if *unwritten > 0 {
        text += &format!("; {unwritten} events could not be written to the log");
    }
    text
}
