//! One network namespace.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps namespaces that have a name.
const NAMED: &str = "/run/netns";

/// A network namespace with a name. Dropped, it ends the processes in it and is removed.
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes an empty one, with its loopback up.
    pub fn new(name: &str) -> Self {
        static STALE: Once = Once::new();
        STALE.call_once(remove_stale);
        ip(&["netns", "add", name]);
        let handle = File::open(Path::new(NAMED).join(name)).expect("the namespace just made");
        let namespace = Self { name: name.to_owned(), handle };
        namespace.ip(&["link set lo up"]);
        namespace
    }

    /// As `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that keeps it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// A command that will run in this namespace. It sees the mounts of the test itself, unlike
    /// under `ip netns exec`, which has a `/sys` of its own without cgroups.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    /// Makes a command run in this namespace, whatever else it was told.
    pub fn enter<'command>(&self, command: &'command mut Command) -> &'command mut Command {
        let handle = self.handle.try_clone().expect("a copy of the namespace's descriptor");
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || Ok(move_thread(handle.as_fd())?)) }
    }

    /// Runs a closure on a new thread in this namespace. The sockets that it makes stay in the
    /// namespace wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_thread(self.handle.as_fd()).expect("entering the namespace (needs root)");
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `ip` commands in this namespace, one a line.
    pub fn ip(&self, lines: &[impl AsRef<str>]) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip (package iproute2)");
        let mut stdin = child.stdin.take().expect("a pipe");
        for line in lines {
            writeln!(stdin, "{}", line.as_ref()).expect("ip reads its commands");
        }
        drop(stdin);
        let output = child.wait_with_output().expect("ip ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip -n {}: {stderr}", self.name);
    }

    /// Sets a value below `/proc/sys/net`, where it exists: `("ipv4/ip_forward", "0")`.
    pub fn sysctl(&self, values: &[(&str, &str)]) {
        self.run(|| {
            for (key, value) in values {
                let file = Path::new("/proc/sys/net").join(key);
                if file.exists() {
                    std::fs::write(&file, value)
                        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                }
            }
        });
    }

    /// The processes whose main thread is in this namespace, without our own.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(own) = self.handle.metadata() else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id())
            .filter(|pid| {
                std::fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|data| (data.dev(), data.ino()) == (own.dev(), own.ino()))
            })
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Only processes that were started into this namespace can be in it.
        for pid in self.processes() {
            kill(pid);
        }
        // `ip netns del` fails where the name is gone already, which is what is wanted.
        let _ = delete(&self.name);
    }
}

fn kill(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    // It may have ended by itself meanwhile.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn move_thread(namespace: BorrowedFd<'_>) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

fn delete(name: &str) -> std::io::Result<std::process::ExitStatus> {
    Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status()
}

fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(NAMED) else { return };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| super::is_stale(name)) {
            // Another test may be at it too.
            let _ = delete(name);
        }
    }
}

/// Runs `ip` outside of any namespace.
fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("ip (package iproute2)");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {stderr}", words.join(" "));
}
