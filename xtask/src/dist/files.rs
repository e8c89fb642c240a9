//! What a package puts where.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::{licences, output};
use crate::command::{command, workspace};

/// Each shell, and where it looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/firewall"),
    ("zsh", "usr/share/zsh/vendor-completions/_firewall"),
    ("fish", "usr/share/fish/vendor_completions.d/firewall.fish"),
];

/// What is taken as it is: from where in this workspace, and to where.
const COPIED: [(&str, &str); 6] = [
    ("firewall/dist/firewall.service", "usr/lib/systemd/system/firewall.service"),
    ("firewall/dist/firewall-early.service", "usr/lib/systemd/system/firewall-early.service"),
    ("firewall/dist/sysusers.conf", "usr/lib/sysusers.d/firewall.conf"),
    ("firewall/dist/tmpfiles.conf", "usr/lib/tmpfiles.d/firewall.conf"),
    ("firewall/dist/firewall.toml", "etc/firewall/firewall.toml"),
    // The one that is enabled after installing: it stops nothing.
    ("policies/watch-everything.toml", "etc/firewall/policies.d/watch-everything.toml"),
];

/// Where documentation goes.
pub const DOC: &str = "usr/share/doc/firewall";

/// The binary, and what it prints of itself.
pub struct Program {
    pub binary: PathBuf,
    /// File name and text of each page.
    pub manuals: Vec<(String, Vec<u8>)>,
    /// Shell and text.
    pub completions: Vec<(String, String)>,
    /// Of the libraries in it.
    pub licences: String,
}

impl Program {
    /// Asks a binary.
    pub fn ask(binary: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ask = || command(&binary.to_string_lossy());
        output(ask().args(["man", "--dir"]).arg(folder.path()))?;
        let manuals = in_folder(folder.path())?;
        let completions = COMPLETIONS
            .iter()
            .map(|(shell, _)| {
                Ok(((*shell).to_owned(), output(ask().args(["completions", shell]))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { binary, manuals, completions, licences: licences::of_libraries()? })
    }
}

/// Files by their path below the root directory.
#[derive(Default)]
pub struct Files(BTreeMap<String, File>);

struct File {
    bytes: Vec<u8>,
    mode: u32,
}

impl Files {
    /// All that is installed with a program.
    pub fn of(program: &Program) -> Result<Self> {
        let mut files = Self::default();
        let binary = fs::read(&program.binary).context("the binary")?;
        files.0.insert("usr/bin/firewall".to_owned(), File { bytes: binary, mode: 0o755 });
        for (from, to) in COPIED {
            files.put(to, read(from)?);
        }
        for (name, bytes) in in_folder(&workspace().join("policies"))? {
            files.put(&format!("usr/share/firewall/policies/{name}"), bytes);
        }
        for (name, bytes) in &program.manuals {
            files.put(&format!("usr/share/man/man1/{name}.gz"), gzip(bytes)?);
        }
        for (shell, text) in &program.completions {
            let (_, to) = COMPLETIONS
                .iter()
                .find(|(known, _)| known == shell)
                .with_context(|| format!("{shell} has no place"))?;
            files.put(to, text.clone().into_bytes());
        }
        for (name, bytes) in in_folder(&workspace().join("firewall/docs"))? {
            files.put(&format!("{DOC}/{name}"), bytes);
        }
        files.put(&format!("{DOC}/copyright"), copyright()?.into_bytes());
        files.put(&format!("{DOC}/changelog.gz"), gzip(&read("CHANGELOG.md")?)?);
        let licences = gzip(program.licences.as_bytes())?;
        files.put(&format!("{DOC}/third-party-licences.txt.gz"), licences);
        Ok(files)
    }

    /// Adds a file that everybody may read.
    pub fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), File { bytes, mode: 0o644 });
    }

    /// Paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What they take on a disk, in KiB.
    pub fn kibibytes(&self) -> usize {
        self.0.values().map(|file| file.bytes.len().div_ceil(1024)).sum()
    }

    /// Writes them below a folder, with modes that do not depend on the umask.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (path, File { bytes, mode }) in &self.0 {
            let path = folder.join(path);
            let parent = path.parent().context("a file in a folder")?;
            fs::create_dir_all(parent)?;
            for made in parent.ancestors().take_while(|made| made.starts_with(folder)) {
                set_mode(made, 0o755)?;
            }
            fs::write(&path, bytes)?;
            set_mode(&path, *mode)?;
        }
        Ok(())
    }
}

/// Sets the permissions of a file or folder.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Without a name or a time in its header.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A file of the workspace.
pub fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(workspace().join(path)).with_context(|| path.to_owned())
}

/// As [`read`], of text.
pub fn text(path: &str) -> Result<String> {
    String::from_utf8(read(path)?).with_context(|| path.to_owned())
}

/// Name and content of each file, not of folders, sorted by name.
fn in_folder(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(files.into_iter().collect())
}

/// Debian's form, with the text of the MIT licence as a field wants it.
fn copyright() -> Result<String> {
    let mit: String = text("LICENSE-MIT")?
        .lines()
        .map(|line| match line {
            "" => " .\n".to_owned(),
            line => format!(" {line}\n"),
        })
        .collect();
    Ok(text("firewall/dist/debian/copyright")?.replace("@MIT@\n", &mit))
}
