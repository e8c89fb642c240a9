//! `cargo xtask`: set-up, build, test, data and measurements.
//!
//! This crate does not depend on `firewall`, so that `setup` runs where the kernel programs cannot
//! be built yet.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people")]

mod command;
mod data;
mod lint;
mod measure;
mod setup;
mod skips;
mod test;
mod toolchain;

use clap::{Parser, Subcommand};

/// Set-up, build, test, data and measurements of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need, and say what was done
    Setup,
    /// Check formatting and run clippy, on the kernel programs too
    Lint,
    /// Write the embedded country, AS and AS name tables
    Data(data::Args),
    /// Set up, lint, and run every test
    Test(test::Arguments),
    /// Load every kernel program and cn-jurisdiction; check instructions and time
    #[command(disable_help_flag = true)]
    Verify(measure::Arguments),
    /// Measure what a packet costs in the kernel
    #[command(disable_help_flag = true)]
    Bench(measure::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Setup => setup::run(),
        Task::Lint => lint::run(),
        Task::Data(args) => data::run(&args),
        Task::Test(arguments) => test::run(&arguments),
        Task::Verify(arguments) => measure::verify(&arguments),
        Task::Bench(arguments) => measure::bench(&arguments),
    }
}
