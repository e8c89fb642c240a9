//! `firewall policy`: which policies there are, and what stands in them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::check::{POLICIES, print_findings};
use super::enable::{self, Place};
use crate::config::{Config, STATE};
use crate::policy::source::{Disk, NotFound, Origin, Source};
use crate::policy::{self, Mode, SHIPPED};
use crate::remote::Store;
use crate::set::organisations;

/// Shows the policies that are shipped and those of this machine, and says which are to hold.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the policies that are shipped and those of this machine
    List {
        /// Print one JSON object a policy on standard output
        #[arg(long)]
        json: bool,
        /// The folder of this machine's policies
        #[arg(long, value_name = "DIR")]
        policies: Option<PathBuf>,
    },
    /// Prints the file of a shipped policy
    Show {
        /// As `firewall policy list` shows it
        name: String,
    },
    /// Puts a shipped policy, or a file, into the folder of this machine's policies, and has the daemon
    /// take it. If the daemon does not, or the policies are not valid then, all stays as it was
    Enable {
        /// As `firewall policy list` shows it, or a path
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Takes a policy out of that folder: its file stays there as NAME.toml.disabled
    Disable {
        /// As `firewall policy list` shows it
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Runs `firewall policy`.
///
/// # Errors
///
/// When standard output or standard error cannot be written to.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { json, policies } => list(json, policies),
        Command::Show { name } => show(&name),
        Command::Enable { name, place } => Ok(enable::enable(&name, &place)),
        Command::Disable { name, place } => enable::disable(&name, &place),
    }
}

/// A policy as it is listed; the keys of `--json` are stable.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    /// `shipped`, or the path of the file.
    source: String,
    mode: &'static str,
    priority: u32,
    rules: usize,
    summary: String,
}

fn list(json: bool, folder: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut sources = Source::all_shipped();
    let wanted = folder.is_some();
    let folder = folder.unwrap_or_else(|| PathBuf::from(POLICIES));
    if wanted || Path::new(&folder).exists() {
        match Source::at(&folder) {
            Ok(found) => sources.extend(found),
            Err(error @ NotFound::Path { .. }) if wanted => {
                eprintln!("error: {error}");
                return Ok(ExitCode::from(2));
            }
            Err(error) => eprintln!("warning: {error}"),
        }
    }

    let organisations = organisations(&Config::load(None)?, &Disk)?;
    let store = Store::new(Path::new(STATE));
    let mut listed = Vec::new();
    let mut sound = true;
    for source in &sources {
        // Each on its own: a policy of this machine may have the name of the shipped one it was
        // copied from.
        let (policies, diagnostics) =
            policy::load(std::slice::from_ref(source), &organisations, &store);
        if diagnostics.has_errors() {
            print_findings(&diagnostics)?;
            sound = false;
        }
        for policy in policies {
            listed.push(Listed {
                source: match &source.origin {
                    Origin::Shipped(_) => "shipped".to_owned(),
                    Origin::File(path) => path.display().to_string(),
                },
                mode: match policy.mode {
                    Mode::Enforce => "enforce",
                    Mode::Observe => "observe",
                },
                priority: policy.priority,
                rules: policy.rules.len(),
                summary: policy.description.lines().next().unwrap_or_default().trim().to_owned(),
                name: policy.name,
            });
        }
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    match json {
        true => {
            for policy in &listed {
                serde_json::to_writer(&mut out, policy)?;
                out.write_all(b"\n")?;
            }
        }
        false => table(&mut out, &listed)?,
    }
    out.flush()?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(out: &mut impl Write, listed: &[Listed]) -> io::Result<()> {
    let width = |header: &str, cell: fn(&Listed) -> &str| {
        let cells = listed.iter().map(|policy| cell(policy).chars().count());
        cells.max().unwrap_or(0).max(header.len())
    };
    let name = width("NAME", |policy| &policy.name);
    let source = width("FROM", |policy| &policy.source);
    writeln!(out, "{:name$}  {:source$}  MODE     RULES  SUMMARY", "NAME", "FROM")?;
    for policy in listed {
        let Listed { name: n, source: s, mode, rules, summary, priority: _ } = policy;
        // A path or a description must not be able to steer the terminal.
        let line = format!("{n:name$}  {s:source$}  {mode:7}  {rules:5}  {summary}");
        writeln!(out, "{}", line.replace(char::is_control, "?").trim_end())?;
    }
    Ok(())
}

fn show(name: &str) -> anyhow::Result<ExitCode> {
    if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(error) = Source::shipped(name) {
        eprintln!("error: {error}");
    }
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_is_harmless() {
        let listed = |name: &str, source: &str, mode| Listed {
            name: name.into(),
            source: source.into(),
            mode,
            priority: 100,
            rules: 12,
            summary: "What it\u{1b}does.".into(),
        };
        let rows =
            [listed("a-long-name", "shipped", "enforce"), listed("b", "/x/b.toml", "observe")];
        let mut out = Vec::new();
        table(&mut out, &rows).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        NAME         FROM       MODE     RULES  SUMMARY
        a-long-name  shipped    enforce     12  What it?does.
        b            /x/b.toml  observe     12  What it?does.
        ");
        let keys = serde_json::to_string(&rows[1]).unwrap();
        insta::assert_snapshot!(keys, @r#"{"name":"b","source":"/x/b.toml","mode":"observe","priority":100,"rules":12,"summary":"What it\u001bdoes."}"#);
    }
}
