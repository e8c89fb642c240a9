//! `cargo xtask faults`: everything that can go wrong around the verdicts, one fault after the other.
//!
//! What it does stands in `firewall/tests/faults`, of which `cargo test` runs a short form.

use anyhow::Result;

use crate::command::{cargo, run as run_command};

#[derive(clap::Args)]
pub struct Arguments {
    /// Words in the names of faults: those alone [default: all of them]
    #[arg(value_name = "FAULT")]
    only: Vec<String>,
    /// How many times the usual size
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
}

/// Runs them with the build of the tests: a line for each, and a summary.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--quiet", "--package=firewall", "--test=faults", "--"])
        .args(["--ignored", "--exact", "in_full", "--nocapture"])
        .env("FIREWALL_REQUIRE_KERNEL", "1")
        .env("FIREWALL_FAULTS", arguments.only.join(" "))
        .env("FIREWALL_FAULTS_SIZE", arguments.size.to_string());
    run_command(&mut command)
}
