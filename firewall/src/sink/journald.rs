//! systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram for an entry,
//! or a sealed memory file where that is too long for one.

use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
};

use rustix::{
    cmsg_space,
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr},
};
use serde_json::Value;

use super::{Entry, Sink, Written, trouble::Trouble};
use crate::{
    cli::verdict,
    events::{Event, View},
};

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// What everything of this program is found by.
const IDENTIFIER: &str = "firewall";

/// systemd's journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Made anew where it failed: with the first entry, and with none before.
    socket: Option<UnixDatagram>,
    trouble: Trouble,
}

impl Journal {
    /// One that listens at `path`, usually [`SOCKET`]. It need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), socket: None, trouble: Trouble::default() }
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(UnixDatagram::unbound()?),
        };
        loop {
            // The name is looked up each time, so a journal that was restarted is found. Where it has no room
            // this waits, and what comes meanwhile waits in the queue.
            match socket.send_to(datagram, &self.path) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS)) =>
                {
                    let address = SocketAddrUnix::new(&self.path)?;
                    return send_file(socket, &address, &memory_file(datagram)?);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Sink for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn write(&mut self, entries: &[Entry]) -> Written {
        let place = format!("the journal ({})", self.path.display());
        let mut failed = 0;
        let mut news = Vec::new();
        for entry in entries {
            match self.send(&datagram(entry)) {
                Ok(()) => news.extend(self.trouble.over(&place)),
                Err(error) => {
                    failed += 1;
                    news.extend(self.trouble.failed(&place, 1, &error));
                }
            }
        }
        Written { failed, news: (!news.is_empty()).then(|| news.join("; ")) }
    }
}

/// A file that is nowhere but in memory, and that nobody can change any more.
fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("firewall-journal", flags)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn send_file(socket: &UnixDatagram, to: &SocketAddrUnix, file: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg_addr(socket, to, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// An entry as the journal reads it.
fn datagram(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |name: &str, value: &str| field(&mut bytes, name, value);
    let (message, priority) = match entry {
        Entry::Event { event, .. } => (message(event), priority(event.finding.verdict)),
        Entry::Lost { lost, .. } => (format!("events that are lost: {}", lost.count), WARNING),
    };
    add("MESSAGE", &message);
    add("PRIORITY", priority);
    add("SYSLOG_IDENTIFIER", IDENTIFIER);
    let value = serde_json::from_str(entry.line()).unwrap_or_default();
    each_field("", &value, &mut |name, value| add(&format!("FIREWALL_{name}"), value));
    bytes
}

fn message(event: &Event) -> String {
    let line = verdict::line(&View::from(event), false);
    match event.count {
        1 => line,
        times => format!("{line} ({times} times)"),
    }
}

/// syslog(3)'s levels.
const WARNING: &str = "4";
const NOTICE: &str = "5";
const INFO: &str = "6";

fn priority(verdict: &str) -> &'static str {
    match verdict {
        "deny" => WARNING,
        "audit" => NOTICE,
        _ => INFO,
    }
}

/// Every fact of an event by the name of its field: its keys in upper case, one behind the other. `name` goes
/// without saying, and so do `app` and `geo`, whose other keys are like no others. Of an array there is one
/// field for each element.
fn each_field(name: &str, value: &Value, tell: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let name = match (name, key.as_str()) {
                    (_, "name") => name.to_owned(),
                    ("" | "APP" | "GEO", key) => key.to_uppercase(),
                    (_, key) => format!("{name}_{}", key.to_uppercase()),
                };
                each_field(&name, member, tell);
            }
        }
        Value::Array(elements) => {
            elements.iter().for_each(|element| each_field(name, element, tell));
        }
        Value::Null => {}
        Value::String(text) => tell(name, text),
        other => tell(name, &other.to_string()),
    }
}

/// Adds a field. With a length in front a value may hold anything.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}
