//! `cargo xtask lint`: formatting and clippy, for the workspace and for the kernel programs.

use anyhow::Result;

use crate::command::{cargo, ebpf_command, run as run_command, succeeds};
use crate::toolchain::{self, Toolchain};

/// Every crate but the kernel programs, which build for their own target alone.
pub const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "firewall-ebpf"];

/// Runs all lints; the first that complains is the error.
pub fn run() -> Result<()> {
    if succeeds(cargo().args(["fmt", "--version"])) {
        run_command(cargo().args(["fmt", "--all", "--", "--check"]))?;
    } else {
        eprintln!("skipped: formatting, because this toolchain has no rustfmt");
    }
    if succeeds(cargo().args(["clippy", "--version"])) {
        run_command(cargo().arg("clippy").args(WORKSPACE).args([
            "--all-targets",
            "--quiet",
            "--",
            "-Dwarnings",
        ]))?;
    } else {
        eprintln!("skipped: clippy, because this toolchain has none");
    }
    ebpf()
}

/// Clippy needs `core` for the BPF target, so it must be that of the toolchain with the sources:
/// Debian has it in the package `rust-web-clippy`, rustup in the component `clippy`. On the host's
/// target it would judge code that is never built.
fn ebpf() -> Result<()> {
    let found = match toolchain::find() {
        Ok(found) if has_ebpf_clippy(&found) => found,
        Ok(found) => {
            eprintln!("skipped: clippy of the kernel programs, because {} has none", found.version);
            return Ok(());
        }
        Err(misfits) => {
            eprintln!("skipped: clippy of the kernel programs: {}", misfits.join("; "));
            return Ok(());
        }
    };
    run_command(ebpf_command(&found, "cargo").args([
        "clippy",
        "--package=firewall-ebpf",
        "--release",
        "--target=bpfel-unknown-none",
        "-Zbuild-std=core",
        // A folder of its own: the usual one is for another compiler, and would be rebuilt.
        "--target-dir=target/ebpf-clippy",
        "--quiet",
        "--",
        "-Dwarnings",
    ]))
}

/// Whether the toolchain for the kernel programs comes with clippy.
pub fn has_ebpf_clippy(found: &Toolchain) -> bool {
    succeeds(ebpf_command(found, "cargo").args(["clippy", "--version"]))
}
