//! `firewall status`: what is in force, in a glance.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use jiff::Timestamp;

use super::{ask, ask::Socket, check::count, colour};
use crate::{
    api::dto::{Generation, Hook, List, Losses, Origin, Policy, Reload, Rule, Sink, State, Status},
    policy::diagnostic::printable,
};

/// Shows what the daemon enforces: the generation, policies with hits, hooks and losses.
///
/// Exits with 0 if it is told, 3 if no daemon answers or this user may not ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Runs `firewall status`.
///
/// # Errors
/// When standard output cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // What is not known here of a later version is passed on too.
    let answer: serde_json::Value = match args.socket.client()?.get("/v1/status") {
        Ok(answer) => answer,
        Err(error) => return Ok(ask::failed(&error)),
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{answer}")?;
    } else {
        let status: Status = serde_json::from_value(answer)?;
        let colour = colour(&out);
        out.write_all(human(&status, Timestamp::now(), colour).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns of the names of policies and rules.
const NAMES: usize = 56;

fn human(status: &Status, now: Timestamp, colour: bool) -> String {
    let (on, off) = match (colour, status.state) {
        (false, _) => ("", ""),
        (true, State::Enforcing) => ("\x1b[32m", "\x1b[0m"),
        (true, State::Degraded) => ("\x1b[33m", "\x1b[0m"),
    };
    let word = match status.state {
        State::Enforcing => "enforcing",
        State::Degraded => "degraded",
    };
    let mut text = String::new();
    let Generation { number, since, origin, previous } = &status.generation;
    let _ = writeln!(text, "{on}{word:10}{off} generation {number}, {}", source(*origin));
    let mut row = |name: &str, value: &str| {
        for (number, line) in value.lines().enumerate() {
            let name = if number == 0 { name } else { "" };
            let _ = writeln!(text, "{:10} {}", name, printable(line));
        }
    };
    row("since", &when(*since, now));
    for what in &status.degraded {
        row("missing", what);
    }
    if let Some(Reload { time, done: false, message }) = &status.last_reload {
        row("reload", &format!("failed {}\n{message}", when(*time, now)));
    }
    if let Some(previous) = previous {
        row("before", &format!("generation {previous}: `firewall rollback` goes back to it"));
    }
    let missing: Vec<&str> = status
        .hooks
        .iter()
        .filter(|hook| !hook.attached)
        .map(|hook| hook.program.as_str())
        .collect();
    let attached = status.hooks.iter().filter(|Hook { attached, .. }| *attached).count();
    row(
        "hooks",
        &match missing.is_empty() {
            true => format!("all {attached} attached"),
            false => format!("{attached} attached, and not {}", missing.join(", ")),
        },
    );
    row("losses", &losses(&status.losses, &status.sinks));
    if !status.lists.is_empty() {
        let failed = |list: &&List| list.failure.is_some();
        let number = status.lists.iter().filter(failed).count();
        let failed = if number > 0 { format!(", {number} failed last") } else { String::new() };
        row("lists", &format!("{} by URL{failed}", status.lists.len()));
    }
    row(
        "daemon",
        &format!(
            "{}, process {}, {:.1} MiB, started {}",
            status.version,
            status.pid,
            status.memory_bytes as f64 / f64::from(1 << 20),
            ago(status.started, now)
        ),
    );
    row("cgroup", &status.cgroup);
    row("pins", &status.pins);
    text.push('\n');
    table(&mut text, status);
    text
}

fn table(text: &mut String, status: &Status) {
    let mut line = |name: &str, mode: &str, hits: &str| {
        let name = cut(&printable(name));
        let line = format!("{name:NAMES$}  {mode:7} {hits:>11}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line("POLICY", "MODE", "HITS");
    for Policy { name, mode, rules, default, hits_default, .. } in &status.policies {
        let all = rules.iter().fold(*hits_default, |all, rule| all.saturating_add(rule.hits));
        line(name, mode, &all.to_string());
        let mut silent = 0;
        for Rule { name, action, hits, until } in rules {
            match (hits, until) {
                (0, None) => silent += 1,
                (_, None) => line(&format!("  {action} {name}"), "", &hits.to_string()),
                (_, Some(until)) => {
                    let until = until.strftime("until %H:%M:%S UTC");
                    line(&format!("  {action} {name} {until}"), "", &hits.to_string());
                }
            }
        }
        if let Some(default) = default {
            line(&format!("  {default} by default"), "", &hits_default.to_string());
        }
        if silent > 0 {
            line(&format!("  {} without hits", count(silent, "rule", "rules")), "", "");
        }
    }
    line("no policy", "", &status.hits_default.to_string());
}

/// `text` in the column of names.
fn cut(text: &str) -> String {
    match text.char_indices().nth(NAMES) {
        None => text.to_owned(),
        Some(_) => text.chars().take(NAMES - 1).chain(['…']).collect(),
    }
}

fn source(origin: Origin) -> &'static str {
    match origin {
        Origin::Policies => "of the policies",
        Origin::Last => "of what was last in force: the policies are not valid",
        Origin::Boot => "of the boot policy: the policies are not valid",
        Origin::Time => "of what was last in force, without what is over",
        Origin::Rollback => "brought back by a rollback",
        Origin::Adopted => "found in the kernel",
    }
}

fn losses(losses: &Losses, sinks: &[Sink]) -> String {
    let Losses { events, unread, unwritten, streams } = losses;
    let each = [
        (events, "events"),
        (unread, "events while no daemon ran"),
        (unwritten, "events not written to the log"),
        (streams, "events to slow readers"),
    ];
    // What the log has lost stands among these.
    let beside = sinks.iter().filter(|sink| sink.name != "log").filter_map(|sink| {
        let lost = sink.dropped.saturating_add(sink.failed);
        let text = format!("{lost} events to the sink `{}`, where {} wait", sink.name, sink.queued);
        (lost > 0).then_some(text)
    });
    let told: Vec<String> = each
        .into_iter()
        .filter(|(number, _)| **number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .chain(beside)
        .collect();
    if told.is_empty() { "none".to_owned() } else { told.join("\n") }
}

/// A time, and how long ago that is.
fn when(time: Timestamp, now: Timestamp) -> String {
    format!("{} UTC ({})", time.strftime("%Y-%m-%d %H:%M:%S"), ago(time, now))
}

fn ago(time: Timestamp, now: Timestamp) -> String {
    // A clock can have been set back.
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}
