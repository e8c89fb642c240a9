//! The command line: one module for each command, and the only place that prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing belongs")]

/// Prints a line on standard output. That it cannot be written is no reason to panic: what it tells of
/// is done.
macro_rules! println {
    ($($told:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($told)*);
    }};
}

/// As [`println`], without an end of line.
macro_rules! print {
    ($($told:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($told)*);
    }};
}

/// As [`println`], on standard error.
macro_rules! eprintln {
    ($($told:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($told)*);
    }};
}

mod allow;
pub mod apps;
mod ask;
pub mod check;
pub mod daemon;
pub mod doctor;
mod enable;
pub mod explain;
pub mod geo;
pub mod import;
pub mod list;
pub mod log;
mod pager;
pub mod policy;
pub mod progress;
pub mod reload;
pub mod replay;
pub mod report;
pub mod run;
pub mod set;
pub mod status;
mod story;
mod table;
pub mod update;
pub mod verdict;
pub mod watch;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Stops connections by name, country, owner and network, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "firewall", version, max_term_width = 100, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one command under policies
    Run(run::Args),
    /// Run the service, in the foreground
    Daemon(daemon::Args),
    /// Put in force what was last, before there is a network, and end
    Boot(daemon::Boot),
    /// Check policies, and report every mistake with its place
    Check(check::Args),
    /// Say what would happen to a connection, by which rule and on what evidence
    Explain(explain::Args),
    /// Judge a packet capture: what would have been denied, by which rule, and every name in it
    Replay(replay::Args),
    /// Show what the daemon enforces: generation, policies with hits, hooks, losses
    Status(status::Args),
    /// Show verdicts as they are reached
    Watch(watch::Args),
    /// Have the daemon read and compile the policies anew; if they are not valid, nothing changes
    Reload(reload::Args),
    /// Have the daemon go back to the generation before
    Rollback(reload::Args),
    /// Remove enforcement: everything passes
    Off(reload::OffArgs),
    /// Show the verdicts that the daemon has stored
    Log(log::Args),
    /// Propose the rule that would have let a flow pass, and put it in force
    Allow(allow::Args),
    /// Show the apps of a log and what they reached or tried to
    Apps(apps::Args),
    /// Show who sent how much to whom, what was stopped, and what is new
    Report(report::Args),
    /// Show and choose policies
    Policy(policy::Args),
    /// Show lists of domains and networks, and fetch those that are at a URL
    List(list::Args),
    /// Print a policy made from a list or from the rules of another firewall
    Import(import::Args),
    /// Ask the tables of countries and owners
    Geo(geo::Args),
    /// Say what this kernel and this machine can and cannot enforce
    Doctor(doctor::Args),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Wrong usage.
const USAGE: u8 = 2;
/// Not permitted, or the kernel cannot.
pub const CANNOT: u8 = 3;

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = match parse(&arguments) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // Help and the version are asked for; they are no errors, and go to standard output.
            let status = if error.use_stderr() { usage_status(&arguments) } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(status),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let result = match command {
        Command::Run(args) => return run::run(&args),
        Command::Daemon(args) => return daemon::run(&args),
        Command::Boot(args) => return daemon::boot(&args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Rollback(args) => reload::rollback(&args),
        Command::Off(args) => reload::off(&args),
        Command::Log(args) => log::run(&args),
        Command::Allow(args) => allow::run(&args),
        Command::Apps(args) => apps::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Policy(args) => policy::run(args),
        Command::List(args) => list::run(args),
        Command::Import(args) => import::run(&args),
        Command::Geo(args) => geo::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => {
            let mut completions = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "firewall", &mut completions);
            print_all(&completions)
        }
        Command::Man { dir: None } => manual().and_then(|manual| print_all(&manual)),
        Command::Man { dir: Some(dir) } => manuals(&dir),
    };
    match result {
        Ok(status) => status,
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Arguments, clap::Error> {
    let matches = Arguments::command().try_get_matches_from(arguments)?;
    Arguments::from_arg_matches(&matches)
}

/// Every failure of `run` itself is told from those of its command by 125.
fn usage_status(arguments: &[OsString]) -> u8 {
    if arguments.get(1).is_some_and(|command| command == "run") { run::FAILED } else { USAGE }
}

fn print_all(text: &[u8]) -> anyhow::Result<ExitCode> {
    io::stdout().lock().write_all(text)?;
    Ok(ExitCode::SUCCESS)
}

/// One page: the command, then each of its commands.
fn manual() -> anyhow::Result<Vec<u8>> {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands() {
        let manual =
            clap_mangen::Man::new(sub.clone().display_name(format!("firewall {}", sub.get_name())));
        page.extend_from_slice(
            format!(".SH FIREWALL {}\n", sub.get_name().to_uppercase()).as_bytes(),
        );
        manual.render_synopsis_section(&mut page)?;
        manual.render_description_section(&mut page)?;
        manual.render_options_section(&mut page)?;
    }
    Ok(page)
}

/// `firewall.1`, `firewall-run.1`, …
fn manuals(folder: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Arguments::command(), folder)
        .with_context(|| format!("cannot write manual pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Whether to write in colour to a stream.
fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
