//! What names change of what is matched by address, and addresses of what is matched by name.

use std::collections::HashMap;

use super::{Rules, Standing, apps::AppClasses, names::Said};
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

/// What name classes change of what is matched by address, for all apps alike.
pub struct NameGroups<'a> {
    rules: &'a Rules<'a>,
    /// Each once.
    all: Vec<NameGroup>,
    /// By name class: if the name is trusted, and if it is not.
    pub of: Vec<[usize; 2]>,
    /// The most groups that an app can have.
    pub most: usize,
}

/// The name groups of an app class: what makes no difference to it is left out.
pub struct AppGroups {
    /// Group 0 changes nothing. Those that take something out come before those that do not.
    pub all: Vec<NameGroup>,
    /// The number here of each of [`NameGroups::all`].
    pub numbers: Vec<u32>,
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

impl<'a> NameGroups<'a> {
    /// `rows` is how many rows a group takes, for all apps.
    pub fn new(rules: &'a Rules<'a>, names: &[Vec<Said>], apps: &AppClasses, rows: usize) -> Self {
        let observes = rules.all.iter().any(|placed| placed.mode == Mode::Observe);
        let groups = Self::with(rules, names, apps, observes);
        if observes && groups.most.saturating_mul(rows) > MAX_ROWS {
            return Self::with(rules, names, apps, false);
        }
        groups
    }

    fn with(rules: &'a Rules<'a>, names: &[Vec<Said>], apps: &AppClasses, observes: bool) -> Self {
        let mut all = vec![NameGroup::default()];
        let mut numbers = HashMap::from([(NameGroup::default(), 0)]);
        let mut number = |said: &Vec<Said>, trusted| {
            let added = if observes { matched(rules, said, trusted) } else { Vec::new() };
            let group = NameGroup { removed: removed(rules, said, trusted), added };
            *numbers.entry(group).or_insert_with_key(|group| {
                all.push(group.clone());
                all.len() - 1
            })
        };
        let of = names.iter().map(|said| [number(said, true), number(said, false)]).collect();
        let mut groups = Self { rules, all, of, most: 1 };
        let of_apps = apps.all().map(|app| groups.of_app(apps, app).all.len());
        groups.most = of_apps.max().unwrap_or(1);
        groups
    }

    /// The groups of an app class.
    pub fn of_app(&self, apps: &AppClasses, app: usize) -> AppGroups {
        let holding = |rules: &[u32]| -> Vec<u32> {
            rules.iter().filter(|rule| apps.holds(app, **rule)).copied().collect()
        };
        let of: Vec<NameGroup> = self
            .all
            .iter()
            .map(|group| NameGroup {
                removed: holding(&group.removed),
                added: holding(&group.added),
            })
            .collect();
        let mut all = of.clone();
        // Which of several counts must not depend on what is only observed.
        let enforced = |of: &NameGroup| {
            let is = |rule: &&u32| self.rules.all[**rule as usize].mode == Mode::Enforce;
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
        let numbers = of.iter().map(|group| numbers[group]).collect();
        AppGroups { all, numbers }
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
