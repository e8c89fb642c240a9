//! `cargo xtask bypass`: ways around the firewall, each tried by a real socket.
//!
//! What it does stands in `firewall/tests/bypass`, which is one of the tests too.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, run as run_command};

#[derive(clap::Args)]
pub struct Arguments {
    /// Write the table as a Markdown page as well
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// Runs it; its table comes last.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !is_root() {
        bail!("network namespaces, cgroups and kernel programs take root");
    }
    let mut command = cargo();
    command
        .args(["test", "--package=firewall", "--test=bypass", "nothing_gets_around", "--"])
        .args(["--exact", "--nocapture"])
        .env("FIREWALL_REQUIRE_KERNEL", "1");
    if let Some(page) = &arguments.page {
        // The test runs in another folder.
        command.env("FIREWALL_BYPASS_PAGE", std::path::absolute(page)?);
    }
    run_command(&mut command)
}
