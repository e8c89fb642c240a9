//! The command line: one module for each command, and the only place that prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing belongs")]

pub mod check;
pub mod geo;
pub mod policy;

use std::process::ExitCode;

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
