//! How much is kept, and for how long.

use std::{iter, time::Duration};

use firewall::quic::{Cid, Inspector};

use super::{
    CID, Said,
    built::{self, Initial, PING, V1, crypto, pieces},
    hello, take,
};

const MIB: usize = 1 << 20;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Ids without end.
fn ids() -> impl Iterator<Item = [u8; 8]> {
    (1_u64..).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
}

/// The first half of a hello.
fn half(cid: &[u8]) -> Vec<u8> {
    pieces(V1, cid, &hello("a.com"), &[(0, 60)]).remove(0)
}

#[test]
fn what_cannot_be_opened_leaves_nothing_behind() {
    let mut inspector = Inspector::default();
    let mut forged = built::hello(V1, &CID, &hello("a.com"));
    for (number, cid) in ids().take(2000).enumerate() {
        forged[6..14].copy_from_slice(&cid);
        assert_eq!(take(&mut inspector, number, &forged), Said::Malformed);
    }
    let counters = inspector.counters();
    assert_eq!((counters.malformed, counters.opened), (2000, 0));
    assert_eq!((counters.connections, counters.bytes, counters.evicted), (0, 0, 0));
}

#[test]
fn a_datagram_has_eight_initials() {
    let of = |count| {
        (0..count).flat_map(|n| Initial::new(V1, &CID, &PING).number(n, 1).padded(60).seal())
    };
    assert_eq!(take(&mut Inspector::default(), 0, &of(8).collect::<Vec<u8>>()), Said::More);
    assert_eq!(take(&mut Inspector::default(), 0, &of(9).collect::<Vec<u8>>()), Said::Malformed);
}

/// Whoever opens connections without end on one flow drives out the flow's own.
#[test]
fn a_flow_has_sixty_four_connections() {
    let mut inspector = Inspector::default();
    let others: Vec<Vec<u8>> = ids().take(100).map(|cid| half(&cid)).collect();
    for (flow, datagram) in others.iter().enumerate() {
        assert_eq!(take(&mut inspector, flow, datagram), Said::More);
    }
    for (cid, number) in ids().skip(100).zip(1..) {
        assert_eq!(take(&mut inspector, 1000, &half(&cid)), Said::More);
        let counters = inspector.counters();
        assert_eq!(counters.connections, 100 + number.min(64));
        assert_eq!(counters.evicted as usize, number.saturating_sub(64));
        if number == 500 {
            break;
        }
    }
    let size = inspector.counters().bytes;
    // The others are all there: their second half is the rest of a hello.
    for (flow, cid) in ids().take(100).enumerate() {
        let rest = pieces(V1, &cid, &hello("a.com"), &[(60, 999)]).remove(0);
        assert_eq!(take(&mut inspector, flow, &rest), Said::name("a.com"));
    }
    assert_eq!(inspector.counters().connections, 164);
    assert!(inspector.counters().bytes > size);
}

/// Of a flow, the one that was not heard of for longest goes.
#[test]
fn the_least_recently_used_goes_first() {
    let mut inspector = Inspector::default();
    let ids: Vec<[u8; 8]> = ids().take(66).collect();
    for cid in &ids[..64] {
        take(&mut inspector, 0, &half(cid));
    }
    // The first one is used again, so that the second one goes.
    take(&mut inspector, 0, &half(&ids[0]));
    take(&mut inspector, 0, &half(&ids[64]));
    let rest = |cid: &[u8]| pieces(V1, cid, &hello("a.com"), &[(60, 999)]).remove(0);
    assert_eq!(take(&mut inspector, 0, &rest(&ids[0])), Said::name("a.com"));
    assert_eq!(take(&mut inspector, 0, &rest(&ids[2])), Said::name("a.com"));
    assert_eq!(take(&mut inspector, 0, &rest(&ids[64])), Said::name("a.com"));
    assert_eq!(inspector.counters().evicted, 1);
    assert_eq!(take(&mut inspector, 0, &rest(&ids[1])), Said::More, "it begins again");
    assert_eq!(inspector.counters().evicted, 2);
}

#[test]
fn all_flows_have_four_thousand_and_ninety_six() {
    let mut inspector = Inspector::default();
    for (flow, cid) in ids().take(4200).enumerate() {
        assert_eq!(take(&mut inspector, flow, &half(&cid)), Said::More);
    }
    let counters = inspector.counters();
    assert_eq!((counters.connections, counters.evicted), (4096, 104));
    let last = ids().nth(4199).unwrap();
    let rest = |cid: &[u8]| pieces(V1, cid, &hello("a.com"), &[(60, 999)]).remove(0);
    assert_eq!(take(&mut inspector, 4199, &rest(&last)), Said::name("a.com"));
    let first = ids().next().unwrap();
    assert_eq!(take(&mut inspector, 0, &rest(&first)), Said::More, "it is gone");
}

