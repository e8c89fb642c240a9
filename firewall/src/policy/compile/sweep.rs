//! Which rules match by address, from the first address to the last.
//!
//! What rules say of an address has three layers: by its country, by its AS, and by the networks that it
//! is in. Each layer is cut into ranges with a number for what is said there, and of these numbers there
//! are few. So one way through the three side by side finds where anything changes, and rules are looked
//! at once for each combination of numbers, not at each of a million boundaries.

use std::collections::{BTreeMap, HashMap};

use firewall_common::evaluate::Cell;
use ipnet::IpNet;

use super::{Classes, Error, Facts, Rules, Standing, both};
use crate::{
    intel::country::Country,
    policy::{Destinations, Policy},
};

/// What a rule says of an address: that its `to` means it, or its `except`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Use {
    /// Index of the rule in [`Rules`].
    rule: u32,
    except: bool,
}

/// What rules say, each set of it once; number 0 is nothing.
struct Sets {
    all: Vec<Vec<Use>>,
    numbers: HashMap<Vec<Use>, u32>,
}

impl Sets {
    fn new() -> Self {
        Self { all: vec![Vec::new()], numbers: HashMap::from([(Vec::new(), 0)]) }
    }

    fn number(&mut self, uses: Vec<Use>) -> u32 {
        *self.numbers.entry(uses).or_insert_with_key(|uses| {
            self.all.push(uses.clone());
            self.all.len() as u32 - 1
        })
    }
}

/// By country, by AS, by network.
const LAYERS: usize = 3;

/// Where something else holds, ascending: it holds up to the next.
type Steps<T> = Vec<(u128, T)>;

/// One family of addresses.
struct Family {
    /// Numbers of `states`.
    steps: Steps<u32>,
    /// By layer, the number of what is said there; in the order in which addresses have them.
    states: Vec<[u32; LAYERS]>,
}

/// What rules say of all addresses.
pub struct Sweep {
    sets: Sets,
    v4: Family,
    v6: Family,
}

/// Goes once through both families. Rules are not told apart by what they are for.
pub fn sweep(policies: &[Policy], rules: &Rules<'_>, facts: Facts<'_>) -> Result<Sweep, Error> {
    let mut countries: HashMap<Country, Vec<Use>> = HashMap::new();
    let mut asns: HashMap<u32, Vec<Use>> = HashMap::new();
    let mut edges = Edges::default();
    for (index, placed) in rules.all.iter().enumerate() {
        let Some(to) = &placed.rule.to else { continue };
        let missing =
            |table| Error::TableMissing { policy: policies[placed.policy].name.clone(), table };
        for (to, except) in
            std::iter::once((to, false)).chain(to.except.as_deref().map(|except| (except, true)))
        {
            let Destinations {
                jurisdictions,
                organisations,
                asns: numbers,
                networks,
                lists,
                domains: _,
                except: _,
            } = to;
            if !jurisdictions.is_empty() && facts.countries.is_none() {
                return Err(missing("countries"));
            }
            if !(organisations.is_empty() && numbers.is_empty()) && facts.asns.is_none() {
                return Err(missing("AS numbers"));
            }
            let one = Use { rule: index as u32, except };
            for country in jurisdictions {
                countries.entry(*country).or_default().push(one);
            }
            let owned = organisations.iter().flat_map(|name| (facts.organisation)(name));
            for number in numbers.iter().copied().chain(owned) {
                asns.entry(number).or_default().push(one);
            }
            for network in networks.iter().chain(lists.iter().flat_map(|list| &list.networks)) {
                edges.add(*network, one);
            }
        }
    }
    let mut sets = Sets::new();
    let countries = sets.numbered(countries);
    let asns = sets.numbered(asns);
    let networks_v4 = sets.networks(edges.v4);
    let networks_v6 = sets.networks(edges.v6);
    let v4 = || {
        let countries = layer(facts.countries.map(|table| table.v4()), &countries);
        let asns = layer(facts.asns.map(|table| table.v4()), &asns);
        side_by_side([&countries, &asns, &networks_v4], u32::MAX.into())
    };
    let v6 = || {
        let countries = layer(facts.countries.map(|table| table.v6()), &countries);
        let asns = layer(facts.asns.map(|table| table.v6()), &asns);
        side_by_side([&countries, &asns, &networks_v6], u128::MAX)
    };
    let (v4, v6) = both(countries.len() + asns.len() > 0, v4, v6);
    Ok(Sweep { v4, v6, sets })
}

impl Sets {
    /// The number of what is said of each value of a table.
    fn numbered<V: std::hash::Hash + Eq>(&mut self, uses: HashMap<V, Vec<Use>>) -> HashMap<V, u32> {
        let numbered = uses.into_iter().map(|(value, mut uses)| {
            // An AS can be named by its number and by its owner.
            uses.dedup();
            (value, self.number(uses))
        });
        numbered.collect()
    }

    /// What networks say, from their edges.
    fn networks(&mut self, mut edges: Vec<Edge>) -> Steps<u32> {
        edges.sort_unstable_by_key(|edge| edge.at);
        // How many networks say the same.
        let mut active: BTreeMap<Use, u32> = BTreeMap::new();
        let mut steps = Steps::new();
        for group in edges.chunk_by(|a, b| a.at == b.at) {
            // What ends and begins at one address never counts less than nothing in between.
            for edge in group.iter().filter(|edge| edge.starts) {
                *active.entry(edge.says).or_default() += 1;
            }
            for edge in group.iter().filter(|edge| !edge.starts) {
                if let Some(count) = active.get_mut(&edge.says) {
                    *count -= 1;
                    if *count == 0 {
                        active.remove(&edge.says);
                    }
                }
            }
            step(&mut steps, group[0].at, self.number(active.keys().copied().collect()));
        }
        steps
    }
}

