//! A cgroup for the processes of one test.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

/// A child of our own cgroup. Dropped, it ends what is in it and is removed.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one.
    pub fn new() -> Self {
        static STALE: Once = Once::new();
        let parent = own_directory().expect("a cgroup2 mount in /proc/self/mountinfo");
        STALE.call_once(|| remove_stale(&parent));
        Self::at(parent.join(super::unique_name()))
    }

    /// Makes a slice as systemd does, at the top of the hierarchy: there what is in it can be a unit.
    pub fn slice() -> Self {
        static STALE: Once = Once::new();
        let (top, _) = mount().expect("a cgroup2 mount in /proc/self/mountinfo");
        STALE.call_once(|| remove_stale(&top));
        Self::at(top.join(format!("{}.slice", super::unique_name())))
    }

    /// Makes one below it.
    pub fn child(&self, name: &str) -> Self {
        Self::at(self.path.join(name))
    }

    fn at(path: PathBuf) -> Self {
        std::fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("{}: {error} (needs root)", path.display()));
        Self { path }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number, which is what `bpf_get_current_cgroup_id` says.
    pub fn id(&self) -> u64 {
        self.path.metadata().expect("the cgroup's directory").ino()
    }

    /// Makes a command run in it.
    pub fn enter<'command>(&self, command: &'command mut Command) -> &'command mut Command {
        let procs = OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))
            .expect("the cgroup's list of processes");
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        // "0" is the process that writes.
        unsafe { command.pre_exec(move || (&procs).write_all(b"0")) }
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .unwrap_or_else(|error| panic!("moving {pid} into {}: {error}", self.path.display()));
    }

    /// The processes in it.
    pub fn processes(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Ends the processes in a cgroup and those below, and removes all of it.
fn remove(path: &Path) {
    // `cgroup.kill` is there since Linux 5.14, and takes the children along.
    let _ = std::fs::write(path.join("cgroup.kill"), "1");
    super::wait_until(Duration::from_secs(2), || {
        remove_directories(path);
        !path.exists()
    });
}

fn remove_directories(path: &Path) {
    if let Ok(entries) = std::fs::read_dir(path) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
            remove_directories(&entry.path());
        }
    }
    // Fails while a process is still ending; the caller tries again.
    let _ = std::fs::remove_dir(path);
}

fn remove_stale(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(super::is_stale) {
            remove(&entry.path());
        }
    }
}

/// Where the cgroup2 hierarchy is mounted, and which of its cgroups is the top one there.
pub(super) fn mount() -> Option<(PathBuf, String)> {
    // proc_pid_mountinfo(5): …, root (4th), mount point (5th), …, "-", type, …
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        rest.starts_with("cgroup2 ").then(|| (PathBuf::from(mount), root.to_owned()))
    })
}

/// The directory of the cgroup that we are in.
fn own_directory() -> Option<PathBuf> {
    let (mount, root) = mount()?;
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or_default();
    let directory = mount.join(below.trim_start_matches('/'));
    // In a container our cgroup can be outside of what is mounted.
    Some(if directory.is_dir() { directory } else { mount })
}
