//! From policies to a generation: a pure function of the policies, the address tables and the
//! settings.
//!
//! The address space is swept once for each family. Between two boundaries the same rules match by
//! address; that set of rules is a destination class. What a class gets is a row: one outcome, or a
//! trie over protocol and port where its rules name ports. The kernel never sees a rule.

mod row;
mod sweep;
mod trie;

use std::collections::HashMap;

use firewall_common::{
    evaluate::{self, Cell, Fault, MAX_DECISIONS, Outcome, Tables},
    flow::Destination,
    layout::{Header, flags},
    verdict::Verdict,
};

use super::{Action, Default, Mode, Policy, Rule};
use crate::intel::country::Country;

/// An address space cut into ranges, ascending and not overlapping, with what is known of each.
pub trait Ranges<V> {
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

/// What `firewall.toml` says of the verdicts, not of the destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What no rule and no policy's default decides.
    pub default: Default,
    /// How a denied `connect` or `sendto` fails.
    pub on_deny: OnDeny,
    /// Whether replies on connections from outside are judged.
    pub inbound: Inbound,
    /// What holds for packets that cannot be read.
    pub unparsable: Default,
    /// Whether allowed flows are recorded.
    pub record_allow: bool,
    /// Whether everything that would be denied is let through and recorded.
    pub observe: bool,
}

impl std::default::Default for Settings {
    fn default() -> Self {
        Self {
            default: Default::Allow,
            on_deny: OnDeny::Refuse,
            inbound: Inbound::Allow,
            unparsable: Default::Drop,
            record_allow: true,
            observe: false,
        }
    }
}

/// How a denied `connect` or `sendto` fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeny {
    /// `ECONNREFUSED`
    Refuse,
    /// `EHOSTUNREACH`
    Unreachable,
    /// `EINVAL`, as for a blackhole route.
    Blackhole,
}

impl OnDeny {
    const fn errno(self) -> i32 {
        match self {
            Self::Refuse => libc::ECONNREFUSED,
            Self::Unreachable => libc::EHOSTUNREACH,
            Self::Blackhole => libc::EINVAL,
        }
    }
}

/// What holds for replies on connections from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// They pass and are not recorded.
    Allow,
    /// They are judged like connections of the app's own.
    Enforce,
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
    pub blocks: Vec<[u32; evaluate::BLOCK]>,
    /// By number; number 0 is unused.
    decisions: Vec<Decision>,
    /// Rules that no destination and port reaches.
    pub unreachable: Vec<Unreachable>,
}

/// A rule that can never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Index of the policy.
    pub policy: usize,
    /// Index of the rule in it.
    pub rule: usize,
    /// Whether the rule names no address at all by the tables at hand; otherwise earlier rules
    /// decide everything it names.
    pub no_address: bool,
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

