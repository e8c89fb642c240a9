//! Which package a file belongs to, by the databases of dpkg and pacman, which are read and not run.
//!
//! A package that has a path says nothing of what is in the file now.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::regular::read;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as its database writes it.
    pub version: String,
}

/// Bytes of a file of a database that are read.
const MAX_FILE: u64 = 64 << 20;
/// Paths that are kept.
const MAX_PATHS: usize = 4_000_000;
/// Where no executable is, and most files are.
const PASSED_BY: [&[u8]; 8] = [
    b"/usr/include/",
    b"/usr/share/doc/",
    b"/usr/share/fonts/",
    b"/usr/share/help/",
    b"/usr/share/icons/",
    b"/usr/share/info/",
    b"/usr/share/locale/",
    b"/usr/share/man/",
];
/// How long a database that changes is left alone: packages are being installed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds packages.
pub struct Packages {
    root: PathBuf,
    index: Index,
    /// What the databases looked like when they were read.
    read: Option<([Option<SystemTime>; 2], Instant)>,
    /// Files that could not be read or understood.
    pub unreadable: u64,
}

/// Paths by their hashes: a tenth of what they need as text.
#[derive(Default)]
struct Index {
    hasher: RandomState,
    packages: Vec<Package>,
    /// Sorted; a path and the number of its package.
    paths: Vec<(u64, u32)>,
}

impl Packages {
    /// Of the system that is below `root`.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), index: Index::default(), read: None, unreadable: 0 }
    }

    /// The package that has this path, which goes through no link. `None` if there is none, or two,
    /// or packages are just being installed.
    pub fn of(&mut self, path: &Path) -> Option<Package> {
        self.refresh(Instant::now()).then(|| self.index.find(path.as_os_str().as_bytes()))?
    }

    /// Reads the databases if they have changed: whether what is known is of now.
    fn refresh(&mut self, now: Instant) -> bool {
        let dpkg = self.root.join("var/lib/dpkg");
        let pacman = self.root.join("var/lib/pacman/local");
        let stamp = [dpkg.join("status"), pacman.clone()]
            .map(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
        match self.read {
            Some((known, _)) if known == stamp => return true,
            Some((_, at)) if now.saturating_duration_since(at) < PATIENCE => return false,
            _ => {}
        }
        let mut reading = Reading {
            index: Index::default(),
            merged: merged(&self.root),
            unreadable: &mut self.unreadable,
        };
        if stamp[0].is_some() {
            reading.dpkg(&dpkg);
        }
        if stamp[1].is_some() {
            reading.pacman(&pacman);
        }
        let mut index = reading.index;
        index.finish();
        self.index = index;
        self.read = Some((stamp, now));
        true
    }
}

/// Directories of the root that are links into `/usr`, where databases may not know it.
fn merged(root: &Path) -> Vec<Vec<u8>> {
    ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]
        .into_iter()
        .filter(|name| {
            let target = fs::read_link(root.join(name)).unwrap_or_default();
            target.strip_prefix("/").unwrap_or(&target) == Path::new("usr").join(name)
        })
        .map(|name| format!("/{name}/").into_bytes())
        .collect()
}

impl Index {
    fn find(&self, path: &[u8]) -> Option<Package> {
        let hash = self.hasher.hash_one(path);
        let first = self.paths.partition_point(|(one, _)| *one < hash);
        let mut same = self.paths[first..].iter().take_while(|(one, _)| *one == hash);
        let (_, package) = same.next()?;
        // Of two packages with one path only dpkg knows which one's it is.
        match same.next() {
            Some(_) => None,
            None => self.packages.get(usize::try_from(*package).ok()?).cloned(),
        }
    }

    fn finish(&mut self) {
        self.paths.sort_unstable();
        self.paths.dedup();
        self.paths.shrink_to_fit();
    }
}

/// Databases on their way to an index.
struct Reading<'a> {
    index: Index,
    merged: Vec<Vec<u8>>,
    unreadable: &'a mut u64,
}

