//! Audit stores that a test has written.

use std::path::Path;

use firewall::{
    events::{
        View,
        record::{self, Line},
    },
    store::{
        FILE,
        writer::{Entry, Store},
    },
};

/// Stores lines in a state folder, each as it stands there.
pub fn store<T: AsRef<str>>(state: &Path, lines: impl IntoIterator<Item = T>) {
    let mut store = Store::open(&state.join(FILE), None).unwrap();
    for line in lines {
        let event = line.as_ref();
        match record::read(event.as_bytes()).unwrap() {
            Line::Verdict(record) => {
                let (view, seq) = (Some(View::from(&*record)), Some(record.seq));
                store.append([Entry { event, view, seq }]).unwrap();
            }
            Line::Lost(_) => store.append([Entry { event, view: None, seq: None }]).unwrap(),
        }
    }
}
