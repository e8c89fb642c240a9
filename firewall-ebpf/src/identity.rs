//! Who a socket is charged to.
//!
//! Only hooks that run in the context of the system call may ask who is current: at egress a
//! packet can leave from a softirq in any process.

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_task},
};
use firewall_common::{
    event::{Identity, app},
    layout::{FileId, Offsets},
};

use crate::maps::OFFSETS;

/// Reads a member of a kernel structure; `None` if `base` is null or not mapped.
#[inline(always)]
pub fn member<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if base == 0 {
        return None;
    }
    let pointer = base.wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: the helper copies and checks; it fails on an address that is not mapped.
    unsafe { bpf_probe_read_kernel(pointer) }.ok()
}

/// The `struct file` of the executable of the current process.
#[inline(always)]
pub fn current_exe(offsets: &Offsets) -> Option<u64> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    member(member(task, offsets.task_mm)?, offsets.mm_exe_file)
}

/// Inode and device of a `struct file`.
#[inline(always)]
pub fn file_id(offsets: &Offsets, file: u64) -> Option<FileId> {
    let inode = member(file, offsets.file_inode)?;
    let sb = member(inode, offsets.inode_sb)?;
    Some(FileId {
        inode: member(inode, offsets.inode_ino)?,
        device: member(sb, offsets.sb_dev)?,
        _pad: 0,
    })
}

/// Writes who is current into `identity`.
#[inline(always)]
pub fn charge_current(identity: &mut Identity) {
    let offsets = OFFSETS.load();
    match current_exe(&offsets) {
        Some(file) => {
            identity.executable = file_id(&offsets, file).unwrap_or_default();
            identity.kind = app::PROCESS;
        }
        // A thread without memory of its own is the kernel's. Where it works for an app that is
        // known, as when MPTCP joins a subflow, the app stays charged.
        None if identity.kind != 0 => return,
        None => identity.kind = app::KERNEL,
    }
    // SAFETY: the helper has no preconditions.
    identity.cgroup = unsafe { bpf_get_current_cgroup_id() };
    identity.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    identity.uid = bpf_get_current_uid_gid() as u32;
    identity.comm = bpf_get_current_comm().unwrap_or_default();
}
