use std::{io, path::PathBuf, sync::mpsc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::{
    FILE,
    chain::Head,
    key::{self, Key, Known},
    reader::Reader,
    verify::{Found, Wrong, verify},
    writer::{Entry, Limits, Signer, Store},
};
use crate::{
    events::{
        View,
        filter::{Asked, Filter},
        record::{self, Line},
    },
    policy::source::Disk,
};

struct Place {
    folder: tempfile::TempDir,
}

struct Signs(Key);

impl Signer for Signs {
    fn sign(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        Ok(self.0.sign(head))
    }

    fn stored(&mut self, head: &Head) {
        self.0.note(head).unwrap();
    }

    fn last(&mut self) -> i64 {
        self.0.noted().map_or(0, |head| head.last)
    }
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.state()).unwrap();
        place
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn store(&self) -> Store {
        let key = Key::open(&key::folder(&self.state())).unwrap();
        Store::open(&self.state().join(FILE), Some(Box::new(Signs(key)))).unwrap()
    }

    /// With events of these numbers.
    fn with(seqs: std::ops::Range<u64>) -> Self {
        let place = Self::new();
        append(&mut place.store(), seqs);
        place
    }

    fn verified(&self) -> Found {
        let known = Known::read(&key::folder(&self.state())).unwrap();
        verify(&self.state(), Some(&known)).unwrap()
    }

    #[track_caller]
    fn is_whole(&self, ends: (i64, i64)) {
        let found = self.verified();
        let Found::Whole { head, signed: true, .. } = found else { panic!("{found:?}") };
        assert_eq!((head.first, head.last), ends);
    }

    /// Verifies after somebody has been at the database.
    #[track_caller]
    fn after(&self, sql: &str) -> Wrong {
        Connection::open(self.state().join(FILE)).unwrap().execute_batch(sql).unwrap();
        match self.verified() {
            Found::Wrong(wrong) => wrong,
            whole => panic!("{whole:?}"),
        }
    }

    fn found(&self, pairs: &[(&str, &str)]) -> Vec<u64> {
        let mut reader = Reader::open(&self.state()).unwrap().unwrap();
        let end = reader.end().unwrap();
        let mut found = Vec::new();
        loop {
            let next = reader.next(&mut filter(pairs), end, 7).unwrap();
            if next.is_empty() {
                return found;
            }
            found.extend(next.iter().map(|found| seq_of(found)));
        }
    }
}

fn filter(pairs: &[(&str, &str)]) -> Filter {
    let pairs = pairs.iter().map(|(key, value)| (*key, (*value).to_owned()));
    let now = at(0).to_zoned(jiff::tz::TimeZone::UTC);
    Asked::of_query(pairs).unwrap().filter(&now, &Disk).unwrap()
}

fn seq_of(event: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(event).unwrap()["seq"].as_u64().unwrap_or_default()
}

fn at(second: u64) -> Timestamp {
    let start: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(second.cast_signed())
}

/// One a second: of every third event the app, of every fifth the country, of every seventh the verdict
/// is another.
fn event(seq: u64) -> String {
    let app = if seq.is_multiple_of(3) { "wget" } else { "curl" };
    let (country, name) =
        if seq.is_multiple_of(5) { ("CN", "x.baidu.com") } else { ("US", "example.org") };
    let verdict = if seq.is_multiple_of(7) { "deny" } else { "audit" };
    format!(
        r#"{{"schema":1,"seq":{seq},"time":"{}","verdict":"{verdict}","mode":"enforce","reason":"rule","action":"drop","policy":"p","rule":"r{}","hook":"connect","app":{{"name":"{app}","exe":"/usr/bin/{app}","pid":{seq},"uid":1000,"user":"ada"}},"proto":"tcp","dst":{{"ip":"192.0.2.1","port":443}},"host":{{"name":"{name}","chain":["a.{name}"]}},"geo":{{"country":"{country}","asn":{},"organisation":"o{}"}},"count":1,"bytes_out":0,"bytes_in":0}}"#,
        at(seq),
        seq % 2,
        seq % 5,
        seq % 4,
    )
}

