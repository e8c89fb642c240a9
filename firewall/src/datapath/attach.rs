//! Attaching the programs to a cgroup, each by a link that can be pinned.
//!
//! A link keeps its program, and a program its maps. What a map of programs holds, though, the kernel
//! takes out of it when no descriptor and no pin of the map is left, so that is held and pinned too.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{load, load::Loaded, sys, tell};

/// A program and where in a cgroup it goes.
struct Hook {
    program: &'static str,
    /// Of the kernel's `enum bpf_attach_type`.
    attach_type: u32,
}

/// In the order of attaching. What comes in is watched first: that refuses nothing, and an answer it
/// missed would leave an address without its name. Then the authority, so that nothing is half
/// attached and open.
const HOOKS: [Hook; 10] = [
    Hook { program: "ingress", attach_type: 0 },
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

/// Programs that follow processes.
const TRACEPOINTS: [(&str, &CStr); 2] =
    [("exec_path", c"sched_process_exec"), ("fork", c"sched_process_fork")];

/// Why the programs are not attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object lacks a program.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// The kernel was not told where the root directory is.
    #[error(transparent)]
    Tell(#[from] tell::Error),
    /// The kernel refused a link.
    #[error("cannot attach `{program}`: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// The map of programs could not be held.
    #[error("cannot hold the map of programs: {0}")]
    Hold(#[source] io::Error),
    /// A link or the map of programs could not be pinned.
    #[error("cannot pin `{name}` at {path}: {source}")]
    Pin {
        /// The program or map.
        name: &'static str,
        /// Where to.
        path: String,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Attached programs: they hold until this and every pin of it is gone.
#[derive(Debug)]
pub struct Attached {
    held: Vec<(&'static str, OwnedFd)>,
}

/// Attaches every program to `cgroup` and those that follow processes.
pub fn attach(loaded: &Loaded, cgroup: BorrowedFd<'_>) -> Result<Attached, Error> {
    tell::own_root(loaded)?;
    let jumps = loaded.jumps()?.try_clone_to_owned().map_err(Error::Hold)?;
    let mut held = vec![(load::JUMPS, jumps)];
    for Hook { program, attach_type } in HOOKS {
        let link = sys::link_cgroup(loaded.program(program)?, cgroup, attach_type)
            .map_err(|source| Error::Attach { program, source })?;
        held.push((program, link));
    }
    for (program, tracepoint) in TRACEPOINTS {
        let link = sys::open_raw_tracepoint(loaded.program(program)?, tracepoint)
            .map_err(|source| Error::Attach { program, source })?;
        held.push((program, link));
    }
    Ok(Attached { held })
}

impl Attached {
    /// Pins all that holds the programs in `directory`, which lies in a bpf file system.
    pub fn pin(&self, directory: &Path) -> Result<(), Error> {
        for (name, fd) in &self.held {
            let path = directory.join(name);
            sys::pin(fd.as_fd(), &path).map_err(|source| Error::Pin {
                name,
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }
}
