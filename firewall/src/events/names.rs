//! Names as text, as the kernel programs kept them when they were asked for or seen.

use std::collections::HashMap;

use aya::maps::{HashMap as KernelMap, MapData};
use firewall_common::layout::{CHAIN, NameText};

use crate::datapath::{
    maps::{Error, Maps},
    plain::Plain,
};

/// Names that are remembered here.
const MAX_REMEMBERED: usize = 4096;

/// Finds names by their hashes.
pub struct Names {
    kept: Box<dyn Fn(u64) -> Option<NameText>>,
    /// What was found before: the kernel makes room for names by dropping others.
    remembered: HashMap<u64, Name>,
    /// How often a name was not found.
    pub missed: u64,
}

/// A name and the names that it is an alias of, by their hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    text: String,
    chain: [u64; CHAIN],
}

impl Names {
    /// Of loaded programs.
    pub fn new(maps: &Maps) -> Result<Self, Error> {
        let map: KernelMap<MapData, u64, Plain<NameText>> = maps.open("NAMES")?;
        Ok(Self::of(move |hash| map.get(&hash, 0).ok().map(|Plain(name)| name)))
    }

    pub(super) fn of(kept: impl Fn(u64) -> Option<NameText> + 'static) -> Self {
        Self { kept: Box::new(kept), remembered: HashMap::new(), missed: 0 }
    }

    /// A name, and behind it those that it is an alias of; nothing if it is not known any more.
    pub fn find(&mut self, hash: u64) -> Vec<String> {
        let Some(name) = self.one(hash) else {
            self.missed += 1;
            return Vec::new();
        };
        let mut found = vec![name.text];
        for alias in name.chain.into_iter().filter(|alias| *alias != 0) {
            if let Some(alias) = self.one(alias)
                && !found.contains(&alias.text)
            {
                found.push(alias.text);
            }
        }
        found
    }

    fn one(&mut self, hash: u64) -> Option<Name> {
        // What is kept may tell more than before: an answer came.
        let Some(kept) = (self.kept)(hash) else { return self.remembered.get(&hash).cloned() };
        let name = decode(&kept);
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(hash, name.clone());
        Some(name)
    }
}

fn decode(name: &NameText) -> Name {
    // The root has no label.
    let text = if name.text.len == 0 { ".".to_owned() } else { name.text.to_string() };
    Name { text, chain: name.chain }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{cell::RefCell, rc::Rc};

    use firewall_common::name::Text;

    use super::*;

    pub fn text(name: &str, chain: &[u64]) -> NameText {
        let mut text = Text::EMPTY;
        for byte in name.bytes() {
            text.push(byte);
        }
        let mut kept = NameText { text, chain: [0; CHAIN] };
        kept.chain[..chain.len()].copy_from_slice(chain);
        kept
    }

    #[test]
    fn a_name_stands_before_its_aliases() {
        let mut names = Names::of(|hash| match hash {
            1 => Some(text("hm.baidu.com", &[2, 1, 2, 9])),
            2 => Some(text("hm.e.shifen.com", &[3])),
            _ => None,
        });
        assert_eq!(names.find(1), ["hm.baidu.com", "hm.e.shifen.com"]);
        assert_eq!(names.find(9), [""; 0]);
        assert_eq!(names.missed, 1, "an alias that is gone says nothing of the name");
    }

    #[test]
    fn any_bytes_are_text() {
        let of = |name: &NameText| decode(name).text;
        assert_eq!(of(&text("", &[])), ".");
        assert_eq!(of(&text("\x1b[2J.example", &[])), "\\x1b[2j.example");
        let long = "a".repeat(256);
        assert_eq!(of(&text(&long, &[])), long);
        let mut damaged = text("a", &[]);
        damaged.text.len = u32::MAX;
        assert!(of(&damaged).starts_with("a\\x00"));
    }

    #[test]
    fn what_was_seen_is_remembered_and_what_is_kept_comes_first() {
        let kept = Rc::new(RefCell::new(Some(text("a.example", &[]))));
        let source = Rc::clone(&kept);
        let mut names = Names::of(move |hash| source.borrow().filter(|_| hash == 1));
        assert_eq!(names.find(1), ["a.example"]);
        *kept.borrow_mut() = Some(text("b.example", &[]));
        assert_eq!(names.find(1), ["b.example"]);
        *kept.borrow_mut() = None;
        assert_eq!(names.find(1), ["b.example"]);
        assert_eq!(names.find(2), [""; 0]);
    }
}
