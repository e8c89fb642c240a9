//! `cargo xtask`: set-up, build, test, data, packages and measurements.
//!
//! This crate does not depend on `firewall`, so that `setup` runs where the kernel programs cannot
//! be built yet.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people")]

mod bench;
mod bypass;
mod command;
mod data;
mod demo;
mod dist;
mod faults;
mod fuzz;
mod kernels;
mod lint;
mod measure;
mod run;
mod setup;
mod skips;
mod soak;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, test, data, packages and measurements of this workspace.
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
    /// Run a command under the shipped policies, or show what they do
    Run(run::Arguments),
    /// Set up, lint, and run every test; or the package in a whole machine
    Test(test::Arguments),
    /// Kill, reload and replace the daemon under load, and count what gets out or breaks
    Soak(soak::Arguments),
    /// Try every way around the firewall by a real socket, and show what got out
    Bypass(bypass::Arguments),
    /// Have everything go wrong around the verdicts, one fault after the other, and check them meanwhile
    Faults(faults::Arguments),
    /// Give every parser and the policy compiler random input, and keep what breaks them
    Fuzz(fuzz::Arguments),
    /// Make the tarball and the Debian package
    Dist(dist::Arguments),
    /// Load every kernel program and cn-jurisdiction; check instructions and time
    #[command(disable_help_flag = true)]
    Verify(measure::Arguments),
    /// Measure what the firewall costs: in the kernel, on the network, in user space
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup => setup::run().map(done),
        Task::Lint => lint::run().map(done),
        Task::Data(args) => data::run(&args).map(done),
        Task::Run(arguments) => run::run(&arguments),
        Task::Test(arguments) => test::run(&arguments).map(done),
        Task::Soak(arguments) => soak::run(&arguments).map(done),
        Task::Bypass(arguments) => bypass::run(&arguments).map(done),
        Task::Faults(arguments) => faults::run(&arguments).map(done),
        Task::Fuzz(arguments) => fuzz::run(&arguments).map(done),
        Task::Dist(arguments) => dist::run(&arguments).map(done),
        Task::Verify(arguments) => measure::verify(&arguments).map(done),
        Task::Bench(arguments) => bench::run(&arguments).map(done),
    };
    match result {
        Ok(status) => status,
        // Not returned from here: a backtrace of xtask would hide what the failed program said.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}
