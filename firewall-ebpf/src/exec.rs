//! What is noted of a process when it executes a file: by the time it uses a socket, or an event of that
//! is read, it can have overwritten its arguments, or be gone.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_task},
    },
    programs::RawTracePointContext,
};
use aya_log_ebpf::warn;
use firewall_common::layout::{Counter, MAX_LEVELS};

use crate::{
    identity,
    maps::{SCOPE, count},
    process::keep_executable,
    scratch, script,
};

/// After a successful `execve`.
#[inline(always)]
pub fn executed(ctx: &RawTracePointContext) {
    if !is_in_scope(SCOPE.load()) {
        return;
    }
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return;
    };
    let kept = keep(taken.index).is_some();
    scratch::give_back(taken);
    if !kept {
        let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        warn!(ctx, "the path of the executable of process {} could not be kept", pid);
    }
}

/// What was kept before is of another name of the file, or of the time before it was renamed.
#[inline(always)]
fn keep(index: u32) -> Option<()> {
    let scratch = scratch::get(index)?;
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    identity::of_task(task, &mut scratch.process.identity)?;
    let kept = keep_executable(index, task);
    script::keep(index);
    kept
}

/// Whether the current process is in the cgroup or below it.
#[inline(always)]
fn is_in_scope(cgroup: u64) -> bool {
    if cgroup == 0 {
        return true;
    }
    for level in 0..MAX_LEVELS {
        // SAFETY: the helper has no preconditions; it returns 0 past the process's own level.
        match unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } {
            0 => return false,
            id if id == cgroup => return true,
            _ => {}
        }
    }
    false
}
