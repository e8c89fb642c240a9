//! From policies to a generation: a pure function of the policies, the address tables and the
//! settings.
//!
//! The address space is swept once for each family. Between two boundaries the same rules match by
//! address; that set of rules is a destination class. Names are sorted into name classes in the same
//! sense. What a class gets is a row: one outcome, or a trie over protocol and port where its rules
//! name ports. Apps are sorted into app classes by the selectors of policies and rules, and there are
//! rows for each. The kernel never sees a rule.

mod apps;
mod automaton;
mod groups;
mod names;
mod row;
mod settings;
mod sweep;
mod table;
mod trie;

use std::{collections::HashMap, sync::Arc};

use firewall_common::{
    evaluate::{self, BLOCK, Cell, Fault, MAX_DECISIONS, NameRecord, Named, Outcome, Tables},
    flow::Destination,
    layout::Header,
    name::Text,
    name_table::Suffixes,
    verdict::Verdict,
};

pub use settings::{Inbound, OnDeny, Quic, Settings};

use self::apps::AppClasses;
use self::groups::{AddressGroups, NameGroups};
use super::{Action, AppFacts, Destinations, Mode, Policy, Rule};
use crate::intel::country::Country;

/// An address space cut into ranges, ascending and not overlapping, with what is known of each.
pub trait Ranges<V>: Sync {
    /// First and last address of each IPv4 range.
    fn v4(&self) -> Box<dyn Iterator<Item = (u32, u32, V)> + '_>;
    /// First and last address of each IPv6 range.
    fn v6(&self) -> Box<dyn Iterator<Item = (u128, u128, V)> + '_>;
}

/// What the compiler asks about addresses. A table that no policy needs may be missing.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Country of an address.
    pub countries: Option<&'a dyn Ranges<Country>>,
    /// Origin AS of an address.
    pub asns: Option<&'a dyn Ranges<u32>>,
    /// AS numbers of an organisation.
    pub organisation: &'a dyn Fn(&str) -> Vec<u32>,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ground {
    /// A rule of [`Generation::policies`], by policy and place in it.
    Rule {
        /// Index of the policy.
        policy: usize,
        /// Index of the rule in it.
        rule: usize,
    },
    /// The default of a policy.
    PolicyDefault {
        /// Index of the policy.
        policy: usize,
    },
    /// The default of the settings.
    Default,
    /// Of a question for a name that no rule matches: whether any address could be reached.
    Question,
}

/// One thing that can happen to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// What decided.
    pub ground: Ground,
    /// What would have dropped the flow, were its policy not only observing.
    pub observed: Vec<Ground>,
}

/// A compiled, immutable set of all policies.
#[derive(Clone, Debug)]
pub struct Generation {
    /// In the order in which they are tried.
    pub policies: Vec<Policy>,
    /// What was compiled in besides the policies.
    pub settings: Settings,
    /// What the kernel needs to know besides the blocks.
    pub header: Header,
    /// The tries, see [`firewall_common::evaluate`].
    pub blocks: Vec<[u32; BLOCK]>,
    /// By number; number 0 is unused.
    decisions: Vec<Decision>,
    /// Rules that no app, destination and port reaches.
    pub unreachable: Vec<Unreachable>,
    apps: AppClasses,
}

/// A rule that can never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Index of the policy.
    pub policy: usize,
    /// Index of the rule in it.
    pub rule: usize,
    /// Whether the rule means no address and no name at all by the tables at hand; otherwise earlier
    /// rules decide everything it means.
    pub means_nothing: bool,
}

/// Why there is no generation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A policy names countries or owners and the table was not given.
    #[error("policy `{policy}` needs the table of {table}, which is not loaded")]
    TableMissing {
        /// The policy's name.
        policy: String,
        /// What the table knows.
        table: &'static str,
    },
    /// A setting has more entries than the kernel programs look at.
    #[error("the setting `{setting}` has {count} entries, and {limit} fit")]
    TooMany {
        /// Its key in `firewall.toml`.
        setting: &'static str,
        /// How many it has.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An automaton for all the paths that selectors name takes too much room.
    #[error(
        "the paths that selectors of apps name are too complex together\n\n\
         hint: `*` and `**` in front of other text cost most: write out what comes first in a path"
    )]
    TooComplex,
    /// The tries or decisions do not fit the kernel's tables.
    #[error("the policies compile to {what}, more than the {limit} that fit")]
    TooLarge {
        /// What there is too much of.
        what: String,
        /// How much there may be.
        limit: u32,
    },
}

