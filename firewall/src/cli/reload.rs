//! `firewall reload`, `rollback` and `off`: what changes what is in force.

use std::{io::ErrorKind, path::PathBuf, process::ExitCode};

use super::{CANNOT, ask, ask::Socket, check::count};
use crate::{
    api::{
        client,
        dto::{Change, Off, Status},
    },
    daemon,
    datapath::pins::Error,
};

/// Where the daemon is.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    socket: Socket,
}

/// Removes enforcement: everything passes, until the daemon is started again.
///
/// Exits with 0 if nothing is enforced any more, 3 if it cannot be removed. A command under
/// `firewall run` stays under its own policies.
#[derive(Debug, clap::Args)]
pub struct OffArgs {
    #[command(flatten)]
    socket: Socket,
    /// The folder of the pins, where no daemon runs [default: that of the daemon, or
    /// /sys/fs/bpf/firewall]
    #[arg(long, value_name = "DIR")]
    pin: Option<PathBuf>,
}

/// Has the daemon compile the policies anew.
///
/// # Errors
/// The system has no means to ask.
pub fn reload(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = args.socket.client()?.post("/v1/reload");
    Ok(told(answer.as_ref()))
}

/// Has the daemon go back to the generation before.
///
/// # Errors
/// The system has no means to ask.
pub fn rollback(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = args.socket.client()?.post("/v1/rollback");
    Ok(told(answer.as_ref()))
}

fn told(answer: Result<&Change, &client::Error>) -> ExitCode {
    match answer {
        Ok(change) => {
            if !change.warnings.is_empty() {
                eprintln!("{}", change.warnings.trim_end());
            }
            println!("{}", summary(change));
            ExitCode::SUCCESS
        }
        Err(error) => ask::failed(error),
    }
}

/// What is in force, in a line.
pub fn summary(Change { generation, policies, rules, .. }: &Change) -> String {
    let count =
        |number: u64, one, many| count(usize::try_from(number).unwrap_or(usize::MAX), one, many);
    format!(
        "generation {}: {}, {}",
        generation.number,
        count(*policies, "policy", "policies"),
        count(*rules, "rule", "rules")
    )
}

/// Removes enforcement: by the daemon if there is one, else here.
///
/// # Errors
/// The system has no means to ask.
pub fn off(args: &OffArgs) -> anyhow::Result<ExitCode> {
    let client = args.socket.client()?;
    let daemon = match &args.pin {
        // A daemon with other pins is not the one that is meant.
        Some(pin) => match client.get::<Status>("/v1/status") {
            Ok(status) => PathBuf::from(status.pins).starts_with(pin),
            Err(client::Error::NoDaemon { .. }) => false,
            Err(error) => return Ok(ask::failed(&error)),
        },
        None => true,
    };
    if daemon {
        match client.post::<Off>("/v1/off") {
            Ok(_) => {
                println!("nothing is enforced any more");
                return Ok(ExitCode::SUCCESS);
            }
            Err(client::Error::NoDaemon { .. }) => {}
            Err(error) => return Ok(ask::failed(&error)),
        }
    }
    let pin = args.pin.clone().unwrap_or_else(|| PathBuf::from(daemon::PIN));
    let mut say = |text: &str| eprintln!("{text}");
    match daemon::off(&pin, &mut say) {
        Ok(daemon::Removed { links: 0, .. }) => {
            println!("nothing was enforced");
            Ok(ExitCode::SUCCESS)
        }
        Ok(daemon::Removed { links, .. }) => {
            println!("nothing is enforced any more");
            let links = count(links, "program", "programs");
            eprintln!(
                "note: no daemon runs; {links} that it had left at {} are gone",
                pin.display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Error::File { source, .. } = &error
                && source.kind() == ErrorKind::PermissionDenied
            {
                eprintln!("\nhint: use sudo");
            }
            Ok(ExitCode::from(CANNOT))
        }
    }
}
