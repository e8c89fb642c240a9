//! The path of an executable, taken when it starts: by the time an event is read, the process and
//! even the file may be gone.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel_str_bytes,
        generated::bpf_get_current_ancestor_cgroup_id,
    },
    programs::RawTracePointContext,
};
use aya_log_ebpf::warn;
use firewall_common::{
    forget::forget,
    layout::{Counter, ExecutablePath, MAX_LEVELS, Offsets, PATH_NAMES},
};

use crate::{
    identity::{current_exe, file_id, member},
    maps::{EXECUTABLES, OFFSETS, PATH, SCOPE, count},
};

/// Steps of the walk: a name each, and some mount points between them.
const STEPS: usize = PATH_NAMES + 8;

/// After a successful `execve`.
#[inline(always)]
pub fn executed(ctx: &RawTracePointContext) {
    if is_in_scope(SCOPE.load()) && keep_path().is_none() {
        count(Counter::NoPath);
        let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        warn!(ctx, "the path of the executable of process {} could not be kept", pid);
    }
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

#[inline(always)]
fn keep_path() -> Option<()> {
    let offsets = OFFSETS.load();
    let file = current_exe(&offsets)?;
    let id = file_id(&offsets, file)?;
    // SAFETY: this CPU's own value; the kernel does not run the program again on this CPU before
    // it has ended.
    let path = unsafe { PATH.get_ptr_mut(0)?.as_mut()? };
    walk(&offsets, file, path)?;
    EXECUTABLES.insert(id, path, 0).ok()
}

/// Writes the names from the file up to the root, across mount points.
#[inline(always)]
fn walk(offsets: &Offsets, file: u64, path: &mut ExecutablePath) -> Option<()> {
    let mut dentry: u64 = member(file, offsets.file_dentry)?;
    let mut vfsmount: u64 = member(file, offsets.file_mnt)?;
    path.complete = 0;
    path.depth = 0;
    let mut depth = 0u32;
    for _ in 0..STEPS {
        let root: u64 = member(vfsmount, offsets.vfsmount_root)?;
        if dentry == root {
            let mount = vfsmount.wrapping_sub(u64::from(offsets.mount_mnt));
            let parent: u64 = member(mount, offsets.mount_parent)?;
            if parent == mount {
                path.complete = 1;
                break;
            }
            dentry = member(mount, offsets.mount_mountpoint)?;
            vfsmount = parent.wrapping_add(u64::from(offsets.mount_mnt));
            continue;
        }
        let parent: u64 = member(dentry, offsets.dentry_parent)?;
        if parent == dentry {
            break;
        }
        // The mask takes nothing away: it shows the verifier that there is nothing above.
        depth = forget(depth) & (2 * PATH_NAMES as u32 - 1);
        let Some(to) = path.names.get_mut(depth as usize) else { break };
        let name: u64 = member(dentry, offsets.dentry_name)?;
        // SAFETY: the helper copies up to the end of the slice and checks the source.
        unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, to) }.ok()?;
        depth += 1;
        dentry = parent;
    }
    path.depth = depth;
    // Half a path is no path: it would name another file.
    (path.complete != 0).then_some(())
}