/// Blocks of a generation: 1 KiB each, so 512 MiB.
const MAX_BLOCKS: u32 = 1 << 19;

/// Sorts policies into the order in which they are tried.
pub fn order(policies: &mut [Policy]) {
    policies.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
}

/// Cells of the rows of one kind.
const MAX_CELLS: u32 = 1 << 26;

/// What one compilation leaves to the next: the table of names, which takes the most time of all where there are many.
#[derive(Clone, Default)]
pub struct Left(Option<Arc<names::Made>>);

#[cfg(test)]
impl Left {
    /// Whether the table is the very same, and not only equal.
    pub fn is(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

/// Compiles policies, which are in the order in which they are tried.
pub fn compile(
    policies: Vec<Policy>,
    facts: Facts<'_>,
    settings: Settings,
) -> Result<Generation, Error> {
    Ok(compile_after(Left::default(), policies, facts, settings)?.0)
}

/// As [`compile`], and the same comes of it; less is done again of what was done before.
pub fn compile_after(
    before: Left,
    policies: Vec<Policy>,
    facts: Facts<'_>,
    settings: Settings,
) -> Result<(Generation, Left), Error> {
    let mut forest = trie::Forest::default();
    let apps = AppClasses::new(&policies, &mut forest)?;
    let rules = Rules::new(&policies, &apps);
    let mut header = settings.header()?;
    apps.tell(&mut header);
    let first = forest.blocks.len();
    let (names, swept) = both(
        facts.countries.is_some() || facts.asns.is_some(),
        || names::Names::new(&rules, header.name_keys, first, before.0),
        || {
            let sweep = sweep::sweep(&policies, &rules, facts)?;
            let mut classes = Classes::new(&rules);
            let families = sweep.classes(&mut classes);
            Ok((sweep, families, classes.signatures))
        },
    );
    let (names, (sweep, [v4, v6], classes)) = (names?, swept?);
    let names::Made { table, depth, .. } = &*names.made;
    forest.blocks.extend_from_slice(&table.blocks);

    let rows_per_group = apps.all().len().saturating_mul(classes.len() + 1);
    let name_groups = NameGroups::new(&rules, &names.classes, &apps, rows_per_group);
    let address_groups = AddressGroups::new(&classes);
    header.classes = limited(classes.len() + 1, MAX_CELLS, "classes of destinations")?;
    header.name_classes = names.classes.len() as u32;
    header.name_groups = limited(name_groups.most, MAX_CELLS, "groups of names")?;
    header.address_groups = limited(address_groups.all.len(), MAX_CELLS, "groups of addresses")?;
    limited(rows_per_group.saturating_mul(name_groups.most), MAX_CELLS, "rows")?;
    let by_name = names.classes.len().saturating_mul(apps.all().len());
    limited(by_name.saturating_mul(evaluate::RECORD), MAX_CELLS, "records of names")?;
    limited(by_name.saturating_mul(address_groups.all.len() * 2), MAX_CELLS, "rows for names")?;

    let mut rows = row::Rows::new(&policies, &rules, &settings);
    let mut address_rows = Vec::new();
    let mut name_rows = Vec::new();
    let mut records = Vec::new();
    for app in apps.all() {
        let groups = name_groups.of_app(&apps, app);
        let app = rows.app(&apps, app);
        let first = address_rows.len();
        add_address_rows(&classes, &groups.all, &app, &mut rows, &mut address_rows);
        address_rows.resize(first + name_groups.most * (classes.len() + 1), None);
        let ungrouped = address_rows[first..].iter().take(classes.len() + 1).flatten();
        let reaches = rows.passes(ungrouped.copied());
        for (said, group) in names.classes.iter().zip(&name_groups.of) {
            let matched = app.holding(groups::matched(&rules, said, true));
            let [group_trusted, group_untrusted] = group.map(|group| groups.numbers[group]);
            records.push((rows.question(&matched, reaches, &app), group_trusted, group_untrusted));
        }
        if table.lines > 0 {
            add_name_rows(&names.classes, &address_groups, &app, &mut rows, &mut name_rows);
        }
    }
    let row::Numbered { decisions, cells } = rows.number();
    limited(decisions.len(), MAX_DECISIONS, "decisions")?;

    header.root_v4 = forest.insert(&v4, 4).0;
    header.root_v6 = forest.insert(&v6, 16).0;
    let row_cells: Vec<u32> = rows
        .all
        .iter()
        .map(|row| match row {
            row::Row::One(place) => cells[*place].0,
            row::Row::ByPort(steps) => {
                let steps: Vec<(u128, Cell)> =
                    steps.iter().map(|(start, place)| (*start, cells[*place])).collect();
                forest.insert(&steps, 3).0
            }
        })
        .collect();
    let mut blocks = forest.blocks;
    // Class 0 is unused: its cell stays "nothing here".
    let cell = |row: &Option<usize>| row.map_or(0, |row| row_cells[row]);
    header.rows = append(&mut blocks, address_rows.iter().map(cell));
    let records = records.into_iter().flat_map(|(question, group_trusted, group_untrusted)| {
        let question = cells[question].0;
        NameRecord { question, group_trusted, group_untrusted }.words()
    });
    header.name_records = append(&mut blocks, records);
    if table.lines > 0 {
        header.name_rows = append(&mut blocks, name_rows.iter().map(|row| row_cells[*row]));
        header.name_depth = *depth;
        header.names = first as u32;
        header.name_lines = table.lines;
    }
    if address_groups.all.len() > 1 {
        let of_class = std::iter::once(0).chain(address_groups.of);
        header.address_group_of = append(&mut blocks, of_class);
    }
    limited(blocks.len(), MAX_BLOCKS, "blocks of tables")?;
    let unreachable = unreachable(&rules, &sweep, rows.reached());
    let generation =
        Generation { policies, settings, header, blocks, decisions, unreachable, apps };
    Ok((generation, Left(Some(names.made))))
}

/// What both give, at the same time if they are worth another thread.
fn both<A: Send, B>(
    worth: bool,
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    if !worth {
        return (one(), other());
    }
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        match one.join() {
            Ok(one) => (one, other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn limited(count: usize, limit: u32, what: &str) -> Result<u32, Error> {
    match u32::try_from(count) {
        Ok(count) if count <= limit => Ok(count),
        _ => Err(Error::TooLarge { what: format!("{count} {what}"), limit }),
    }
}

/// Appends words and returns their first block.
fn append(blocks: &mut Vec<[u32; BLOCK]>, words: impl Iterator<Item = u32>) -> u32 {
    let first = blocks.len() as u32;
    let mut place = BLOCK;
    for word in words {
        if place == BLOCK {
            blocks.push([0; BLOCK]);
            place = 0;
        }
        if let Some(block) = blocks.last_mut() {
            block[place] = word;
        }
        place += 1;
    }
    first
}

/// Adds the rows of the destination classes for an app, group by group; none of class 0.
fn add_address_rows(
    classes: &[Vec<Standing>],
    groups: &[groups::NameGroup],
    app: &row::App<'_>,
    rows: &mut row::Rows<'_>,
    to: &mut Vec<Option<usize>>,
) {
    for group in groups {
        to.push(None);
        for class in classes {
            let signature = app.holding(groups::signature(class, group));
            to.push(Some(rows.of(signature, row::Kind::Whole, app)));
        }
    }
}

/// Adds the rows of the name classes for an app: for each, by address group, of names that are not
/// trusted and that are.
fn add_name_rows(
    classes: &[Vec<names::Said>],
    groups: &AddressGroups,
    app: &row::App<'_>,
    rows: &mut row::Rows<'_>,
    to: &mut Vec<usize>,
) {
    for said in classes {
        let both =
            [false, true].map(|trusted| app.holding(groups::matched(rows.rules, said, trusted)));
        for excepted in &groups.all {
            for matched in &both {
                let left = matched.iter().filter(|rule| !excepted.contains(rule));
                to.push(rows.of(left.copied().collect(), row::Kind::Beside, app));
            }
        }
    }
}

impl Generation {
    /// The decision that an outcome stands on; `None` if there is none of that number.
    pub fn decision(&self, number: u32) -> Option<&Decision> {
        if number == 0 { None } else { self.decisions.get(number as usize) }
    }

    /// Every decision with its number.
    pub fn decisions(&self) -> impl Iterator<Item = (u32, &Decision)> {
        self.decisions.iter().enumerate().skip(1).map(|(number, one)| (number as u32, one))
    }

    /// What an app of a class gets at a destination that is known by a name: what the kernel would
    /// say.
    pub fn evaluate(
        &self,
        app: u32,
        destination: &Destination,
        named: &Named,
    ) -> Result<Outcome, Fault> {
        evaluate::evaluate(self, &self.header, app, destination, named)
    }

    /// What an app of a class gets that asks for the addresses of a name: what the kernel would say.
    pub fn question(&self, app: u32, name: &str) -> Result<Outcome, Fault> {
        Outcome::from_leaf(evaluate::question(self, &self.header, app, self.class_of(name)))
    }

    /// The class of an app: what the kernel would say. Class 0 is that of an app which no selector
    /// names.
    pub fn class_of_app(&self, app: &AppFacts) -> u32 {
        self.apps.class(self, &self.header, app)
    }

    /// Whether a rule is tried for apps of a class.
    pub fn holds(&self, app: u32, policy: usize, rule: usize) -> bool {
        self.apps.holds(app as usize, self.number_of(policy, rule))
    }

    /// A class that a rule is tried for; there is none if no app is one that it means.
    pub fn some_app(&self, policy: usize, rule: usize) -> Option<u32> {
        let number = self.number_of(policy, rule);
        let class = self.apps.all().find(|class| self.apps.holds(*class, number))?;
        Some(class as u32)
    }

    /// The place of a rule among those of all policies.
    fn number_of(&self, policy: usize, rule: usize) -> u32 {
        let before = self.policies.iter().take(policy).map(|policy| policy.rules.len());
        (before.sum::<usize>() + rule) as u32
    }

    /// The class of a name as events have it; 0 if no rule speaks of it, or it is none.
    pub fn class_of(&self, name: &str) -> u32 {
        Text::read(name).map_or(0, |name| self.hash_and_class(&name).1)
    }

    /// The hash of a name as a packet has it, and its class.
    pub fn hash_and_class(&self, name: &Text) -> (u64, u32) {
        let suffixes = Suffixes::of(self.header.name_keys, name);
        (suffixes.whole, suffixes.class(self, &self.header))
    }

    /// What rules know of a name and the names that it is an alias of: of these the first of which any
    /// rule speaks, as many as there are [`CANDIDATES`].
    pub fn named<T: AsRef<str>>(&self, names: &[T], trusted: bool) -> Named {
        self.named_by(names.iter().map(|name| (name.as_ref(), trusted)))
    }

    /// As [`Self::named`], where each name says whether a trusted resolver told it.
    pub fn named_by<'n>(&self, names: impl IntoIterator<Item = (&'n str, bool)>) -> Named {
        let mut known = names.into_iter().map(|(name, trusted)| (self.class_of(name), trusted));
        // The name asked for has the first place, whether a rule speaks of it or not.
        let Some((class, trusted)) = known.next() else { return Named::default() };
        let mut named = Named { classes: [class, 0, 0, 0], trusted: u32::from(trusted) };
        for (class, trusted) in known {
            named.add_alias(class, u32::from(trusted));
        }
        named
    }

    /// Frees the tables, once the kernel has them. What asks them finds them damaged from then on;
    /// policies and decisions stay.
    pub fn forget_tables(&mut self) {
        self.blocks = Vec::new();
    }

    /// A rule by its ground.
    pub fn rule(&self, ground: Ground) -> Option<(&Policy, &Rule)> {
        match ground {
            Ground::Rule { policy, rule } => {
                let policy = self.policies.get(policy)?;
                Some((policy, policy.rules.get(rule)?))
            }
            Ground::PolicyDefault { .. } | Ground::Default | Ground::Question => None,
        }
    }
}

impl Tables for Generation {
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
        self.blocks.get(index as usize)
    }
}

/// All rules of all policies in the order in which they are tried.
struct Rules<'a> {
    all: Vec<Placed<'a>>,
}

/// A rule and where it stands.
#[derive(Clone, Copy)]
struct Placed<'a> {
    policy: usize,
    place: usize,
    rule: &'a Rule,
    mode: Mode,
    /// Whether it matches anything by name.
    names: bool,
    /// Whether it matches anything by address.
    addresses: bool,
    /// Whether it takes out anything by name.
    excepts_names: bool,
    /// Whether it takes out anything by address.
    excepts_addresses: bool,
    /// Whether it holds for every app.
    every_app: bool,
}

