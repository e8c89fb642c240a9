//! What names change of what is matched by address, and addresses of what is matched by name.

use std::collections::HashMap;

use super::{Rules, Standing, names::Said};
use crate::policy::{Action, Mode};

/// Address rows for all groups are no more than these; else what is only observed by name beside
/// another verdict goes unrecorded.
const MAX_ROWS: usize = 1 << 22;

/// What names of one kind change of what is matched by address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameGroup {
    /// Rules that they take out, of those that match by address.
    pub removed: Vec<u32>,
    /// Rules that match by them. Only where a policy observes: what it would have done with a flow
    /// depends on all that it matches, be it by name or by address.
    pub added: Vec<u32>,
}

/// Name groups, and which one a name class is of.
pub struct NameGroups {
    /// Group 0 changes nothing. Those that take something out come before those that do not.
    pub all: Vec<NameGroup>,
    /// By name class: if the name is trusted, and if it is not.
    pub of: Vec<[u32; 2]>,
}

/// The rules that match names of which `said`, as they are told by somebody whose word can widen what
/// an app may reach, or not.
pub fn matched(rules: &Rules<'_>, said: &[Said], trusted: bool) -> Vec<u32> {
    let matches = |one: &&Said| {
        let drops = rules.all[one.rule as usize].rule.action == Action::Drop;
        one.to && if trusted { !one.except } else { drops }
    };
    said.iter().filter(matches).map(|one| one.rule).collect()
}

/// The rules that such names take out of those that match by address.
fn removed(rules: &Rules<'_>, said: &[Said], trusted: bool) -> Vec<u32> {
    let takes_out = |one: &&Said| {
        let placed = &rules.all[one.rule as usize];
        one.except && placed.addresses && (trusted || placed.rule.action != Action::Drop)
    };
    said.iter().filter(takes_out).map(|one| one.rule).collect()
}

impl NameGroups {
    pub fn new(rules: &Rules<'_>, names: &[Vec<Said>], classes: usize) -> Self {
        let observes = rules.all.iter().any(|placed| placed.mode == Mode::Observe);
        let groups = Self::with(rules, names, observes);
        if observes && groups.all.len().saturating_mul(classes) > MAX_ROWS {
            return Self::with(rules, names, false);
        }
        groups
    }

    fn with(rules: &Rules<'_>, names: &[Vec<Said>], observes: bool) -> Self {
        let group = |said: &Vec<Said>, trusted| NameGroup {
            removed: removed(rules, said, trusted),
            added: if observes { matched(rules, said, trusted) } else { Vec::new() },
        };
        let of: Vec<[NameGroup; 2]> =
            names.iter().map(|said| [group(said, true), group(said, false)]).collect();
        let mut all: Vec<NameGroup> = of.iter().flatten().cloned().collect();
        all.push(NameGroup::default());
        // Which of several counts must not depend on what is only observed.
        let enforced = |of: &NameGroup| {
            let is = |rule: &&u32| rules.all[**rule as usize].mode == Mode::Enforce;
            of.removed.iter().filter(is).copied().collect::<Vec<u32>>()
        };
        all.sort_by_cached_key(|group| {
            let enforced = enforced(group);
            (
                *group != NameGroup::default(),
                enforced.is_empty(),
                enforced,
                group.removed.is_empty(),
                group.clone(),
            )
        });
        all.dedup();
        let numbers: HashMap<&NameGroup, u32> = all.iter().zip(0..).collect();
        let of = of.iter().map(|both| both.each_ref().map(|group| numbers[group])).collect();
        Self { all, of }
    }
}

/// Address groups: the sets of rules of whose names an address is taken out.
pub struct AddressGroups {
    /// Group 0 takes nothing out.
    pub all: Vec<Vec<u32>>,
    /// By destination class less one.
    pub of: Vec<u32>,
}

impl AddressGroups {
    pub fn new(classes: &[Vec<Standing>]) -> Self {
        let mut all = vec![Vec::new()];
        let mut numbers = HashMap::from([(Vec::new(), 0)]);
        let of = classes
            .iter()
            .map(|class| {
                let excepted: Vec<u32> = excepted(class).collect();
                *numbers.entry(excepted).or_insert_with_key(|excepted| {
                    all.push(excepted.clone());
                    all.len() as u32 - 1
                })
            })
            .collect();
        Self { all, of }
    }
}

/// The rules whose names addresses of a class are taken out of.
pub fn excepted(class: &[Standing]) -> impl Iterator<Item = u32> {
    class.iter().filter(|one| one.excepted).map(|one| one.rule)
}

/// The rules that match by an address of `class` that is known by names of `group`, ascending.
pub fn signature(class: &[Standing], group: &NameGroup) -> Vec<u32> {
    let by_address = class
        .iter()
        .filter(|one| !one.excepted && !group.removed.contains(&one.rule))
        .map(|one| one.rule);
    let mut signature: Vec<u32> = by_address.collect();
    if !group.added.is_empty() {
        let excepted: Vec<u32> = excepted(class).collect();
        signature.extend(group.added.iter().filter(|rule| !excepted.contains(rule)));
        signature.sort_unstable();
        signature.dedup();
    }
    signature
}