fn append(store: &mut Store, seqs: std::ops::Range<u64>) {
    let lines: Vec<(u64, String)> = seqs.map(|seq| (seq, event(seq))).collect();
    let records: Vec<_> = lines
        .iter()
        .map(|(seq, line)| match record::read(line.as_bytes()).unwrap() {
            Line::Verdict(record) => (*seq, line, record),
            Line::Lost(_) => panic!(),
        })
        .collect();
    let entries = records.iter().map(|(seq, line, record)| Entry {
        event: line,
        view: Some(View::from(&**record)),
        seq: Some(*seq),
    });
    store.append(entries).unwrap();
}

fn lose(store: &mut Store) {
    let event = r#"{"schema":1,"kind":"lost","count":3}"#;
    store.append([Entry { event, view: None, seq: None }]).unwrap();
}

#[test]
fn what_is_stored_is_whole_and_signed() {
    let place = Place::with(1..20);
    place.is_whole((1, 19));
    let mut store = place.store();
    assert_eq!(store.seq, 19);
    lose(&mut store);
    append(&mut store, 20..30);
    assert_eq!(store.unsigned, None);
    drop(store);
    place.is_whole((1, 30));
    assert_eq!(place.store().seq, 29);
    // Also while it is being written.
    let _store = place.store();
    place.is_whole((1, 30));
    let key = key::folder(&place.state());
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(key.join("audit.key")).unwrap().mode() & 0o777, 0);
}

#[test]
fn an_empty_store_is_whole() {
    let place = Place::new();
    drop(place.store());
    let known = Known::read(&key::folder(&place.state())).unwrap();
    let found = verify(&place.state(), Some(&known)).unwrap();
    assert!(matches!(found, Found::Whole { times: None, .. }), "{found:?}");
    assert!(Reader::open(place.folder.path()).unwrap().is_none());
}

#[test]
fn every_change_is_found() {
    let changed = |id: i64| Wrong::Changed { id, seq: Some(id) };
    for (sql, wrong) in [
        ("UPDATE events SET event = replace(event, 'curl', 'Curl') WHERE id = 7", changed(7)),
        ("UPDATE events SET hash = zeroblob(32) WHERE id = 9", changed(9)),
        ("UPDATE entries SET time = time + 1 WHERE id = 10", changed(10)),
        ("UPDATE entries SET kind = kind + 1 WHERE id = 4", changed(4)),
        ("UPDATE entries SET seq = 99 WHERE id = 4", Wrong::Changed { id: 4, seq: Some(99) }),
        ("DELETE FROM entries WHERE id = 5", Wrong::Changed { id: 5, seq: None }),
        ("DELETE FROM events WHERE id = 5", Wrong::Removed(5)),
        ("DELETE FROM events WHERE id = 5; DELETE FROM entries WHERE id = 5", Wrong::Removed(5)),
        ("DELETE FROM events WHERE id < 3; DELETE FROM entries WHERE id < 3", Wrong::Removed(1)),
        (
            "DELETE FROM events WHERE id > 17; DELETE FROM entries WHERE id > 17",
            Wrong::CutOff(17, 19),
        ),
        (
            "UPDATE events SET id = -1 WHERE id = 3; UPDATE events SET id = 3 WHERE id = 4;
             UPDATE events SET id = 4 WHERE id = -1; UPDATE entries SET id = -1 WHERE id = 3;
             UPDATE entries SET id = 3 WHERE id = 4; UPDATE entries SET id = 4 WHERE id = -1",
            Wrong::Changed { id: 3, seq: Some(4) },
        ),
        ("INSERT INTO events VALUES (20, '{}', zeroblob(32))", Wrong::Added(20)),
        ("INSERT INTO entries VALUES (20, 20, 0, 1)", Wrong::Added(20)),
        ("UPDATE kinds SET kind = '' WHERE id = 2", changed(2)),
        ("DELETE FROM head", Wrong::NoHead),
        ("DELETE FROM head; DELETE FROM events; DELETE FROM entries", Wrong::CutOff(0, 19)),
        ("UPDATE head SET signature = zeroblob(64)", Wrong::NotSigned(19)),
        ("UPDATE head SET signature = NULL", Wrong::NotSigned(19)),
        // As retention would, but by somebody without the key.
        (
            "UPDATE head SET first = 3, before = (SELECT hash FROM events WHERE id = 2);
             DELETE FROM events WHERE id < 3; DELETE FROM entries WHERE id < 3",
            Wrong::NotSigned(19),
        ),
        (
            "UPDATE head SET last = 17, hash = (SELECT hash FROM events WHERE id = 17);
             DELETE FROM events WHERE id > 17; DELETE FROM entries WHERE id > 17",
            Wrong::CutOff(17, 19),
        ),
    ] {
        assert_eq!(Place::with(1..20).after(sql), wrong, "{sql}");
    }
}

