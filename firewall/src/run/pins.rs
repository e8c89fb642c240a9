//! Pins: what holds a command under its policy when `run` itself is killed.
//!
//! Each run has a directory of its own in a bpf file system, named after the process, with a link
//! to its cgroup. The next run removes what belongs to processes and cgroups that are gone.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use firewall_common::layout::ABI_VERSION;
use nix::sched::{CloneFlags, setns, unshare};

use crate::{
    cgroup::{Error, Group, Hierarchy, error, mounted},
    datapath::pins::{BPFFS, mount_bpf},
};

/// `PROC_CGROUP_INIT_INO` of the kernel: the namespace that sees the whole hierarchy.
const FIRST_CGROUP_NAMESPACE: u64 = 0xeffffffb;
/// In the directory of a run: a symbolic link to the path of its cgroup.
const CGROUP: &str = "cgroup";

/// The directory that the runs' directories are in.
pub struct Runs {
    directory: PathBuf,
    /// The bpf file system was not mounted, so it was mounted here.
    pub mounted: Option<PathBuf>,
    _found: Found,
}

impl Runs {
    /// Finds a bpf file system that outlives this process, or mounts one.
    pub fn find() -> Result<Self, Error> {
        let (found, mounted) = match visible() {
            Some(found) => (found, None),
            None => (mount_for_all()?, Some(PathBuf::from(BPFFS))),
        };
        let directory = found.root.join("firewall").join(format!("run-{ABI_VERSION}"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(error(format!("make {}", directory.display())))?;
        Ok(Self { directory, mounted, _found: found })
    }

    /// Makes the directory of this run.
    pub fn create(&self, cgroup: &Path) -> Result<Pins, Error> {
        let directory = self.directory.join(name(std::process::id()));
        fs::create_dir(&directory).map_err(error(format!("make {}", directory.display())))?;
        let pins = Pins { directory };
        symlink(cgroup, pins.directory.join(CGROUP))
            .map_err(error(format!("note the cgroup in {}", pins.directory.display())))?;
        Ok(pins)
    }

    /// Removes what runs left behind that were killed, once their cgroup is empty. Returns how
    /// many are gone and how many still hold.
    pub fn clear_up(&self, hierarchy: &Hierarchy) -> (usize, usize) {
        let (mut gone, mut holding) = (0, 0);
        // From within a cgroup namespace the others' cgroups cannot be seen, so it cannot be known
        // which of them are empty.
        let sees_all = fs::metadata("/proc/self/ns/cgroup")
            .is_ok_and(|namespace| namespace.ino() == FIRST_CGROUP_NAMESPACE);
        if !sees_all {
            return (gone, holding);
        }
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let Some(owner) = entry.file_name().to_str().and_then(Owner::parse) else { continue };
            if owner.is_alive() {
                continue;
            }
            let pins = Pins { directory: entry.path() };
            if let Ok(path) = fs::read_link(pins.directory.join(CGROUP)) {
                let group = Group::at(hierarchy, path);
                if group.is_populated() {
                    holding += 1;
                    continue;
                }
                // One that cannot be removed keeps its pins and is tried again.
                if group.remove().is_err() {
                    continue;
                }
            }
            if pins.remove().is_ok() {
                gone += 1;
            }
        }
        (gone, holding)
    }
}

/// The pins of one run.
pub struct Pins {
    /// Where they are.
    pub directory: PathBuf,
}

impl Pins {
    /// Unpins everything.
    pub fn remove(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            fs::remove_file(&path).map_err(error(format!("remove {}", path.display())))?;
        }
        fs::remove_dir(&self.directory)
            .map_err(error(format!("remove {}", self.directory.display())))
    }
}

/// A process by number and start: numbers come round again.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    start: String,
}

impl Owner {
    fn parse(name: &str) -> Option<Self> {
        let (pid, start) = name.split_once('-')?;
        Some(Self { pid: pid.parse().ok()?, start: start.to_owned() })
    }

    fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|start| start == self.start)
    }
}

/// Name of the directory and of the cgroup of a run.
pub fn name(pid: u32) -> String {
    format!("{pid}-{}", start_time(pid).unwrap_or_default())
}

/// When a process was started, in ticks since the machine was.
fn start_time(pid: u32) -> Option<String> {
    stat(pid, START_TIME)
}

/// Fields of /proc/PID/stat.
const PARENT: usize = 4;
const START_TIME: usize = 22;

/// One of the fields behind the second: that is the name, and may have spaces in it.
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3).map(str::to_owned)
}

/// A bpf file system.
struct Found {
    root: PathBuf,
    /// Keeps one at hand that is in another mount namespace.
    _open: Option<fs::File>,
}

/// A bpf file system in this mount namespace, or else in that of the first process or of one that
/// this one descends from: under `ip netns exec` the one at /sys/fs/bpf is out of sight.
fn visible() -> Option<Found> {
    let at = |pid: &str| {
        let mountinfo = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
        mounted(&mountinfo, "bpf")
    };
    if let Some(root) = at("self") {
        return Some(Found { root, _open: None });
    }
    others().into_iter().find_map(|pid| {
        let path = at(&pid)?;
        let path = Path::new("/proc").join(pid).join("root").join(path.strip_prefix("/").ok()?);
        // The root of a process can be closed to others, and is gone when the process is.
        let open = fs::File::open(path).ok()?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Some(Found { root, _open: Some(open) })
    })
}

/// The first process, and those that this one descends from, which may be in another mount
/// namespace.
fn others() -> Vec<String> {
    let mut others = vec!["1".to_owned()];
    let mut pid = std::process::id();
    while let Some(parent) = stat(pid, PARENT).and_then(|field| field.parse::<u32>().ok()) {
        if parent <= 1 {
            break;
        }
        others.push(parent.to_string());
        pid = parent;
    }
    others
}

/// Mounts a bpf file system where others see it, so that pins outlive this mount namespace, or
/// where that is not allowed, here: then pins last as long as the namespace, which the command is
/// in too.
fn mount_for_all() -> Result<Found, Error> {
    let failed = || error(format!("mount a bpf file system at {BPFFS}"));
    let others = others();
    let mounting = std::thread::spawn(move || {
        // The thread has to have its file system attributes to itself to change namespaces.
        unshare(CloneFlags::CLONE_FS)?;
        let namespace =
            others.iter().find_map(|pid| fs::File::open(format!("/proc/{pid}/ns/mnt")).ok());
        let namespace = namespace.ok_or(io::ErrorKind::PermissionDenied)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        mount_bpf()
    });
    let for_all = mounting
        .join()
        .map_err(|_| failed()(io::Error::other("the thread that mounts has panicked")))?;
    if for_all.is_err() || visible().is_none() {
        mount_bpf().map_err(failed())?;
    }
    visible().ok_or_else(|| failed()(io::Error::other("it is not to be found after mounting")))
}
