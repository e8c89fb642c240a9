//! Control groups: finding the hierarchy, and groups of one's own.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Why something of the cgroup or bpf file system cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct Error {
    what: String,
    source: io::Error,
}

/// For `map_err`: what could not be done, as in "cannot open the door".
pub(crate) fn error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    |source| Error { what, source }
}

/// The cgroup2 hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    root: PathBuf,
    /// Keeps a mount of our own, which is seen nowhere.
    _mount: Option<OwnedFd>,
}

impl Hierarchy {
    /// Finds the mount, or makes one of its own where none is visible, as under `ip netns exec`.
    pub fn find() -> Result<Self, Error> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")
            .map_err(error("read /proc/self/mountinfo"))?;
        if let Some(root) = mounted(&mountinfo, "cgroup2") {
            return Ok(Self { root, _mount: None });
        }
        let what = "open the cgroup2 hierarchy, which is not mounted here";
        let mount = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)
            .and_then(|context| {
                fsconfig_create(&context)?;
                fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            })
            .map_err(|errno| error(what)(errno.into()))?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Self { root, _mount: Some(mount) })
    }

    /// One that is mounted here.
    #[cfg(test)]
    pub(crate) const fn at(root: PathBuf) -> Self {
        Self { root, _mount: None }
    }

    /// The cgroup of this process, from the root of the hierarchy.
    pub fn own() -> Result<PathBuf, Error> {
        let text =
            fs::read_to_string("/proc/self/cgroup").map_err(error("read /proc/self/cgroup"))?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from).ok_or_else(|| {
            error("find the cgroup of this process")(io::Error::other("no line starts with 0::"))
        })
    }

    /// The cgroup of this process, or where that belongs to a user (as below systemd's
    /// `user@.service`) the nearest one above that does not: who owns a cgroup can move processes
    /// between all that are below it.
    pub fn own_by_root(&self) -> Result<PathBuf, Error> {
        let own = Self::own()?;
        let mut path = PathBuf::from("/");
        for part in own.strip_prefix("/").unwrap_or(&own) {
            let next = path.join(part);
            let metadata = fs::metadata(self.directory(&next))
                .map_err(error(format!("look at the cgroup {}", next.display())))?;
            if metadata.uid() != 0 {
                break;
            }
            path = next;
        }
        Ok(path)
    }

    /// Where a cgroup is in the file system.
    pub fn directory(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Every cgroup by the inode number of its directory.
    pub fn paths(&self) -> HashMap<u64, PathBuf> {
        let mut paths = HashMap::new();
        let mut rest = vec![PathBuf::from("/")];
        while let Some(path) = rest.pop() {
            let directory = self.directory(&path);
            // A cgroup can be gone before it is read.
            let Ok(metadata) = fs::metadata(&directory) else { continue };
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    rest.push(path.join(entry.file_name()));
                }
            }
            paths.insert(metadata.ino(), path);
        }
        paths
    }
}

/// The inode numbers of a cgroup, by its directory, and of all below it.
pub fn below(directory: &Path) -> HashSet<u64> {
    let mut numbers = HashSet::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(directory) = rest.pop() {
        // One can be gone before it is read.
        let Ok(metadata) = fs::metadata(&directory) else { continue };
        numbers.insert(metadata.ino());
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        rest.extend(below.map(|entry| entry.path()));
    }
    numbers
}

/// Where a file system of this kind is mounted whole.
pub fn mounted(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // Spaces are written as \040; a mount point with them is none of ours.
        (filesystem.split(' ').next()? == kind && root == "/" && !point.contains('\\'))
            .then(|| PathBuf::from(point))
    })
}

/// A cgroup.
#[derive(Debug)]
pub struct Group {
    /// From the root of the hierarchy.
    pub path: PathBuf,
    directory: PathBuf,
}

impl Group {
    /// Makes a cgroup.
    pub fn create(hierarchy: &Hierarchy, path: PathBuf) -> Result<Self, Error> {
        let directory = hierarchy.directory(&path);
        fs::create_dir(&directory).map_err(error(format!("make the cgroup {}", path.display())))?;
        Ok(Self { path, directory })
    }

    /// A cgroup that is there.
    pub fn at(hierarchy: &Hierarchy, path: PathBuf) -> Self {
        let directory = hierarchy.directory(&path);
        Self { path, directory }
    }

    /// The directory, to attach to.
    pub fn open(&self) -> Result<fs::File, Error> {
        fs::File::open(&self.directory)
            .map_err(error(format!("open the cgroup {}", self.path.display())))
    }

    /// Inode number of the directory, which the kernel names the cgroup by.
    pub fn id(&self) -> Result<u64, Error> {
        fs::metadata(&self.directory)
            .map(|metadata| metadata.ino())
            .map_err(error(format!("look at the cgroup {}", self.path.display())))
    }

    /// The file that takes processes in.
    pub fn door(&self) -> Result<fs::File, Error> {
        fs::File::options()
            .write(true)
            .open(self.directory.join("cgroup.procs"))
            .map_err(error(format!("open the cgroup {}", self.path.display())))
    }

    /// Whether a process is in it or below it. A cgroup that is gone has none; one that cannot be
    /// looked at may have.
    pub fn is_populated(&self) -> bool {
        match fs::read_to_string(self.directory.join("cgroup.events")) {
            Ok(events) => events.lines().any(|line| line == "populated 1"),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// The processes in it and below it.
    pub fn processes(&self) -> Vec<u32> {
        directories(&self.directory)
            .iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|procs| procs.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Ends every process in it and below it; returns whether none is left.
    pub fn kill(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            // One write ends all at once since kernel 5.14.
            if fs::write(self.directory.join("cgroup.kill"), "1").is_err() {
                for pid in self.processes() {
                    // SAFETY: sends a signal; a process that is gone is an error that is of no
                    // interest.
                    unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
                }
            }
            if !self.is_populated() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes it and what is below it.
    pub fn remove(&self) -> Result<(), Error> {
        for directory in directories(&self.directory).iter().rev() {
            let started = Instant::now();
            loop {
                match fs::remove_dir(directory) {
                    Ok(()) => break,
                    Err(gone) if gone.kind() == io::ErrorKind::NotFound => break,
                    // The last process is counted out a moment after it has ended.
                    Err(busy)
                        if busy.kind() == io::ErrorKind::ResourceBusy
                            && started.elapsed() < Duration::from_secs(1) =>
                    {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(other) => {
                        return Err(error(format!("remove the cgroup {}", self.path.display()))(
                            other,
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// A directory and those below it, parents first.
fn directories(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_mounts_only() {
        let mountinfo = "\
            30 23 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            31 23 0:27 /box /mnt/part rw shared:1 - cgroup2 cgroup2 rw\n\
            32 23 0:27 / /sys/fs/cgroup/unified rw shared:2 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(mountinfo, "cgroup2"), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mounted(mountinfo, "bpf"), None);
    }
}
