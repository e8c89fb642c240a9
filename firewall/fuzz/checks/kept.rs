//! What must hold of what is kept in files: inputs of a generation, the audit store, databases; and of
//! what the worker and the keeper say to each other.

use std::{fmt::Debug, fs, io::Write as _, path::Path, sync::LazyLock};

use firewall::{
    daemon::{
        inputs::{Error, Inputs},
        wire::{Ask, Seal, Sealed, Told, decode},
    },
    events::filter::Filter,
    intel::{asn::Asn, geo::Geo},
    store::{
        self,
        reader::Reader,
        verify::{Found, verify},
    },
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A file of inputs, or what stands in one: nothing that is not as it was written is used, and what is
/// used can be written again.
pub fn inputs(bytes: &[u8]) {
    let path = Path::new("/x/generation");
    let read = |bytes: &[u8]| Inputs::of(path, bytes);
    if let Ok(inputs) = read(bytes) {
        again(&inputs);
    }
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let head = json!({"format": 1, "bytes": bytes.len(), "sha256": digest}).to_string();
    let packed = |head: &str| {
        let mut file = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        file.write_all(&[head.as_bytes(), b"\n", bytes].concat()).expect("memory");
        file.finish().expect("memory")
    };
    match read(&packed(&head)) {
        Ok(inputs) => again(&inputs),
        Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
    }
    for wrong in [head.replace(&digest, &digest[1..]), head.replace(":1,", ":3,"), String::new()] {
        assert!(matches!(read(&packed(&wrong)), Err(Error::Damaged { .. })), "{wrong}");
    }
}

fn again(inputs: &Inputs) {
    let bytes = inputs.to_bytes().expect("memory");
    let read = Inputs::of(Path::new("/x/generation"), &bytes[..]);
    assert_eq!(&read.unwrap_or_else(|error| panic!("{error}")), inputs);
}

/// Messages: what is understood is sent as the same.
pub fn wire(bytes: &[u8]) {
    same::<Ask>(bytes);
    same::<Told>(bytes);
    same::<Seal>(bytes);
    same::<Sealed>(bytes);
}

fn same<T: serde::Serialize + serde::de::DeserializeOwned + Debug>(bytes: &[u8]) {
    let Ok(message) = decode::<T>(bytes) else { return };
    let sent = serde_json::to_vec(&message).expect("JSON");
    let read: T = decode(&sent).unwrap_or_else(|error| panic!("{message:?}: {error}"));
    assert_eq!(format!("{read:?}"), format!("{message:?}"));
}

thread_local! {
    static STATE: TempDir = TempDir::new().expect("a folder for temporary files");
}

/// A database of SQLite in place of the audit store: it is read to an end, and has no more records than
/// its head says if it is whole.
pub fn store(bytes: &[u8]) {
    STATE.with(|state| {
        let state = state.path();
        fs::write(state.join(store::FILE), bytes).expect("writing");
        let found = verify(state, None);
        let Ok(Some(mut reader)) = Reader::open(state) else {
            assert!(found.is_err(), "{found:?}");
            return;
        };
        let mut texts = 0;
        if let Ok(end) = reader.end() {
            let mut filter = Filter::default();
            while let Ok(some) = reader.next(&mut filter, end, 16)
                && !some.is_empty()
            {
                texts += some.len() as i64;
                // Each record has a row of its own.
                assert!(texts <= bytes.len() as i64, "{texts} records in {} bytes", bytes.len());
            }
        }
        let _ = reader.event(1);
        if let Ok(Found::Whole { head, times, signed }) = found {
            assert!(!signed, "without a key");
            assert_eq!(times.is_some(), head.last >= head.first, "{head:?}");
            assert!(texts <= head.last - head.first + 1, "{texts} of {head:?}");
        }
    });
}

static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new().expect("a folder for temporary files"));

/// A database of countries or of AS numbers: ranges are ascending and apart, and an address in one is
/// found there.
pub fn database(bytes: &[u8]) {
    let path = FOLDER.path().join("x.mmdb");
    fs::write(&path, bytes).expect("writing");
    if let Ok(geo) = Geo::from_mmdb(&path) {
        let mut last = None;
        for (range, country) in geo.ranges_v4().take(1000) {
            assert!(range.start() <= range.end() && last < Some(*range.start()));
            last = Some(*range.end());
            for bits in [*range.start(), *range.end()] {
                let found = geo.lookup(std::net::Ipv4Addr::from_bits(bits).into());
                assert_eq!(found.map(|found| found.country), Some(country));
            }
        }
    }
    if let Ok(asn) = Asn::from_mmdb(&path) {
        let mut last = None;
        for (range, number) in asn.ranges_v6().take(1000) {
            assert!(range.start() <= range.end() && last < Some(*range.start()));
            last = Some(*range.end());
            let found = asn.lookup(std::net::Ipv6Addr::from_bits(*range.start()).into());
            assert_eq!(found.map(|found| found.asn), Some(number));
        }
    }
}
