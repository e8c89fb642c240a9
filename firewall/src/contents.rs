//! What stands in a file.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use crate::remote::digest;

/// The bytes of a file. Clones have them together, and what is known of them.
#[derive(Clone, Default)]
pub struct Contents(Arc<Shared>);

#[derive(Default)]
struct Shared {
    bytes: Vec<u8>,
    sha256: OnceLock<String>,
}

impl Contents {
    /// Their SHA-256 in lower-case hexadecimal, taken when it is first asked for.
    pub fn sha256(&self) -> &str {
        self.0.sha256.get_or_init(|| digest(&self.0.bytes))
    }
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Shared { bytes, sha256: OnceLock::new() }))
    }
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Contents {}

/// A list is no help in a message.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents({} bytes)", self.len())
    }
}
