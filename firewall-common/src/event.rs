//! What the kernel tells user space through the ring buffer.

use crate::{
    flow::{Address, Destination, TCP, has_ports},
    layout::{FileId, Held, ProcessKey, held},
    verdict::{Confidence, Hook, Reason, Verdict, Via},
};

/// Who a flow is charged to, taken in the kernel, so that it holds for a process already gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The executable; zero if none could be read.
    pub executable: FileId,
    /// Inode number of the process's cgroup.
    pub cgroup: u64,
    /// When the process started, in nanoseconds of the boot-time clock.
    pub started: u64,
    /// Process (thread group) number; 0 if no process was ever seen.
    pub pid: u32,
    /// User number, the real one.
    pub uid: u32,
    /// Group number, the real one.
    pub gid: u32,
    /// Of [`app`]; 0 is unknown.
    pub kind: u32,
    /// The thread's name, NUL-padded.
    pub comm: [u8; 16],
    /// Of [`identity`].
    pub flags: u32,
    /// How often the process has executed a file: with each it can be another app.
    pub execs: u32,
}

/// Bits of [`Identity::flags`].
pub mod identity {
    /// The process is in a user namespace of its own, where it can say of itself what it likes.
    pub const OWN_NAMESPACE: u32 = 1;
}

/// Values of [`Identity::kind`].
pub mod app {
    /// A process.
    pub const PROCESS: u32 = 1;
    /// The kernel itself.
    pub const KERNEL: u32 = 2;
}

/// A verdict on a flow, or how many bytes it has moved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEvent {
    /// Boot-time clock, nanoseconds.
    pub time: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Source; zero where no packet has shown it yet.
    pub src: Address,
    /// Destination.
    pub dst: Address,
    /// Port of the source.
    pub src_port: u16,
    /// Port of the destination; 0 without ports.
    pub dst_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`Verdict`].
    pub verdict: u8,
    /// [`Reason`]; zero if the decision says.
    pub reason: u8,
    /// [`Hook`].
    pub hook: u8,
    /// The generation that decided.
    pub generation: u32,
    /// [`crate::evaluate::Outcome::decision`]; 0 if none was reached.
    pub decision: u32,
    /// How often: the first, and repeats within a second. 0 where nothing was decided and only bytes
    /// are told.
    pub count: u32,
    /// [`Via`]; 0 if the destination has no known name.
    pub via: u8,
    /// [`Confidence`]; 0 if the destination has no known name.
    pub confidence: u8,
    /// 1 if the ClientHello has an encrypted one inside: the name is the outer one's.
    pub encrypted_hello: u8,
    /// 1 if the flow has ended.
    pub closed: u8,
    /// The name, a key of the map of names; 0 if there is none.
    pub name: u64,
    /// Bytes of payload that it has sent.
    pub bytes_out: u64,
    /// Bytes of payload that it has received.
    pub bytes_in: u64,
    /// Who.
    pub identity: Identity,
}

/// A socket that was open before the kernel programs were attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenSocket {
    /// Its cookie.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Its own address; unspecified for any.
    pub local: Address,
    /// Where it is connected to; unspecified if it is not.
    pub peer: Address,
    /// Its own port.
    pub local_port: u16,
    /// Port of the other end.
    pub peer_port: u16,
    /// IANA protocol number; MPTCP is TCP.
    pub protocol: u8,
    /// Of [`tcp`], which other protocols use too.
    pub state: u8,
    /// 1 if the connection came from outside.
    pub inbound: u8,
    /// Zero.
    pub _pad: u8,
    /// The class of the app in the running generation, see [`crate::app`].
    pub class: u32,
    /// The running generation; 0 before the first.
    pub generation: u32,
    /// Who it is charged to.
    pub identity: Identity,
}

/// States of a socket: `enum` in the kernel's `net/tcp_states.h`.
pub mod tcp {
    /// Connected.
    pub const ESTABLISHED: u8 = 1;
    /// Waits for the answer to its SYN.
    pub const SYN_SENT: u8 = 2;
    /// Has nothing more to send, and waits for that to be known.
    pub const FIN_WAIT1: u8 = 4;
    /// Waits for the other end to have nothing more to send.
    pub const FIN_WAIT2: u8 = 5;
    /// Nothing, or not connected.
    pub const CLOSE: u8 = 7;
    /// Neither end has more to send, and waits for that to be known.
    pub const LAST_ACK: u8 = 9;
    /// Waits for connections.
    pub const LISTEN: u8 = 10;
    /// Both ends said at once that they have nothing more to send.
    pub const CLOSING: u8 = 11;
}

impl OpenSocket {
    /// Where it is connected to by its app; `None` if it is not, or the connection came from outside.
    pub fn destination(&self) -> Option<Destination> {
        let connected = match self.protocol {
            TCP => !matches!(self.state, tcp::CLOSE | tcp::LISTEN),
            _ => self.state == tcp::ESTABLISHED,
        };
        let destination = Destination {
            address: self.peer,
            port: if has_ports(self.protocol) { self.peer_port } else { 0 },
            protocol: self.protocol,
            port_hidden: 0,
        };
        (connected && self.inbound == 0).then_some(destination)
    }
}