impl<'a> Rules<'a> {
    fn new(policies: &'a [Policy], apps: &AppClasses) -> Self {
        let placed = |policy, place, rule: &'a Rule, mode| {
            let to = rule.to.as_ref();
            let except = to.and_then(|to| to.except.as_deref());
            Placed {
                policy,
                place,
                rule,
                mode,
                names: to.is_some_and(Destinations::has_names),
                addresses: to.is_none_or(means_addresses),
                excepts_names: except.is_some_and(Destinations::has_names),
                excepts_addresses: except.is_some_and(means_addresses),
                every_app: true,
            }
        };
        let all = policies
            .iter()
            .enumerate()
            .flat_map(|(policy, of)| {
                let rules = of.rules.iter().enumerate();
                rules.map(move |(place, rule)| placed(policy, place, rule, of.mode))
            })
            .zip(0..)
            .map(|(placed, number)| Placed { every_app: apps.always(number), ..placed })
            .collect();
        Self { all }
    }

    /// Whether the search ends with this rule wherever it matches.
    fn is_final(&self, index: u32) -> bool {
        let Placed { rule, mode, every_app, .. } = self.all[index as usize];
        mode == Mode::Enforce && rule.ports.is_empty() && every_app
    }

    fn ground(&self, index: u32) -> Ground {
        let Placed { policy, place, .. } = self.all[index as usize];
        Ground::Rule { policy, rule: place }
    }
}

