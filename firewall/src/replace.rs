//! Files that are replaced as a whole.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use crate::regular;

/// Puts a file in the place of the one that is there. It is whole and on the disk before it gets its
/// name, so neither a crash nor a full disk costs the one that had it.
///
/// One may write at a time: the name of what is not whole yet is always the same, so that nothing is
/// ever left over.
pub(crate) fn replace(path: &Path, mode: u32, parts: &[&[u8]]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut file = regular::create(&new)?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = match path.parent() {
        // Of a bare file name.
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder.unwrap_or(Path::new("/")),
    };
    File::open(folder)?.sync_all()
}
