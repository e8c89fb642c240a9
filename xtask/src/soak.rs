//! `cargo xtask soak`: the daemon killed, reloaded and replaced under load, for long.
//!
//! What it does stands in `firewall/tests/soak`, of which `cargo test` runs a short form.

use anyhow::Result;

use crate::command::{cargo, run as run_command};

#[derive(clap::Args)]
pub struct Arguments {
    /// How long it goes on at least
    #[arg(long, default_value_t = 0)]
    minutes: u64,
    /// Rounds of 6 kills, 6 reloads, a rollback and a replacement of the binary that it makes at least
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// Chooses the moments and policies again that a run said at its end
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs it with the release build; its table comes last.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--release", "--package=firewall", "--test=soak", "--", "--nocapture"])
        .env("FIREWALL_REQUIRE_KERNEL", "1")
        .env("FIREWALL_SOAK_MINUTES", arguments.minutes.to_string())
        .env("FIREWALL_SOAK_ROUNDS", arguments.rounds.to_string())
        .env("FIREWALL_SOAK_ALONE", "60");
    if let Some(seed) = arguments.seed {
        command.env("FIREWALL_SOAK_SEED", seed.to_string());
    }
    run_command(&mut command)
}