#[test]
fn a_head_that_no_store_has_is_found() {
    let all = "UPDATE events SET id = id + 9223372036854775788";
    for (sql, first, last) in [
        ("UPDATE head SET first = 0", 0, 19),
        ("UPDATE head SET first = -9223372036854775808", i64::MIN, 19),
        ("UPDATE head SET first = 9223372036854775807", i64::MAX, 19),
        ("UPDATE head SET last = 9223372036854775807", 1, i64::MAX),
        ("UPDATE head SET last = -1", 1, -1),
        (all, 1, 19),
    ] {
        let place = Place::with(1..20);
        let wrong = match sql == all {
            true => Wrong::Added(i64::MAX - 18),
            false => Wrong::NoEnds(first, last),
        };
        assert_eq!(place.after(sql), wrong, "{sql}");
        // Nor does who writes on fall over it.
        let key = Key::open(&key::folder(&place.state())).unwrap();
        let mut store = Store::open(&place.state().join(FILE), Some(Box::new(Signs(key)))).unwrap();
        let limits = Limits { age: Duration::from_secs(1), size: 0 };
        let _ = store.retain(limits, at(10_000));
        let line = event(20);
        let stored = store.append([Entry { event: &line, view: None, seq: Some(20) }]);
        assert_eq!(stored.is_err(), sql == all, "{sql}: {stored:?}");
    }
}

#[test]
fn a_store_put_back_is_found() {
    let place = Place::with(1..20);
    let file = place.state().join(FILE);
    let older = std::fs::read(&file).unwrap();
    append(&mut place.store(), 20..30);
    place.is_whole((1, 29));
    std::fs::write(&file, older).unwrap();
    assert_eq!(place.verified(), Found::Wrong(Wrong::CutOff(19, 29)));
    // What is stored next does not hide it.
    append(&mut place.store(), 30..31);
    assert_eq!(place.verified(), Found::Wrong(Wrong::Removed(20)));
}

#[test]
fn another_key_is_found() {
    let place = Place::with(1..20);
    let other = Place::with(1..2);
    let known = Known::read(&key::folder(&other.state())).unwrap();
    let known = Known { head: None, ..known };
    assert_eq!(verify(&place.state(), Some(&known)).unwrap(), Found::Wrong(Wrong::NotSigned(19)));
    let found = verify(&place.state(), None).unwrap();
    assert!(matches!(found, Found::Whole { signed: false, .. }), "{found:?}");
}

