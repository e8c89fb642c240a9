//! From who a socket is charged to to the class of the app.

use aya_ebpf::maps::LruHashMap;
use firewall_common::{
    app::{self, Apps, Facets, Kind},
    evaluate::Cell,
    event::{Identity, app as kind, identity},
    forget::forget,
    layout::{
        Active, Counter, Header, PATH_BYTES, PathText, ProcessKey, SocketState, numbered, path,
    },
};

use crate::{
    maps::{CGROUPS, EXECUTABLES, HEADERS, SCRIPTS, Scratch, count},
    policy::{Plain, Steps, blocks},
    process,
    repeat::repeat,
    scratch,
};

/// Finds the class of the app that a socket is charged to, for its state.
#[inline(always)]
pub fn find_class(active: Active, header: &Header, state: &mut SocketState) {
    // SAFETY: a plain read; volatile, so that it is one read of the whole word.
    let kept = unsafe { (&raw const state.class).read_volatile() };
    if (kept >> 32) as u32 != active.generation() {
        find_anew(active, header, state);
    }
}

// Not inlined: the callers' stacks are small.
#[inline(never)]
fn find_anew(active: Active, header: &Header, state: &mut SocketState) {
    let class = of(active, header, &state.identity);
    // What could not be found out now, for want of memory, is asked for again.
    let generation = if class == app::DAMAGED { 0 } else { active.generation() };
    // SAFETY: a plain write; volatile, so that it is one write of the whole word.
    unsafe { (&raw mut state.class).write_volatile(numbered(generation, class)) };
}

/// The class of an app.
#[inline(always)]
pub fn of(active: Active, header: &Header, identity: &Identity) -> u32 {
    if header.apps.classes <= 1 {
        return 0;
    }
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return app::DAMAGED;
    };
    if let Some(scratch) = scratch::get(taken.index) {
        scratch::copy(&mut scratch.process.identity, identity);
    }
    let class = classify(active.0, taken.index);
    scratch::give_back(taken);
    class
}

/// The class of the app in scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify(active: u64, index: u32) -> u32 {
    let active = Active(active);
    let Some(header) = HEADERS.get(active.slot()) else { return app::DAMAGED };
    let facets = Facets {
        exe: executable(active, &header.apps, index),
        script: script(active, &header.apps, index),
        cgroup: cgroup(active, &header.apps, index),
        user: 0,
        group: 0,
    };
    let Some(scratch) = scratch::get(index) else { return app::DAMAGED };
    let identity = &scratch.process.identity;
    let tables = Steps { slot: &active.slot() };
    let facets = Facets {
        user: app::id(&tables, header.apps.user, identity.uid),
        group: app::id(&tables, header.apps.group, identity.gid),
        ..facets
    };
    let class = forget(app::class(&tables, header, &facets));
    keep_class(index, numbered(active.generation(), class));
    class
}

/// Keeps the class for the process in scratch memory, if that is what is known of it.
#[inline(always)]
fn keep_class(index: u32, class: u64) {
    let Some(scratch) = scratch::get(index) else { return };
    let identity = &scratch.process.identity;
    let key = ProcessKey { pid: identity.pid, _pad: 0, started: identity.started };
    if let Some(process) = process::get(&key)
        && class as u32 != app::DAMAGED
        && process.identity.executable == identity.executable
        && process.identity.cgroup == identity.cgroup
        && process.identity.uid == identity.uid
        && process.identity.gid == identity.gid
        && process.identity.flags == identity.flags
        && process.identity.execs == identity.execs
    {
        scratch.process.class = class;
        process::insert(&key, &mut scratch.process);
    }
}