/// A byte at the end of what a hello may be makes room for all of it.
#[test]
fn memory_is_bounded() {
    let mut inspector = Inspector::default();
    let far = |cid: &[u8]| Initial::new(V1, cid, &crypto(16_383, b"x")).datagram();
    let mut most = 0;
    for (number, cid) in ids().take(2000).enumerate() {
        assert_eq!(take(&mut inspector, number, &far(&cid)), Said::More);
        most = most.max(inspector.counters().bytes);
    }
    let counters = inspector.counters();
    assert!(most <= 16 * MIB && most > 15 * MIB, "{most}");
    assert!(counters.connections < 1000 && counters.evicted > 1000, "{counters:?}");
    assert_eq!(counters.connections as u64 + counters.evicted, 2000);

    // One flow gets a part of that.
    let mut inspector = Inspector::default();
    for cid in ids().take(500) {
        take(&mut inspector, 0, &far(&cid));
    }
    assert!(inspector.counters().bytes < 4 * MIB, "{:?}", inspector.counters());
    inspector.expire(seconds(100));
    assert_eq!((inspector.counters().connections, inspector.counters().bytes), (0, 0));
}

#[test]
fn a_hello_that_is_never_completed_is_told_once() {
    let mut inspector = Inspector::default();
    let cid = Cid::new(&CID).unwrap();
    inspector.take(7, &half(&CID), seconds(100));
    // Time does not start again with more of it.
    inspector.take(7, &Initial::new(V1, &CID, &PING).number(1, 1).datagram(), seconds(105));
    assert_eq!(inspector.expire(seconds(109)), []);
    assert_eq!(inspector.expire(seconds(110)), [(7, cid)]);
    assert_eq!(inspector.expire(seconds(200)), []);
    assert_eq!(inspector.counters().incomplete, 1);
    // It begins again.
    assert_eq!(Said::of(&inspector.take(7, &half(&CID), seconds(200))), Said::More);
}

#[test]
fn a_connection_is_known_for_a_minute_after_it_was_used() {
    let mut inspector = Inspector::default();
    let whole = built::hello(V1, &CID, &hello("a.com"));
    let mut say = |datagram: &[u8], at| {
        assert_eq!(inspector.expire(seconds(at)), []);
        Said::of(&inspector.take(0, datagram, seconds(at)))
    };
    let name = Said::name("a.com");
    assert_eq!(say(&whole, 0), name);
    assert_eq!(say(&whole, 59), Said::Same);
    assert_eq!(say(&whole, 118), Said::Same);
    assert_eq!(say(&whole, 178), name, "it is as new");
    // What is malformed does not keep it.
    let other = built::hello(V1, &CID, &hello("b.com"));
    assert_eq!(say(&other, 230), Said::Malformed);
    assert_eq!(say(&other, 238), Said::name("b.com"));
}

/// A second hello has as long as the first.
#[test]
fn a_second_hello_that_is_never_completed() {
    let mut inspector = Inspector::default();
    let first = hello("a.com");
    inspector.take(0, &built::hello(V1, &CID, &first), seconds(0));
    let begin = crypto(first.len() as u64, &first[..9]);
    let begin = Initial::new(V1, &CID, &begin).number(1, 1).datagram();
    assert_eq!(inspector.expire(seconds(50)), []);
    assert_eq!(Said::of(&inspector.take(0, &begin, seconds(50))), Said::More);
    assert_eq!(inspector.expire(seconds(59)), []);
    assert_eq!(inspector.expire(seconds(60)), [(0, Cid::new(&CID).unwrap())]);
}

#[test]
fn time_that_goes_back_harms_nothing() {
    let mut inspector = Inspector::default();
    inspector.take(0, &half(&CID), seconds(100));
    assert_eq!(inspector.expire(seconds(1)), []);
    inspector.take(0, &half(&CID), seconds(0));
    assert_eq!(inspector.counters().connections, 1);
}

#[test]
fn everything_is_counted() {
    let mut inspector = Inspector::default();
    let ping = Initial::new(V1, &CID, &PING).number(1, 1).padded(50).seal();
    let whole = built::hello(V1, &CID, &hello("a.com"));
    let datagrams: Vec<Vec<u8>> =
        iter::once(whole).chain([[ping.clone(), ping].concat(), vec![0xc0], vec![]]).collect();
    for datagram in &datagrams {
        take(&mut inspector, 0, datagram);
    }
    let counters = inspector.counters();
    assert_eq!((counters.opened, counters.malformed), (3, 2));
    assert_eq!((counters.incomplete, counters.evicted, counters.connections), (0, 0, 1));
}
