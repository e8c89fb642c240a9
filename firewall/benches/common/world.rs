//! Generations to measure with.

#![allow(dead_code, reason = "each measurement uses a part of it")]

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;
use firewall::{
    intel::{Intel, country::Country},
    lists::{self, Format, Parsed},
    policy::{
        Action, Apps, Destinations, List, Means, Mode, Paths, Policy, Rule, Selector, Whole,
        compile::Generation,
    },
};
use firewall_common::evaluate::Cell;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Rules over which all AS numbers are spread: so many that neighbours are hardly ever in the same.
const AS_RULES: u32 = 256;

/// Policies that put every boundary of the country and the AS table into a generation: a rule for
/// each country, each organisation, and sets of AS numbers with every number in one of them. The
/// owners' are in a policy that observes, so that the countries after them count too.
pub fn world(intel: &Intel) -> Result<Vec<Policy>> {
    let countries = Country::all().map(|country| {
        let to = Destinations { jurisdictions: vec![country], ..Destinations::default() };
        rule(country.code().to_owned(), to)
    });
    let organisations = intel.organisations()?.names().map(|name| {
        let to = Destinations { organisations: vec![name.to_owned()], ..Destinations::default() };
        rule(name.to_owned(), to)
    });
    let table = intel.asn()?;
    let numbers: BTreeSet<u32> = table
        .ranges_v4()
        .map(|(_, asn)| asn)
        .chain(table.ranges_v6().map(|(_, asn)| asn))
        .collect();
    let asns = (0..AS_RULES).map(|part| {
        let asns = numbers.iter().copied().filter(|asn| asn % AS_RULES == part).collect();
        rule(format!("as-{part}"), Destinations { asns, ..Destinations::default() })
    });
    let mut owners = policy("owners", 50, organisations.chain(asns).collect());
    owners.mode = Mode::Observe;
    Ok(vec![owners, policy("countries", 100, countries.collect())])
}

/// A policy of so many rules, each for a network of its own.
pub fn networks(rules: u32) -> Vec<Policy> {
    // Steele, Lea and Flood's SplitMix64: the same networks in every run.
    let mut state = 0u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let rules = (0..rules).map(|number| {
        let bits = random();
        let network = if number % 2 == 0 {
            Ipv4Net::new_assert((bits as u32).into(), 24).trunc().into()
        } else {
            // Where the benchmark's random addresses are: 2000::/6.
            let high = 0x2 << 60 | bits >> 6;
            IpNet::V6(Ipv6Net::new_assert((u128::from(high) << 64).into(), 48).trunc())
        };
        let to = Destinations { networks: vec![network], ..Destinations::default() };
        rule(format!("network-{number}"), to)
    });
    vec![policy("networks", 100, rules.collect())]
}

/// The world's countries, and so many rules before them, each for an app of its own.
pub fn apps(rules: u32, intel: &Intel) -> Result<Vec<Policy>> {
    let mut policies = world(intel)?;
    let of_app = |number| {
        let path = app(number);
        let text = format!("exe:{path}");
        let means = Means::Exe(Paths::new(vec![path], Whole::Path).map_err(anyhow::Error::msg)?);
        let to = Destinations {
            jurisdictions: Country::all().take(1).collect(),
            ..Destinations::default()
        };
        let only = vec![Selector { text, means }];
        anyhow::Ok(Rule {
            apps: Apps { only, except: Vec::new() },
            ..rule(format!("app-{number}"), to)
        })
    };
    let rules = (0..rules).map(of_app).collect::<Result<_>>()?;
    policies.insert(0, policy("apps", 10, rules));
    Ok(policies)
}

/// The path of an app of [`apps`].
pub fn app(number: u32) -> String {
    format!("/opt/apps/{number}/bin/app-{number}")
}

fn policy(name: &str, priority: u32, rules: Vec<Rule>) -> Policy {
    Policy {
        name: name.to_owned(),
        description: String::new(),
        mode: Mode::Enforce,
        priority,
        default: None,
        apps: Apps::default(),
        rules,
    }
}

/// A list of so many names, in lengths and depths as block lists have them.
pub fn list(names: u32) -> String {
    let mut text = String::new();
    for number in 0..names {
        // A permutation of the numbers, so that neighbours in the list are none in the alphabet.
        let mixed = number.wrapping_mul(2_654_435_761);
        let (zone, tld) = (mixed % 400_000, ["com", "net", "org", "example", "co.uk"]);
        let tld = tld[mixed as usize % tld.len()];
        text += &match number % 3 {
            0 => format!("tracker-{mixed:x}.{tld}\n"),
            1 => format!("ads{number}.site-{zone}.{tld}\n"),
            _ => format!("a{number:x}.metrics.site-{zone}.{tld}\n"),
        };
    }
    text
}

/// A policy of one rule, for what a list names.
pub fn names(text: &str) -> Result<Vec<Policy>> {
    let Parsed { domains, exceptions, networks, report } =
        lists::parse(Some(Format::Domains), text)?;
    let list = List { domains, exceptions, networks, report, ..List::empty("names") };
    let to = Destinations { lists: vec![Arc::new(list)], ..Destinations::default() };
    Ok(vec![policy("names", 100, vec![rule("listed".to_owned(), to)])])
}

fn rule(name: String, to: Destinations) -> Rule {
    Rule {
        name,
        action: Action::Allow,
        to: Some(to),
        ports: Vec::new(),
        apps: Apps::default(),
        until: None,
    }
}

/// Where one class of destinations ends and another begins, of both families together.
pub fn boundaries(generation: &Generation) -> usize {
    [generation.header.root_v4, generation.header.root_v6]
        .map(|root| {
            let (mut last, mut classes) = (None, 0);
            leaves(generation, Cell(root), &mut |leaf| {
                if last.replace(leaf) != Some(leaf) {
                    classes += 1;
                }
            });
            classes - 1
        })
        .iter()
        .sum()
}

fn leaves(generation: &Generation, cell: Cell, visit: &mut impl FnMut(Cell)) {
    if cell.is_leaf() {
        return visit(cell);
    }
    for byte in 0..=u8::MAX {
        // Tables that were just compiled have no cell that leads nowhere.
        if let Ok(cell) = cell.follow(generation, byte) {
            leaves(generation, cell, visit);
        }
    }
}