/// Compiles policies, which are in the order in which they are tried.
pub fn compile(
    policies: Vec<Policy>,
    facts: Facts<'_>,
    settings: Settings,
) -> Result<Generation, Error> {
    let rules = Rules::new(&policies);
    let mut classes = Classes::new(&rules);
    let events = sweep::events(&policies, &rules, facts)?;
    let v4 = sweep::classes(&rules, &events.v4, &mut classes);
    let v6 = sweep::classes(&rules, &events.v6, &mut classes);

    let mut rows = row::Rows::new(&policies, &rules, &settings);
    let class_rows: Vec<row::Row> =
        classes.signatures.iter().map(|signature| rows.of_class(signature)).collect();
    let row::Numbered { decisions, cells } = rows.number();
    if decisions.len() as u64 > u64::from(MAX_DECISIONS) {
        return Err(Error::TooLarge {
            what: format!("{} decisions", decisions.len()),
            limit: MAX_DECISIONS,
        });
    }

    let mut forest = trie::Forest::default();
    let header = Header {
        root_v4: forest.insert(&v4, 4).0,
        root_v6: forest.insert(&v6, 16).0,
        rows: 0,
        classes: classes.signatures.len() as u32 + 1,
        name_groups: 1,
        address_groups: 1,
        errno: -settings.on_deny.errno(),
        flags: flags_of(&settings),
        ..Header::default()
    };
    // Class 0 is unused: its cell stays "nothing here".
    let mut row_cells = vec![Cell::leaf(0)];
    row_cells.extend(class_rows.iter().map(|row| match row {
        row::Row::One(decision) => cells[*decision],
        row::Row::ByPort(steps) => {
            let steps: Vec<(u128, Cell)> =
                steps.iter().map(|(start, decision)| (*start, cells[*decision])).collect();
            forest.insert(&steps, 3)
        }
    }));
    let mut blocks = forest.blocks;
    let header = Header { rows: blocks.len() as u32, ..header };
    blocks.extend(row_cells.chunks(evaluate::BLOCK).map(|chunk| {
        let mut block = [0; evaluate::BLOCK];
        for (to, cell) in block.iter_mut().zip(chunk) {
            *to = cell.0;
        }
        block
    }));
    if blocks.len() as u64 > u64::from(MAX_BLOCKS) {
        return Err(Error::TooLarge {
            what: format!("{} blocks of tables", blocks.len()),
            limit: MAX_BLOCKS,
        });
    }
    let unreachable = unreachable(&rules, &events, rows.reached());
    Ok(Generation { policies, settings, header, blocks, decisions, unreachable })
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

    /// What an app gets at a destination: what the kernel would say.
    pub fn evaluate(&self, destination: &Destination) -> Result<Outcome, Fault> {
        evaluate::evaluate(self, &self.header, 0, destination, &evaluate::Named::default())
    }

    /// A rule by its ground.
    pub fn rule(&self, ground: Ground) -> Option<(&Policy, &Rule)> {
        match ground {
            Ground::Rule { policy, rule } => {
                let policy = self.policies.get(policy)?;
                Some((policy, policy.rules.get(rule)?))
            }
            Ground::PolicyDefault { .. } | Ground::Default => None,
        }
    }
}

impl Tables for Generation {
    fn block(&self, index: u32) -> Option<&[u32; evaluate::BLOCK]> {
        self.blocks.get(index as usize)
    }
}

fn flags_of(settings: &Settings) -> u32 {
    let mut bits = 0;
    if settings.unparsable == Default::Allow {
        bits |= flags::UNPARSABLE_ALLOW;
    }
    if settings.inbound == Inbound::Enforce {
        bits |= flags::INBOUND_ENFORCE;
    }
    if settings.record_allow {
        bits |= flags::RECORD_ALLOW;
    }
    bits
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
}

impl<'a> Rules<'a> {
    fn new(policies: &'a [Policy]) -> Self {
        let all = policies
            .iter()
            .enumerate()
            .flat_map(|(policy, of)| {
                of.rules.iter().enumerate().map(move |(place, rule)| Placed {
                    policy,
                    place,
                    rule,
                    mode: of.mode,
                })
            })
            .collect();
        Self { all }
    }

    /// Whether the search ends with this rule wherever it matches.
    fn is_final(&self, index: u32) -> bool {
        let Placed { rule, mode, .. } = self.all[index as usize];
        mode == Mode::Enforce && rule.ports.is_empty()
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

/// Sets of rules that match by address, numbered from 1.
struct Classes<'a> {
    rules: &'a Rules<'a>,
    numbers: HashMap<Vec<u32>, u32>,
    signatures: Vec<Vec<u32>>,
}

impl<'a> Classes<'a> {
    fn new(rules: &'a Rules<'a>) -> Self {
        Self { rules, numbers: HashMap::new(), signatures: Vec::new() }
    }

    /// The class of the rules in `active`, which ascend. What comes after a rule that always
    /// decides makes no difference.
    fn of(&mut self, active: impl Iterator<Item = u32>) -> u32 {
        let mut signature = Vec::new();
        for index in active {
            signature.push(index);
            if self.rules.is_final(index) {
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

fn unreachable(rules: &Rules<'_>, events: &sweep::Events, reached: &[bool]) -> Vec<Unreachable> {
    let mut named: Vec<bool> = rules.all.iter().map(|placed| placed.rule.to.is_none()).collect();
    for event in events.v4.iter().chain(&events.v6) {
        named[event.rule as usize] = true;
    }
    rules
        .all
        .iter()
        .zip(reached)
        .zip(named)
        .filter(|((_, reached), _)| !**reached)
        .map(|((placed, _), named)| Unreachable {
            policy: placed.policy,
            rule: placed.place,
            no_address: !named,
        })
        .collect()
}
