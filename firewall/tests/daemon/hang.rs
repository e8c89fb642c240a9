//! A store whose disk does not answer: frozen, and then thawed.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::{
    harness::{no_program, require, require_kernel, wait_until},
    host::{CHINA, Host, Kept, Server},
    sinks::sink,
    support::{ALIDNS, BAIDU, LIMIT},
};

/// The state folder of a host as a file system of its own, which this thread and what it starts see.
struct Disk(PathBuf);

impl Disk {
    fn of(host: &Host) -> Self {
        let [image, state] = ["disk", "state"].map(|name| host.file(name));
        File::create(&image).unwrap().set_len(128 << 20).unwrap();
        done(Command::new("mkfs.ext4").arg("-q").arg(&image));
        fs::create_dir(&state).unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        done(Command::new("mount").args(["--make-rprivate", "/"]));
        done(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&state));
        Self(state)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its last user ends it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[track_caller]
fn done(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// A file system that does not answer who writes to it, until this is dropped or its process ends:
/// who waits for it cannot even be killed.
struct Frozen(Child);

impl Frozen {
    fn at(folder: &Path) -> Self {
        let script = "fsfreeze --freeze . && echo frozen && cat; fsfreeze --unfreeze .";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let frozen = Self(child);
        assert_eq!(line, "frozen\n");
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_that_does_not_answer_changes_no_verdict_and_what_is_lost_is_counted() {
    let tools = || no_program("mkfs.ext4").or_else(|| no_program("fsfreeze"));
    if !require_kernel() || !require(tools()) {
        return;
    }
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    let disk = Disk::of(&host);
    host.start();
    let stored = |port: u16| {
        let is_it = |event: &Value| event["dst"]["port"] == port;
        wait_until(LIMIT, || host.events().iter().any(is_it))
    };
    let server = Server::of(&host);
    let mut app = host.app();
    let mut kept = Kept::open(&mut app);
    assert_eq!(app.step(&format!("tcp {BAIDU}:4242")), libc::ECONNREFUSED);
    assert!(stored(4242), "{}", host.said());

    let frozen = Frozen::at(&disk.0);
    app.assert_enforced();
    let waits = || sink(&host, "log")["queued"].as_u64().unwrap() > 0;
    assert!(wait_until(LIMIT, waits));
    // More than the queue has room for. What repeats within a second is one.
    for _ in 0..20 {
        for to in [format!("{BAIDU}:0"), format!("[{ALIDNS}]:0")] {
            assert_eq!(app.step(&format!("flood 4000 {to}")), libc::ECONNREFUSED);
        }
        if sink(&host, "log")["dropped"] != 0 {
            break;
        }
        app.does("sleep 1200");
    }
    assert!(sink(&host, "log")["dropped"] != 0, "{:#}", host.status());
    host.wait_said("the sink `log` has not gone on for so long that events are lost to it");
    let shown = host.done(&["status"]);
    assert!(shown.contains("events not written to the log"), "{shown}");
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();

    drop(frozen);
    host.wait_said("the sink `log` goes on; events that are missing: ");
    assert_eq!(app.step(&format!("tcp {BAIDU}:4243")), libc::ECONNREFUSED);
    assert!(stored(4243), "{}", host.said());
    let idle = || sink(&host, "log")["queued"] == 0;
    assert!(wait_until(LIMIT, idle));
    let records = host.events();
    let lost = records.iter().filter(|record| record["kind"] == "lost");
    let lost: u64 = lost.map(|record| record["count"].as_u64().unwrap()).sum();
    let seqs: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "in their order");
    let missing = seqs.last().unwrap() - seqs.len() as u64;
    let kernel = host.status()["losses"]["events"].as_u64().unwrap_or_default();
    assert_eq!(lost, missing + kernel, "each that is missing is counted");
    assert!(missing > 0, "{lost} {kernel}");
    app.assert_enforced();
    kept.assert_alive(&mut app, &server);
    server.assert_untouched();
}
