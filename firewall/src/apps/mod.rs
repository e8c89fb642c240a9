//! What user space knows of an app beside what the kernel says of it.
//!
//! All of it is for people: no verdict rests on it. What cannot be read is absent and never guessed,
//! and everything that is read is bounded.

pub mod cgroup;
pub mod containers;
pub mod digest;
pub mod packages;
pub mod process;

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Opens a file, if it is a regular one: nothing else ends, and opening a pipe would wait.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// The bytes of a file that has at most `most`.
fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large")),
    }
}
