//! What the two processes of the daemon give up.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What the keeper does after everything is in place: maps for further generations and ways through
/// the open files (`BPF`, `PERFMON`), ending sockets (`NET_ADMIN`), in network namespaces of others
/// (`SYS_ADMIN`, `SYS_PTRACE`), removing pins (`DAC_READ_SEARCH` to get to them).
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Gives up all capabilities of this thread but those that the keeper goes on with, for good.
pub fn of_keeper() -> io::Result<()> {
    keep(KEPT)
}

/// Gives up all capabilities of this thread, for good.
pub fn of_worker() -> io::Result<()> {
    keep(CapabilitySet::empty())
}

fn keep(kept: CapabilitySet) -> io::Result<()> {
    let have = capabilities(None)?;
    if have.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept).iter() {
            // One that this kernel does not know cannot be had.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    clear_ambient_capability_set()?;
    let left = have.permitted.intersection(kept);
    let sets =
        CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Lets this thread and those that it makes write only below `folders`, start nothing, and listen on no
/// TCP port. Returns whether the kernel has that, wholly.
pub fn confine(folders: &[PathBuf]) -> Result<bool, landlock::RulesetError> {
    let abi = ABI::V6;
    let writing = AccessFs::from_write(abi) | AccessFs::Execute;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writing)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?;
    let may = AccessFs::from_write(abi);
    for folder in folders {
        // One that is not there cannot be written to.
        if let Ok(folder) = PathFd::new(Path::new(folder)) {
            rules = rules.add_rule(PathBeneath::new(folder, may))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset == RulesetStatus::FullyEnforced)
}