impl Reading<'_> {
    /// A file of a database; one that is not there is none.
    fn file(&mut self, path: &Path) -> Option<Vec<u8>> {
        match read(path, MAX_FILE) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let none = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                *self.unreadable += u64::from(!none.contains(&error.kind()));
                None
            }
        }
    }

    fn package(&mut self, package: Package, paths: &[u8]) {
        let Ok(number) = u32::try_from(self.index.packages.len()) else { return };
        self.index.packages.push(package);
        let mut whole = Vec::new();
        for path in paths.split(|byte| *byte == b'\n') {
            // Directories end in a slash with pacman; with dpkg they are those of several packages.
            if path.is_empty() || path.ends_with(b"/") {
                continue;
            }
            whole.clear();
            if self.merged.iter().any(|link| path.starts_with(link)) {
                whole.extend(b"/usr");
            }
            if !path.starts_with(b"/") {
                whole.push(b'/');
            }
            whole.extend(path);
            if PASSED_BY.iter().any(|folder| whole.starts_with(folder)) {
                continue;
            }
            if self.index.paths.len() >= MAX_PATHS {
                *self.unreadable += 1;
                return;
            }
            self.index.paths.push((self.index.hasher.hash_one(&whole[..]), number));
        }
    }

    /// `status` has a paragraph for each package, `info/NAME.list` or `info/NAME:ARCH.list` its files
    /// (dpkg-query(1), deb-control(5)).
    fn dpkg(&mut self, folder: &Path) {
        let Some(status) = self.file(&folder.join("status")) else { return };
        let status = String::from_utf8_lossy(&status);
        let installed: HashMap<String, Package> =
            status.split("\n\n").flat_map(paragraph).collect();
        for (stem, file) in self.entries(&folder.join("info")) {
            let Some(stem) = stem.strip_suffix(".list") else { continue };
            // What is not installed any more may have left settings.
            let Some(package) = installed.get(stem).cloned() else { continue };
            if let Some(paths) = self.file(&file) {
                self.package(package, &paths);
            }
        }
    }

    /// A folder for each package, with its name and version in `desc` and its files in `files`.
    fn pacman(&mut self, folder: &Path) {
        for (_, folder) in self.entries(folder) {
            let Some(desc) = self.file(&folder.join("desc")) else { continue };
            let desc = String::from_utf8_lossy(&desc);
            let value = |key: &str| {
                let mut lines = desc.lines().skip_while(|line| *line != key).skip(1);
                lines.next().filter(|line| !line.is_empty()).map(str::to_owned)
            };
            let (Some(name), Some(version)) = (value("%NAME%"), value("%VERSION%")) else {
                *self.unreadable += 1;
                continue;
            };
            if let Some(files) = self.file(&folder.join("files")) {
                let text = String::from_utf8_lossy(&files);
                // Up to the empty line: behind it are checksums of settings.
                let of = text.strip_prefix("%FILES%\n").and_then(|text| text.split("\n\n").next());
                self.package(Package { name, version }, of.unwrap_or_default().as_bytes());
            }
        }
    }

    fn entries(&mut self, folder: &Path) -> Vec<(String, PathBuf)> {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        *self.unreadable += u64::from(entries.is_err());
        let name = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into(), entry.path());
        entries.unwrap_or_default().into_iter().map(name).collect()
    }
}

