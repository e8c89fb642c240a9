//! `cargo xtask verify`: the verifier's work in the running kernel.
//!
//! It stands in `firewall/benches`, because this crate does not depend on `firewall`.

use anyhow::Result;

use crate::command::{cargo, run as run_command};

/// Given to the measurement.
#[derive(clap::Args)]
pub struct Arguments {
    /// Options of the measurement; `--help` shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Checks the verifier's work and the time until a policy decides.
pub fn verify(arguments: &Arguments) -> Result<()> {
    run_command(
        cargo()
            .args(["bench", "--package=firewall", "--bench=verify", "--"])
            .args(&arguments.options),
    )
}

/// Checks the verifier's work where the time says little: a build for tests on a busy machine. The
/// kernel programs are the same in every build.
pub fn verify_instructions() -> Result<()> {
    run_command(cargo().args([
        "test",
        "--package=firewall",
        "--bench=verify",
        "--",
        "--report-time",
        "--rounds=1",
    ]))
}
