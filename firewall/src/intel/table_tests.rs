//! A look-up by halving has to agree with looking at every range in turn.

use proptest::prelude::*;

use super::{
    super::format::{decode_names, decode_table, encode_names, encode_table},
    *,
};

/// Ranges as gaps and lengths, so that any numbers give ascending ones; small numbers touch often.
fn transitions<A: Address>(parts: &[(u128, u128, u32)]) -> (Transitions<A>, Vec<(A, A, u32)>) {
    let (mut transitions, mut ranges) = (Transitions::default(), Vec::new());
    let mut free = Some(0_u128);
    for (gap, length, value) in parts {
        let start = free.and_then(|free| free.checked_add(*gap));
        let Some(start) = start.filter(|start| *start <= A::MAX.wide()) else { break };
        let end = start.saturating_add(*length).min(A::MAX.wide());
        transitions.push(A::narrow(start), A::narrow(end), *value).unwrap();
        ranges.push((A::narrow(start), A::narrow(end), *value));
        free = end.checked_add(1).filter(|free| *free <= A::MAX.wide());
    }
    transitions.finish();
    (transitions, ranges)
}

fn source() -> Source {
    let text = || "test".to_owned();
    Source { name: text(), version: text(), date: text(), licence: text(), unusable: 0 }
}

fn linear<A: Address>(ranges: &[(A, A, u32)], address: A) -> Option<u32> {
    let holding = ranges.iter().find(|(start, end, _)| (*start..=*end).contains(&address));
    holding.map(|(.., value)| *value)
}

/// Addresses where an error by one would show, and some others.
fn probes<A: Address>(ranges: &[(A, A, u32)], random: &[u128]) -> Vec<A> {
    let edges = ranges.iter().flat_map(|(start, end, _)| [start.wide(), end.wide()]);
    edges
        .flat_map(|edge| [edge.saturating_sub(1), edge, edge.saturating_add(1)])
        .filter(|wide| *wide <= A::MAX.wide())
        .chain(random.iter().copied())
        .map(A::narrow)
        .collect()
}

fn part(max: u128) -> impl Strategy<Value = (u128, u128, u32)> {
    let size = move || prop_oneof![Just(0_u128), 0..4_u128, 0..1_u128 << 16, 0..max];
    (size(), size(), 1..4_u32)
}

/// The network holds the address, all of it has the value, and no larger one would do.
fn check_network(
    table: &Table<u32>,
    ip: IpAddr,
    net: IpNet,
    linear: impl Fn(IpAddr) -> Option<u32>,
) {
    let value = linear(ip);
    assert!(net.contains(&ip));
    assert_eq!(net, net.trunc());
    for inside in [net.network(), net.broadcast()] {
        assert_eq!(table.lookup(inside).map(|(value, _)| value), value);
        assert_eq!(table.lookup(inside).map(|(_, net)| net), Some(net));
    }
}

proptest! {
    #[test]
    fn lookup_is_a_linear_scan_v4(
        parts in prop::collection::vec(part(1 << 30), 0..40),
        random in prop::collection::vec(any::<u128>(), 20),
    ) {
        let (v4, ranges) = transitions::<u32>(&parts);
        let table = Table::new(source(), v4, Transitions::default(), Some).unwrap();
        for address in probes(&ranges, &random) {
            let ip = IpAddr::from(Ipv4Addr::from_bits(address));
            let found = table.lookup(ip);
            prop_assert_eq!(found.map(|(value, _)| value), linear(&ranges, address));
            if let Some((_, net)) = found {
                check_network(&table, ip, net, |_| linear(&ranges, address));
            }
        }
        let listed: Vec<_> = table.ranges_v4().collect();
        for (range, value) in listed {
            prop_assert_eq!(linear(&ranges, *range.start()), Some(value));
            prop_assert_eq!(linear(&ranges, *range.end()), Some(value));
            let before = range.start().checked_sub(1).and_then(|at| linear(&ranges, at));
            let after = range.end().checked_add(1).and_then(|at| linear(&ranges, at));
            prop_assert!(before != Some(value) && after != Some(value));
        }
    }

    #[test]
    fn lookup_is_a_linear_scan_v6(
        parts in prop::collection::vec(part(1 << 124), 0..40),
        random in prop::collection::vec(any::<u128>(), 20),
    ) {
        let (v6, ranges) = transitions::<u128>(&parts);
        let table = Table::new(source(), Transitions::default(), v6, Some).unwrap();
        for address in probes(&ranges, &random) {
            let ip = IpAddr::from(Ipv6Addr::from_bits(address));
            let found = table.lookup(ip);
            prop_assert_eq!(found.map(|(value, _)| value), linear(&ranges, address));
            if let Some((_, net)) = found {
                check_network(&table, ip, net, |_| linear(&ranges, address));
            }
        }
    }

    #[test]
    fn what_is_written_is_read(
        v4 in prop::collection::vec(part(1 << 30), 0..40),
        v6 in prop::collection::vec(part(1 << 124), 0..40),
    ) {
        let (v4, v6) = (transitions::<u32>(&v4).0, transitions::<u128>(&v6).0);
        let bytes = encode_table(&source(), &v4, &v6).unwrap();
        prop_assert_eq!(decode_table(&bytes), Ok((source(), v4, v6)));
    }

    #[test]
    fn names_that_are_written_are_read(names in prop::collection::btree_map(any::<u32>(), ".{0,40}", 0..20)) {
        let pairs: Vec<_> = names.iter().map(|(number, name)| (*number, name.as_str())).collect();
        let bytes = encode_names(&source(), &pairs).unwrap();
        let (read, numbers, ends, text) = decode_names(&bytes).unwrap();
        prop_assert_eq!(read, source());
        let mut start = 0;
        let read = numbers.into_iter().zip(ends).map(|(number, end)| {
            (number, &text[std::mem::replace(&mut start, end as usize)..end as usize])
        });
        prop_assert!(read.eq(pairs));
    }
}

#[test]
fn the_whole_space_is_one_network() {
    let (mut v4, mut v6) = (Transitions::default(), Transitions::default());
    v4.push(0, u32::MAX, 7).unwrap();
    v6.push(0, u128::MAX, 8).unwrap();
    assert_eq!(v4.push(1, 2, 7), Err(Damaged("a range beyond the last address")));
    v4.finish();
    v6.finish();
    let table = Table::new(source(), v4, v6, Some).unwrap();
    let found = |ip: &str| table.lookup(ip.parse().unwrap()).unwrap();
    assert_eq!(found("255.255.255.255"), (7, "0.0.0.0/0".parse().unwrap()));
    assert_eq!(found("::"), (8, "::/0".parse().unwrap()));
}

#[test]
fn disorder_is_an_error() {
    let mut transitions = Transitions::default();
    transitions.push(10_u32, 20, 1).unwrap();
    assert!(transitions.push(20, 30, 1).is_err());
    assert!(transitions.push(40, 30, 1).is_err());
    assert!(transitions.push(21, 30, 1).is_ok());
}
