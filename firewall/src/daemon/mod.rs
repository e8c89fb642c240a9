//! The service.

pub mod control;
pub mod inputs;

use std::path::Path;

/// Where the daemon pins unless it is told otherwise.
pub const PIN: &str = "/sys/fs/bpf/firewall";

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Links: each had a program attached.
    pub links: usize,
    /// Maps.
    pub maps: usize,
}

/// Removes what enforces without a daemon: all that is pinned below a folder.
///
/// # Errors
/// When something stays.
pub fn off(_pin: &Path) -> anyhow::Result<Removed> {
    anyhow::bail!("no daemon")
}