#[test]
fn what_is_too_old_or_too_much_is_removed() {
    let place = Place::with(1..10_001);
    let mut store = place.store();
    let limits = Limits { age: Duration::from_secs(5_000), size: u64::MAX };
    let mut removed = 0;
    while store.retain(limits, at(10_000)).unwrap() {
        removed += 1;
        place.is_whole(((1 + removed * 2_000).min(5_000), 10_000));
    }
    assert_eq!(removed, 3);
    assert_eq!(place.found(&[]), (5_000..10_001).collect::<Vec<u64>>());
    let size = std::fs::metadata(place.state().join(FILE)).unwrap().len();
    let limits = Limits { size: size / 3, ..limits };
    while store.retain(limits, at(10_000)).unwrap() {}
    append(&mut store, 10_001..10_003);
    store.tidy().unwrap();
    let found = place.verified();
    let Found::Whole { head, signed: true, .. } = found else { panic!("{found:?}") };
    assert!(head.first > 5_000 && head.first < head.last, "{head:?}");
    assert_eq!(head.last, 10_002);
    assert!(!store.is_large(limits).unwrap());
    for _ in 0..100 {
        assert!(!store.retain(limits, at(10_000)).unwrap());
    }
    drop(store);
    let now = std::fs::metadata(place.state().join(FILE)).unwrap().len();
    assert!(now < size * 2 / 3, "room is given back: {now} of {size}");
}

#[test]
fn each_filter_finds_what_it_should() {
    let place = Place::with(1..106);
    let all = |fits: &dyn Fn(u64) -> bool| (1..106).filter(|seq| fits(*seq)).collect::<Vec<u64>>();
    assert_eq!(place.found(&[]), all(&|_| true));
    type Fits = fn(u64) -> bool;
    let kinds: [(&str, &str, Fits); 9] = [
        ("app", "exe:/usr/bin/wget", |seq| seq.is_multiple_of(3)),
        ("user", "ada", |_| true),
        ("user", "1001", |_| false),
        ("country", "CN", |seq| seq.is_multiple_of(5)),
        ("owner", "AS4", |seq| seq % 5 == 4),
        ("host", "a.x.baidu.com", |seq| seq.is_multiple_of(5)),
        ("rule", "r1", |seq| seq % 2 == 1),
        ("verdict", "deny", |seq| seq.is_multiple_of(7)),
        ("since", "2026-11-22T00:01:00Z", |seq| seq >= 60),
    ];
    for (key, value, fits) in kinds {
        assert_eq!(place.found(&[(key, value)]), all(&fits), "{key}={value}");
        let both = [(key, value), ("verdict", "audit")];
        if key != "verdict" {
            assert_eq!(place.found(&both), all(&|seq| fits(seq) && seq % 7 != 0), "{both:?}");
        }
    }
    assert_eq!(place.found(&[("until", "2026-11-22T00:00:03Z")]), [1, 2, 3]);
    let reader = Reader::open(&place.state()).unwrap().unwrap();
    assert_eq!(reader.event(21).unwrap(), Some(event(21)));
    assert_eq!(reader.event(106).unwrap(), None);
}

#[test]
fn what_cannot_be_stored_is_not_half_stored() {
    let place = Place::with(1..20);
    let mut store = place.store();
    let (hold, held) = mpsc::channel::<()>();
    // Somebody else has the store: after a while it is given up.
    let path = place.state().join(FILE);
    let other = std::thread::spawn(move || {
        let db = Connection::open(path).unwrap();
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let _ = held.recv();
    });
    let line = event(20);
    let entry = || Entry { event: &line, view: None, seq: Some(20) };
    let mut tries = 0;
    let error = loop {
        // The other thread may need a moment.
        match store.append([entry()]) {
            Err(error) => break error,
            Ok(()) => tries += 1,
        }
        assert!(tries < 10_000);
    };
    assert!(error.to_string().contains("locked"), "{error}");
    drop(hold);
    other.join().unwrap();
    store.append([entry()]).unwrap();
    drop(store);
    place.is_whole((1, 20 + tries));
}

#[test]
fn what_is_no_store_is_said() {
    let place = Place::new();
    let path = place.state().join(FILE);
    std::fs::write(&path, "x".repeat(4096)).unwrap();
    assert!(Store::open(&path, None).err().unwrap().is_broken());
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE events (id)").unwrap();
    let error = Store::open(&path, None).err().unwrap();
    assert!(matches!(error, super::Error::Unknown(_)), "{error}");
}
