//! Who is on the other end of a Unix socket, and what they may do.

use std::{io, os::fd::AsRawFd as _};

use nix::unistd::{Group, Uid};
use tokio::net::UnixStream;

/// The group whose members may read.
pub const GROUP: &str = "firewall";

/// Groups that a process can be in (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// Who connected, as the kernel says: the process and its rights when it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process; 0 where it has no number here.
    pub pid: i32,
    uid: u32,
    /// The primary one first.
    groups: Vec<u32>,
}

/// What a peer may do. Each may do what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing.
    None,
    /// Ask.
    Read,
    /// Change what is in force.
    Change,
}

/// Who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The user that the daemon runs as: may read.
    pub own: u32,
    /// The group whose members may read; none where it does not exist.
    pub readers: Option<u32>,
}

impl Peer {
    /// Who connected to this socket.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn of(socket: &UnixStream) -> io::Result<Self> {
        let known = socket.peer_cred()?;
        let mut groups = vec![known.gid()];
        groups.extend(supplementary(socket.as_raw_fd())?);
        Ok(Self { pid: known.pid().unwrap_or(0), uid: known.uid(), groups })
    }
}

/// The groups of a peer beside its primary one.
fn supplementary(fd: i32) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(&groups[..])).unwrap_or_default();
        // SAFETY: the kernel writes at most as many bytes as it is told that there is room for.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let number = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(number);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Where there is not enough room, it says how much there should be.
        let fits = groups.len() < number && number <= MOST_GROUPS;
        if error.raw_os_error() != Some(libc::ERANGE) || !fits {
            return Err(error);
        }
        groups.resize(number, 0);
    }
}

impl Rights {
    /// Those of this process and of [`GROUP`].
    ///
    /// # Errors
    /// When nobody can say whether there is such a group.
    pub fn of_system() -> io::Result<Self> {
        let readers = Group::from_name(GROUP)?.map(|group| group.gid.as_raw());
        Ok(Self { own: Uid::effective().as_raw(), readers })
    }

    /// What a peer may do.
    pub fn of(&self, peer: &Peer) -> Right {
        if peer.uid == 0 {
            Right::Change
        } else if peer.uid == self.own || self.readers.is_some_and(|gid| peer.groups.contains(&gid))
        {
            Right::Read
        } else {
            Right::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights() {
        let rights = Rights { own: 7, readers: Some(70) };
        let right = |uid, groups: &[u32]| rights.of(&Peer { pid: 1, uid, groups: groups.to_vec() });
        assert_eq!(right(0, &[1]), Right::Change);
        assert_eq!(right(7, &[1]), Right::Read);
        assert_eq!(right(8, &[70]), Right::Read, "by the primary group");
        assert_eq!(right(8, &[1, 2, 70]), Right::Read, "by another");
        assert_eq!(right(8, &[0, 7]), Right::None, "the group of root is not root");
        let nobody = Rights { own: 7, readers: None };
        assert_eq!(nobody.of(&Peer { pid: 1, uid: 8, groups: vec![0] }), Right::None);
    }

    #[tokio::test]
    async fn one_is_oneself() {
        let (here, there) = UnixStream::pair().unwrap();
        let peer = Peer::of(&here).unwrap();
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer, Peer::of(&there).unwrap());
        let mut own = nix::unistd::getgroups().unwrap();
        own.insert(0, nix::unistd::getegid());
        assert_eq!(peer.groups, own.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>());
    }
}