impl Placed<'_> {
    fn drops(&self) -> bool {
        self.rule.action == Action::Drop
    }
}

fn means_addresses(to: &Destinations) -> bool {
    let Destinations { jurisdictions, organisations, asns, networks, domains: _, lists, except: _ } =
        to;
    !(jurisdictions.is_empty()
        && organisations.is_empty()
        && asns.is_empty()
        && networks.is_empty()
        && lists.iter().all(|list| list.networks.is_empty()))
}

/// What a rule has to do with an address: it matches, or the address is taken out of what it matches
/// by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Standing {
    rule: u32,
    excepted: bool,
}

/// Sets of rules that have to do with an address, numbered from 1.
struct Classes<'a> {
    rules: &'a Rules<'a>,
    numbers: HashMap<Vec<Standing>, u32>,
    signatures: Vec<Vec<Standing>>,
}

impl<'a> Classes<'a> {
    fn new(rules: &'a Rules<'a>) -> Self {
        Self { rules, numbers: HashMap::new(), signatures: Vec::new() }
    }

    /// The class of the rules in `active`, which ascend. What comes after a rule that always
    /// decides makes no difference.
    fn of(&mut self, active: impl Iterator<Item = Standing>) -> u32 {
        let mut signature = Vec::new();
        for one in active {
            signature.push(one);
            let excepts_names = self.rules.all[one.rule as usize].excepts_names;
            if !one.excepted && !excepts_names && self.rules.is_final(one.rule) {
                break;
            }
        }
        if let Some(number) = self.numbers.get(&signature) {
            return *number;
        }
        self.signatures.push(signature.clone());
        let number = self.signatures.len() as u32;
        self.numbers.insert(signature, number);
        number
    }
}

fn unreachable(rules: &Rules<'_>, sweep: &sweep::Sweep, reached: &[bool]) -> Vec<Unreachable> {
    let mut named: Vec<bool> =
        rules.all.iter().map(|placed| placed.rule.to.is_none() || placed.names).collect();
    sweep.mark(&mut named);
    rules
        .all
        .iter()
        .zip(reached)
        .zip(named)
        .filter(|((_, reached), _)| !**reached)
        .map(|((placed, _), named)| Unreachable {
            policy: placed.policy,
            rule: placed.place,
            means_nothing: !named,
        })
        .collect()
}
