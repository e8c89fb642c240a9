//! Who a task is, by what the kernel's structures say.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use firewall_common::{
    event::{Identity, app, identity},
    layout::{FileId, ProcessKey},
};

use crate::offset;

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

/// `__FMODE_EXEC`, which no `open()` can give: the kernel opened the file to execute it.
const TO_EXECUTE: u32 = 1 << 5;

/// The `struct file` of the executable of a task; `None` of a thread of the kernel.
///
/// It is null of one that was not executed but set by `PR_SET_MM`: a process that has a child in a user
/// namespace share its memory could have it set to any file.
#[inline(always)]
pub fn executable(task: u64) -> Option<u64> {
    let file = member(member(task, offset!(task_mm))?, offset!(mm_exe_file))?;
    let flags: u32 = member(file, offset!(file_flags)).unwrap_or_default();
    Some(if flags & TO_EXECUTE != 0 { file } else { 0 })
}

/// Which process a task is of, and how often it has executed a file.
#[inline(always)]
pub fn process(task: u64) -> Option<(ProcessKey, u64)> {
    let leader = member(task, offset!(task_leader))?;
    let started = member(leader, offset!(task_started))?;
    let pid = member(task, offset!(task_tgid))?;
    let execs = member(task, offset!(task_execs))?;
    Some((ProcessKey { pid, _pad: 0, started }, execs))
}

/// The node of the cgroup that a task is in.
#[inline(always)]
pub fn cgroup_node(task: u64) -> Option<u64> {
    let set = member(task, offset!(task_cgroups))?;
    member(member(set, offset!(cgroups_default))?, offset!(cgroup_node))
}

/// Whether a user namespace is not the first one.
#[inline(always)]
pub fn is_own(user_ns: u64) -> bool {
    member::<u32>(user_ns, offset!(user_ns_level)) != Some(0)
}

/// What a `struct file` is of.
#[inline(always)]
fn file_id(file: u64) -> Option<FileId> {
    let inode = member(file, offset!(file_inode))?;
    let sb = member(inode, offset!(inode_sb))?;
    Some(FileId {
        inode: member(inode, offset!(inode_ino))?,
        device: member(sb, offset!(sb_dev))?,
        _pad: 0,
        dentry: member(file, offset!(file_dentry))?,
        mount: member(file, offset!(file_mnt))?,
    })
}

/// Writes who a task is: its executable's `struct file`, or `None` of what is no process.
#[inline(always)]
pub fn of_task(task: u64, to: &mut Identity) -> Option<u64> {
    let file = executable(task)?;
    let (ProcessKey { pid, started, .. }, execs) = process(task)?;
    let cred = member(task, offset!(task_cred))?;
    to.executable = file_id(file).unwrap_or_default();
    to.cgroup = member(cgroup_node(task)?, offset!(node_id))?;
    to.started = started;
    to.pid = pid;
    to.uid = member(cred, offset!(cred_uid))?;
    to.gid = member(cred, offset!(cred_gid))?;
    to.kind = app::PROCESS;
    to.comm = member(task, offset!(task_comm))?;
    let own = is_own(member(cred, offset!(cred_user_ns))?);
    to.flags = if own { identity::OWN_NAMESPACE } else { 0 };
    to.execs = execs as u32;
    Some(file)
}
