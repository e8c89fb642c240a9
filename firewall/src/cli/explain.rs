//! `firewall explain`: what would happen to a connection. Needs no privileges.

mod resolve;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use firewall_common::verdict::Verdict;
use serde::Serialize;

use super::set;
use crate::{
    events::Host,
    explanation::{Asked, Explanation, Question, app, asked, explain},
    policy::{
        Mode,
        explain::{Explainer, Finding, RunnerUp},
    },
};

/// Says what would happen to a connection, by which rule and on what evidence.
///
/// Needs no privileges: the policies are compiled as for the kernel and asked here.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    set: set::PolicySet,
    /// Print one JSON object, with the keys of a verdict event
    #[arg(long)]
    json: bool,
    /// Exit with 1 if the verdict is deny
    #[arg(long)]
    exit_code: bool,
    /// Judge a connection to an address that is known by this name, or shows it. May be repeated:
    /// the name asked for before those that it is an alias of
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Judge for this app: exe:/usr/bin/firefox, unit:docker.service, user:ada, kernel, … May be
    /// repeated to say more of it [default: an app that no policy names]
    #[arg(long = "app", value_name = "SEL")]
    apps: Vec<String>,
    /// Look the name up, and judge connections to its addresses too. Asks the `upstreams` of the
    /// settings, or the resolvers of the system
    #[arg(long)]
    resolve: bool,
    /// Where to: an address or a name, with a port (default 443) and a protocol (default tcp):
    /// 1.2.3.4, 1.2.3.4:80, 1.2.3.4:53/udp, [2400:3200::1]:443, 1.2.3.4/icmp. Of a name
    /// the question for its addresses is judged, in which no port plays a part but with --resolve
    #[arg(value_name = "DEST[:PORT[/PROTO]]")]
    destination: String,
}

/// Runs `firewall explain`.
///
/// # Errors
/// The tables cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let asked = match asked(&args.destination, &args.names) {
        Ok(asked) => asked,
        Err(message) => {
            eprintln!("error: {message}");
            return Ok(ExitCode::from(super::USAGE));
        }
    };
    let app = match app(&args.apps) {
        Ok(app) => app,
        Err(message) => {
            eprintln!("error: {message}");
            return Ok(ExitCode::from(super::USAGE));
        }
    };
    match &asked {
        Asked::Question(Question { name, rest, .. }) if !rest.is_empty() && !args.resolve => {
            eprintln!(
                "note: the question for a name is judged, in which `{rest}` plays no part; \
                 `firewall explain ADDRESS{rest} --name {name}` judges a connection, and --resolve \
                 those to all its addresses\n"
            );
        }
        Asked::Connection(..) if args.resolve => {
            eprintln!("note: an address is judged, for which there is nothing to look up\n");
        }
        _ => {}
    }
    let set = match args.set.load() {
        Ok(set) => set,
        Err(failure) => return Ok(failure.tell()),
    };
    let explainer = Explainer { generation: &set.generation, intel: &set.intel };
    if let Asked::Question(question) = &asked
        && args.resolve
    {
        let resolved = resolve::resolve(&explainer, &set.config, question, &app)?;
        let denied = resolved.is_denied();
        print(args, &resolved, resolve::Resolved::human)?;
        if let Some(failure) = &resolved.failure {
            eprintln!("error: {failure}");
            return Ok(ExitCode::FAILURE);
        }
        return Ok(status(args, denied));
    }
    let explanation = explain(&explainer, &asked, &app)?;
    print(args, &explanation, human)?;
    Ok(status(args, explanation.finding.verdict == Verdict::Deny.word()))
}

fn print<T: Serialize>(args: &Args, value: &T, human: fn(&T) -> String) -> anyhow::Result<()> {
    let text = if args.json { serde_json::to_string(value)? + "\n" } else { human(value) };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn status(args: &Args, denied: bool) -> ExitCode {
    if args.exit_code && denied { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn human(explanation: &Explanation) -> String {
    let Explanation { finding, dst, geo, proto, host, .. } = explanation;
    let mut text = match (dst, proto) {
        (Some(dst), Some(proto)) => {
            let place = match dst.port {
                Some(port) => SocketAddr::new(dst.ip, port).to_string(),
                None => dst.ip.to_string(),
            };
            format!("{} {place}/{proto}", finding.verdict)
        }
        _ => format!("{} the question for", finding.verdict),
    };
    if let Some(Host { name, chain, .. }) = host {
        let names = std::iter::once(name).chain(chain);
        text += &names.map(|name| format!(" {name}")).collect::<String>();
    }
    text.push('\n');
    let mut row = |name: &str, value: String| text += &row(name, &value);
    row("because", because(finding));
    if !finding.evidence.is_empty() {
        row("evidence", finding.evidence.join(", "));
    }
    if let Some(country) = geo.country {
        row("country", country.to_owned());
    }
    if let Some(asn) = geo.asn {
        let owner = geo.as_name.clone().unwrap_or_default();
        let organisation =
            geo.organisation.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        row("owner", format!("AS{asn} {owner}{organisation}"));
    }
    for observed in &explanation.observed {
        row("observed", because(observed));
    }
    for runner_up in &explanation.runners_up {
        let RunnerUp { policy, rule, action, mode, evidence, skipped } = runner_up;
        let mut value = format!("{action} by {policy}/{rule} ({mode})");
        if *skipped && *mode == Mode::Enforce.word() && dst.is_none() {
            value += ", which is up to the connection";
        }
        if !evidence.is_empty() {
            value += &format!(": {}", evidence.join(", "));
        }
        row(if *skipped { "passed by" } else { "otherwise" }, value);
    }
    text
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<10} {value}\n")
}

/// What decided, in words.
pub fn because(finding: &Finding) -> String {
    let action = finding.action.unwrap_or("nothing");
    match (&finding.policy, &finding.rule) {
        (Some(policy), Some(rule)) => {
            format!("rule `{rule}` of policy `{policy}` ({}) says {action}", finding.mode)
        }
        (Some(policy), None) => format!("no rule decides; policy `{policy}` says {action}"),
        (None, _) if finding.action.is_some() => {
            format!("no rule decides; the default is {action}")
        }
        _ if finding.verdict == Verdict::Deny.word() => {
            "no rule decides about the name, and none lets any address be reached".to_owned()
        }
        _ => "no rule decides about the name, and some address could be reached".to_owned(),
    }
}
