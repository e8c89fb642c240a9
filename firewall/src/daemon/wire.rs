//! Between the keeper and the worker: one message each way, with descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{datapath::attach::Taken, store::chain::Head};

/// What the worker may not do itself, and asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// The maps that are pinned.
    Find,
    /// The programs are to be loaded, with the maps that are pinned.
    Load,
    /// The tables of the generation that decides.
    Tables,
    /// A map for the tables of a generation, of so many blocks.
    Blocks(usize),
    /// The programs are to be put in the place of those that run, or attached.
    Attach,
    /// Programs are to be at the interfaces too, or at none.
    Backstop(bool),
    /// A way through all open files.
    Sockets,
    /// A way through all sockets of which something is known.
    Bytes,
    /// A socket is to be ended.
    End {
        /// Its cookie.
        cookie: u64,
        /// Process that has it.
        pid: u32,
        /// IANA protocol number.
        protocol: u8,
    },
    /// Enforcing is to end.
    Remove,
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// Maps of these names.
    Found(Vec<String>),
    /// The program `tell`, the notes, and then maps of these names.
    Loaded(Vec<String>),
    /// The tables.
    Tables,
    /// The map.
    Blocks,
    /// What became of the links.
    Attached(Taken),
    /// Why some interfaces have none.
    Backstop(Vec<String>),
    /// The way.
    Sockets,
    /// The way.
    Bytes,
    /// So many links are gone.
    Removed(usize),
    /// It could not be done.
    Failed(String),
}

/// What the thread that writes the audit store asks for, through a channel of its own.
#[derive(Debug, Serialize, Deserialize)]
pub enum Seal {
    /// A head is to be signed.
    Sign(Head),
    /// A head is stored. Nobody waits for an answer.
    Stored(Head),
    /// The last record that was stored.
    Last,
}

/// What the keeper says to that.
#[derive(Debug, Serialize, Deserialize)]
pub enum Sealed {
    /// The signature.
    Signed(Vec<u8>),
    /// Its number.
    Last(i64),
    /// It could not be done.
    Failed(String),
}

/// Bytes of the longest message.
const LONGEST: usize = 16 << 10;
/// Descriptors with one message.
const MOST: usize = 64;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// To wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a message.
    pub fn send(&self, message: &impl Serialize, held: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(message, held, SendFlags::empty())
    }

    /// Sends a message if there is room for it now.
    pub fn try_send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_with(message, &[], SendFlags::DONTWAIT)
    }

    fn send_with(
        &self,
        message: &impl Serialize,
        held: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !held.is_empty() && !control.push(SendAncillaryMessage::ScmRights(held)) {
            return Err(io::Error::other("more descriptors than a message takes"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a message; `None` if the other end is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut held = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                held.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((decode(&bytes[..received.bytes])?, held)))
    }
}

/// A message as it was sent.
///
/// # Errors
///
/// When it is none of this kind.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    #[test]
    fn messages_come_with_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        let held = [file.as_fd(); MOST];
        one.send(&Told::Loaded(vec!["A".to_owned()]), &held).unwrap();
        one.send(&Told::Blocks, &[]).unwrap();
        let (told, held) = other.receive::<Told>().unwrap().unwrap();
        assert!(matches!(told, Told::Loaded(names) if names == ["A"]));
        assert_eq!(held.len(), MOST);
        let mut text = String::new();
        File::from(held.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        let (told, held) = other.receive::<Told>().unwrap().unwrap();
        assert!(matches!(told, Told::Blocks) && held.is_empty());
        one.send(&"?", &[]).unwrap();
        assert!(other.receive::<Told>().is_err(), "no message of this kind");
        drop(one);
        assert!(other.receive::<Told>().unwrap().is_none());
    }
}