/// A package of dpkg, by the names that its list may have.
fn paragraph(text: &str) -> Vec<(String, Package)> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    };
    let is_installed = value("Status").is_some_and(|status| status.ends_with(" installed"));
    match (value("Package"), value("Version"), value("Architecture")) {
        (Some(name), Some(version), Some(architecture)) if is_installed => {
            let package = Package { name: name.clone(), version };
            vec![(format!("{name}:{architecture}"), package.clone()), (name, package)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn named(packages: &mut Packages, path: &str) -> Option<String> {
        packages.of(Path::new(path)).map(|Package { name, version }| format!("{name} {version}"))
    }

    const STATUS: &str = "\
Package: curl
Status: install ok installed
Architecture: amd64
Version: 8.5.0-2
Description: a tool
 Version: not this

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.39-0

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
";

    fn dpkg(root: &Path) {
        write(root, "var/lib/dpkg/status", STATUS);
        let list = "/.\n/usr\n/usr/bin\n/usr/bin/curl\n/usr/share/doc/curl/copyright\n";
        write(root, "var/lib/dpkg/info/curl.list", list);
        write(root, "var/lib/dpkg/info/libc6:amd64.list", "/.\n/usr/bin\n/lib/ld.so\n/both\n");
        write(root, "var/lib/dpkg/info/gone.list", "/usr/bin/gone\n");
        write(root, "var/lib/dpkg/info/curl.postinst", "/usr/bin/none\n");
    }

    #[test]
    fn debian() {
        let root = tempfile::tempdir().unwrap();
        dpkg(root.path());
        symlink("usr/lib", root.path().join("lib")).unwrap();
        let mut packages = Packages::below(root.path());
        assert_eq!(named(&mut packages, "/usr/bin/curl").as_deref(), Some("curl 8.5.0-2"));
        assert_eq!(named(&mut packages, "/usr/lib/ld.so").as_deref(), Some("libc6 2.39-0"));
        for none in
            ["/usr/bin/gone", "/usr/bin/none", "/usr/bin", "/lib/ld.so", "curl", "", "/opt/x"]
        {
            assert_eq!(named(&mut packages, none), None, "{none}");
        }
        assert_eq!(packages.unreadable, 0);
    }

    #[test]
    fn two_packages_with_a_path_are_none() {
        let root = tempfile::tempdir().unwrap();
        dpkg(root.path());
        write(root.path(), "var/lib/dpkg/info/curl.list", "/both\n/usr/bin/curl\n");
        let mut packages = Packages::below(root.path());
        assert_eq!(named(&mut packages, "/both"), None);
        assert_eq!(named(&mut packages, "/usr/bin/curl").as_deref(), Some("curl 8.5.0-2"));
    }

    #[test]
    fn arch() {
        let root = tempfile::tempdir().unwrap();
        let package = "var/lib/pacman/local/curl-8.5.0-1";
        let desc = "%NAME%\ncurl\n\n%VERSION%\n8.5.0-1\n\n%DESC%\na tool\n";
        write(root.path(), &format!("{package}/desc"), desc);
        let files = "%FILES%\nusr/\nusr/bin/\nusr/bin/curl\n\n%BACKUP%\netc/curl\tabc\n";
        write(root.path(), &format!("{package}/files"), files);
        write(root.path(), "var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
        write(root.path(), "var/lib/pacman/local/odd-1/desc", "%NAME%\nodd\n");
        let mut packages = Packages::below(root.path());
        assert_eq!(named(&mut packages, "/usr/bin/curl").as_deref(), Some("curl 8.5.0-1"));
        assert_eq!(named(&mut packages, "/etc/curl\tabc"), None);
        assert_eq!(packages.unreadable, 1, "a package without a version");
    }

    #[test]
    fn what_changes_is_read_again_and_nothing_is_told_meanwhile() {
        let root = tempfile::tempdir().unwrap();
        dpkg(root.path());
        let mut packages = Packages::below(root.path());
        assert_eq!(named(&mut packages, "/usr/bin/curl").as_deref(), Some("curl 8.5.0-2"));
        let status = root.path().join("var/lib/dpkg/status");
        fs::write(&status, STATUS.replace("8.5.0-2", "8.6.0-1")).unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::options().write(true).open(&status).unwrap().set_modified(later).unwrap();
        assert_eq!(named(&mut packages, "/usr/bin/curl"), None);
        assert!(packages.refresh(Instant::now() + PATIENCE));
        assert_eq!(named(&mut packages, "/usr/bin/curl").as_deref(), Some("curl 8.6.0-1"));
    }

    #[test]
    fn without_a_database_nothing_is_known() {
        let root = tempfile::tempdir().unwrap();
        let mut packages = Packages::below(root.path());
        assert_eq!(named(&mut packages, "/usr/bin/curl"), None);
        assert_eq!(packages.unreadable, 0);
    }

    /// The database of this machine, as its own tool reads it.
    #[test]
    fn the_tool_agrees() {
        let Ok(output) =
            std::process::Command::new("dpkg-query").args(["-S", "/usr/bin/env"]).output()
        else {
            println!("skipped: dpkg is not there");
            return;
        };
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some((name, _)) = told.split_once(": ").filter(|_| output.status.success()) else {
            println!("skipped: dpkg does not know /usr/bin/env");
            return;
        };
        let start = Instant::now();
        let mut packages = Packages::below(Path::new("/"));
        assert_eq!(packages.of(Path::new("/usr/bin/env")).unwrap().name, name);
        println!("{} paths in {:?}", packages.index.paths.len(), start.elapsed());
    }
}
