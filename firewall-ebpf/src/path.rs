//! Paths of files and cgroups, put together in scratch memory from the last name up to the root.

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use firewall_common::{
    forget::forget,
    layout::{PATH_BYTES, path},
};

use crate::{
    identity::{is_own, member},
    maps::{ROOT, Scratch, Walk},
    offset,
    repeat::repeat,
    scratch,
};

/// Steps of a walk: a name each, and some mount points between them.
const STEPS: u32 = 128;
/// Levels of a cgroup that are looked at: who may make some can make very many.
const LEVELS: u32 = 1 << 16;

/// Values of [`Walk::found`].
mod found {
    /// Nothing yet.
    pub const NOTHING: u32 = 0;
    /// The root.
    pub const ROOT: u32 = 1;
    /// No path: it does not lead to a root, or is too long.
    pub const NO_PATH: u32 = 2;
}

/// The path of a `struct file`, across mount points, as the mounts of its process show it: 1 if it has
/// one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path_of_file(index: u32, file: u64) -> u32 {
    let (Some(dentry), Some(mount)) =
        (member(file, offset!(file_dentry)), member(file, offset!(file_mnt)))
    else {
        return 0;
    };
    begin(index);
    climb(index, dentry, mount)
}

/// The path of a cgroup by its node, or as much of it from the root on as there is room for: 1 if it has one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path_of_cgroup(index: u32, node: u64) -> u32 {
    begin(index);
    go(index, node, 0, LEVELS, ascend_nodes)
}

#[inline(always)]
fn begin(index: u32) {
    if let Some(scratch) = scratch::get(index) {
        scratch.walk.at = PATH_BYTES as u32;
    }
}

/// Puts the path of a directory entry in a mount before what is there: 1 if it has one.
#[inline(always)]
pub fn climb(index: u32, dentry: u64, mount: u64) -> u32 {
    go(index, dentry, mount, STEPS, ascend)
}

#[inline(always)]
fn go(
    index: u32,
    next: u64,
    mount: u64,
    steps: u32,
    step: extern "C" fn(u32, &mut u32) -> i64,
) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    scratch.walk.next = next;
    scratch.walk.mount = mount;
    scratch.walk.found = found::NOTHING;
    scratch.walk.root_at = u32::MAX;
    scratch.path.stamp = scratch::stamp();
    scratch.path.flags = 0;
    let mut index = index;
    repeat(steps, step, &mut index);
    scratch.path.start = scratch.walk.at;
    u32::from(scratch.walk.found == found::ROOT)
}

extern "C" fn ascend(_: u32, index: &mut u32) -> i64 {
    let Some(scratch) = scratch::get(*index) else { return 1 };
    match up(scratch) {
        Some(end) => end,
        None => {
            scratch.walk.found = found::NO_PATH;
            1
        }
    }
}

/// One step up: 1 at the root, `None` if there is no way.
#[inline(always)]
fn up(scratch: &mut Scratch) -> Option<i64> {
    let Walk { next: dentry, mount: vfsmount, .. } = scratch.walk;
    let root: u64 = member(vfsmount, offset!(vfsmount_root))?;
    if dentry == root {
        let mount = vfsmount.wrapping_sub(u64::from(offset!(mount_mnt)));
        let parent: u64 = member(mount, offset!(mount_parent))?;
        if ROOT.get(0).is_some_and(|at| *at == root) {
            scratch.walk.root_at = scratch.walk.at;
        }
        if parent == mount {
            let user_ns = member(mount, offset!(mount_ns))
                .and_then(|ns| member(ns, offset!(mount_ns_user_ns)));
            // Below the root there can still be the one that the kernel began with.
            let machines = scratch.walk.root_at == scratch.walk.at;
            if machines && !is_own(user_ns.unwrap_or_default()) {
                scratch.path.flags = path::TRUSTED;
            }
            scratch.walk.found = found::ROOT;
            return Some(1);
        }
        scratch.walk.next = member(mount, offset!(mount_mountpoint))?;
        scratch.walk.mount = parent.wrapping_add(u64::from(offset!(mount_mnt)));
        return Some(0);
    }
    let parent: u64 = member(dentry, offset!(dentry_parent))?;
    if parent == dentry {
        return None;
    }
    let name = member(dentry, offset!(dentry_name))?;
    let len = member(dentry, offset!(dentry_len))?;
    put(scratch, name, len)?;
    scratch.walk.next = parent;
    Some(0)
}

extern "C" fn ascend_nodes(_: u32, index: &mut u32) -> i64 {
    let Some(scratch) = scratch::get(*index) else { return 1 };
    match up_nodes(scratch) {
        Some(end) => end,
        None => {
            scratch.walk.found = found::NO_PATH;
            1
        }
    }
}

#[inline(always)]
fn up_nodes(scratch: &mut Scratch) -> Option<i64> {
    let node = scratch.walk.next;
    let parent: u64 = member(node, offset!(node_parent))?;
    if parent == 0 {
        if scratch.walk.at as usize == PATH_BYTES {
            slash(scratch)?;
        }
        scratch.walk.found = found::ROOT;
        return Some(1);
    }
    let name: u64 = member(node, offset!(node_name))?;
    // SAFETY: the helper copies up to the end of a name and checks the source.
    let len = unsafe {
        bpf_probe_read_kernel_str(
            scratch.message.as_mut_ptr().cast(),
            MAX_NAME + 1,
            name as *const _,
        )
    };
    // With the NUL behind it.
    if len < 2 {
        return None;
    }
    let (from, len) = (scratch.message.as_ptr() as u64, len as u32 - 1);
    if forget(scratch.walk.at) <= forget(len) {
        // Selectors name a cgroup for all below it, so what is above tells more.
        scratch.walk.at = PATH_BYTES as u32;
    }
    put(scratch, from, len)?;
    scratch.walk.next = parent;
    Some(0)
}

/// `NAME_MAX`
const MAX_NAME: u32 = 255;

/// Puts a name and a slash before it before what is there; of a name that begins with one, no other.
#[inline(always)]
pub fn put(scratch: &mut Scratch, name: u64, len: u32) -> Option<()> {
    let mut len = forget(len);
    let at = forget(scratch.walk.at);
    if len == 0 || at > PATH_BYTES as u32 || at <= len {
        return None;
    }
    let mut to = at.wrapping_sub(len);
    scratch.walk.at = to;
    // SAFETY: keeps the bounds in one register each, where the verifier sees them.
    unsafe { asm!("{n} &= 511", "{a} &= 511", n = inout(reg) len, a = inout(reg) to) };
    let room = (&raw mut scratch.path.text).cast::<u8>();
    // SAFETY: what lies behind the text in scratch memory is longer than that; the helper copies and
    // checks the source.
    let result =
        unsafe { bpf_probe_read_kernel(room.add(to as usize).cast(), len, name as *const _) };
    if result != 0 {
        return None;
    }
    if scratch.path.text.get(forget(scratch.walk.at) as usize) == Some(&b'/') {
        return Some(());
    }
    slash(scratch)
}

#[inline(always)]
fn slash(scratch: &mut Scratch) -> Option<()> {
    let at = scratch.walk.at.wrapping_sub(1);
    *scratch.path.text.get_mut(at as usize)? = b'/';
    scratch.walk.at = at;
    Some(())
}
