//! What the commands that talk to the daemon share.

use std::{io, path::PathBuf, process::ExitCode};

use super::CANNOT;
use crate::api::{Client, SOCKET, client::Error};

/// Where the daemon listens.
#[derive(Clone, Debug, clap::Args)]
pub struct Socket {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

impl Socket {
    /// The way to it.
    ///
    /// # Errors
    /// When the system has no means to wait for an answer.
    pub fn client(&self) -> io::Result<Client> {
        Client::new(&self.socket)
    }
}

/// Says why there is no answer, and what to do. 1 if what was asked for is not valid, else 3.
pub fn failed(error: &Error) -> ExitCode {
    let text = error.to_string();
    // Findings about policies say themselves what they are.
    let is_findings = ["error", "warning"].iter().any(|word| text.starts_with(word));
    eprintln!("{}{}", if is_findings { "" } else { "error: " }, text.trim_end());
    if let Some(hint) = error.hint() {
        eprintln!("\nhint: {hint}");
    }
    match error.is_invalid() {
        true => ExitCode::FAILURE,
        false => ExitCode::from(CANNOT),
    }
}
