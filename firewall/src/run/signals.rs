//! Signals to `run` are for the command.

use std::io;

use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, getpgid, getpgrp},
};
use tokio::io::unix::AsyncFd;

/// What ends a program or tells it something; stopping and continuing stay as they are.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// `si_code` of a signal that a terminal sends to its whole foreground process group.
const SI_KERNEL: i32 = 0x80;

/// Takes signals instead of dying of them. To be made before other threads are.
pub struct Signals {
    fd: AsyncFd<SignalFd>,
    /// What was blocked before, which is what the command is to start with.
    pub before: SigSet,
}

impl Signals {
    /// Blocks the signals and opens them for reading. To be called in a runtime.
    pub fn new() -> io::Result<Self> {
        let set: SigSet = PASSED_ON.into_iter().collect();
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the signal descriptor owns its number and keeps it open as long as it lives.
        Ok(Self { fd: unsafe { AsyncFd::register(fd) }?, before })
    }

    /// The next signal, and whether the command in process `child` has to be told of it: from a
    /// terminal it has it already.
    pub async fn next(&self, child: Pid) -> io::Result<(Signal, bool)> {
        loop {
            let mut guard = self.fd.readable().await?;
            match guard.get_inner().read_signal()? {
                Some(info) => {
                    let signal = Signal::try_from(info.ssi_signo.cast_signed())?;
                    let shared = info.ssi_code == SI_KERNEL
                        && getpgid(Some(child)).is_ok_and(|group| group == getpgrp());
                    return Ok((signal, !shared));
                }
                None => guard.clear_ready(),
            }
        }
    }
}
