//! Attaching the programs to a cgroup, each by a link that can be pinned.
//!
//! A link keeps its program, and a program its maps. What a map of programs holds, though, the kernel
//! takes out of it when no descriptor and no pin of the map is left, so that is held and pinned too.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

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
    /// What is pinned belongs to another cgroup.
    #[error(
        "the programs pinned in {} enforce on another cgroup (inode {cgroup})\n\n\
         hint: `firewall off` removes them", path.display()
    )]
    Elsewhere {
        /// Where the pins are.
        path: PathBuf,
        /// Inode number of the cgroup's directory.
        cgroup: u64,
    },
    /// A link or the map of programs could not be pinned.
    #[error("cannot pin `{name}` at {path}: {source}")]
    Pin {
        /// The program or map.
        name: String,
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

/// What became of links that were pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Links that hold other programs now.
    pub adopted: usize,
    /// Links that were not there.
    pub attached: usize,
    /// Programs whose pinned link was not what it should be; it was replaced.
    pub replaced: Vec<String>,
    /// Links of other versions that are gone since these are there.
    pub removed: usize,
}

/// Puts the programs in the place of those that links pinned in `directory` hold. What is missing
/// there is attached and pinned. At no moment is a hook without a program that had one.
pub fn take_over(
    loaded: &Loaded,
    cgroup: BorrowedFd<'_>,
    directory: &Path,
) -> Result<Taken, Error> {
    let id = File::from(cgroup.try_clone_to_owned().map_err(Error::Hold)?);
    let id = id.metadata().map_err(Error::Hold)?.ino();
    let mut pinned = Vec::new();
    for Hook { program, attach_type } in HOOKS {
        let link = sys::get(&directory.join(program)).ok();
        let info = link.as_ref().and_then(|link| sys::link_info(link.as_fd()).ok());
        if let Some(info) = info
            && info.kind == sys::LINK_TO_CGROUP
            && info.cgroup != 0
            && info.cgroup != id
        {
            return Err(Error::Elsewhere { path: directory.to_owned(), cgroup: info.cgroup });
        }
        let fits = info.is_some_and(|info| {
            (info.kind, info.cgroup, info.attach_type) == (sys::LINK_TO_CGROUP, id, attach_type)
        });
        pinned.push((link, fits));
    }
    tell::own_root(loaded)?;
    let mut taken = Taken::default();
    for (Hook { program, attach_type }, (link, fits)) in HOOKS.into_iter().zip(pinned) {
        let refused = |source| Error::Attach { program, source };
        let new = loaded.program(program)?;
        match link {
            Some(link) if fits => {
                sys::update_link(link.as_fd(), new).map_err(refused)?;
                taken.adopted += 1;
                continue;
            }
            Some(_) => taken.replaced.push(program.to_owned()),
            None => taken.attached += 1,
        }
        let link = sys::link_cgroup(new, cgroup, attach_type).map_err(refused)?;
        pin_over(program, &link, directory)?;
    }
    for (program, tracepoint) in TRACEPOINTS {
        // The kernel changes no program of these; to run twice for a moment does no harm.
        let link = sys::open_raw_tracepoint(loaded.program(program)?, tracepoint)
            .map_err(|source| Error::Attach { program, source })?;
        pin_over(program, &link, directory)?;
    }
    Ok(taken)
}

/// Pins a link in the place of what may be pinned there.
pub fn pin_over(name: &str, link: &OwnedFd, directory: &Path) -> Result<(), Error> {
    let path = directory.join(name);
    let beside = directory.join(format!("{name}-new"));
    // Left by somebody who was killed.
    let _ = fs::remove_file(&beside);
    sys::pin(link.as_fd(), &beside).and_then(|()| fs::rename(&beside, &path)).map_err(|source| {
        Error::Pin { name: name.to_owned(), path: path.display().to_string(), source }
    })
}

/// Whether each program is attached by what is pinned in `directory`.
pub fn attached(directory: &Path) -> Vec<(&'static str, bool)> {
    let cgroup = HOOKS.iter().map(|hook| hook.program);
    let tracepoints = TRACEPOINTS.iter().map(|(program, _)| *program);
    cgroup
        .map(|program| {
            let info =
                sys::get(&directory.join(program)).and_then(|link| sys::link_info(link.as_fd()));
            (program, info.is_ok_and(|info| info.cgroup != 0))
        })
        .chain(tracepoints.map(|program| (program, sys::get(&directory.join(program)).is_ok())))
        .collect()
}

impl Attached {
    /// Pins all that holds the programs in `directory`, which lies in a bpf file system.
    pub fn pin(&self, directory: &Path) -> Result<(), Error> {
        for (name, fd) in &self.held {
            let path = directory.join(name);
            sys::pin(fd.as_fd(), &path).map_err(|source| Error::Pin {
                name: (*name).to_owned(),
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }
}
