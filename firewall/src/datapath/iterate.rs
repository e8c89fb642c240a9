//! Programs that are run by hand over what the kernel has of a kind. Reading the file that a way
//! through is runs the program once, in whoever reads.

use aya::{
    Btf, BtfError,
    programs::{Iter, ProgramError},
};

use super::load::{self, Loaded};

/// A program and what it goes through.
struct Iterator {
    program: &'static str,
    kind: &'static str,
    what: &'static str,
}

/// Goes through open files.
pub const OPEN_FILES: &str = "open_files";
/// Goes through sockets.
pub const MOVED_BYTES: &str = "moved_bytes";

const ITERATORS: [Iterator; 2] = [
    Iterator { program: OPEN_FILES, kind: "task_file", what: "open files" },
    Iterator { program: MOVED_BYTES, kind: "bpf_sk_storage_map", what: "bytes of open flows" },
];

/// Why none can be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object lacks the program.
    #[error(transparent)]
    Missing(#[from] load::Error),
    /// The kernel does not have it.
    #[error("this kernel cannot be asked for {what} (BPF iterator `{kind}`): {source}")]
    Kernel {
        /// What is looked at.
        what: &'static str,
        /// The kernel's name for it.
        kind: &'static str,
        /// What the kernel says.
        source: ProgramError,
    },
    /// It is no iterator.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Its types cannot be read.
    #[error("cannot read the kernel's type information: {0}")]
    Btf(#[from] BtfError),
}

/// Loads them all, which only those need who run one: it takes all of the kernel's types.
pub fn load(loaded: &mut Loaded) -> Result<(), Error> {
    let mut btf = None;
    for Iterator { program: name, kind, what } in ITERATORS {
        let program = program(loaded, name)?;
        if program.fd().is_err() {
            let btf = match &btf {
                Some(btf) => btf,
                None => btf.insert(Btf::from_sys_fs()?),
            };
            program.load(kind, btf).map_err(|source| Error::Kernel { what, kind, source })?;
        }
    }
    Ok(())
}

/// One of them.
pub fn program<'a>(loaded: &'a mut Loaded, name: &'static str) -> Result<&'a mut Iter, Error> {
    let program = loaded.ebpf.program_mut(name).ok_or(load::Error::Missing(name))?;
    Ok(program.try_into()?)
}
