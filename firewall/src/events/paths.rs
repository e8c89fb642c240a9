//! Paths of executables, scripts and cgroups, as the kernel programs kept them: by the time an event is
//! read, the process, the file or the cgroup may be gone.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use aya::maps::{HashMap, MapData};
use firewall_common::layout::{PathText, path};

use crate::datapath::{
    maps::{Error, Maps},
    plain::{Plain, Shared},
};

/// A path that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The path, from the root that the process sees.
    pub path: PathBuf,
    /// Nobody but root could have arranged that the file has it.
    pub trusted: bool,
}

/// Finds paths.
pub struct Paths<K>(Box<dyn Fn(K) -> Option<PathText>>);

impl<K: Shared> Paths<K> {
    /// Of the map of that name.
    pub fn new(maps: &Maps, name: &'static str) -> Result<Self, Error> {
        let map: HashMap<MapData, Plain<K>, Plain<PathText>> = maps.open(name)?;
        Ok(Self::of(move |key| map.get(&Plain(key), 0).ok().map(|Plain(path)| path)))
    }

    pub(super) fn of(kept: impl Fn(K) -> Option<PathText> + 'static) -> Self {
        Self(Box::new(kept))
    }

    /// The path that is kept by `key`, if there is one.
    pub fn find(&self, key: K) -> Option<Kept> {
        let kept = (self.0)(key)?;
        let text = kept.text.get(usize::try_from(kept.start).ok()?..)?;
        (text.first() == Some(&b'/')).then(|| Kept {
            path: normal(Path::new(OsStr::from_bytes(text))),
            trusted: kept.flags & path::TRUSTED != 0,
        })
    }
}

/// A path without `.` and `..`, which an argument can have.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            _ => normal.push(component),
        }
    }
    normal
}

#[cfg(test)]
pub(super) mod tests {
    use firewall_common::layout::PATH_BYTES;

    use super::*;

    pub fn kept(text: &str) -> PathText {
        let start = PATH_BYTES - text.len();
        let mut path = PathText { stamp: 0, flags: 0, start: start as u32, text: [0; PATH_BYTES] };
        path.text[start..].copy_from_slice(text.as_bytes());
        path
    }

    #[test]
    fn paths_stand_at_the_end() {
        let find = |path: PathText| Paths::of(move |_: u64| Some(path)).find(0);
        let path = kept("/usr/bin/curl");
        let curl = Kept { path: "/usr/bin/curl".into(), trusted: false };
        assert_eq!(find(path), Some(curl.clone()));
        let trusted = PathText { flags: path::TRUSTED, ..path };
        assert_eq!(find(trusted), Some(Kept { trusted: true, ..curl }));
        for start in [PATH_BYTES as u32, u32::MAX, PATH_BYTES as u32 - 12] {
            assert_eq!(find(PathText { start, ..path }), None);
        }
        assert_eq!(Paths::of(|_: u64| None).find(0), None);
    }

    #[test]
    fn a_path_is_made_normal() {
        for (path, want) in
            [("/", "/"), ("/a/./b//c/", "/a/b/c"), ("/a/../../b/../c", "/c"), ("/..", "/")]
        {
            assert_eq!(normal(Path::new(path)), Path::new(want), "{path}");
        }
    }
}
