//! Bringing over what was learned of names, from the generation before to the one that decides.
//!
//! The kernel keeps with each name of an address what rules say of it: classes of one generation. Right
//! after a switch they are found anew here. Until then the generation before goes on deciding about these
//! addresses, so that at no moment a name is forgotten.

use std::collections::{HashMap, HashSet};

use aya::maps::{self, MapData, MapError};
use firewall_common::{
    evaluate::Named,
    flow::Address,
    layout::{Answer, AnswerKey, Answers, CHAIN, NameText},
};

use super::{
    apply,
    maps::{Error as MapsError, Maps},
    plain::Plain,
};
use crate::policy::compile::Generation;

/// Why names could not be brought over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A map is missing or of another shape.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Which generation decides is not known.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// A map cannot be read or written.
    #[error("cannot bring over what is known of names: {0}")]
    Kernel(#[from] MapError),
}

/// What was brought over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Addresses with names.
    pub addresses: u64,
    /// Names of which the text was not kept: their addresses may have others than are known.
    pub unknown: u64,
}

/// Finds the classes of all names anew for `generation`, which decides.
pub fn names(maps: &Maps, generation: &Generation) -> Result<Brought, Error> {
    let number = apply::active(maps)?.generation();
    let mut answers: Names = maps.open("ANSWERS")?;
    let mut former: Names = maps.open("FORMER")?;
    let texts: maps::HashMap<MapData, u64, Plain<NameText>> = maps.open("NAMES")?;
    let mut classes = Classes { generation, texts, found: HashMap::new() };
    let mut brought = Brought::default();
    // Entries come and go meanwhile. What is new is of the generation that decides already; what is written
    // anew changes its place, so that one way through may not meet it.
    for _ in 0..WAYS {
        let before = brought.addresses;
        for key in keys(&answers) {
            let Ok(Plain(old)) = answers.get(&key, 0) else { continue };
            if old.generation == number {
                continue;
            }
            let (new, unknown) = anew(&old, number, &mut |answer| classes.of(answer));
            // The kernel may have learned more while the classes were looked for.
            let still =
                answers.get(&key, 0).is_ok_and(|Plain(now)| now.generation == old.generation);
            if still {
                // A program that is at work may have chosen the generation before for it.
                former.insert(key, Plain(old), 0)?;
                answers.insert(key, Plain(new), 0)?;
            }
            brought.addresses += 1;
            brought.unknown += unknown;
        }
        if brought.addresses == before {
            break;
        }
    }
    Ok(brought)
}

/// Ways through the names at most, until one meets none that is to be brought over.
const WAYS: usize = 8;

type Names = maps::HashMap<MapData, Plain<AnswerKey>, Plain<Answers>>;

/// What one way through meets.
fn keys(answers: &Names) -> Vec<Plain<AnswerKey>> {
    answers.keys().filter_map(Result::ok).collect()
}

/// The addresses of which an app knows a name.
pub fn addresses(maps: &Maps) -> Result<HashSet<Address>, Error> {
    let answers: Names = maps.open("ANSWERS")?;
    // What changes its place is met on one of two ways.
    let both = keys(&answers).into_iter().chain(keys(&answers));
    Ok(both.map(|Plain(key)| key.address).collect())
}

/// The same names with their classes of another generation, and how many of them are not known.
fn anew(
    old: &Answers,
    number: u32,
    class: &mut dyn FnMut(&Answer) -> Option<Named>,
) -> (Answers, u64) {
    let mut new = Answers { generation: number, ..*old };
    let mut unknown = 0;
    for answer in new.names.iter_mut().filter(|answer| answer.until != 0) {
        match class(answer) {
            Some(named) => answer.named = named,
            None => {
                // There is a name that rules may speak of, as when there are more than fit.
                new.more_until = new.more_until.max(answer.until);
                *answer = Answer::default();
                unknown += 1;
            }
        }
    }
    (new, unknown)
}

/// Finds classes, each once.
struct Classes<'a> {
    generation: &'a Generation,
    texts: maps::HashMap<MapData, u64, Plain<NameText>>,
    found: HashMap<(u64, bool), Option<Named>>,
}

impl Classes<'_> {
    fn of(&mut self, answer: &Answer) -> Option<Named> {
        let trusted = is_trusted(&answer.named);
        let Self { generation, texts, found } = self;
        *found.entry((answer.name, trusted)).or_insert_with(|| {
            let text = |hash: u64| texts.get(&hash, 0).ok();
            let Plain(asked) = text(answer.name)?;
            let mut names = vec![spelled(&asked)];
            for alias in asked.chain.into_iter().take(CHAIN).filter(|alias| *alias != 0) {
                names.push(spelled(&text(alias)?.0));
            }
            Some(generation.named(&names, trusted))
        })
    }
}

/// Whether a trusted resolver told the name and all that it is an alias of.
fn is_trusted(named: &Named) -> bool {
    (0..named.classes.len())
        .filter(|place| *place == 0 || named.classes[*place] != 0)
        .all(|place| named.trusted >> place & 1 != 0)
}

fn spelled(name: &NameText) -> String {
    name.text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(class: u32) -> Named {
        Named { classes: [class, 0, 0, 0], trusted: 1 }
    }

    #[test]
    fn a_name_that_is_not_known_any_more_is_one_of_more() {
        let answer = |name, until| Answer { name, named: named(9), until };
        let mut old = Answers { generation: 1, more_until: 5, ..Answers::default() };
        old.names[0] = answer(1, 30);
        old.names[1] = answer(2, 40);
        let mut class = |answer: &Answer| (answer.name == 1).then(|| named(4));
        let (new, unknown) = anew(&old, 2, &mut class);
        assert_eq!((new.generation, new.more_until, unknown), (2, 40, 1));
        assert_eq!((new.names[0].named, new.names[0].until), (named(4), 30));
        assert_eq!(new.names[1].until, 0);
    }

    #[test]
    fn trust_is_of_all_names() {
        let of = |classes, trusted| is_trusted(&Named { classes, trusted });
        assert!(of([0; 4], 1));
        assert!(!of([0; 4], 0));
        assert!(of([0, 7, 0, 0], 0b11));
        assert!(!of([0, 7, 0, 0], 0b01));
    }
}
