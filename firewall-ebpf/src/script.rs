//! The script that an interpreter runs, from its arguments. They are what the process says of itself, so
//! this is no ground to let anything pass.

use core::arch::asm;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_probe_read_user},
    programs::RawTracePointContext,
};
use firewall_common::{
    forget::forget,
    layout::{Counter, PATH_BYTES, ProcessKey},
    parse::args::{Args, MAX_ARGS, interpreter},
};

use crate::{
    identity::{self, member},
    maps::{SCRIPTS, count},
    offset,
    path::{climb, put},
    repeat::repeat,
    scratch,
};

/// Keeps the script of the current process, which stands in scratch memory, if it is an interpreter. What
/// it ran before it executed its file is forgotten.
#[inline(always)]
pub fn keep(index: u32) {
    let Some(scratch) = scratch::get(index) else { return };
    let identity = &scratch.process.identity;
    let key = ProcessKey { pid: identity.pid, _pad: 0, started: identity.started };
    let interpreter = interpreter_of(identity.executable.dentry);
    if interpreter == 0 {
        let _ = SCRIPTS.remove(&key);
        return;
    }
    let found = find(index, interpreter) != 0;
    let Some(scratch) = scratch::get(index) else { return };
    if !found {
        scratch.path.start = PATH_BYTES as u32;
    }
    scratch.path.stamp = scratch::stamp();
    if SCRIPTS.insert(&key, &scratch.path, 0).is_err() {
        count(Counter::NoPath);
    }
}

/// What kind of interpreter a file is by its name; 0 if it is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn interpreter_of(dentry: u64) -> u32 {
    let name = member(dentry, offset!(dentry_name)).and_then(|name| member::<[u8; 16]>(name, 0));
    name.map_or(0, |name| interpreter(&name))
}

/// The path of the script that the arguments of the current process name: 1 if there is one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find(index: u32, interpreter: u32) -> u32 {
    u32::from(found(index, interpreter).is_some())
}

#[inline(always)]
fn found(index: u32, interpreter: u32) -> Option<()> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let mm = member(task, offset!(task_mm))?;
    let start: u64 = member(mm, offset!(mm_arg_start))?;
    let end: u64 = member(mm, offset!(mm_arg_end))?;
    let scratch = scratch::get(index)?;
    let mut len = forget(end.wrapping_sub(start).min(u64::from(MAX_ARGS)) as u32);
    scratch.len = len;
    // SAFETY: keeps the bounds in one register, where the verifier sees them.
    unsafe { asm!("if {n} <= 512 goto +1", "{n} = 512", n = inout(reg) len) };
    // SAFETY: `message` is longer; the helper copies and checks the source.
    let result =
        unsafe { bpf_probe_read_user(scratch.message.as_mut_ptr().cast(), len, start as *const _) };
    if result != 0 {
        return None;
    }
    scratch.args = Args::new(interpreter);
    let mut on = index;
    repeat(MAX_ARGS, step, &mut on);
    let mut at = forget(scratch.args.start) & (MAX_ARGS - 1);
    let mut len = forget(scratch.args.len);
    if len == 0 {
        return None;
    }
    let head = [scratch.message[at as usize], scratch.message[at as usize + 1]];
    if head == *b"./" {
        at = at.wrapping_add(2);
        len = len.wrapping_sub(2);
    }
    scratch.walk.at = PATH_BYTES as u32;
    scratch.path.flags = 0;
    let name = (scratch.message.as_ptr() as u64).wrapping_add(u64::from(at));
    put(scratch, name, len)?;
    if head[0] == b'/' {
        scratch.path.start = scratch.walk.at;
        return Some(());
    }
    let fs = member(task, offset!(task_fs))?;
    let dentry = member(fs, offset!(fs_pwd_dentry))?;
    let mount = member(fs, offset!(fs_pwd_mnt))?;
    (climb(index, dentry, mount) != 0).then_some(())
}

extern "C" fn step(at: u32, index: &mut u32) -> i64 {
    let Some(scratch) = scratch::get(*index) else { return 1 };
    let byte = scratch.message[(forget(at) & (MAX_ARGS - 1)) as usize];
    if at >= scratch.len || scratch.args.is_done() {
        return 1;
    }
    scratch.args.step(at, byte);
    0
}

/// A process was forked: what its parent runs it runs too.
#[inline(always)]
pub fn forked(ctx: &RawTracePointContext) {
    let Some((parent, _)) = identity::process(ctx.arg(0)) else { return };
    let Some((child, _)) = identity::process(ctx.arg(1)) else { return };
    if parent.pid == child.pid {
        return;
    }
    // SAFETY: the entry is not freed while the program runs.
    let Some(path) = (unsafe { SCRIPTS.get(&parent) }) else { return };
    if SCRIPTS.insert(&child, path, 0).is_err() {
        count(Counter::NoPath);
    }
}
