//! Paths of executables, as the kernel programs kept them when they were started.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::PathBuf,
};

use aya::{Ebpf, maps::HashMap};
use firewall_common::layout::{FileId, PathText};

use super::reader::Error;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: `repr(C)` structures of integers without padding.
unsafe impl aya::Pod for Plain<FileId> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<PathText> {}

/// Finds paths by file.
pub struct Executables(pub(super) Box<dyn Fn(FileId) -> Option<PathText>>);

impl Executables {
    /// Takes the paths of loaded programs.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map("EXECUTABLES").ok_or(Error::Missing("EXECUTABLES"))?;
        let map = HashMap::<_, Plain<FileId>, Plain<PathText>>::try_from(map)?;
        Ok(Self(Box::new(move |file| map.get(&Plain(file), 0).ok().map(|Plain(path)| path))))
    }

    /// The path of an executable: as kept at exec, or what /proc says of the process, if that is
    /// still the same file.
    pub fn path(&self, file: FileId, pid: u32) -> Option<PathBuf> {
        if file.inode == 0 {
            return None;
        }
        let kept = (self.0)(file).and_then(|path| text(&path));
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

/// The path that the kernel kept; `None` if there is none.
fn text(path: &PathText) -> Option<PathBuf> {
    let text = path.text.get(usize::try_from(path.start).ok()?..)?;
    (text.first() == Some(&b'/')).then(|| PathBuf::from(OsStr::from_bytes(text)))
}

#[cfg(test)]
mod tests {
    use firewall_common::layout::PATH_BYTES;

    use super::*;

    #[test]
    fn paths_stand_at_the_end() {
        let mut path = PathText { numbered: 0, flags: 0, start: 0, text: [0; PATH_BYTES] };
        path.start = (PATH_BYTES - 13) as u32;
        path.text[PATH_BYTES - 13..].copy_from_slice(b"/usr/bin/curl");
        assert_eq!(text(&path), Some(PathBuf::from("/usr/bin/curl")));
        for start in [PATH_BYTES as u32, u32::MAX, PATH_BYTES as u32 - 12] {
            assert_eq!(text(&PathText { start, ..path }), None);
        }
    }
}