const _: () = {
    assert!(size_of::<OpenSocket>() == 64 + size_of::<Identity>());
    assert!(size_of::<Identity>() == 88);
    assert!(size_of::<FlowEvent>() == 184);
    assert!(core::mem::offset_of!(FlowEvent, identity) == 96);
};

/// Bytes that are no event of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*head)
}

macro_rules! read {
    ($bytes:expr, $($ty:ty),+) => { ($(<$ty>::from_ne_bytes(take(&mut $bytes)?)),+) };
}

impl FlowEvent {
    /// Takes one from the start of `bytes`, whatever it says.
    fn take(b: &mut &[u8]) -> Result<Self, Malformed> {
        let (time, cookie) = read!(*b, u64, u64);
        let src = address(b)?;
        let dst = address(b)?;
        let (src_port, dst_port, protocol, verdict, reason, hook) =
            read!(*b, u16, u16, u8, u8, u8, u8);
        let (generation, decision, count) = read!(*b, u32, u32, u32);
        let (via, confidence, encrypted_hello, closed) = read!(*b, u8, u8, u8, u8);
        let (name, bytes_out, bytes_in) = read!(*b, u64, u64, u64);
        let identity = Identity::take(b)?;
        Ok(Self {
            time,
            cookie,
            src,
            dst,
            src_port,
            dst_port,
            protocol,
            verdict,
            reason,
            hook,
            generation,
            decision,
            count,
            via,
            confidence,
            encrypted_hello,
            closed,
            name,
            bytes_out,
            bytes_in,
            identity,
        })
    }
}

impl Identity {
    /// In place of a group that is not known: no process has it, and 0 is root's.
    pub const NO_GROUP: u32 = u32::MAX;
    /// The same for a user.
    pub const NO_USER: u32 = u32::MAX;

    /// The process.
    #[inline(always)]
    pub const fn process(&self) -> ProcessKey {
        ProcessKey { pid: self.pid, _pad: 0, started: self.started }
    }

    fn take(b: &mut &[u8]) -> Result<Self, Malformed> {
        let (inode, device, pad, dentry, mount) = read!(*b, u64, u32, u32, u64, u64);
        let (cgroup, started, pid, uid, gid, kind) = read!(*b, u64, u64, u32, u32, u32, u32);
        let comm = take(b)?;
        let (flags, execs) = read!(*b, u32, u32);
        let executable = FileId { inode, device, _pad: pad, dentry, mount };
        Ok(Self { executable, cgroup, started, pid, uid, gid, kind, comm, flags, execs })
    }
}

impl TryFrom<&[u8]> for OpenSocket {
    type Error = Malformed;

    fn try_from(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let b = &mut bytes;
        let (cookie, netns) = read!(*b, u64, u64);
        let (local, peer) = (address(b)?, address(b)?);
        let (local_port, peer_port, protocol, state, inbound, _pad) =
            read!(*b, u16, u16, u8, u8, u8, u8);
        let (class, generation) = read!(*b, u32, u32);
        let identity = Identity::take(b)?;
        if !b.is_empty() || inbound > 1 {
            return Err(Malformed);
        }
        Ok(Self {
            cookie,
            netns,
            local,
            peer,
            local_port,
            peer_port,
            protocol,
            state,
            inbound,
            _pad,
            class,
            generation,
            identity,
        })
    }
}

impl TryFrom<&[u8]> for FlowEvent {
    type Error = Malformed;

    fn try_from(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let event = Self::take(&mut bytes)?;
        let Self { verdict, hook, reason, decision, via, confidence, .. } = event;
        if !bytes.is_empty()
            || Verdict::from_wire(verdict).is_none()
            || Hook::from_wire(hook).is_none()
            || (reason != 0 && Reason::from_wire(reason).is_none())
            || (reason == 0 && decision == 0)
            || (via != 0 && Via::from_wire(via).is_none())
            || (confidence != 0 && Confidence::from_wire(confidence).is_none())
        {
            return Err(Malformed);
        }
        Ok(event)
    }
}

/// A [`Held`], as it is read.
#[derive(Clone, Copy, Debug)]
pub struct HeldDatagram<'a> {
    /// What is known of its flow, without a verdict.
    pub event: FlowEvent,
    /// The app.
    pub app: u64,
    /// Of [`crate::layout::held`].
    pub why: u32,
    /// The datagram.
    pub datagram: &'a [u8],
}

impl<'a> TryFrom<&'a [u8]> for HeldDatagram<'a> {
    type Error = Malformed;

    fn try_from(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() != size_of::<Held>() {
            return Err(Malformed);
        }
        let event = FlowEvent::take(&mut bytes)?;
        let (app, why, len) = read!(bytes, u64, u32, u32);
        let datagram = bytes.get(..len as usize).ok_or(Malformed)?;
        if why > held::CAME {
            return Err(Malformed);
        }
        Ok(Self { event, app, why, datagram })
    }
}

fn address(bytes: &mut &[u8]) -> Result<Address, Malformed> {
    let (high, low) = read!(*bytes, u64, u64);
    Ok(Address { high, low })
}
