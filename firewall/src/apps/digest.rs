//! Digests of executables.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::regular::open;

/// Digests that are remembered.
const MAX_KNOWN: usize = 4096;

/// Takes digests, of each file once as long as it looks unchanged.
#[derive(Default)]
pub struct Digests(HashMap<Key, String>);

/// A file as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Key {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Digests {
    /// The SHA-256 digest of a regular file, in hexadecimal digits.
    pub fn of(&mut self, path: &Path) -> io::Result<String> {
        let mut file = open(path)?;
        let key = Key::of(&file)?;
        if let Some(digest) = self.0.get(&key) {
            return Ok(digest.clone());
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        // No more than it had: a file that grows all the time would not end.
        let mut rest = (&mut file).take(key.size);
        loop {
            match rest.read(&mut buffer)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        if Key::of(&file)? != key {
            return Err(io::Error::other("it changed while it was read"));
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if self.0.len() >= MAX_KNOWN {
            self.0.clear();
        }
        self.0.insert(key, digest.clone());
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    use super::*;

    #[test]
    fn a_digest_is_of_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut digests = Digests::default();
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests.of(&path).unwrap(), abc);
        let link = folder.path().join("link");
        fs::hard_link(&path, &link).unwrap();
        assert_eq!(digests.of(&link).unwrap(), abc);
        assert_eq!(digests.0.len(), 1, "one file by two names is read once");
        fs::write(&path, "abd").unwrap();
        let later = SystemTime::now() + Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_ne!(digests.of(&path).unwrap(), abc);
    }

    #[test]
    fn only_files_have_one() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [&pipe, folder.path(), &folder.path().join("none")] {
            assert!(Digests::default().of(path).is_err(), "{}", path.display());
        }
    }
}
