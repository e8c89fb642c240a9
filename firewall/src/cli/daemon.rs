//! `firewall daemon` and `firewall boot`: the service.

use std::{path::PathBuf, process::ExitCode};

use super::{CANNOT, check::POLICIES};
use crate::{
    api::SOCKET,
    config::STATE,
    daemon::{self, Options, PIN},
    datapath::probe,
};

/// Runs the service in the foreground.
///
/// Exits with 0 when it was stopped, 1 if policies or settings are not valid and nothing else was in
/// force, and 3 if it is not permitted, the kernel cannot, or another daemon has the pins. What is in
/// force stays so when it ends, unless `stop` in firewall.toml says otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    places: Places,
    /// Where the API is
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

/// Puts the last generation in force, or else the boot policy, and ends.
///
/// Meant for the start of the machine, before there is a network. Does nothing if something is in force.
#[derive(Debug, clap::Args)]
pub struct Boot {
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, clap::Args)]
struct Places {
    /// Settings [default: /etc/firewall/firewall.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the policies
    #[arg(long, value_name = "DIR", default_value = POLICIES)]
    policies: PathBuf,
    /// Where the log, the copies of lists and what is in force are kept
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
    /// The cgroup whose processes are filtered, by its folder [default: the one that all are in]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Where links and maps are pinned, in a bpf file system
    #[arg(long, value_name = "DIR", default_value = PIN)]
    pin: PathBuf,
}

impl Places {
    fn options(&self, socket: PathBuf, boot: bool) -> Options {
        let Self { config, policies, state, cgroup, pin } = self;
        Options {
            config: config.clone(),
            policies: policies.clone(),
            state: state.clone(),
            socket,
            cgroup: cgroup.clone(),
            pin: pin.clone(),
            boot,
        }
    }
}

/// Runs `firewall daemon`.
pub fn run(args: &Args) -> ExitCode {
    start(&args.places.options(args.socket.clone(), false))
}

/// Runs `firewall boot`.
pub fn boot(args: &Boot) -> ExitCode {
    start(&args.places.options(PathBuf::from(SOCKET), true))
}

fn start(options: &Options) -> ExitCode {
    let mut say = |text: &str| eprintln!("firewall: {text}");
    if let Err(why) = probe::permission() {
        say(&format!(
            "error: this process may not put programs into the kernel: {why}\n\n\
             hint: run it as root, or by its systemd unit"
        ));
        return ExitCode::from(CANNOT);
    }
    match daemon::run(options, &mut say) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(CANNOT)
        }
    }
}
