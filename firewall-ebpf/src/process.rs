//! Which process a socket is charged to, and what is known of it.
//!
//! Only hooks that run in the context of the system call may ask who is current: at egress a
//! packet can leave from a softirq in any process.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_uid_gid,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_task},
};
use firewall_common::{
    event::{Identity, app},
    layout::{Counter, Process, ProcessKey, SocketState},
};

use crate::{
    identity::{self, executable},
    maps::{CGROUPS, EXECUTABLES, PROCESSES, SCRIPTS, count},
    path::{path_of_cgroup, path_of_file},
    scratch, script,
};

/// Charges a socket to who is current.
#[inline(always)]
pub fn charge_current(state: &mut SocketState) {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    if state.identity.kind != 0
        && let Some((key, execs)) = identity::process(task)
        && is(&state.identity, &key, execs)
    {
        return;
    }
    if charge_known(state) == 0 {
        if executable(task).is_none() {
            // A thread without memory of its own is the kernel's. Where it works for an app that is
            // known, as when MPTCP joins a subflow, the app stays charged.
            if state.identity.kind == 0 {
                state.identity.kind = app::KERNEL;
            }
            return;
        }
        charge_unknown(state);
    }
    state.identity.comm = bpf_get_current_comm().unwrap_or_default();
}

/// Whether an identity is that of the current process as it is now.
#[inline(always)]
fn is(identity: &Identity, key: &ProcessKey, execs: u64) -> bool {
    let user = u64::from(identity.gid) << 32 | u64::from(identity.uid);
    identity.kind == app::PROCESS
        && identity.pid == key.pid
        && identity.started == key.started
        && identity.execs == execs as u32
        && user == bpf_get_current_uid_gid()
        // SAFETY: the helper has no preconditions.
        && identity.cgroup == unsafe { bpf_get_current_cgroup_id() }
}

/// Charges a socket to the current process, as it is kept: 0 if it could not be found out.
// Not inlined: the stacks of the callers are small.
#[inline(never)]
fn charge_known(state: &mut SocketState) -> u32 {
    for _ in 0..scratch::TRIES {
        let Some((key, process)) = current() else { return 0 };
        let written = stamp_of(process);
        // SAFETY: a plain read; volatile, so that it is one read of the whole word.
        state.class = unsafe { (&raw const process.class).read_volatile() };
        scratch::copy(&mut state.identity, &process.identity);
        if get(&key).is_some_and(|process| stamp_of(process) == written) {
            return 1;
        }
    }
    0
}

#[inline(always)]
fn stamp_of(process: &Process) -> u64 {
    // SAFETY: a plain read; volatile, so that it is really read at this point.
    unsafe { (&raw const process.stamp).read_volatile() }
}

/// Charges a socket to a current process of which no more could be found out, for want of memory: it is
/// not the kernel, and not who had the socket before.
#[inline(always)]
fn charge_unknown(state: &mut SocketState) {
    count(Counter::UnknownApp);
    let user = bpf_get_current_uid_gid();
    state.class = 0;
    state.identity = Identity {
        uid: user as u32,
        gid: (user >> 32) as u32,
        // SAFETY: the helper has no preconditions.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        ..Identity::default()
    };
}

/// What is known of the current process; `None` of a thread of the kernel.
#[inline(always)]
fn current() -> Option<(ProcessKey, &'static Process)> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let (key, execs) = identity::process(task)?;
    if let Some(process) = get(&key) {
        // Asked for again and again, what is in use does not make room for others; and what did is found
        // out again, for the next generation asks for it.
        if is(&process.identity, &key, execs)
            && EXECUTABLES.get_ptr(&process.identity.executable).is_some()
            && CGROUPS.get_ptr(&process.identity.cgroup).is_some()
        {
            return Some((key, process));
        }
    }
    if look_at_current() == 0 { None } else { get(&key).map(|process| (key, process)) }
}

/// What is kept of a process.
#[inline(always)]
pub fn get(key: &ProcessKey) -> Option<&'static Process> {
    // SAFETY: the entry is not freed while the program runs. It can be given to another process
    // meanwhile: see [`charge_known`].
    PROCESSES.get_ptr(key).map(|process| unsafe { &*process })
}

/// Charges a socket to a process that need not be current. That is not kept: which script it runs is
/// only to be found out when it is.
#[inline(always)]
pub fn charge(state: &mut SocketState, task: u64) -> Option<()> {
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return None;
    };
    let found = identify(taken.index, task);
    if found.is_some()
        && let Some(scratch) = scratch::get(taken.index)
    {
        scratch::copy(&mut state.identity, &scratch.process.identity);
        state.class = 0;
    }
    scratch::give_back(taken);
    found
}

/// Keeps the paths of a process that need not be current, if they have made room for others.
// Not inlined: the callers' stacks are small.
#[inline(never)]
pub fn remember(task: *const c_void) {
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return;
    };
    if let Some(scratch) = scratch::get(taken.index) {
        // What the verifier knows as a pointer is no argument of a function: memory makes a number of it.
        scratch.walk.next = task as u64;
        // SAFETY: a plain read of what was just written; volatile, so that it is really read.
        let task = unsafe { (&raw const scratch.walk.next).read_volatile() };
        identify(taken.index, task);
    }
    scratch::give_back(taken);
}

/// Finds out all of the current process, and keeps it: 0 if it is no process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at_current() -> u32 {
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return 0;
    };
    // SAFETY: the helper has no preconditions.
    let found = keep(taken.index, unsafe { bpf_get_current_task() }).is_some();
    scratch::give_back(taken);
    u32::from(found)
}

#[inline(always)]
fn keep(index: u32, task: u64) -> Option<()> {
    let (key, _) = identity::process(task)?;
    identify(index, task)?;
    if SCRIPTS.get_ptr(&key).is_none() {
        script::keep(index);
    }
    let scratch = scratch::get(index)?;
    scratch.process.class = 0;
    insert(&key, &mut scratch.process);
    Some(())
}

/// Keeps what is known of a process, whole: who reads meanwhile has what was there before.
#[inline(always)]
pub fn insert(key: &ProcessKey, process: &mut Process) {
    process.stamp = scratch::stamp();
    if PROCESSES.insert(key, process, 0).is_err() {
        count(Counter::NoPath);
    }
}

/// Finds out who a process is, in scratch memory, and keeps the paths of its executable and cgroup.
#[inline(always)]
fn identify(index: u32, task: u64) -> Option<()> {
    let scratch = scratch::get(index)?;
    identity::of_task(task, &mut scratch.process.identity)?;
    let identity = &scratch.process.identity;
    if EXECUTABLES.get_ptr(&identity.executable).is_none() {
        keep_executable(index, task);
    }
    if CGROUPS.get_ptr(&identity.cgroup).is_none()
        && let Some(node) = identity::cgroup_node(task)
        && path_of_cgroup(index, node) != 0
        && CGROUPS.insert(&identity.cgroup, &scratch.path, 0).is_err()
    {
        count(Counter::NoPath);
    }
    Some(())
}

/// Keeps the path of the executable of a task, who stands in scratch memory.
#[inline(always)]
pub fn keep_executable(index: u32, task: u64) -> Option<()> {
    let file = executable(task)?;
    let kept = path_of_file(index, file) != 0;
    let scratch = scratch::get(index)?;
    let kept =
        kept && EXECUTABLES.insert(&scratch.process.identity.executable, &scratch.path, 0).is_ok();
    if !kept {
        count(Counter::NoPath);
    }
    kept.then_some(())
}