#[inline(always)]
fn executable(active: Active, apps: &Apps, index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return app::DAMAGED };
    let Scratch { process, path, .. } = scratch;
    let identity = &process.identity;
    if identity.kind != kind::PROCESS {
        let what = if identity.kind == kind::KERNEL { Kind::Kernel } else { Kind::Unknown };
        return apps.executable(what, 0);
    }
    match copy(&EXECUTABLES, &identity.executable, path) {
        Copied::Nothing => {
            // No path, or one that made room for others and whose process is not here to ask.
            count(Counter::UnknownApp);
            apps.executable(Kind::Unknown, 0)
        }
        Copied::Moved => app::DAMAGED,
        Copied::Path => {
            let own = identity.flags & identity::OWN_NAMESPACE != 0;
            let trusted = forget(u32::from(!own && path.flags & path::TRUSTED != 0)) != 0;
            let number = follow_path(active.slot(), apps.exe, index);
            apps.executable(if trusted { Kind::Trusted } else { Kind::Untrusted }, number)
        }
    }
}

#[inline(always)]
fn script(active: Active, apps: &Apps, index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return app::DAMAGED };
    let identity = &scratch.process.identity;
    let key = ProcessKey { pid: identity.pid, _pad: 0, started: identity.started };
    let copied = copy(&SCRIPTS, &key, &mut scratch.path);
    number(active, apps.script, index, copied)
}

#[inline(always)]
fn cgroup(active: Active, apps: &Apps, index: u32) -> u32 {
    let Some(Scratch { process, path, .. }) = scratch::get(index) else { return app::DAMAGED };
    let identity = &process.identity;
    let copied = copy(&CGROUPS, &identity.cgroup, path);
    if matches!(copied, Copied::Nothing) && identity.kind == kind::PROCESS {
        // It has made room for others: see `executable`.
        count(Counter::UnknownApp);
    }
    number(active, apps.cgroup, index, copied)
}

/// What came of a [`copy`].
enum Copied {
    /// No path is kept.
    Nothing,
    /// The path.
    Path,
    /// Nothing that could be relied on.
    Moved,
}

/// Copies the path that is kept by a key.
#[inline(always)]
fn copy<K>(kept: &LruHashMap<K, PathText>, key: &K, to: &mut PathText) -> Copied {
    for _ in 0..scratch::TRIES {
        // SAFETY: the entry is not freed while the program runs. It can be given to another key
        // meanwhile, so it is asked for again.
        let entry = || kept.get_ptr(key).map(|entry| unsafe { &*entry });
        match entry() {
            None => return Copied::Nothing,
            Some(entry) => scratch::copy(to, entry),
        }
        // SAFETY: a plain read; volatile, so that it is really read at this point.
        let stamp = |entry: &PathText| unsafe { (&raw const entry.stamp).read_volatile() };
        if entry().is_some_and(|entry| stamp(entry) == stamp(to)) {
            return Copied::Path;
        }
    }
    Copied::Moved
}

/// The number of no path.
#[inline(always)]
fn nothing(active: Active, root: u32) -> u32 {
    match blocks(active.slot()) {
        Some(blocks) => app::number(app::step(&Plain(blocks), Cell(root), 0)),
        None => app::DAMAGED,
    }
}

/// The number of what was copied into scratch memory.
#[inline(always)]
fn number(active: Active, root: u32, index: u32, copied: Copied) -> u32 {
    match copied {
        Copied::Nothing => nothing(active, root),
        Copied::Path => follow_path(active.slot(), root, index),
        Copied::Moved => app::DAMAGED,
    }
}

struct Follow {
    slot: u32,
    index: u32,
}

/// The number of the path in scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_path(slot: u32, root: u32, index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return app::DAMAGED };
    scratch.walk.cell = root;
    scratch.walk.at = scratch.path.start;
    repeat(PATH_BYTES as u32 + 1, follow, &mut Follow { slot, index });
    app::number(Cell(scratch.walk.cell))
}

extern "C" fn follow(_: u32, on: &mut Follow) -> i64 {
    let (Some(scratch), Some(blocks)) = (scratch::get(on.index), blocks(on.slot)) else { return 1 };
    // Past the end is the byte 0.
    let byte = scratch.path.text.get(scratch.walk.at as usize).copied().unwrap_or(0);
    let cell = app::step(&Plain(blocks), Cell(scratch.walk.cell), byte);
    scratch.walk.cell = cell.0;
    scratch.walk.at = scratch.walk.at.wrapping_add(1);
    i64::from(cell.is_leaf())
}
