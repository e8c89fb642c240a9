//! `cargo xtask`: set-up, build, test, data and measurements.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool that reports to a terminal")]

use clap::Parser as _;

mod data;

/// Set-up, build, test, data and measurements of this workspace.
#[derive(clap::Parser)]
enum Task {
    /// Write the embedded country, AS and AS name tables.
    Data(data::Args),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Data(args) => data::run(&args),
    }
}
