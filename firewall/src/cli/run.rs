//! `firewall run`: one command under policies.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use firewall_common::verdict::{Hook, Reason};
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
    let place = format!("{}/{}", endpoint(event.dst), event.proto);
    let to = match &event.host {
        None => place,
        Some(host) if event.hook == Hook::Dns.word() => {
            format!("{} (question to {place})", host.name)
        }
        Some(host) => format!("{} {place}", host.name),
    };
    let mut text = format!("firewall: {on}{}{off} {} -> {to}", finding.verdict, event.app.name);
    let outer = event.host.as_ref().is_some_and(|host| host.encrypted_hello);
    let owner = event.geo.organisation.as_ref().or(event.geo.as_name.as_ref());
    let facts: Vec<String> = outer
        .then_some("outer name")
        .into_iter()
        .chain(event.geo.country)
        .map(str::to_owned)
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
    if finding.policy.is_some() && finding.reason == Reason::Ambiguous.word() {
        text += &format!(" ({})", finding.reason);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::{App, Host, SCHEMA},
        policy::explain::{Finding, Geo},
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
            },
            hook: "connect",
            app: App {
                name: "curl".to_owned(),
                exe: None,
                pid: None,
                uid: 0,
                user: None,
                cgroup: None,
                unit: None,
            },
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
    fn lines() {
        let no_name = Event { host: None, ..event() };
        let question = Event {
            hook: "dns",
            proto: "udp".into(),
            dst: Endpoint { ip: [10, 0, 0, 1].into(), port: Some(53) },
            geo: Geo::default(),
            count: 2,
            ..event()
        };
        let unreadable = Event {
            host: None,
            finding: Finding { reason: "parse-error", policy: None, rule: None, ..event().finding },
            ..question.clone()
        };
        let hello = Event {
            hook: "tls",
            host: event().host.map(|host| Host { encrypted_hello: true, ..host }),
            ..event()
        };
        let nowhere = Event { geo: Geo::default(), ..hello.clone() };
        let differ = Finding { reason: "ambiguous", ..event().finding };
        let differ = Event { finding: differ, ..event() };
        let all = [event(), no_name, question, unreadable, hello, nowhere, differ]
            .map(|event| line(&event, false) + "\n")
            .concat();
        insta::assert_snapshot!(all, @r"
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
        firewall: deny curl -> 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
        firewall: deny curl -> hm.baidu.com (question to 10.0.0.1:53/udp) by baidu-tongji/tongji x2
        firewall: deny curl -> 10.0.0.1:53/udp (parse-error) x2
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (outer name, HK, AS55967, baidu) by baidu-tongji/tongji
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (outer name) by baidu-tongji/tongji
        firewall: deny curl -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji (ambiguous)
        ");
        assert!(line(&event(), true).starts_with("firewall: \x1b[1;31mdeny\x1b[0m curl -> "));
    }
}
