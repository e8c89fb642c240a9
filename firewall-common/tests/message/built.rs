//! DNS messages with names that lead to each other.

use proptest::{option, prelude::*, sample::Index, sample::select};

/// A header and what follows it.
pub fn message(rest: &[u8]) -> Vec<u8> {
    [&[0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0], rest].concat()
}

/// Labels as they are in a message.
pub fn labels(labels: &[&[u8]]) -> Vec<u8> {
    labels.iter().flat_map(|label| [&[label.len() as u8], *label].concat()).collect()
}

pub fn pointer(to: usize) -> [u8; 2] {
    (to as u16 | 0xc000).to_be_bytes()
}

/// A message with names of which each is some labels, and a pointer into one before or the end.
#[derive(Clone, Debug)]
pub struct Built {
    pub bytes: Vec<u8>,
    /// Where each begins, its labels and where it ends.
    pub names: Vec<(usize, Vec<Vec<u8>>, usize)>,
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => select(&["com", "baidu", "Baidu", "hm", "x"][..]).prop_map(|label| label.into()),
        4 => "[a-zA-Z0-9_-]{1,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..8),
        1 => Just(vec![b'Z'; 63]),
    ]
}

pub fn built() -> impl Strategy<Value = Built> {
    let name = (
        prop::collection::vec(label(), 0..5),
        option::weighted(0.7, any::<Index>()),
        prop::collection::vec(any::<u8>(), 0..4),
    );
    prop::collection::vec(name, 1..10).prop_map(|names| {
        let mut bytes = message(&[]);
        let mut built = Vec::new();
        // Where a pointer can lead, and the labels that are there.
        let mut places: Vec<(usize, Vec<Vec<u8>>)> = Vec::new();
        for (labels, to, between) in names {
            bytes.extend(between);
            let begin = bytes.len();
            let to = to.filter(|_| !places.is_empty()).map(|to| to.get(&places).clone());
            let mut starts = Vec::new();
            for label in &labels {
                starts.push(bytes.len());
                bytes.push(label.len() as u8);
                bytes.extend(label);
            }
            starts.push(bytes.len());
            let mut all = labels;
            match to {
                Some((place, rest)) => {
                    bytes.extend(pointer(place));
                    all.extend(rest);
                }
                None => bytes.push(0),
            }
            for (read, start) in starts.into_iter().enumerate() {
                places.push((start, all[read..].to_vec()));
            }
            built.push((begin, all, bytes.len()));
        }
        Built { bytes, names: built }
    })
}

/// The same, bent and perhaps cut off.
pub fn bent() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), 0..4u8, 0xc0..=0xc1u8];
    let bends = prop::collection::vec((any::<Index>(), byte), 1..6);
    (built(), bends, option::of(any::<Index>())).prop_map(
        |(Built { mut bytes, .. }, bends, end)| {
            for (at, byte) in bends {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            bytes
        },
    )
}
