//! Attaching the programs to a cgroup, each by a link that can be pinned.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{load, load::Loaded, sys};

/// A program and where in a cgroup it goes.
struct Hook {
    program: &'static str,
    /// Of the kernel's `enum bpf_attach_type`.
    attach_type: u32,
}

/// In the order of attaching: the authority first, so that nothing is half attached and open.
const HOOKS: [Hook; 9] = [
    Hook { program: "egress", attach_type: 1 },
    Hook { program: "sock_create", attach_type: 2 },
    Hook { program: "tcp_event", attach_type: 3 },
    Hook { program: "connect4", attach_type: 10 },
    Hook { program: "connect6", attach_type: 11 },
    Hook { program: "sendmsg4", attach_type: 14 },
    Hook { program: "sendmsg6", attach_type: 15 },
    Hook { program: "setsockopt", attach_type: 22 },
    Hook { program: "sock_release", attach_type: 34 },
];

/// Why the programs are not attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object lacks a program.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// The kernel refused a link.
    #[error("cannot attach `{program}`: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A link could not be pinned.
    #[error("cannot pin the link of `{program}` at {path}: {source}")]
    Pin {
        /// The program.
        program: &'static str,
        /// Where to.
        path: String,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Attached programs: they hold until this and every pin of it is gone.
#[derive(Debug)]
pub struct Attached {
    links: Vec<(&'static str, OwnedFd)>,
}

/// Attaches every program to `cgroup` and the one that follows execs.
pub fn attach(loaded: &Loaded, cgroup: BorrowedFd<'_>) -> Result<Attached, Error> {
    let mut links = Vec::with_capacity(HOOKS.len() + 1);
    for Hook { program, attach_type } in HOOKS {
        let link = sys::link_cgroup(loaded.program(program)?, cgroup, attach_type)
            .map_err(|source| Error::Attach { program, source })?;
        links.push((program, link));
    }
    let program = "exec_path";
    let link = sys::open_raw_tracepoint(loaded.program(program)?, c"sched_process_exec")
        .map_err(|source| Error::Attach { program, source })?;
    links.push((program, link));
    Ok(Attached { links })
}

impl Attached {
    /// Pins every link in `directory`, which lies in a bpf file system.
    pub fn pin(&self, directory: &Path) -> Result<(), Error> {
        for (program, link) in &self.links {
            let path = directory.join(program);
            sys::pin(link.as_fd(), &path).map_err(|source| Error::Pin {
                program,
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }
}
