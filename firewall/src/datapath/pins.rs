//! Pins of the service: what goes on enforcing when nothing of the firewall runs, and what the next
//! daemon goes on with.
//!
//! ```text
//! PIN/v9/links/egress …   links to the cgroup and to tracepoints; they keep the programs
//! PIN/v9/maps/SOCKETS …   all maps
//! PIN/v9/maps/notes       the seed of the programs, and what was told of losses: user space's own
//! ```
//!
//! 9 stands for [`ABI_VERSION`]: what another build would misread is never opened.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData, MapError};
use aya_obj::generated::bpf_map_type;
use firewall_common::{flow::SEEDS, layout::ABI_VERSION};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{FsType, statfs},
    unistd::{User, geteuid},
};
use rustix::fs::{FlockOperation, flock};

use super::sys;

/// Where they are, if nothing else is asked for.
pub const PINS: &str = "/sys/fs/bpf/firewall";
/// Where systemd and bpftool mount the bpf file system.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The user that the unit starts the daemon as.
const SERVICE: &str = "firewall";
/// `BPF_FS_MAGIC`
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// How long a daemon that ends may keep the pins from the next one: on a machine that is busy, one that was
/// killed takes seconds to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// After which it is said what is waited for.
const IN_SILENCE: Duration = Duration::from_secs(1);

/// Why the pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the file system.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Who has the folder can take pins away.
    #[error("{} belongs to user {owner}, who could take pins away\n\nhint: remove it, or name another folder with --pin", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Nothing can be pinned there.
    #[error("{} is in no bpf file system\n\nhint: `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`, and name a folder in it with --pin", .0.display())]
    NoBpf(PathBuf),
    /// Another daemon runs.
    #[error("another daemon has the pins in {}\n\nhint: `firewall status` shows it, `firewall off` ends it", .0.display())]
    Taken(PathBuf),
    /// A map is not of this build.
    #[error("the map pinned at {} is not what it should be: {what}\n\nhint: `firewall off` removes what is pinned; then start again", path.display())]
    Layout {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The object cannot be read.
    #[error("the embedded object cannot be read: {0}")]
    Object(String),
    /// The notes cannot be used.
    #[error("cannot keep notes beside the maps: {0}")]
    Notes(#[from] MapError),
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::File { what, path: path.to_owned(), source }
}

/// Where the links of this version are pinned.
pub fn links(root: &Path) -> PathBuf {
    root.join(format!("v{ABI_VERSION}")).join("links")
}

/// The pins of one version in a folder that nobody else has at the time.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    version: u32,
    /// A bpf file system was mounted for it.
    pub mounted: bool,
    /// Nobody else has them as long as this is open, here or in a child.
    _lock: File,
}

impl Pins {
    /// Opens the folder, which is made if it is not there, and keeps other daemons from it.
    ///
    /// `say` is told what is waited for.
    pub fn open(root: &Path, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        Self::of_version(root, ABI_VERSION, say)
    }

    /// As if the layout of all that is shared were of that version.
    pub fn of_version(root: &Path, version: u32, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let mounted = ensure_bpf(root)?;
        make(root)?;
        check_owner(root)?;
        let lock = lock(root, say)?;
        let pins = Self { root: root.to_owned(), version, mounted, _lock: lock };
        make(&pins.links())?;
        make(&pins.maps())?;
        Ok(pins)
    }

    fn directory(&self) -> PathBuf {
        self.root.join(format!("v{}", self.version))
    }

    /// Where the links are.
    pub fn links(&self) -> PathBuf {
        self.directory().join("links")
    }

    /// Where the maps are.
    pub fn maps(&self) -> PathBuf {
        self.directory().join("maps")
    }

    /// Checks the maps that are pinned already against those that `object` asks for. Returns whether
    /// there are some.
    pub fn check(&self, object: &[u8]) -> Result<bool, Error> {
        let object =
            aya_obj::Object::parse(object).map_err(|error| Error::Object(error.to_string()))?;
        let mut found = false;
        for (name, wanted) in &object.maps {
            let path = self.maps().join(name);
            if !path.exists() {
                continue;
            }
            let wrong = |what| Error::Layout { path: path.clone(), what };
            let info = MapData::from_pin(&path)
                .and_then(|map| map.info())
                .map_err(|error| wrong(error.to_string()))?;
            let kind = info.map_type().map_or(0, |kind| kind as u32);
            let is = [kind, info.key_size(), info.value_size(), info.max_entries()];
            let want =
                [wanted.map_type(), wanted.key_size(), wanted.value_size(), wanted.max_entries()];
            if is != want {
                return Err(wrong(format!(
                    "type, sizes of key and value, and entries are {is:?}, not {want:?}"
                )));
            }
            found = true;
        }
        Ok(found)
    }

    /// The maps that are pinned, by their names.
    pub fn held(&self) -> Result<Vec<(String, OwnedFd)>, Error> {
        let mut held = Vec::new();
        for path in files(&self.maps())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            held.push((name, sys::get(&path).map_err(failed("open", &path))?));
        }
        Ok(held)
    }

    /// Takes away what other versions have pinned, which stops its enforcing.
    pub fn remove_others(&self) -> Result<Removed, Error> {
        let own = self.directory();
        let others = versions(&self.root)?.into_iter().filter(|directory| *directory != own);
        remove_versions(others)
    }

    /// Takes away what is pinned, in any version.
    pub fn remove(&self) -> Result<Removed, Error> {
        remove_versions(versions(&self.root)?)
    }

    /// What user space keeps with the maps.
    pub fn notes(&self) -> Result<Notes, Error> {
        Notes::handed(self.notes_fd()?)
    }

    /// The map of [`Self::notes`].
    pub fn notes_fd(&self) -> Result<OwnedFd, Error> {
        let path = self.maps().join("notes");
        if path.exists() {
            return sys::get(&path).map_err(failed("open", &path));
        }
        let map = aya_obj::Map::new_from_params(
            bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            size_of::<u32>() as u32,
            size_of::<u64>() as u32,
            (SEED + SEEDS) as u32,
            0,
        );
        let map = MapData::create(map, "notes", None)?;
        sys::pin(map.fd().as_fd(), &path).map_err(failed("pin the notes at", &path))?;
        map.fd().as_fd().try_clone_to_owned().map_err(failed("hold", &path))
    }
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Links: each had a program attached.
    pub links: usize,
    /// Maps.
    pub maps: usize,
}

