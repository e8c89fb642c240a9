//! What a generation was compiled from.
//!
//! It is recorded while it is read, so that the same can be compiled again when the files have changed or
//! are broken, or after a start, before there is a network. What is kept is everything that decides the
//! outcome but the databases of countries and owners, of which path and digest are kept.
//!
//! One file: a line of JSON with the format, and length and SHA-256 of the JSON that follows; and behind that what
//! files had that were read, of which the JSON has length and SHA-256. All of it is compressed with zstd, what each
//! file had in a frame of its own: so it can be taken over from one file of inputs into the next. What is
//! damaged is never used.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use firewall_common::name_table::Keys;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    apps::digest::Digests,
    cache::Cache,
    config::{self, Config},
    contents::Contents,
    policy::{
        Moment,
        source::{Content, Files, Origin, Source},
    },
    regular,
    remote::{Attempts, Head, Kept, KeptCopy, Remote, digest},
    replace::replace,
    set::{self, Parts, Set},
};

/// Name of the file in the state folder that has the inputs of the generation that runs.
pub const GENERATION: &str = "generation";

/// Version of the format.
const FORMAT: u32 = 2;
/// The one before: what files had stands in the JSON.
const FORMER: u32 = 1;

/// More than the line before the inputs ever has.
const LONGEST_HEAD: u64 = 1 << 10;

/// More than inputs ever are.
const LARGEST: u64 = 1 << 30;

/// Of zstd: what is quick.
const LEVEL: i32 = 3;

/// Everything that a generation was compiled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// `firewall.toml`; none if there is none.
    settings: Option<(PathBuf, Bytes)>,
    policies: Vec<Policy>,
    /// The resolvers of the system.
    resolvers: Vec<(IpAddr, u16)>,
    /// Databases of countries and owners, by their SHA-256.
    databases: BTreeMap<PathBuf, String>,
    read: Read,
}

/// The text of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Policy {
    origin: PolicyOrigin,
    text: String,
}

/// As [`Origin`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PolicyOrigin {
    Shipped(String),
    File(PathBuf),
}

/// What was read besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Read {
    files: BTreeMap<PathBuf, Had>,
    /// What is behind links.
    real: BTreeMap<PathBuf, PathBuf>,
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
    /// When it was compiled; none by a version that knew no rules for a time.
    #[serde(default)]
    moment: Option<Moment>,
    /// Lists by URL, by the keys that they are kept under.
    kept: BTreeMap<String, KeptList>,
}

/// What was kept of a list by URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptList {
    copy: Result<Option<(Head, Had)>, String>,
    attempts: Attempts,
    now: Timestamp,
}

/// What a file had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
enum Had {
    Here(Contents),
    /// It stands behind, and is not read yet.
    Behind(Behind),
}

/// What a file had, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Behind(Behind),
    /// By [`FORMER`].
    Here(Bytes),
}

/// What stands behind the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Behind {
    bytes: u64,
    sha256: String,
}

/// What a file has, which nearly always is text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Other(Vec<u8>),
}

/// Where in a file of inputs stands what files had, by its SHA-256.
#[derive(Debug, Default)]
pub struct Packed(HashMap<String, Frame>);

/// What a file had, compressed.
#[derive(Clone, Debug)]
struct Frame {
    at: u64,
    bytes: usize,
    /// As it is compressed.
    sha256: String,
}

/// The line before the inputs.
#[derive(Serialize, Deserialize)]
struct FileHead {
    format: u32,
    bytes: u64,
    sha256: String,
}

