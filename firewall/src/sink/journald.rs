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

/// The copies of lists by URL, by the names of the lists.
const LISTS: &str = "DATA_LISTS";

/// Every fact of an event by the name of its field: its keys in upper case, one behind the other. `name` goes
/// without saying, and so do `app` and `geo`, whose other keys are like no others. Of an array there is one
/// field for each element, and of lists by URL, whose names can be none of a field, one for each list.
fn each_field(name: &str, value: &Value, tell: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(lists) if name == LISTS => {
            for (list, copy) in lists {
                tell(name, &format!("{list}={}", copy["fetched"].as_str().unwrap_or_default()));
            }
        }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File, io::Read as _, sync::Arc, time::Duration};

    use jiff::Timestamp;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;
    use crate::sink::sample;

    fn entry(event: Event) -> Entry {
        let line = serde_json::to_string(&event).unwrap().into();
        Entry::Event { event: Arc::new(event), line, recorded: Timestamp::now() }
    }

    /// Reads as the protocol says.
    fn fields(mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')).unwrap();
            let (name, rest) = bytes.split_at(end);
            let (length, rest) = match rest.split_at(1) {
                (b"=", rest) => (rest.iter().position(|byte| *byte == b'\n').unwrap(), rest),
                (_, rest) => {
                    let (length, rest) = rest.split_first_chunk().unwrap();
                    (usize::try_from(u64::from_le_bytes(*length)).unwrap(), rest)
                }
            };
            assert_eq!(rest[length], b'\n');
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(&rest[..length])));
            bytes = &rest[length + 1..];
        }
        fields
    }

    fn journal() -> (tempfile::TempDir, UnixDatagram, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let reads = UnixDatagram::bind(&path).unwrap();
        reads.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (folder, reads, Journal::new(path))
    }

    #[test]
    fn every_fact_is_a_field() {
        let (_folder, reads, mut journal) = journal();
        let mut event = sample("deny", "curl");
        event.count = 2;
        event.app = Arc::new(crate::events::App {
            user: Some("a\nFIREWALL_VERDICT=allow".into()),
            ..(*event.app).clone()
        });
        let entries = [entry(event), entry(sample("audit", "x")), entry(sample("allow", "x"))];
        assert_eq!(journal.write(&entries), Written::default());
        let mut bytes = [0; 1 << 16];
        let length = reads.recv(&mut bytes).unwrap();
        let told = fields(&bytes[..length]);
        let wanted = [
            (
                "MESSAGE",
                "deny curl -> hm.baidu.com 110.242.68.66:80/tcp (CN, AS4837) by web/ads (2 times)",
            ),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "firewall"),
            ("FIREWALL_SCHEMA", "1"),
            ("FIREWALL_SEQ", "42"),
            ("FIREWALL_TIME", "2026-11-22T01:25:18.215945Z"),
            ("FIREWALL_VERDICT", "deny"),
            ("FIREWALL_MODE", "enforce"),
            ("FIREWALL_REASON", "rule"),
            ("FIREWALL_ACTION", "drop"),
            ("FIREWALL_POLICY", "web"),
            ("FIREWALL_RULE", "ads"),
            ("FIREWALL_EVIDENCE", "country:CN=110.240.0.0/12"),
            ("FIREWALL_EVIDENCE", "as:4837"),
            ("FIREWALL_HOOK", "connect"),
            ("FIREWALL_APP", "curl"),
            ("FIREWALL_EXE", "/usr/bin/curl"),
            ("FIREWALL_PID", "7"),
            ("FIREWALL_UID", "1000"),
            ("FIREWALL_USER", "a\nFIREWALL_VERDICT=allow"),
            ("FIREWALL_PROTO", "tcp"),
            ("FIREWALL_DST_IP", "110.242.68.66"),
            ("FIREWALL_DST_PORT", "80"),
            ("FIREWALL_HOST", "hm.baidu.com"),
            ("FIREWALL_HOST_VIA", "dns"),
            ("FIREWALL_COUNTRY", "CN"),
            ("FIREWALL_ASN", "4837"),
            ("FIREWALL_COUNT", "2"),
            ("FIREWALL_BYTES_OUT", "0"),
            ("FIREWALL_BYTES_IN", "0"),
        ];
        let sorted = |fields: Vec<(String, String)>| {
            let mut fields = fields;
            fields.sort_unstable();
            fields
        };
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(sorted(told), sorted(wanted.to_vec()));
        for wanted in ["5", "6"] {
            let length = reads.recv(&mut bytes).unwrap();
            let told: BTreeMap<_, _> = fields(&bytes[..length]).into_iter().collect();
            assert_eq!(told["PRIORITY"], wanted);
        }
    }

    #[test]
    fn losses_are_entries_too() {
        let told: BTreeMap<_, _> = fields(&datagram(&Entry::lost(17))).into_iter().collect();
        assert_eq!(told["MESSAGE"], "events that are lost: 17");
        assert_eq!([&told["FIREWALL_KIND"], &told["FIREWALL_COUNT"]], ["lost", "17"]);
        assert_eq!(told["PRIORITY"], "4");
    }

    #[test]
    fn what_is_too_long_for_a_datagram_comes_as_a_file() {
        let (_folder, reads, mut journal) = journal();
        let mut event = sample("deny", "curl");
        event.finding.evidence = vec!["x".repeat(1 << 20)];
        let event = entry(event);
        assert_eq!(journal.write(std::slice::from_ref(&event)), Written::default());
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&reads, &mut [], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(got.bytes, 0);
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let file = file.unwrap();
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        assert_eq!(rustix::fs::fcntl_get_seals(&file).unwrap(), seals);
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).unwrap();
        assert!(bytes == datagram(&event), "{} bytes", bytes.len());
    }

    #[test]
    fn without_a_journal_entries_are_counted_and_it_is_found_again() {
        let (folder, reads, mut journal) = journal();
        let path = folder.path().join("socket");
        drop(reads);
        let entries = [Entry::lost(1), Entry::lost(1)];
        let Written { failed, news } = journal.write(&entries);
        let news = news.unwrap();
        assert!(failed == 2 && news.ends_with("Connection refused (os error 111)"), "{news}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(journal.write(&entries), Written { failed: 2, news: None });
        let reads = UnixDatagram::bind(&path).unwrap();
        reads.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let Written { failed, news } = journal.write(&entries);
        let news = news.unwrap();
        assert!(failed == 0 && news.ends_with("events that are missing: 4"), "{news}");
        assert!(reads.recv(&mut [0; 4096]).unwrap() > 0);
    }

    #[test]
    fn the_name_of_a_list_is_in_the_value() {
        let event = serde_json::json!({"data": {
            "asn": {"name": "x.mmdb", "date": "2026-01-01"},
            "lists": {"my-list": {"fetched": "2026-01-02T03:04:05Z"}, "b": {"fetched": "2026-01-03T00:00:00Z"}},
        }});
        let mut told = Vec::new();
        each_field("", &event, &mut |name, value| told.push(format!("{name}={value}")));
        told.sort();
        let wanted = [
            "DATA_ASN=x.mmdb",
            "DATA_ASN_DATE=2026-01-01",
            "DATA_LISTS=b=2026-01-03T00:00:00Z",
            "DATA_LISTS=my-list=2026-01-02T03:04:05Z",
        ];
        assert_eq!(told, wanted);
    }
}
