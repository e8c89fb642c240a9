//! From an identity to an app as it is told.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use firewall_common::{
    event::{Identity, app},
    layout::{FileId, ProcessKey},
};

use super::{
    App,
    paths::{Kept, Paths},
};
use crate::{
    apps::{
        cgroup::{Labels, labels},
        containers::Containers,
        packages::Packages,
        process::parents,
    },
    cgroup::Hierarchy,
    datapath::maps::{Error, Maps},
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
    pub fn new(maps: &Maps, hierarchy: &'a Hierarchy) -> Result<Self, Error> {
        let executables = Paths::new(maps, "EXECUTABLES")?;
        let scripts = Paths::new(maps, "SCRIPTS")?;
        let cgroups = Paths::new(maps, "CGROUPS")?;
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
        // First what is gone soonest.
        let parents = match is_process {
            true => parents(identity.pid, identity.started),
            false => Vec::new(),
        };
        let exe = self.executable(identity);
        let comm = identity.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = match (identity.kind, &exe) {
            (app::KERNEL, _) => "kernel".to_owned(),
            (0, _) => "unknown".to_owned(),
            (_, Some(Kept { path, .. })) => text(path.file_name().map_or(path, Path::new)),
            (_, None) => String::from_utf8_lossy(comm).into_owned(),
        };
        let script = self.scripts.find(identity.process()).filter(|_| is_process);
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
            parents,
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

    /// As the kernel kept it. What it has no path of is unknown to rules, whatever `/proc` calls it.
    fn executable(&self, identity: &Identity) -> Option<Kept> {
        let file = identity.executable;
        if file.inode == 0 { None } else { self.executables.find(file) }
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;
    use crate::events::paths::tests::kept;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A system of one's own, with an executable that is a package's.
    fn system() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let exe = root.path().canonicalize().unwrap().join("tool");
        write("tool", "");
        let status = "Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";
        write("var/lib/dpkg/status", status);
        write("var/lib/dpkg/info/tool.list", &text(&exe));
        let config = format!("var/lib/docker/containers/{ID}/config.v2.json");
        write(&config, r#"{"Name":"/web","Config":{"Image":"nginx:1"}}"#);
        (root, exe)
    }

    fn identity(exe: &Path) -> Identity {
        let found = fs::metadata(exe).unwrap();
        let executable =
            FileId { inode: found.ino(), device: device(found.dev()), ..FileId::default() };
        // No process has this number.
        let (pid, uid) = (u32::MAX >> 1, 4_000_000_001);
        let kind = app::PROCESS;
        Identity {
            executable,
            cgroup: 1,
            started: 1,
            pid,
            uid,
            gid: 7,
            kind,
            ..Identity::default()
        }
    }

    fn apps<'a>(root: &Path, exe: &Path, hierarchy: &'a Hierarchy) -> Apps<'a> {
        let exe = text(exe);
        let cgroup = format!("/system.slice/docker-{ID}.scope");
        Apps::of(
            Paths::of(move |file: FileId| (file.inode != 0).then(|| kept(&exe))),
            Paths::of(|key: ProcessKey| (key.started == 1).then(|| kept("/home/ada/./a.py"))),
            Paths::of(move |id| (id == 1).then(|| kept(&cgroup))),
            hierarchy,
            root,
        )
    }

    #[test]
    fn all_that_is_known() {
        let (root, exe) = system();
        let hierarchy = Hierarchy::at("/nowhere".into());
        let mut apps = apps(root.path(), &exe, &hierarchy);
        let app = apps.app(&identity(&exe));
        let json = serde_json::to_string(&*app).unwrap().replace(&text(&exe), "EXE");
        insta::assert_snapshot!(json.replace(ID, "ID"), @r#"{"name":"tool","exe":"EXE","script":"/home/ada/a.py","package":{"name":"tool","version":"1"},"pid":2147483647,"uid":4000000001,"gid":7,"cgroup":"/system.slice/docker-ID.scope","unit":"docker-ID.scope","container":{"id":"ID","image":"nginx:1","name":"web"}}"#);
        assert_eq!(apps.unreadable(), 0);
        assert_eq!(
            serde_json::from_str::<App>(&serde_json::to_string(&*app).unwrap()).unwrap(),
            *app
        );
    }

    #[test]
    fn the_kernel_is_no_process() {
        let (root, exe) = system();
        let hierarchy = Hierarchy::at("/nowhere".into());
        let mut apps = apps(root.path(), &exe, &hierarchy);
        let kernel = apps.app(&Identity { kind: app::KERNEL, ..Identity::default() });
        assert!(kernel.is_kernel());
        assert_eq!((kernel.gid, &kernel.script), (None, &None));
        assert_eq!(apps.app(&Identity::default()).name, "unknown");
    }

    /// In a container the same path is another file.
    #[test]
    fn a_package_is_of_the_file_and_not_of_its_path() {
        let (root, exe) = system();
        let hierarchy = Hierarchy::at("/nowhere".into());
        let mut apps = apps(root.path(), &exe, &hierarchy);
        let mut other = identity(&exe);
        other.executable.inode += 1;
        assert_eq!(apps.app(&other).package, None);
        assert!(apps.app(&identity(&exe)).package.is_some());
    }

    #[test]
    fn an_app_is_looked_at_once() {
        let (root, exe) = system();
        let hierarchy = Hierarchy::at("/nowhere".into());
        let looked = Rc::new(Cell::new(0));
        let count = Rc::clone(&looked);
        let executables = Paths::of(move |_: FileId| {
            count.set(count.get() + 1);
            None
        });
        let (scripts, cgroups) = (Paths::of(|_| None), Paths::of(|_| None));
        let mut apps = Apps::of(executables, scripts, cgroups, &hierarchy, root.path());
        let one = Identity { cgroup: 0, ..identity(&exe) };
        assert!(Arc::ptr_eq(&apps.app(&one), &apps.app(&one)));
        assert_eq!(looked.get(), 1);
        // The number of a process is given to another.
        for other in [Identity { started: 2, ..one }, Identity { uid: 0, ..one }] {
            assert!(!Arc::ptr_eq(&apps.app(&one), &apps.app(&other)));
        }
        assert_eq!(looked.get(), 3);
        for started in 0..MAX_KNOWN as u64 + 7 {
            apps.app(&Identity { started, kind: app::KERNEL, ..Identity::default() });
            assert!(apps.known.len() <= MAX_KNOWN);
        }
        let start = std::time::Instant::now();
        for _ in 0..100_000 {
            std::hint::black_box(apps.app(&one));
        }
        println!("a known app: {:?}", start.elapsed() / 100_000);
    }
}
