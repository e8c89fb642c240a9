//! `firewall run`: one command under policies.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::unistd::User;

use super::{colour, set, verdict};
use crate::{
    datapath::probe,
    events::Event,
    intel::{ahead::Ahead, resolver::Resolver},
    run::{self, Notice, Plan, Summary},
    set::Set,
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

impl Args {
    /// Runs a command under what only observes, and says nothing of verdicts.
    pub fn observing(set: set::PolicySet, as_me: bool, command: Vec<OsString>) -> Self {
        Self { set, log: None, quiet: true, user: None, as_me, command }
    }
}

/// How a command ended.
pub struct Ended {
    /// The exit status.
    pub status: u8,
    /// What happened; absent if it did not start.
    pub summary: Option<Summary>,
}

/// Runs `firewall run`.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args, &mut |_| {}) {
        Ok(ended) => ExitCode::from(ended.status),
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(FAILED)
        }
    }
}

/// Runs the command, and shows each verdict to `see`.
pub fn try_run(args: &Args, see: &mut dyn FnMut(&Event)) -> Result<Ended, set::Failure> {
    let user = user(args)?;
    // Before anything is read or compiled for nothing.
    probe::permission().map_err(|why| {
        set::Failure::Usage(format!(
            "this process may not put programs into the kernel: {why}\n\n\
             hint: `sudo firewall run --as-me -- CMD` runs the command as yourself"
        ))
    })?;
    let Set { config, intel, ahead, generation, findings: _ } = args.set.load_without_time()?;
    if ahead.left_out > 0 {
        say(&format!(
            "firewall: {} denied names are looked up ahead, and {} more are not: too many",
            ahead.names.len(),
            ahead.left_out
        ));
    }
    let ahead = match ahead.names.is_empty() {
        true => None,
        false => Some(Ahead::new(ahead.names, Resolver::new(config.upstreams())?)),
    };
    let plan = Plan {
        command: &args.command,
        user,
        generation,
        intel: &intel,
        ahead,
        log: args.log.clone(),
    };
    let colour = colour(&io::stderr());
    let quiet = args.quiet;
    let mut lines = Lines::default();
    let mut tell = |notice: Notice<'_>| match notice {
        Notice::Say(text) => {
            lines.take(None).for_each(|line| say(&line));
            say(&format!("firewall: {text}"));
        }
        Notice::Verdict(event) => {
            see(event);
            if quiet || event.finding.verdict != "deny" || event.count == 0 {
                return;
            }
            lines.add(line(event, colour), event.count, Instant::now());
            if lines.is_full() {
                lines.take(None).for_each(|line| say(&line));
            }
        }
        Notice::Tick => lines.take(Some(Instant::now())).for_each(|line| say(&line)),
    };
    let outcome = run::run(plan, &mut tell);
    lines.take(None).for_each(|line| say(&line));
    match outcome {
        Ok(summary) => {
            if !quiet {
                say(&summarise(&summary));
            }
            Ok(Ended { status: summary.status, summary: Some(summary) })
        }
        Err(run::Error::Child(error)) => {
            say(&format!("error: {error}"));
            Ok(Ended { status: error.status(), summary: None })
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

/// Lines about verdicts on their way to the terminal: those that say the same within a second are one,
/// as retries from other ports are. The log has them all.
#[derive(Default)]
struct Lines {
    /// Text, how often, and since when, in the order of the first of each.
    held: VecDeque<(String, u64, Instant)>,
}

impl Lines {
    /// How long a line waits for others.
    const WINDOW: Duration = Duration::from_secs(1);
    /// More different lines than anybody reads in a second.
    const MOST: usize = 64;

    fn add(&mut self, text: String, count: u32, now: Instant) {
        match self.held.iter_mut().find(|(held, ..)| *held == text) {
            Some((_, times, _)) => *times += u64::from(count),
            None => self.held.push_back((text, count.into(), now)),
        }
    }

    /// What has waited long enough by `now`, or everything.
    fn take(&mut self, now: Option<Instant>) -> impl Iterator<Item = String> {
        let waits = |since: &Instant| now.is_some_and(|now| now - *since < Self::WINDOW);
        let due = self.held.iter().position(|(.., since)| waits(since)).unwrap_or(self.held.len());
        self.held.drain(..due).map(|(text, times, _)| match times {
            1 => text,
            _ => format!("{text} ({times} times)"),
        })
    }

    fn is_full(&self) -> bool {
        self.held.len() > Self::MOST
    }
}

fn line(event: &Event, colour: bool) -> String {
    format!("firewall: {}", verdict::line(&event.into(), colour))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        events::{App, Endpoint, Host, SCHEMA},
        policy::{
            evidence::Data,
            explain::{Finding, Geo},
        },
    };

    fn event() -> Event {
        Event {
            schema: SCHEMA,
            seq: 1,
            time: String::new(),
            finding: Finding {
                verdict: "deny",
                mode: "enforce",
                reason: "rule",
                action: Some("drop"),
                policy: Some("baidu-tongji".to_owned()),
                rule: Some("tongji".to_owned()),
                evidence: Vec::new(),
                data: Data::default(),
            },
            hook: "connect",
            app: Arc::new(App { name: "curl".to_owned(), ..App::default() }),
            proto: "tcp".into(),
            src: None,
            dst: Endpoint { ip: [103, 235, 46, 191].into(), port: Some(443) },
            host: Some(Host {
                name: "hm.baidu.com".to_owned(),
                via: Some("dns"),
                confidence: Some("unique"),
                encrypted_hello: false,
                chain: vec!["hm.e.shifen.com".to_owned()],
            }),
            geo: Geo {
                country: Some("HK"),
                asn: Some(55967),
                organisation: Some("baidu".to_owned()),
                as_name: None,
            },
            count: 1,
            bytes_out: 0,
            bytes_in: 0,
        }
    }

    #[test]
    fn a_name_gives_the_terminal_no_orders() {
        let app = App { name: "a\x1b]0;b\x07\nfirewall: 0 denied".to_owned(), ..App::default() };
        let line = line(&Event { app: Arc::new(app), ..event() }, false);
        assert!(line.starts_with("firewall: deny a?]0;b??firewall: 0 denied -> "), "{line:?}");
    }

    #[test]
    fn lines() {
        let no_name = Event { host: None, ..event() };
        let question = Event {
            hook: "dns",
            proto: "udp".into(),
            dst: Endpoint { ip: [10, 0, 0, 1].into(), port: Some(53) },
            geo: Geo::default(),
            ..event()
        };
        let unreadable = Event {
            host: None,
            finding: Finding { reason: "parse-error", policy: None, rule: None, ..event().finding },
            ..question.clone()
        };
        let unreadable_hello = Event { hook: "tls", proto: "tcp".into(), ..unreadable.clone() };
        let hello = Event {
            hook: "tls",
            host: event().host.map(|host| Host { encrypted_hello: true, ..host }),
            ..event()
        };
        let nowhere = Event { geo: Geo::default(), ..hello.clone() };
        let differ = Finding { reason: "ambiguous", ..event().finding };
        let differ = Event { finding: differ, ..event() };
        let all =
            [event(), no_name, question, unreadable, unreadable_hello, hello, nowhere, differ]
                .map(|event| line(&event, false) + "\n")
                .concat();
        insta::assert_snapshot!(all, @r"
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
        firewall: deny curl -> 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
        firewall: deny curl -> hm.baidu.com (question to 10.0.0.1:53/udp) by baidu-tongji/tongji
        firewall: deny curl -> 10.0.0.1:53/udp (parse-error): unreadable DNS question
        firewall: deny curl -> 10.0.0.1:53/tcp (parse-error): unreadable TLS hello
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (outer name, HK, AS55967, baidu) by baidu-tongji/tongji
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (outer name) by baidu-tongji/tongji
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji (ambiguous)
        ");
        assert!(line(&event(), true).starts_with("firewall: \x1b[1;31mdeny\x1b[0m curl -> "));
    }

    #[test]
    fn lines_that_say_the_same_are_one() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for (text, count, time) in [("a", 1, 0), ("b", 1, 500), ("a", 2, 900)] {
            lines.add(text.to_owned(), count, at(time));
        }
        assert_eq!(lines.take(Some(at(999))).count(), 0);
        assert_eq!(lines.take(Some(at(1_000))).collect::<Vec<_>>(), ["a (3 times)"]);
        lines.add("a".to_owned(), 1, at(1_000));
        assert_eq!(lines.take(None).collect::<Vec<_>>(), ["b", "a"]);
        for number in 0..=Lines::MOST {
            assert!(!lines.is_full());
            lines.add(number.to_string(), 1, at(2_000));
        }
        assert!(lines.is_full());
    }
}