/// Why there are no inputs, or nothing comes of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The policies, or what they need.
    #[error(transparent)]
    Set(#[from] set::Error),
    /// The file cannot be read; perhaps it is not there.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not as it was written, or of another version.
    #[error("{} is not used: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What was compiled once more.
pub struct Again {
    /// What holds.
    pub set: Set,
    /// In what it differs from the first time, for people.
    pub differs: Vec<String>,
}

impl Inputs {
    /// Reads and compiles, and records what was read: the settings that were named or those of this
    /// machine, `sources`, and what these name, from `files`.
    ///
    /// # Errors
    ///
    /// When anything is wrong with what was read.
    pub fn record(
        settings: Option<&Path>,
        sources: &[Source],
        files: &dyn Files,
        name_keys: Keys,
        cache: &Cache,
    ) -> Result<(Self, Set), Error> {
        let path = settings.unwrap_or(Path::new(config::CONFIG));
        let settings = config::read(settings)?.map(|bytes| (path.to_owned(), Bytes::from(bytes)));
        let policies = sources.iter().filter_map(Policy::of).collect();
        let mut inputs = Self {
            settings,
            policies,
            resolvers: config::system_resolvers(),
            databases: BTreeMap::new(),
            read: Read::default(),
        };
        let config = inputs.config()?;
        for path in config.geo.iter().chain(&config.asn) {
            let digest = Digests::default()
                .of(path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            inputs.databases.insert(path.clone(), digest);
        }
        let recorder = Recorder { files, read: RefCell::default() };
        let set = inputs.set(config, sources, &recorder, name_keys, cache)?;
        inputs.read = recorder.read.into_inner();
        Ok((inputs, set))
    }

    /// Compiles what was recorded. With the same secrets it is the same generation, unless a database of
    /// countries or owners is not the same any more.
    ///
    /// # Errors
    ///
    /// When this version finds something wrong with it.
    pub fn compile(&self, name_keys: Keys, cache: &Cache) -> Result<Again, Error> {
        let mut config = self.config()?;
        let mut differs = Vec::new();
        for place in [&mut config.geo, &mut config.asn] {
            let Some(path) = place else { continue };
            match Digests::default().of(path) {
                Ok(found) if self.databases.get(path) == Some(&found) => {}
                Ok(_) => differs.push(format!("{} is another database now", path.display())),
                Err(error) => {
                    let path = path.display();
                    differs.push(format!("the tables in the binary stand for {path}: {error}"));
                    *place = None;
                }
            }
        }
        let sources: Vec<Source> = self.policies.iter().map(Policy::source).collect();
        let set = self.set(config.clone(), &sources, &self.read, name_keys, cache);
        let set = match set {
            Err(set::Error::Intel(error)) if config.geo.is_some() || config.asn.is_some() => {
                differs.push(format!("the tables in the binary are used: {error}"));
                config = Config { geo: None, asn: None, ..config };
                self.set(config, &sources, &self.read, name_keys, cache)
            }
            other => other,
        }?;
        Ok(Again { set, differs })
    }

    /// The same without the rules whose time is over at this moment.
    pub fn at(mut self, moment: Option<Moment>) -> Self {
        self.read.moment = moment;
        self
    }

    /// Whether policies and rules have the same names.
    pub fn names_the_same(&self, other: &Self) -> bool {
        self.policies == other.policies
    }

    fn config(&self) -> Result<Config, config::Error> {
        match &self.settings {
            Some((path, bytes)) => Config::of(path, bytes.to_vec()),
            None => Ok(Config::default()),
        }
    }

    fn set(
        &self,
        config: Config,
        sources: &[Source],
        files: &dyn Files,
        name_keys: Keys,
        cache: &Cache,
    ) -> Result<Set, set::Error> {
        let parts = Parts {
            settings: config.settings(name_keys, self.resolvers.clone()),
            organisations: set::organisations(&config, files)?,
            config,
            first: None,
            sources,
            files,
        };
        Set::compile_with(cache, parts)
    }

    /// Writes them to a file, whole or not at all. What is there becomes [`previous`].
    ///
    /// # Errors
    ///
    /// When they cannot be written: then what is there stays.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        self.stage(path, &mut Packed::default())?;
        commit(path)
    }

    /// Keeps them beside `path` until their generation decides: who is killed in between leaves what
    /// the names in the kernel can be found by. What `packed` says of the file at `path` is taken over from
    /// there; afterwards it says what is staged.
    ///
    /// # Errors
    ///
    /// When they cannot be written: then what is there stays.
    pub fn stage(&self, path: &Path, packed: &mut Packed) -> io::Result<()> {
        let (parts, now) = self.pack(|contents| packed.frame(path, contents.sha256()))?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        // They have what only some may read, such as lists of those who run this.
        replace(&staged(path), 0o600, &parts)?;
        *packed = now;
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    ///
    /// When they cannot be written as text.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        Ok(self.pack(|_| None)?.0.concat())
    }

    /// The parts of the file, and where in it stands what files had. `known` has what is compressed already.
    fn pack(
        &self,
        known: impl Fn(&Contents) -> Option<(Vec<u8>, String)>,
    ) -> io::Result<(Vec<Vec<u8>>, Packed)> {
        let inputs = serde_json::to_vec(self)?;
        let (bytes, sha256) = (inputs.len() as u64, digest(&inputs));
        let head = FileHead { format: FORMAT, bytes, sha256 };
        let mut file = zstd::Encoder::new(Vec::new(), LEVEL)?;
        serde_json::to_writer(&mut file, &head)?;
        file.write_all(b"\n")?;
        file.write_all(&inputs)?;
        let first = file.finish()?;
        let mut at = first.len() as u64;
        let mut parts = vec![first];
        let mut packed = Packed::default();
        for contents in self.read.had().filter_map(Had::contents) {
            if packed.0.contains_key(contents.sha256()) {
                continue;
            }
            let (frame, sha256) = match known(&contents) {
                Some(known) => known,
                None => {
                    let frame = zstd::bulk::compress(&contents, LEVEL)?;
                    let sha256 = digest(&frame);
                    (frame, sha256)
                }
            };
            let place = Frame { at, bytes: frame.len(), sha256 };
            packed.0.insert(contents.sha256().to_owned(), place);
            at += frame.len() as u64;
            parts.push(frame);
        }
        Ok((parts, packed))
    }

    /// Reads them back.
    ///
    /// # Errors
    ///
    /// When there are none, or they are not to be used.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unread = |source| Error::Read { path: path.to_owned(), source };
        Self::of(path, regular::open(path).map_err(unread)?)
    }

    /// Reads them from the content of the file at `path`.
    ///
    /// # Errors
    ///
    /// When they are not to be used.
    pub fn of(path: &Path, file: impl io::Read) -> Result<Self, Error> {
        let unread = |source| Error::Read { path: path.to_owned(), source };
        let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
        let broken = |error: io::Error| damaged(format!("it is damaged: {error}"));
        let mut file = BufReader::new(zstd::Decoder::new(file).map_err(unread)?);
        let mut line = Vec::new();
        file.by_ref().take(LONGEST_HEAD).read_until(b'\n', &mut line).map_err(broken)?;
        let head: FileHead = serde_json::from_slice(&line)
            .map_err(|error| damaged(format!("it is damaged: its first line: {error}")))?;
        if ![FORMER, FORMAT].contains(&head.format) {
            let format = head.format;
            return Err(damaged(format!("its format is {format}, and this reads {FORMAT}")));
        }
        let mut left = LARGEST;
        let mut next = |bytes: u64, sha256: &str| {
            left = left.checked_sub(bytes).ok_or_else(|| {
                damaged(format!("it is damaged: it says that it has {bytes} bytes"))
            })?;
            let mut read = Vec::new();
            file.by_ref().take(bytes).read_to_end(&mut read).map_err(broken)?;
            let read = Contents::from(read);
            if read.len() as u64 != bytes || read.sha256() != sha256 {
                return Err(damaged("it is damaged: its SHA-256 is another".to_owned()));
            }
            Ok(read)
        };
        let mut inputs: Self = serde_json::from_slice(&next(head.bytes, &head.sha256)?)
            .map_err(|error| damaged(error.to_string()))?;
        let mut found: HashMap<String, Contents> = HashMap::new();
        for had in inputs.read.had_mut() {
            let Had::Behind(Behind { bytes, sha256 }) = had else { continue };
            let contents = match found.get(sha256) {
                Some(contents) => contents.clone(),
                None => next(*bytes, sha256)?,
            };
            found.insert(sha256.clone(), contents.clone());
            *had = Had::Here(contents);
        }
        match file.read(&mut [0]).map_err(broken)? {
            0 => Ok(inputs),
            _ => Err(damaged("it is damaged: there is more in it".to_owned())),
        }
    }
}

