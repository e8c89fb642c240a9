//! The command line.
use std::process::ExitCode;

fn main() -> ExitCode {
    firewall::cli::main()
}
