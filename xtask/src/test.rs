//! `cargo xtask test`: set-up, lints and all tests; `cargo xtask test vm`: the package in a machine.

use anyhow::Result;

use crate::command::{cargo, is_root, run as run_command, succeeds};
use crate::skips::Skips;
use crate::{bench, lint, measure, setup, vm};

#[derive(clap::Args)]
pub struct Arguments {
    /// What to test instead of everything
    #[arg(value_name = "WHAT")]
    only: Option<Only>,
    /// Fail where a test needs something of the kernel that is not there, instead of skipping it
    /// (default: as root)
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    require_kernel: Option<bool>,
    /// Leave formatting and clippy out
    #[arg(long)]
    no_lint: bool,
    /// Given to the test runner, for example the name of a test
    #[arg(last = true)]
    runner: Vec<String>,
}

/// A test that takes too long to be one of all.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Only {
    /// Install, restart, upgrade and remove the Debian package, in a Debian in qemu
    Vm,
}

/// Runs everything; the test runner's summary comes last.
pub fn run(arguments: &Arguments) -> Result<()> {
    match arguments.only {
        // It has the set-up it needs: none of the tests' programs is.
        Some(Only::Vm) => return vm::run(),
        None => setup::run()?,
    }
    if arguments.no_lint {
        eprintln!("skipped: lints, as asked");
    } else {
        lint::run()?;
    }

    let require_kernel = arguments.require_kernel.unwrap_or_else(is_root);
    if !require_kernel {
        eprintln!("tests that need root or a recent kernel are skipped where it is missing");
    }
    if require_kernel && arguments.runner.is_empty() {
        measure::verify_instructions()?;
        bench::try_network()?;
    }
    let skips = Skips::watch()?;
    let test = |words: &[&str]| {
        let mut command = cargo();
        command
            .args(words)
            .args(lint::WORKSPACE)
            .env("FIREWALL_REQUIRE_KERNEL", if require_kernel { "1" } else { "0" })
            .env("FIREWALL_SKIP_LOG", skips.path());
        command
    };
    if succeeds(cargo().args(["nextest", "--version"])) {
        // nextest does not run the examples in the documentation.
        if arguments.runner.is_empty() {
            run_command(test(&["test", "--doc", "--quiet"]).args(["--no-fail-fast"]))?;
        }
        run_command(test(&["nextest", "run", "--no-fail-fast"]).args(&arguments.runner))
    } else {
        run_command(test(&["test", "--no-fail-fast"]).arg("--").args(&arguments.runner))
    }
}
