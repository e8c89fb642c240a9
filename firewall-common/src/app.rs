//! From what is known of an app to its class.
//!
//! Selectors speak of five facets of an app: its executable, the script it runs, its cgroup, its user
//! and its group. What the selectors say of each is a number: for paths an automaton in the blocks of
//! the generation finds it byte by byte, for users and groups a trie. The numbers of two facets join
//! to one, that and the next to one again, each by a table, so that the steps do not grow with the
//! number of selectors. What is left is the app class: two apps are of one if every rule holds for
//! both or for none.

use crate::{
    evaluate::{Cell, Tables},
    flow::Address,
    layout::Header,
};

/// What is known of an app, as numbers of one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facets {
    /// Of [`Apps::executable`].
    pub exe: u32,
    /// By the path of the script; without one, that of the empty path.
    pub script: u32,
    /// By the path of the cgroup.
    pub cgroup: u32,
    /// By the number of the user.
    pub user: u32,
    /// By the number of the group.
    pub group: u32,
}

/// How to find the class of an app; part of the [`Header`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apps {
    /// App classes. With one, nothing is looked up.
    pub classes: u32,
    /// What [`Facets::exe`] can be by the path alone: numbers below this.
    pub paths: u32,
    /// [`Cell`] that paths of executables start at.
    pub exe: u32,
    /// [`Cell`] that paths of scripts start at.
    pub script: u32,
    /// [`Cell`] that paths of cgroups start at.
    pub cgroup: u32,
    /// [`Cell`] that numbers of users start at.
    pub user: u32,
    /// [`Cell`] that numbers of groups start at.
    pub group: u32,
    /// Zero.
    pub _pad: u32,
    /// How the executable and the script join, that and the cgroup, that and the user, that and the
    /// group.
    pub joins: [Join; 4],
}

/// A table of what two facets come to: word `one × width + other`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// Its first block.
    pub first: u32,
    /// How many numbers the other facet has; with one there is no table, and the one number stands.
    pub width: u32,
}

/// What kind of app an executable is, beside its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A process whose word on its path nobody but root could have made up.
    Trusted,
    /// A process that could have made up its path: the number of the path can deny and never widen.
    Untrusted,
    /// The kernel.
    Kernel,
    /// Nobody knows.
    Unknown,
}

/// In place of a class: the tables are damaged. No row has it.
pub const DAMAGED: u32 = u32::MAX;

impl Apps {
    /// [`Facets::exe`] of an app.
    #[inline(always)]
    pub const fn executable(&self, kind: Kind, path: u32) -> u32 {
        match kind {
            Kind::Untrusted => path,
            Kind::Trusted if path == DAMAGED => DAMAGED,
            Kind::Trusted => path.wrapping_add(self.paths),
            Kind::Kernel => self.paths.wrapping_mul(2),
            Kind::Unknown => self.paths.wrapping_mul(2).wrapping_add(1),
        }
    }

    /// How many numbers [`Facets::exe`] can be.
    pub const fn executables(&self) -> u32 {
        self.paths * 2 + 2
    }
}

/// One step along a path: from the start, one for each byte, and one for the byte 0 behind the last.
/// A leaf stays, and so does what is damaged.
#[inline(always)]
pub fn step(tables: &(impl Tables + ?Sized), cell: Cell, byte: u8) -> Cell {
    if cell.is_leaf() {
        return cell;
    }
    cell.follow(tables, byte).unwrap_or(Cell::leaf(0))
}

/// The number that a path has come to after its last step; [`DAMAGED`] if it came to none.
#[inline(always)]
pub const fn number(cell: Cell) -> u32 {
    if cell.is_leaf() { cell.0.wrapping_sub(1) } else { DAMAGED }
}

/// The number of a path.
pub fn path(tables: &(impl Tables + ?Sized), root: u32, path: &[u8]) -> u32 {
    let bytes = path.iter().chain(&[0]);
    number(bytes.fold(Cell(root), |cell, byte| step(tables, cell, *byte)))
}

/// The number of a user or group.
#[inline(always)]
pub fn id(tables: &impl Tables, root: u32, id: u32) -> u32 {
    tables.class(Cell(root), Address { high: (id as u64) << 32, low: 0 }).wrapping_sub(1)
}

/// The class of an app.
#[inline(always)]
pub fn class(tables: &impl Tables, header: &Header, facets: &Facets) -> u32 {
    let Apps { classes, joins: [script, cgroup, user, group], .. } = header.apps;
    if classes <= 1 {
        return 0;
    }
    // One by one: the kernel's verifier would follow an array through a loop, in memory.
    let class = join(tables, facets.exe, script, facets.script);
    let class = join(tables, class, cgroup, facets.cgroup);
    let class = join(tables, class, user, facets.user);
    join(tables, class, group, facets.group)
}

#[inline(always)]
fn join(tables: &impl Tables, one: u32, join: Join, other: u32) -> u32 {
    if join.width <= 1 {
        return one;
    }
    if one == DAMAGED || other >= join.width {
        return DAMAGED;
    }
    tables.word(join.first, one.wrapping_mul(join.width).wrapping_add(other))
}

const _: () = assert!(size_of::<Apps>() == 32 + 4 * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_stays_so_whoever_says_it() {
        let apps = Apps { paths: 3, ..Apps::default() };
        for kind in [Kind::Trusted, Kind::Untrusted] {
            assert_eq!(apps.executable(kind, DAMAGED), DAMAGED);
        }
        assert_eq!(apps.executable(Kind::Trusted, 2), 5);
    }
}
