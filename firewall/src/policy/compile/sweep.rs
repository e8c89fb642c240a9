//! Which rules match by address, from the first address to the last.

use std::collections::{BTreeSet, HashMap};

use firewall_common::evaluate::Cell;
use ipnet::IpNet;

use super::{Classes, Error, Facts, Ranges, Rules, Standing};
use crate::{
    intel::country::Country,
    policy::{Destinations, Policy},
};

/// A rule's `to` or `except` starts or stops to hold at an address.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    at: u128,
    /// Index of the rule in [`Rules`].
    pub rule: u32,
    except: bool,
    starts: bool,
}

/// The events of both families, in the order of their addresses.
#[derive(Default)]
pub struct Events {
    pub v4: Vec<Event>,
    pub v6: Vec<Event>,
}

/// What one rule does with a country or an AS.
#[derive(Clone, Copy)]
struct Use {
    rule: u32,
    except: bool,
}

/// Collects where each rule starts and stops to match.
pub fn events(policies: &[Policy], rules: &Rules<'_>, facts: Facts<'_>) -> Result<Events, Error> {
    let mut events = Events::default();
    let mut countries: HashMap<Country, Vec<Use>> = HashMap::new();
    let mut asns: HashMap<u32, Vec<Use>> = HashMap::new();
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
                events.add_network(*network, one);
            }
        }
    }
    if let Some(table) = facts.countries {
        events.add_table(table, &countries);
    }
    if let Some(table) = facts.asns {
        events.add_table(table, &asns);
    }
    events.v4.sort_by_key(|event| event.at);
    events.v6.sort_by_key(|event| event.at);
    Ok(events)
}

impl Events {
    fn add_table<V: std::hash::Hash + Eq>(
        &mut self,
        table: &dyn Ranges<V>,
        uses: &HashMap<V, Vec<Use>>,
    ) {
        if uses.is_empty() {
            return;
        }
        for (first, last, value) in table.v4() {
            for one in uses.get(&value).into_iter().flatten() {
                add(&mut self.v4, first.into(), last.into(), *one);
            }
        }
        for (first, last, value) in table.v6() {
            for one in uses.get(&value).into_iter().flatten() {
                add(&mut self.v6, first, last, *one);
            }
        }
    }

    fn add_network(&mut self, network: IpNet, one: Use) {
        match network {
            IpNet::V4(net) => add(
                &mut self.v4,
                net.network().to_bits().into(),
                net.broadcast().to_bits().into(),
                one,
            ),
            // A v4-mapped network is an IPv4 network by another name.
            IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.prefix_len()) {
                (Some(first), 96..) => {
                    let hosts = u32::MAX.checked_shr(u32::from(net.prefix_len()) - 96).unwrap_or(0);
                    let first = first.to_bits();
                    add(&mut self.v4, first.into(), (first | hosts).into(), one);
                }
                _ => add(&mut self.v6, net.network().to_bits(), net.broadcast().to_bits(), one),
            },
        }
    }
}

fn add(events: &mut Vec<Event>, first: u128, last: u128, Use { rule, except }: Use) {
    events.push(Event { at: first, rule, except, starts: true });
    if let Some(after) = last.checked_add(1) {
        events.push(Event { at: after, rule, except, starts: false });
    }
}

/// The destination classes of one family: each holds from its first address up to the next.
///
/// Each class is one that some address up to `last` has: what classes get says what can be reached.
pub fn classes(
    rules: &Rules<'_>,
    events: &[Event],
    last: u128,
    classes: &mut Classes<'_>,
) -> Vec<(u128, Cell)> {
    // How many reasons each rule has to match, and how many not to.
    let mut matched = vec![[0u32; 2]; rules.all.len()];
    let mut active = BTreeSet::new();
    for (index, placed) in rules.all.iter().enumerate() {
        if placed.rule.to.is_none() {
            matched[index][0] = 1;
            active.insert(Standing { rule: index as u32, excepted: false });
        }
    }
    let mut steps = Vec::new();
    if events.first().is_none_or(|first| first.at > 0) {
        steps.push((0, Cell::leaf(classes.of(active.iter().copied()))));
    }
    // Nothing comes after the last address of all.
    let events = &events[..events.partition_point(|event| event.at <= last)];
    for group in events.chunk_by(|a, b| a.at == b.at) {
        for event in group {
            let counts = &mut matched[event.rule as usize];
            let count = &mut counts[usize::from(event.except)];
            *count = if event.starts { *count + 1 } else { *count - 1 };
            let [to, except] = *counts;
            let mut stands = |excepted, stands| {
                let one = Standing { rule: event.rule, excepted };
                if stands {
                    active.insert(one)
                } else {
                    active.remove(&one)
                };
            };
            stands(false, to > 0 && except == 0);
            // Of what a rule matches by name, addresses can be taken out too.
            if rules.all[event.rule as usize].names {
                stands(true, except > 0);
            }
        }
        let cell = Cell::leaf(classes.of(active.iter().copied()));
        let at = group[0].at;
        if steps.last().is_none_or(|(_, before)| *before != cell) {
            steps.push((at, cell));
        }
    }
    steps
}