/// Takes away what a daemon that is gone has pinned below `root`, and what enforces with it.
pub fn remove(root: &Path, say: &mut dyn FnMut(&str)) -> Result<Removed, Error> {
    // Who may not look knows nothing.
    if !root.try_exists().map_err(failed("look at", root))? {
        return Ok(Removed::default());
    }
    let _lock = lock(root, say)?;
    remove_versions(versions(root)?)
}

/// Numbers that user space keeps with the maps.
pub struct Notes(Array<MapData, u64>);

/// Place of the losses that were told.
const TOLD: usize = 0;
/// Place of the first number of the seed.
const SEED: usize = 1;

impl Notes {
    /// The seed that the pinned maps were filled by; `None` if no programs were loaded yet.
    pub fn seed(&self) -> Result<Option<[u64; SEEDS]>, Error> {
        let mut seed = [0; SEEDS];
        for (place, number) in seed.iter_mut().enumerate() {
            *number = self.0.get(&((SEED + place) as u32), 0)?;
        }
        Ok((seed != [0; SEEDS]).then_some(seed))
    }

    /// The notes of maps that were handed over.
    pub fn handed(map: OwnedFd) -> Result<Self, Error> {
        Ok(Self(Array::try_from(aya::maps::Map::Array(MapData::from_fd(map)?))?))
    }

    /// Keeps the seed.
    pub fn keep_seed(&mut self, seed: &[u64; SEEDS]) -> Result<(), Error> {
        for (place, number) in seed.iter().enumerate() {
            self.0.set((SEED + place) as u32, *number, 0)?;
        }
        Ok(())
    }

    /// Lost events that were told of.
    pub fn told(&self) -> Result<u64, Error> {
        Ok(self.0.get(&(TOLD as u32), 0)?)
    }

    /// So many lost events were told of.
    pub fn keep_told(&mut self, count: u64) -> Result<(), Error> {
        Ok(self.0.set(TOLD as u32, count, 0)?)
    }
}

fn make(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("make", path))
}

/// Mounts the bpf file system where it is looked for first. Returns whether that was necessary.
fn ensure_bpf(root: &Path) -> Result<bool, Error> {
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let kind = statfs(there).map_err(|errno| failed("look at", there)(errno.into()))?;
    if kind.filesystem_type() == BPF_FS {
        return Ok(false);
    }
    if !root.starts_with(BPFFS) {
        return Err(Error::NoBpf(root.to_owned()));
    }
    mount_bpf().map_err(failed("mount a bpf file system at", Path::new(BPFFS)))?;
    Ok(true)
}

/// Mounts a bpf file system at [`BPFFS`], in the mount namespace of the thread.
pub fn mount_bpf() -> io::Result<()> {
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    Ok(())
}

/// A user's own folder holds nothing: the user can rename what is in it.
fn check_owner(root: &Path) -> Result<(), Error> {
    let owner = fs::metadata(root).map_err(failed("look at", root))?.uid();
    let service = || User::from_name(SERVICE).ok().flatten().map(|user| user.uid.as_raw());
    if [0, geteuid().as_raw()].contains(&owner) || service() == Some(owner) {
        return Ok(());
    }
    Err(Error::Owner { path: root.to_owned(), owner })
}

fn lock(root: &Path, say: &mut dyn FnMut(&str)) -> Result<File, Error> {
    let file = File::open(root).map_err(failed("open", root))?;
    let begun = Instant::now();
    let mut said = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => {
                if !said && begun.elapsed() > IN_SILENCE {
                    said = true;
                    say(&format!("another daemon has the pins in {}: waiting", root.display()));
                }
                thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Taken(root.to_owned())),
            Err(errno) => return Err(failed("lock", root)(errno.into())),
        }
    }
}

/// The folders of all versions.
fn versions(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed("read", root))? {
        let path = entry.map_err(failed("read", root))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok()) {
            found.push(path);
        }
    }
    Ok(found)
}

fn remove_versions(directories: impl IntoIterator<Item = PathBuf>) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    for directory in directories {
        let Removed { links, maps } = remove_version(&directory)?;
        removed.links += links;
        removed.maps += maps;
    }
    Ok(removed)
}

/// Takes away the pins of a version, links first.
fn remove_version(directory: &Path) -> Result<Removed, Error> {
    let links = directory.join("links");
    let mut removed = Removed::default();
    for path in files(&links)? {
        // One to a tracepoint cannot be detached; it is gone when nobody holds it.
        if let Ok(link) = sys::get(&path) {
            let _ = sys::detach(link.as_fd());
        }
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        removed.links += 1;
    }
    let maps = directory.join("maps");
    for path in files(&maps)? {
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        removed.maps += 1;
    }
    for directory in [&links, &maps, &directory.to_owned()] {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", directory)(error));
            }
            _ => {}
        }
    }
    Ok(removed)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", directory)(error)),
    }
}
