//! `firewall allow`: the narrowest rule that would have let a flow pass, as a diff.

mod flow;

use std::{
    fs,
    io::{self, ErrorKind, IsTerminal as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use jiff::Zoned;
use similar::TextDiff;

use super::{
    check::print_findings,
    colour,
    enable::{self, Place},
    explain::because,
    log,
    set::State,
};
use crate::{
    config::{self, Config},
    explanation::{Explanation, explain},
    policy::{
        Moment,
        diagnostic::printable,
        explain::Explainer,
        source::{Content, Disk, Files as _, LARGEST, Origin, Source},
    },
    regular,
    remote::Store,
    replace::replace,
    set::{self, Parts, Set},
    span,
};
use flow::Flow;

/// Proposes the narrowest rule that would have let a flow pass, as a diff of `50-local.toml`.
///
/// Exits with 0, with 1 if the flow passed or no rule of that file lets it pass, with 3 if the log may
/// not be read, or the rule not be written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The number of the event, as `firewall log` shows it
    #[arg(value_name = "SEQ")]
    seq: u64,
    /// Let it pass for a time: a number and `s`, `m`, `h` or `d`, as `1h`; at most until this machine is
    /// started again
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    time: Option<Duration>,
    /// Write the rule, and have the daemon reload
    #[arg(long)]
    apply: bool,
    /// Settings [default: /etc/firewall/firewall.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    place: Place,
}

/// Name of the file in the folder of the policies.
const FILE: &str = "50-local.toml";

/// What stands in it at first. It comes before the policies that stop something, and after those that
/// only watch.
const FIRST: &str = "[policy]
name        = \"local\"
description = \"What `firewall allow` lets pass on this machine\"
priority    = 1
";

/// Names that are tried for a rule.
const NAMES: u32 = 1000;

/// Runs `firewall allow`.
///
/// # Errors
/// The policies or the tables cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let flow = match find(args) {
        Ok(flow) => flow,
        Err(status) => return Ok(status),
    };
    let path = args.place.folder.join(FILE);
    let shown = printable(&path.display().to_string());
    let old = match read(&path) {
        Ok(old) => old,
        Err(error) => return Ok(enable::cannot("read", &path, &error)),
    };
    let now = match judge(args, &path, old.as_deref(), &flow)? {
        Ok(now) => now,
        Err(status) => return Ok(status),
    };
    if flow.stopped(&now).is_none() {
        eprintln!("error: the policies have changed, and let it pass: {}", because(&now.finding));
        return Ok(ExitCode::FAILURE);
    }
    let until = match args.time.map(moment_after) {
        None => None,
        Some(Some(until)) => Some(until),
        Some(None) => {
            eprintln!("error: this kernel does not tell which start of the machine this is");
            return Ok(ExitCode::from(super::CANNOT));
        }
    };
    let new = with_rule(old.as_deref(), args.seq, &flow, until.as_ref());
    print_diff(&shown, old.as_deref(), &new);
    for note in flow.notes() {
        eprintln!("note: {note}");
    }
    if let Some(time) = args.time {
        let end = Zoned::now().saturating_add(time).strftime("%Y-%m-%d %H:%M:%S %Z");
        eprintln!("note: it is over at about {end}, or when this machine is started again");
    }
    let then = match judge(args, &path, Some(&new), &flow)? {
        Ok(then) => then,
        Err(status) => return Ok(status),
    };
    if let Some(finding) = flow.stopped(&then) {
        eprintln!("error: it would be stopped all the same: {}", because(finding));
        eprintln!("\nhint: that rule is tried first: change it, or the priority of its policy");
        return Ok(ExitCode::FAILURE);
    }
    if !args.apply {
        eprintln!("note: with this rule it passes; `--apply` writes it");
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(error) = write(&path, new.as_bytes()) {
        return Ok(enable::cannot("write", &path, &error));
    }
    let back = |why: &str| {
        let undone = match &old {
            Some(old) => write(&path, old.as_bytes()),
            None => fs::remove_file(&path),
        };
        match undone {
            Ok(()) => eprintln!("\nerror: {why}, so {shown} is as it was"),
            Err(error) => eprintln!("\nerror: {why}, and {shown} cannot be put back: {error}"),
        }
    };
    Ok(enable::settle(&args.place, "written", &shown, &back))
}

