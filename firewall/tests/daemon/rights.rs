//! What the two processes may, and what they cost while nothing happens.

use std::{fs, os::unix::fs::symlink, time::Duration};

use crate::{
    harness::require_kernel,
    host::{CHINA, Host},
};

/// What the keeper goes on with, by capabilities(7) and `linux/capability.h`.
const KEPT: u64 = 1 << 2 // DAC_READ_SEARCH
    | 1 << 12 // NET_ADMIN
    | 1 << 19 // SYS_PTRACE
    | 1 << 21 // SYS_ADMIN
    | 1 << 38 // PERFMON
    | 1 << 39; // BPF

/// The values of a key in `/proc/PID/status`, of all threads.
#[track_caller]
fn of_threads(pid: u32, key: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let values: Vec<String> = threads
        .flatten()
        // A thread can end meanwhile.
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {key}: {text}")).trim().to_owned()
        })
        .collect();
    assert!(!values.is_empty());
    values
}

#[track_caller]
fn assert_capabilities(pid: u32, wanted: u64) {
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let wanted = if ["CapInh", "CapAmb"].contains(&key) { 0 } else { wanted };
        for value in of_threads(pid, key) {
            let value = u64::from_str_radix(&value, 16).unwrap();
            assert_eq!(value, wanted, "{key} of {pid} is {value:#x}, not {wanted:#x}");
        }
    }
    for value in of_threads(pid, "NoNewPrivs") {
        assert_eq!(value, "1", "of {pid}");
    }
}

#[test]
fn each_process_has_what_it_needs_alone() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    for _ in 0..2 {
        // Threads of the worker that it makes for work are no better off.
        host.done(&["reload"]);
        assert_capabilities(host.keeper(), KEPT);
        assert_capabilities(host.worker(), 0);
        // And where it adopts.
        host.kill(false);
        host.start();
    }
    // What takes rights goes on without: further generations, ending it all.
    host.done(&["reload"]);
    host.done(&["off"]);
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(host.pinned(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_worker_writes_nowhere_else() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    // Root could, as it owns the folder.
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("events");
    fs::create_dir(host.file("state")).unwrap();
    symlink(&target, host.file("state/audit.db")).unwrap();
    let (status, said) = host.ends(host.command("daemon"));
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("cannot open the audit store"), "{said}");
    assert!(!target.exists());
    // A start that fails leaves nothing half done.
    assert_eq!(host.pinned(), Vec::<std::path::PathBuf>::new());
}

/// How often threads of a process have waited.
#[track_caller]
fn waits(pid: u32) -> u64 {
    of_threads(pid, "voluntary_ctxt_switches").iter().map(|text| text.parse::<u64>().unwrap()).sum()
}

#[test]
fn it_sleeps_while_nothing_happens() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let pids = [host.keeper(), host.worker()];
    // What asking it has left to do is done.
    std::thread::sleep(Duration::from_secs(1));
    let before = pids.map(waits);
    std::thread::sleep(Duration::from_secs(5));
    let after = pids.map(waits);
    let woken: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    println!("woken in 5 s: keeper {}, worker {}", woken[0], woken[1]);
    println!("memory: {} KiB", host.status()["memory_bytes"].as_u64().unwrap() / 1024);
    // Two timers of a second, each seen by a process and by the runtime.
    assert!(woken.iter().all(|times| *times <= 20), "{woken:?}");
}