impl Packed {
    /// What was compressed in the file at `path`, and the SHA-256 of that, if it is still there and as it was.
    fn frame(&self, path: &Path, sha256: &str) -> Option<(Vec<u8>, String)> {
        let Frame { at, bytes, sha256 } = self.0.get(sha256)?;
        let mut frame = vec![0; *bytes];
        regular::open(path).ok()?.read_exact_at(&mut frame, *at).ok()?;
        (digest(&frame) == *sha256).then(|| (frame, sha256.clone()))
    }
}

/// The path of the inputs that were saved before those at `path`.
pub fn previous(path: &Path) -> PathBuf {
    path.with_added_extension("previous")
}

/// The path of inputs whose generation may not decide yet.
pub fn staged(path: &Path) -> PathBuf {
    path.with_added_extension("next")
}

/// Puts inputs that are kept beside `path` there: their generation decides.
///
/// # Errors
///
/// When the files cannot be renamed: then what is there stays.
pub fn commit(path: &Path) -> io::Result<()> {
    keep_previous(path)?;
    fs::rename(staged(path), path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Where those of the generation that decides could not be kept: what is at `path` is of the one before.
///
/// # Errors
///
/// When the file cannot be renamed: then nobody knows whose what is there is.
pub fn set_aside(path: &Path) -> io::Result<()> {
    remove(&staged(path))?;
    match fs::rename(path, previous(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => remove(&previous(path)),
        other => other,
    }
}

/// Gives what is there a second name, so that there is no moment without.
fn keep_previous(path: &Path) -> io::Result<()> {
    let previous = previous(path);
    let new = previous.with_added_extension("new");
    remove(&new)?;
    match fs::hard_link(path, &new) {
        Ok(()) => fs::rename(&new, &previous),
        // What is older yet is not what was before.
        Err(error) if error.kind() == ErrorKind::NotFound => remove(&previous),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Policy {
    /// None of what is no text: no generation comes of that.
    fn of(source: &Source) -> Option<Self> {
        let Content::Text(text) = &source.content else { return None };
        let origin = match &source.origin {
            Origin::Shipped(name) => PolicyOrigin::Shipped(name.clone().into_owned()),
            Origin::File(path) => PolicyOrigin::File(path.clone()),
        };
        Some(Self { origin, text: text.to_string() })
    }

    fn source(&self) -> Source {
        let origin = match &self.origin {
            PolicyOrigin::Shipped(name) => Origin::Shipped(name.clone().into()),
            PolicyOrigin::File(path) => Origin::File(path.clone()),
        };
        Source { origin, content: Content::Text(self.text.as_str().into()) }
    }
}

impl Bytes {
    fn to_vec(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Other(bytes) => bytes.clone(),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Other(error.into_bytes()), Self::Text)
    }
}

impl From<Written> for Had {
    fn from(written: Written) -> Self {
        match written {
            Written::Behind(behind) => Self::Behind(behind),
            Written::Here(bytes) => Self::Here(bytes.to_vec().into()),
        }
    }
}

impl From<Had> for Written {
    fn from(had: Had) -> Self {
        Self::Behind(match had {
            Had::Here(contents) => {
                Behind { bytes: contents.len() as u64, sha256: contents.sha256().to_owned() }
            }
            Had::Behind(behind) => behind,
        })
    }
}

impl Had {
    fn contents(&self) -> Option<Contents> {
        match self {
            Self::Here(contents) => Some(contents.clone()),
            Self::Behind(_) => None,
        }
    }
}

impl Read {
    /// What files had, in the order in which it is written.
    fn had(&self) -> impl Iterator<Item = &Had> {
        let kept = self.kept.values().filter_map(|kept| kept.copy.as_ref().ok()?.as_ref());
        self.files.values().chain(kept.map(|(_, had)| had))
    }

    fn had_mut(&mut self) -> impl Iterator<Item = &mut Had> {
        let kept = self.kept.values_mut().filter_map(|kept| kept.copy.as_mut().ok()?.as_mut());
        self.files.values_mut().chain(kept.map(|(_, had)| had))
    }
}

/// Files that are recorded while they are read.
struct Recorder<'a> {
    files: &'a dyn Files,
    read: RefCell<Read>,
}

// What cannot be read is an error of the policy that names it: no generation comes of it, and nothing is
// recorded. Only lists by URL may be missing.
impl Files for Recorder<'_> {
    fn read(&self, path: &Path) -> Result<Contents, String> {
        let contents = self.files.read(path)?;
        self.read.borrow_mut().files.insert(path.to_owned(), Had::Here(contents.clone()));
        Ok(contents)
    }

    fn real(&self, path: &Path) -> PathBuf {
        let real = self.files.real(path);
        self.read.borrow_mut().real.insert(path.to_owned(), real.clone());
        real
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        let user = self.files.user(name)?;
        self.read.borrow_mut().users.extend(user.map(|user| (name.to_owned(), user)));
        Ok(user)
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        let group = self.files.group(name)?;
        self.read.borrow_mut().groups.extend(group.map(|group| (name.to_owned(), group)));
        Ok(group)
    }

    fn moment(&self) -> Option<Moment> {
        let moment = self.files.moment();
        self.read.borrow_mut().moment.clone_from(&moment);
        moment
    }

    fn kept(&self, remote: &Remote) -> Kept {
        let kept = self.files.kept(remote);
        let Kept { copy, attempts, now } = kept.clone();
        let copy = copy.map(|copy| copy.map(|KeptCopy { head, bytes }| (head, Had::Here(bytes))));
        self.read.borrow_mut().kept.insert(remote.key(), KeptList { copy, attempts, now });
        kept
    }
}

impl Files for Read {
    fn read(&self, path: &Path) -> Result<Contents, String> {
        let found = self.files.get(path).and_then(Had::contents);
        found.ok_or_else(|| "it was not read when this was recorded".to_owned())
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.real.get(path).map_or(path, PathBuf::as_path).to_owned()
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        Ok(self.users.get(name).copied())
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Ok(self.groups.get(name).copied())
    }

    fn moment(&self) -> Option<Moment> {
        self.moment.clone()
    }

    fn kept(&self, remote: &Remote) -> Kept {
        let Some(kept) = self.kept.get(&remote.key()) else { return Kept::default() };
        let KeptList { copy, attempts, now } = kept.clone();
        let kept = |(head, had): (Head, Had)| Some(KeptCopy { head, bytes: had.contents()? });
        Kept { copy: copy.map(|copy| copy.and_then(kept)), attempts, now }
    }
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
