//! The key that the ends of the chain are signed with, in a folder apart from the store.
//!
//! ```text
//! audit.key   PKCS #8, Ed25519: read by the keeper alone
//! audit.pub   the public key, 32 bytes in hexadecimal digits
//! head.json   the last head that was stored
//! ```

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};

use super::chain::Head;
use crate::{regular, replace::replace};

const PRIVATE: &str = "audit.key";
const PUBLIC: &str = "audit.pub";
const HEAD: &str = "head.json";

/// Bytes of the largest of the files.
const LARGEST: u64 = 1 << 20;

/// Where the key of a state folder is.
pub fn folder(state: &Path) -> PathBuf {
    let mut name = OsString::from(state);
    name.push("-key");
    name.into()
}

/// Signs.
pub struct Key {
    folder: PathBuf,
    pair: Ed25519KeyPair,
}

impl Key {
    /// Reads the key in a folder, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// When it can be neither read nor made, or is damaged.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(PRIVATE);
        let document = match regular::read(&path, LARGEST) {
            Ok(document) => document,
            Err(error) if error.kind() == ErrorKind::NotFound => make(folder, &path)?,
            Err(error) => return Err(error),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&document).map_err(|error| {
            let name = path.display();
            io::Error::new(ErrorKind::InvalidData, format!("{name} is no key: {error}"))
        })?;
        let key = Self { folder: folder.to_owned(), pair };
        let public = format!("{}\n", hex(key.public()));
        if fs::read_to_string(folder.join(PUBLIC)).is_ok_and(|text| text == public) {
            return Ok(key);
        }
        key.put(PUBLIC, public.as_bytes())?;
        Ok(key)
    }

    /// The public key.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The signature of a head.
    pub fn sign(&self, head: &Head) -> Vec<u8> {
        self.pair.sign(&head.sealed()).as_ref().to_vec()
    }

    /// Notes the last head that was stored, so that a store cannot be put back to an older one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn note(&self, head: &Head) -> io::Result<()> {
        self.put(HEAD, &serde_json::to_vec(head)?)
    }

    /// The last head that was noted.
    pub fn noted(&self) -> Option<Head> {
        serde_json::from_slice(&regular::read(&self.folder.join(HEAD), LARGEST).ok()?).ok()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace(&self.folder.join(name), 0o640, &[bytes])
    }
}

fn make(folder: &Path, path: &Path) -> io::Result<Vec<u8>> {
    match DirBuilder::new().mode(0o750).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    // Not even its owner may read it: the worker has the same user, and the keeper may read all.
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o000);
    let mut file = regular::open_with(&mut options, path)?;
    file.write_all(document.as_ref())?;
    file.sync_all()?;
    Ok(document.as_ref().to_vec())
}

/// What is known of the key apart from the store.
#[derive(Clone, Debug)]
pub struct Known {
    /// The public key.
    pub public: Vec<u8>,
    /// The last head that was stored; `None` if none was ever noted.
    pub head: Option<Head>,
}

impl Known {
    /// Reads it from a folder, or from the file of a public key.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub fn read(place: &Path) -> io::Result<Self> {
        let is_folder = place.is_dir();
        let path = if is_folder { place.join(PUBLIC) } else { place.to_owned() };
        let text = String::from_utf8(regular::read(&path, LARGEST)?).unwrap_or_default();
        let public = unhex(text.trim())
            .filter(|key| key.len() == 32)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it is no public key"))?;
        let head = match is_folder {
            true => match regular::read(&place.join(HEAD), LARGEST) {
                Ok(text) => Some(serde_json::from_slice(&text)?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
            false => None,
        };
        Ok(Self { public, head })
    }

    /// Whether a signature of a head is by this key.
    pub fn has_signed(&self, head: &Head, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(&head.sealed(), signature).is_ok()
    }

    /// The public key in hexadecimal digits.
    pub fn shown(&self) -> String {
        hex(&self.public)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into a text nothing fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect())?
}
