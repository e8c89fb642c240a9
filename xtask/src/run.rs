//! `cargo xtask run`: a command under the shipped policies, or the demonstration.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    command::{cargo, run as run_command, target_directory},
    demo, setup,
};

/// The shipped policies that deny by country and owner. `local-only` would deny everything else
/// too, and `watch-everything` denies nothing.
pub const POLICIES: [&str; 8] = [
    "alibaba",
    "baidu",
    "bytedance",
    "cn-jurisdiction",
    "hk-jurisdiction",
    "huawei-cloud",
    "ru-jurisdiction",
    "tencent",
];

/// The shipped policies that deny by name.
pub const NAME_POLICIES: [&str; 7] = [
    "baidu-tongji",
    "bytedance-telemetry",
    "deepseek",
    "deepseek-telemetry",
    "tiktok-telemetry",
    "volcengine-telemetry",
    "web-analytics",
];

#[derive(clap::Args)]
pub struct Arguments {
    /// The command; without one, a demonstration that needs no outside network
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// `--policy NAME` for each.
pub fn policy_arguments(policies: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    policies.iter().flat_map(|policy| ["--policy", policy])
}

/// Sets up, builds and runs.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::run()?;
    run_command(cargo().args(["build", "--release", "--package", "firewall"]))?;
    let firewall = target_directory()?.join("release").join("firewall");
    if arguments.command.is_empty() {
        demo::run(&firewall)?;
        return Ok(ExitCode::SUCCESS);
    }
    // In the user's own folder, with the user's own input: this is the user's command.
    let status = Command::new(&firewall)
        .arg("run")
        .args(policy_arguments(&POLICIES))
        .args(policy_arguments(&NAME_POLICIES))
        .arg("--")
        .args(&arguments.command)
        .status()
        .with_context(|| format!("{} was not started", firewall.display()))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
