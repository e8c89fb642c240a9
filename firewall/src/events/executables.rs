//! Paths of executables, as the kernel programs kept them when they were started.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{Ebpf, maps::HashMap};
use firewall_common::layout::{ExecutablePath, FileId, NAME_BYTES, PATH_NAMES};

use super::reader::Error;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: `repr(C)` structures of integers without padding.
unsafe impl aya::Pod for Plain<FileId> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<ExecutablePath> {}

/// Finds paths by file.
pub struct Executables(pub(super) Box<dyn Fn(FileId) -> Option<ExecutablePath>>);

impl Executables {
    /// Takes the paths of loaded programs.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map("EXECUTABLES").ok_or(Error::Missing("EXECUTABLES"))?;
        let map = HashMap::<_, Plain<FileId>, Plain<ExecutablePath>>::try_from(map)?;
        Ok(Self(Box::new(move |file| map.get(&Plain(file), 0).ok().map(|Plain(path)| path))))
    }

    /// The path of an executable: as kept at exec, or what /proc says of the process, if that is
    /// still the same file.
    pub fn path(&self, file: FileId, pid: u32) -> Option<PathBuf> {
        if file.inode == 0 {
            return None;
        }
        let kept = (self.0)(file).and_then(|path| join(&path));
        kept.or_else(|| {
            let link = format!("/proc/{pid}/exe");
            let found = std::fs::metadata(&link).ok()?;
            let same = found.ino() == file.inode && device(found.dev()) == file.device;
            if same { std::fs::read_link(link).ok() } else { None }
        })
    }
}

/// The kernel's own form of a device number, `major << 20 | minor`.
fn device(dev: u64) -> u32 {
    libc::major(dev) << 20 | libc::minor(dev)
}

/// The path of its names, which stand from the file up; `None` if they do not reach the root.
fn join(path: &ExecutablePath) -> Option<PathBuf> {
    let depth = usize::try_from(path.depth).ok()?;
    if path.complete != 1 || depth == 0 || depth > PATH_NAMES {
        return None;
    }
    let mut joined = PathBuf::from("/");
    for name in path.names[..depth].iter().rev() {
        let end = name.iter().position(|byte| *byte == 0)?;
        // A name that fills its place was cut off.
        if end == 0 || end == NAME_BYTES - 1 {
            return None;
        }
        joined.push(Path::new(std::str::from_utf8(&name[..end]).ok()?));
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_join_from_the_root() {
        let mut path =
            ExecutablePath { names: [[0; NAME_BYTES]; PATH_NAMES], depth: 3, complete: 1 };
        for (to, name) in path.names.iter_mut().zip(["curl", "bin", "usr"]) {
            to[..name.len()].copy_from_slice(name.as_bytes());
        }
        assert_eq!(join(&path), Some(PathBuf::from("/usr/bin/curl")));
        assert_eq!(join(&ExecutablePath { complete: 0, ..path }), None);
        path.names[1] = [b'x'; NAME_BYTES];
        assert_eq!(join(&path), None);
    }
}
