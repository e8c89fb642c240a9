//! What must hold of what the kernel tells, of recorded lines, and of what is asked for of them.

use std::{collections::BTreeMap, io::BufReader, path::Path, sync::LazyLock};

use firewall::{
    contents::Contents,
    events::{
        View,
        filter::Asked,
        record::{self, Line, Reader, Record, Unread},
    },
    policy::source::Files,
};
use firewall_common::{
    event::{FlowEvent, HeldDatagram, OpenSocket},
    layout::Held,
};
use jiff::{Timestamp, Zoned};

/// Entries of the ring buffers: what is decoded is what stood there.
pub fn decoded(bytes: &[u8]) {
    let (event, socket) = (size_of::<FlowEvent>(), size_of::<OpenSocket>());
    for len in [bytes.len(), event, socket] {
        let Some(bytes) = bytes.get(..len) else { continue };
        if let Ok(event) = FlowEvent::try_from(bytes) {
            same(&event, bytes);
        }
        if let Ok(socket) = OpenSocket::try_from(bytes) {
            same(&socket, bytes);
        }
    }
    let mut held = bytes.to_vec();
    assert!(held.len() == size_of::<Held>() || HeldDatagram::try_from(&held[..]).is_err());
    held.resize(size_of::<Held>(), 0xaa);
    if let Ok(HeldDatagram { event: told, datagram, .. }) = HeldDatagram::try_from(&held[..]) {
        same(&told, &held[..event]);
        // Behind the event, the app, why it is held, and the length.
        let from = event + 16;
        assert_eq!(datagram, &held[from..from + datagram.len()]);
        assert_eq!((datagram.len() as u32).to_ne_bytes(), held[from - 4..from]);
    }
}

fn same<T: Copy>(decoded: &T, bytes: &[u8]) {
    assert_eq!(size_of::<T>(), bytes.len());
    let start: *const T = decoded;
    // SAFETY: it is a `repr(C)` of integers that names its padding, so each of its bytes has a value.
    let own = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size_of::<T>()) };
    assert_eq!(own, bytes);
}

/// Lines of a log: each is counted once, in pieces of whatever size, and is the same by itself.
pub fn records(bytes: &[u8]) {
    let (mut small, mut large) =
        (Reader::new(BufReader::with_capacity(3, bytes)), Reader::new(bytes));
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // What ends with a line has no more behind it.
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let mut understood = 0;
    let (mut broken, mut unknown) = (0, 0);
    for text in lines {
        match record::read(text.trim_ascii()) {
            Err(Unread::Broken(why)) => {
                broken += 1;
                assert!(!why.is_empty());
            }
            Err(Unread::Unknown(_)) => unknown += 1,
            Ok(line) => {
                understood += 1;
                for reader in [&mut large as &mut dyn Next, &mut small] {
                    assert_eq!(reader.next(), Some((line.clone(), text.trim_ascii().to_vec())));
                }
                if let Line::Verdict(record) = line {
                    let view = View::from(&*record);
                    assert_eq!((view.ip, view.count), (record.dst.ip, record.count));
                }
            }
        }
    }
    assert_eq!(large.next(), None, "{understood} were understood");
    assert_eq!(small.next(), None);
    assert_eq!((large.unreadable.broken.0, large.unreadable.unknown.0), (broken, unknown));
    assert_eq!(small.unreadable, large.unreadable);
}

trait Next {
    /// The next line, and its text.
    fn next(&mut self) -> Option<(Line, Vec<u8>)>;
}

impl<R: std::io::BufRead> Next for Reader<R> {
    fn next(&mut self) -> Option<(Line, Vec<u8>)> {
        let line = self.next_line(false).expect("reading memory")?;
        Some((line, self.text().to_vec()))
    }
}

/// A machine without files, with one user and one group.
pub struct Nothing;

impl Files for Nothing {
    fn read(&self, _: &Path) -> Result<Contents, String> {
        Err("there are no files".to_owned())
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        Ok((name == "ada").then_some(1000))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        self.user(name)
    }
}

static RECORDS: LazyLock<Vec<Record>> = LazyLock::new(|| {
    let lines = [
        r#"{"schema":1,"seq":1,"time":"2026-11-22T01:25:18.2Z","verdict":"deny","reason":"rule",
            "policy":"baidu","rule":"owner","hook":"connect","proto":"tcp","count":1,
            "app":{"name":"curl","exe":"/usr/bin/curl","pid":7,"uid":1000,"user":"ada",
            "cgroup":"/user.slice/a.scope"},"dst":{"ip":"103.235.46.191","port":443},
            "host":{"name":"hm.baidu.com","via":"dns","chain":["hm.e.shifen.com"]},
            "geo":{"country":"HK","asn":55967,"organisation":"baidu"}}"#,
        r#"{"schema":1,"seq":2,"time":"2026-11-20T01:25:18Z","verdict":"allow","reason":"default",
            "hook":"packet","proto":"icmpv6","count":3,"app":{"name":"kernel","uid":0},
            "dst":{"ip":"ff02::1"}}"#,
        r#"{"schema":1,"seq":3,"time":"2026-11-22T01:59:59.999999Z","verdict":"audit",
            "policy":"a","rule":"b","hook":"dns","proto":"udp","count":1,
            "app":{"name":"x.py","exe":"/usr/bin/python3","script":"/home/ada/x.py","pid":9,"uid":0},
            "dst":{"ip":"::1","port":53},"host":{"name":"a.com"},"geo":{"country":"CN"}}"#,
    ];
    let read = |line: &str| match record::read(line.as_bytes()) {
        Ok(Line::Verdict(record)) => *record,
        other => panic!("{other:?}"),
    };
    lines.into_iter().map(read).collect()
});

/// A query: it says the same when it is written again, and what passes it passes each kind of what is
/// asked for, of which one is enough.
pub fn filter(bytes: &[u8]) {
    let time: Timestamp = "2026-11-22T02:00:00Z".parse().expect("a time");
    let now = Zoned::new(time, jiff::tz::TimeZone::fixed(jiff::tz::offset(1)));
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(bytes).into_owned().collect();
    let Ok(asked) = Asked::of_query(pairs.clone()) else { return };
    let again = asked.pairs().into_iter().map(|(key, value)| (key, value.to_owned()));
    let again = Asked::of_query(again).expect("the same");
    assert_eq!(again.pairs(), asked.pairs());
    assert_eq!(asked.is_all(), pairs.is_empty());

    let mut kinds: BTreeMap<&str, Vec<&(String, String)>> = BTreeMap::new();
    for pair in &pairs {
        kinds.entry(&pair.0).or_default().push(pair);
    }
    let single = |pair: &(String, String)| {
        Asked::of_query([pair.clone()]).expect("one of them").filter(&now, &Nothing)
    };
    let mut filter = match asked.filter(&now, &Nothing) {
        Ok(filter) => filter,
        Err(wrong) => {
            assert!(!wrong.is_empty());
            assert!(pairs.iter().any(|pair| single(pair).is_err()));
            return;
        }
    };
    for record in &*RECORDS {
        let passes = |pair: &&(String, String)| single(pair).expect("sound").passes(record);
        let want = kinds.values().all(|kind| kind.iter().any(passes));
        assert_eq!(filter.passes(record), want, "{pairs:?} {record:?}");
        assert_eq!(filter.passes(record), want, "what is remembered is the same");
    }
}
