//! From an identity to an app as it is told.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::Ebpf;
use firewall_common::{
    event::{Identity, app},
    layout::{FileId, ProcessKey},
};

use super::{
    App,
    paths::{Kept, Paths},
    reader::Error,
};
use crate::{
    apps::{
        cgroup::{Labels, labels},
        containers::Containers,
        packages::Packages,
        process::parents,
    },
    cgroup::Hierarchy,
};

/// Apps that are remembered.
const MAX_KNOWN: usize = 4096;
/// Users that are remembered.
const MAX_USERS: usize = 4096;

/// Finds out about apps, about each once: the first event of a process waits for what is read, the
/// others for one look-up.
pub struct Apps<'a> {
    executables: Paths<FileId>,
    scripts: Paths<ProcessKey>,
    cgroups: Paths<u64>,
    hierarchy: &'a Hierarchy,
    directories: HashMap<u64, Option<PathBuf>>,
    users: HashMap<u32, Option<String>>,
    containers: Containers,
    packages: Packages,
    /// By all that the kernel says: what executes another file or moves to another cgroup is looked
    /// at again.
    known: HashMap<Identity, Arc<App>>,
}

impl<'a> Apps<'a> {
    /// Of what loaded programs see.
    pub fn new(ebpf: &mut Ebpf, hierarchy: &'a Hierarchy) -> Result<Self, Error> {
        let executables = Paths::new(ebpf, "EXECUTABLES")?;
        let scripts = Paths::new(ebpf, "SCRIPTS")?;
        let cgroups = Paths::new(ebpf, "CGROUPS")?;
        Ok(Self::of(executables, scripts, cgroups, hierarchy, Path::new("/")))
    }

    /// With the containers and packages of the system below `root`.
    pub(super) fn of(
        executables: Paths<FileId>,
        scripts: Paths<ProcessKey>,
        cgroups: Paths<u64>,
        hierarchy: &'a Hierarchy,
        root: &Path,
    ) -> Self {
        Self {
            executables,
            scripts,
            cgroups,
            hierarchy,
            directories: HashMap::new(),
            users: HashMap::new(),
            containers: Containers::below(root),
            packages: Packages::below(root),
            known: HashMap::new(),
        }
    }

    /// The app of an identity.
    pub fn app(&mut self, identity: &Identity) -> Arc<App> {
        if let Some(app) = self.known.get(identity) {
            return Arc::clone(app);
        }
        let app = Arc::new(self.look_at(identity));
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(*identity, Arc::clone(&app));
        app
    }

    /// Files about containers and packages that could not be read or understood.
    pub const fn unreadable(&self) -> u64 {
        self.containers.unreadable + self.packages.unreadable
    }

    fn look_at(&mut self, identity: &Identity) -> App {
        let is_process = identity.kind == app::PROCESS;
        let exe = self.executable(identity);
        let comm = identity.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = match (identity.kind, &exe) {
            (app::KERNEL, _) => "kernel".to_owned(),
            (0, _) => "unknown".to_owned(),
            (_, Some(Kept { path, .. })) => text(path.file_name().map_or(path, Path::new)),
            (_, None) => String::from_utf8_lossy(comm).into_owned(),
        };
        let key = ProcessKey { pid: identity.pid, _pad: 0, started: identity.started };
        let script = self.scripts.find(key).filter(|_| is_process);
        let cgroup = self.cgroup(identity.cgroup).map(|path| text(&path));
        let Labels { unit, flatpak, snap, container } =
            cgroup.as_deref().map(labels).unwrap_or_default();
        let package = exe
            .as_ref()
            .filter(|exe| is_here(exe, identity.executable))
            .and_then(|exe| self.packages.of(&exe.path));
        App {
            name,
            exe: exe.map(|exe| text(&exe.path)),
            script: script.map(|script| text(&script.path)),
            package,
            pid: (identity.pid != 0).then_some(identity.pid),
            parents: match is_process {
                true => parents(identity.pid, identity.started),
                false => Vec::new(),
            },
            uid: identity.uid,
            user: self.user(identity.uid),
            gid: is_process.then_some(identity.gid),
            cgroup,
            unit,
            flatpak,
            snap,
            container: container.map(|container| self.containers.name(container)),
        }
    }

    /// As kept at exec, or what /proc says of the process, if that is still the same file.
    fn executable(&self, identity: &Identity) -> Option<Kept> {
        let file = identity.executable;
        if file.inode == 0 {
            return None;
        }
        self.executables.find(file).or_else(|| {
            let link = format!("/proc/{}/exe", identity.pid);
            let found = fs::metadata(&link).ok()?;
            let same = found.ino() == file.inode && device(found.dev()) == file.device;
            let path = fs::read_link(link).ok().filter(|_| same)?;
            Some(Kept { path, trusted: false })
        })
    }

    /// As kept by the kernel, or where the hierarchy has it now.
    fn cgroup(&mut self, id: u64) -> Option<PathBuf> {
        if id == 0 {
            return None;
        }
        if let Some(Kept { path, .. }) = self.cgroups.find(id) {
            return Some(path);
        }
        if !self.directories.contains_key(&id) {
            self.directories =
                self.hierarchy.paths().into_iter().map(|(id, at)| (id, Some(at))).collect();
        }
        // One that is gone already is not looked for again.
        self.directories.entry(id).or_insert(None).clone()
    }

    fn user(&mut self, uid: u32) -> Option<String> {
        if self.users.len() >= MAX_USERS {
            self.users.clear();
        }
        self.users
            .entry(uid)
            .or_insert_with(|| {
                let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
                user.map(|user| user.name)
            })
            .clone()
    }
}

/// Whether the path leads to the file here too: one of a container leads to another, or nowhere.
fn is_here(Kept { path, trusted }: &Kept, file: FileId) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        // On btrfs a file shows the device of its subvolume.
        found.ino() == file.inode && (*trusted || device(found.dev()) == file.device)
    })
}

/// The kernel's own form of a device number, `major << 20 | minor`.
fn device(dev: u64) -> u32 {
    libc::major(dev) << 20 | libc::minor(dev)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