/// The flow of the event; if there is none, or no rule lets it pass, says so.
fn find(args: &Args) -> Result<Flow, ExitCode> {
    let reader = log::open(&args.state.state)?;
    let event = reader.event(args.seq).map_err(|error| log::failed(&error))?;
    let flow = event.map_or_else(
        || Err(format!("there is no event {} in the log", args.seq)),
        |event| Flow::of(&event),
    );
    flow.map_err(|why| {
        eprintln!("error: {}", printable(&why));
        ExitCode::FAILURE
    })
}

/// What is there.
fn read(path: &Path) -> io::Result<Option<String>> {
    match regular::read(path, LARGEST) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mode = fs::metadata(path).map_or(0o644, |data| data.permissions().mode());
    replace(path, mode & 0o7777, &[text])
}

/// How long a rule counts.
fn span(text: &str) -> Result<Duration, String> {
    match span::seconds(text, "smhd") {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("write a number and `s`, `m`, `h` or `d`, as `1h`".to_owned()),
    }
}

/// The moment that is so long from now.
fn moment_after(time: Duration) -> Option<Moment> {
    let now = Disk.moment()?;
    // The second that has begun counts whole.
    Some(Moment { second: now.second + time.as_secs() + 1, ..now })
}

/// The file with the rule behind all others.
fn with_rule(old: Option<&str>, seq: u64, flow: &Flow, until: Option<&Moment>) -> String {
    let mut text = old.unwrap_or(FIRST).to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let names = (2..NAMES).map(|number| format!("event-{seq}-{number}"));
    let is_free = |name: &String| !text.contains(&format!("\"{name}\""));
    let first = format!("event-{seq}");
    // If none is free, the policies are not valid, and say why.
    let name = std::iter::once(first.clone()).chain(names).find(is_free).unwrap_or(first);
    format!("{text}\n{}", flow.rule(&name, until))
}

/// What the policies make of the flow, with `local` as the text of the file; or says why they cannot be
/// asked.
fn judge(
    args: &Args,
    path: &Path,
    local: Option<&str>,
    flow: &Flow,
) -> anyhow::Result<Result<Explanation, ExitCode>> {
    let mut sources = match args.place.folder.exists() {
        true => Source::at(&args.place.folder)?,
        false => Vec::new(),
    };
    sources.retain(|source| !matches!(&source.origin, Origin::File(file) if file == path));
    sources.extend(local.map(|text| Source {
        origin: Origin::File(path.to_owned()),
        content: Content::Text(text.to_owned().into()),
    }));
    let config = Config::load(args.config.as_deref())?;
    let store: Store = args.state.store();
    let set = Set::compile(Parts {
        settings: config.settings(set::name_keys()?, config::system_resolvers()),
        organisations: set::organisations(&config, &store)?,
        config,
        first: None,
        sources: &sources,
        files: &store,
    });
    let set = match set {
        Ok(set) => set,
        Err(set::Error::Invalid(invalid)) => {
            print_findings(&invalid.policies)?;
            eprintln!("error: the policies are not valid");
            return Ok(Err(ExitCode::FAILURE));
        }
        Err(error) => return Err(error.into()),
    };
    let explainer = Explainer { generation: &set.generation, intel: &set.intel };
    explain(&explainer, &flow.asked(), &flow.app()).map(Ok)
}

/// As `patch` takes it; on a terminal in colour, and so that nothing in it is obeyed.
fn print_diff(path: &str, old: Option<&str>, new: &str) {
    let diff = TextDiff::from_lines(old.unwrap_or_default(), new);
    let from = if old.is_some() { path } else { "/dev/null" };
    let diff = diff.unified_diff().header(from, path).to_string();
    let out = io::stdout();
    if !out.is_terminal() {
        return print!("{diff}");
    }
    let colour = colour(&out);
    for line in diff.lines() {
        let (on, off) = match line.as_bytes().first() {
            Some(b'+') if colour => ("\x1b[32m", "\x1b[0m"),
            Some(b'-') if colour => ("\x1b[31m", "\x1b[0m"),
            _ => ("", ""),
        };
        println!("{on}{}{off}", printable(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_for_a_second_up_to_days() {
        for (text, seconds) in
            [("90s", Some(90)), ("1h", Some(3_600)), ("4294967295d", Some(371_085_174_288_000))]
        {
            assert_eq!(span(text).ok().map(|span| span.as_secs()), seconds, "{text}");
        }
        for text in ["0s", "1w", "h", "+1h", "4294967296s"] {
            assert!(span(text).unwrap_err().contains("as `1h`"), "{text}");
        }
    }
}
