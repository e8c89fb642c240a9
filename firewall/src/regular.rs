//! Regular files, and nothing else: a pipe would be waited for, and a device may never end.
//!
//! `/dev/null` counts as one that is empty.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Opens a file to read it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(File::options().read(true), path)
}

/// Makes a file to write to, empty if it was there.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    open_with(File::options().write(true).create(true).truncate(true), path)
}

/// Opens a file, or makes it, as `options` say.
pub(crate) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // To open a device can do something already, and to open a pipe waits.
    if let Ok(there) = fs::metadata(path) {
        check(&there)?;
    }
    // It may be another one by now.
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// All bytes of a file that has at most `most`, which is whole MiB.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => {
            let why = format!("it has more than {} MiB", most >> 20);
            Err(io::Error::new(ErrorKind::FileTooLarge, why))
        }
    }
}

fn check(data: &Metadata) -> io::Result<()> {
    let is_null = data.file_type().is_char_device() && data.rdev() == libc::makedev(1, 3);
    match data.is_file() || is_null {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nothing_else_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for place in [path("pipe"), path("link"), path("socket"), path("")] {
            for error in [
                read(&place, 1 << 20).unwrap_err(),
                open_with(File::options().append(true).create(true), &place).unwrap_err(),
            ] {
                assert_eq!(error.to_string(), "it is no regular file", "{}", place.display());
            }
        }
        assert_eq!(open(&path("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read(Path::new("/dev/null"), 1 << 20).unwrap(), b"");
    }

    #[test]
    fn no_more_is_read_than_may_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(read(file.path(), 1 << 20).unwrap().len(), 1 << 20);
        file.as_file().set_len((1 << 20) + 1).unwrap();
        let error = read(file.path(), 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1 MiB");
    }
}
