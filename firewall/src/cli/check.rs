//! `firewall check`: are these policies sound?

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::{list, progress::Busy, set::State};
use crate::config::{self, CONFIG, Config};
use crate::policy::compile::Settings;
use crate::policy::diagnostic::Diagnostics;
use crate::policy::source::Source;
use crate::set::{self, Invalid, Parts, Set};

/// Where the policies of this machine are.
pub const POLICIES: &str = "/etc/firewall/policies.d";

/// Checks policies, and reports every mistake with its place and what to write instead.
///
/// Exits with 0 if they are valid, 1 if not, 2 if a path does not exist.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Policy files, and folders of which every *.toml is one [default: /etc/firewall/policies.d, and
    /// the settings]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object a finding on standard output
    #[arg(long)]
    json: bool,
    /// Settings [default: /etc/firewall/firewall.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    state: State,
}

/// Runs `firewall check`.
///
/// # Errors
///
/// When standard output or standard error cannot be written to.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = args.config.is_some() || Path::new(CONFIG).exists();
    let paths = match args.paths.is_empty() {
        false => args.paths,
        true if Path::new(POLICIES).exists() => vec![PathBuf::from(POLICIES)],
        true if settings => Vec::new(),
        true => {
            eprintln!("error: there is nothing to check: {POLICIES} does not exist\n");
            eprintln!("hint: name a policy file or a folder of them: `firewall check PATH`");
            return Ok(ExitCode::FAILURE);
        }
    };
    let sources = match Source::at_all(&paths) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let config = match Config::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(config::Error::Invalid { findings, .. }) => {
            report(&[&findings], args.json).context("the findings cannot be written")?;
            return Ok(ExitCode::FAILURE);
        }
        // A file that is named and leads nowhere.
        Err(error) => {
            eprintln!("error: {error}");
            let named = args.config.is_some();
            return Ok(if named { ExitCode::from(2) } else { ExitCode::FAILURE });
        }
    };
    let store = args.state.store();
    let busy = Busy::new("reading policies and lists");
    let set = Set::compile(Parts {
        settings: config.settings(Settings::default().name_keys, Vec::new()),
        organisations: set::organisations(&config, &store)?,
        config,
        first: None,
        sources: &sources,
        files: &store,
    });
    drop(busy);
    let (all, status) = match set {
        Ok(Set { config, findings, .. }) => ([config.findings, findings], ExitCode::SUCCESS),
        Err(set::Error::Invalid(invalid)) => {
            let Invalid { settings, policies } = *invalid;
            ([settings, policies], ExitCode::FAILURE)
        }
        Err(error) => return Err(error.into()),
    };
    report(&all.each_ref(), args.json).context("the findings cannot be written")?;
    Ok(status)
}

/// Tells the findings about the settings and about the policies.
fn report(all: &[&Diagnostics], json: bool) -> io::Result<()> {
    if json {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for record in all.iter().flat_map(|diagnostics| diagnostics.records()) {
            serde_json::to_writer(&mut out, &record)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
    } else {
        for diagnostics in all {
            print_findings(diagnostics)?;
        }
    }
    let mut err = io::stderr().lock();
    for (policy, list) in all.iter().flat_map(|diagnostics| diagnostics.lists()) {
        list::write_report(&mut err, Some(policy), list)?;
    }
    let sum = |of: fn(&Diagnostics) -> usize| all.iter().map(|diagnostics| of(diagnostics)).sum();
    writeln!(
        err,
        "{}, {}, {}, {}",
        count(sum(Diagnostics::policies), "policy", "policies"),
        count(sum(Diagnostics::rules), "rule", "rules"),
        count(sum(Diagnostics::errors), "error", "errors"),
        count(sum(Diagnostics::warnings), "warning", "warnings"),
    )
}

/// Prints findings for people on standard error, in colour on a terminal.
///
/// # Errors
///
/// When standard error cannot be written to.
pub fn print_findings(diagnostics: &Diagnostics) -> io::Result<()> {
    let mut err = io::stderr().lock();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    err.write_all(diagnostics.render(err.is_terminal() && !no_color).as_bytes())
}

/// A number and what it counts.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn exit(paths: &[&Path]) -> String {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        // An exit code can only be compared by what it prints as.
        let state = State { state: "/none".into() };
        format!("{:?}", run(Args { paths, json: false, config: None, state }).unwrap())
    }

    #[test]
    fn exit_statuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.toml"), "[policy]\nname = \"a\"\ndefault = \"drop\"\n").unwrap();
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(exit(&[folder.path()]), code(0));
        fs::write(path("b.toml"), "[policy]\nname = \"a\"\ndefault = \"drop\"\n").unwrap();
        assert_eq!(exit(&[&path("b.toml")]), code(0));
        assert_eq!(exit(&[folder.path()]), code(1), "two policies of one name");
        fs::write(path("b.toml"), "").unwrap();
        assert_eq!(exit(&[folder.path()]), code(1), "an empty file");
        assert_eq!(exit(&[&path("none.toml")]), code(2));
    }
}
