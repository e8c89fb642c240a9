//! From globs to an automaton in the blocks: it goes byte by byte along a path, and says at the end
//! what the path is.
//!
//! Globs are regular expressions, and of many of them together a library makes one deterministic
//! automaton. What is left to do here is to lay it out as cells. Parts without a cycle are nodes
//! like those of any trie, and shared like them; in a cycle each state gets its place before it is
//! known what it leads to.

use std::collections::HashMap;

use firewall_common::evaluate::Cell;
use regex_automata::{dfa::Automaton as _, util::primitives::StateID};

use super::{Error, limited, trie::Forest};
use crate::policy::selector;

/// States of an automaton.
const MAX_STATES: u32 = 1 << 18;

/// The states of an automaton; the first is the start.
struct States {
    /// What a path is that ends here.
    ends: Vec<u32>,
    /// Where each byte leads: from its byte on up to the next; the first from byte 1.
    runs: Vec<Vec<(u8, u32)>>,
}

/// Adds an automaton for paths to `forest` and returns where it starts. `number` says what a path is
/// by the regular expressions that match all of it, which ascend.
pub fn insert(
    forest: &mut Forest,
    regexes: &[String],
    number: impl FnMut(&[usize]) -> u32,
) -> Result<Cell, Error> {
    let states = States::of(regexes, number)?;
    Ok(states.lay_out(forest))
}

impl States {
    fn of(regexes: &[String], mut number: impl FnMut(&[usize]) -> u32) -> Result<Self, Error> {
        let (dfa, start) = selector::dfa(regexes).ok_or(Error::TooComplex)?;
        let mut order = vec![start];
        let mut places: HashMap<StateID, u32> = HashMap::from([(start, 0)]);
        let mut states = Self { ends: Vec::new(), runs: Vec::new() };
        let mut matched = Vec::new();
        while let Some(state) = order.get(states.runs.len()).copied() {
            let mut runs: Vec<(u8, u32)> = Vec::new();
            for byte in 1..=u8::MAX {
                let next = dfa.next_state(state, byte);
                let place = *places.entry(next).or_insert_with(|| {
                    order.push(next);
                    order.len() as u32 - 1
                });
                if runs.last().is_none_or(|(_, last)| *last != place) {
                    runs.push((byte, place));
                }
            }
            states.runs.push(runs);
            let end = dfa.next_eoi_state(state);
            matched.clear();
            if dfa.is_match_state(end) {
                let all = 0..dfa.match_len(end);
                matched.extend(all.map(|index| dfa.match_pattern(end, index).as_usize()));
                matched.sort_unstable();
            }
            states.ends.push(number(&matched));
            limited(order.len(), MAX_STATES, "states of paths that selectors of apps name")?;
        }
        Ok(states)
    }

    fn lay_out(&self, forest: &mut Forest) -> Cell {
        let mut cells: Vec<Option<Cell>> = vec![None; self.ends.len()];
        for component in self.components() {
            self.lay_out_component(&component, &mut cells, forest);
        }
        cells[0].unwrap_or(Cell::leaf(1))
    }

    /// Lays out states that lead to each other; where else they lead is laid out.
    fn lay_out_component(
        &self,
        component: &[u32],
        cells: &mut [Option<Cell>],
        forest: &mut Forest,
    ) {
        let end = |state: u32| Cell::leaf(self.ends[state as usize] + 1);
        let first = component[0];
        // Wherever a path goes on from here, it is the same.
        let settled = component.iter().all(|state| {
            let mut next = self.runs[*state as usize].iter().map(|(_, next)| *next);
            end(*state) == end(first)
                && next.all(|next| match cells[next as usize] {
                    Some(cell) => cell == end(first),
                    None => true,
                })
        });
        if settled {
            for state in component {
                cells[*state as usize] = Some(end(first));
            }
            return;
        }
        let in_cycle =
            component.len() > 1 || self.runs[first as usize].iter().any(|(_, next)| *next == first);
        if in_cycle {
            for state in component {
                cells[*state as usize] = Some(forest.reserve(self.runs[*state as usize].len() + 1));
            }
        }
        for state in component {
            let next = self.runs[*state as usize]
                .iter()
                .map(|(byte, next)| (*byte, cells[*next as usize].unwrap_or(Cell::leaf(1))));
            let runs: Vec<(u8, Cell)> = std::iter::once((0, end(*state))).chain(next).collect();
            match cells[*state as usize] {
                Some(place) => forest.fill(place, &runs),
                None => cells[*state as usize] = Some(forest.node_of(&runs)),
            }
        }
    }

    /// The states in sets that lead to each other (strongly connected components, by Tarjan's
    /// algorithm): each after all that it leads to.
    fn components(&self) -> Vec<Vec<u32>> {
        const NEW: u32 = u32::MAX;
        const DONE: u32 = u32::MAX - 1;
        let mut components = Vec::new();
        // The earliest state, in the order in which they are entered, that each is known to lead to.
        let mut low = vec![NEW; self.ends.len()];
        let mut entered = 0;
        let mut open: Vec<u32> = Vec::new();
        // A state on the way, when it was entered, and how many of its runs were followed.
        let mut way: Vec<(u32, u32, usize)> = vec![(0, 0, 0)];
        while let Some((state, since, followed)) = way.last_mut() {
            let at = *state as usize;
            if low[at] == NEW {
                *since = entered;
                low[at] = entered;
                entered += 1;
                open.push(*state);
            }
            if let Some((_, next)) = self.runs[at].get(*followed) {
                match low[*next as usize] {
                    NEW => way.push((*next, 0, 0)),
                    DONE => *followed += 1,
                    other => {
                        low[at] = low[at].min(other);
                        *followed += 1;
                    }
                }
                continue;
            }
            if low[at] == *since {
                let start = open.iter().rposition(|one| one == state).unwrap_or(0);
                let component = open.split_off(start);
                for one in &component {
                    low[*one as usize] = DONE;
                }
                components.push(component);
            }
            way.pop();
        }
        components
    }
}