/// A network begins, or ended just before.
struct Edge {
    at: u128,
    says: Use,
    starts: bool,
}

/// The edges of networks of both families.
#[derive(Default)]
struct Edges {
    v4: Vec<Edge>,
    v6: Vec<Edge>,
}

impl Edges {
    fn add(&mut self, network: IpNet, says: Use) {
        match network {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                add(&mut self.v4, first.into(), last.into(), says);
            }
            // A v4-mapped network is an IPv4 network by another name.
            IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.prefix_len()) {
                (Some(first), 96..) => {
                    let hosts = u32::MAX.checked_shr(u32::from(net.prefix_len()) - 96).unwrap_or(0);
                    let first = first.to_bits();
                    add(&mut self.v4, first.into(), (first | hosts).into(), says);
                }
                _ => add(&mut self.v6, net.network().to_bits(), net.broadcast().to_bits(), says),
            },
        }
    }
}

fn add(edges: &mut Vec<Edge>, first: u128, last: u128, says: Use) {
    edges.push(Edge { at: first, says, starts: true });
    if let Some(at) = last.checked_add(1) {
        edges.push(Edge { at, says, starts: false });
    }
}

/// What a table says, by what is said of each of its values.
fn layer<A: Into<u128>, V: std::hash::Hash + Eq>(
    table: Option<impl Iterator<Item = (A, A, V)>>,
    numbers: &HashMap<V, u32>,
) -> Steps<u32> {
    let mut steps = Steps::new();
    if numbers.is_empty() {
        return steps;
    }
    // The first address of which nothing was said yet.
    let mut free = Some(0);
    for (first, last, value) in table.into_iter().flatten() {
        let Some(number) = numbers.get(&value) else { continue };
        let (first, last) = (first.into(), last.into());
        if let Some(free) = free.filter(|free| *free < first) {
            step(&mut steps, free, 0);
        }
        step(&mut steps, first, *number);
        free = last.checked_add(1);
    }
    if let Some(free) = free {
        step(&mut steps, free, 0);
    }
    steps
}

/// Adds a step, unless the same holds already.
fn step(steps: &mut Steps<u32>, at: u128, number: u32) {
    if steps.last().map_or(0, |(_, before)| *before) != number {
        steps.push((at, number));
    }
}

/// Up to the address `last`, what all layers say.
fn side_by_side(layers: [&[(u128, u32)]; LAYERS], last: u128) -> Family {
    let mut family = Family { steps: Vec::new(), states: Vec::new() };
    let mut numbers = HashMap::new();
    let mut rest = layers;
    let mut state = [0; LAYERS];
    let mut at = 0;
    loop {
        for (said, rest) in state.iter_mut().zip(&mut rest) {
            if let [(start, number), behind @ ..] = rest
                && *start == at
            {
                (*said, *rest) = (*number, behind);
            }
        }
        let number = *numbers.entry(state).or_insert_with(|| {
            family.states.push(state);
            family.states.len() as u32 - 1
        });
        family.steps.push((at, number));
        match rest.iter().filter_map(|rest| rest.first()).map(|(start, _)| *start).min() {
            Some(next) if next <= last => at = next,
            _ => return family,
        }
    }
}

impl Sweep {
    /// The destination classes of both families.
    ///
    /// Each class is one that some address has: what classes get says what can be reached.
    pub fn classes(&self, classes: &mut Classes<'_>) -> [Steps<Cell>; 2] {
        let rules = classes.rules;
        let everywhere = (0..)
            .zip(&rules.all)
            .filter(|(_, placed)| placed.rule.to.is_none())
            .map(|(rule, _)| Use { rule, except: false });
        let everywhere: Vec<Use> = everywhere.collect();
        let mut said = Vec::new();
        [&self.v4, &self.v6].map(|family| {
            let mut class = |state: &[u32; LAYERS]| {
                said.clone_from(&everywhere);
                said.extend(state.iter().flat_map(|number| &self.sets.all[*number as usize]));
                said.sort_unstable();
                let standing = said.chunk_by(|a, b| a.rule == b.rule).filter_map(|uses| {
                    let [.., Use { rule, except: excepted }] = *uses else { return None };
                    // Of what a rule matches by name, addresses can be taken out too.
                    let stands = !excepted || rules.all[rule as usize].names;
                    stands.then_some(Standing { rule, excepted })
                });
                Cell::leaf(classes.of(standing))
            };
            let cells: Vec<Cell> = family.states.iter().map(&mut class).collect();
            let mut steps: Steps<Cell> = Steps::new();
            for (at, state) in &family.steps {
                let cell = cells[*state as usize];
                if steps.last().is_none_or(|(_, before)| *before != cell) {
                    steps.push((*at, cell));
                }
            }
            steps
        })
    }

    /// Marks the rules that mean some address.
    pub fn mark(&self, rules: &mut [bool]) {
        for number in self.v4.states.iter().chain(&self.v6.states).flatten() {
            for says in &self.sets.all[*number as usize] {
                rules[says.rule as usize] = true;
            }
        }
    }
}
