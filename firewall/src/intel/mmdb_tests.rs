//! Databases written here in the ways that their makers write them, and then damaged.

#[path = "../../tests/support/mmdb.rs"]
mod writer;

use std::path::Path;

use proptest::prelude::*;
use writer::{Slot, Value, Writer};

use super::{
    super::{asn::Asn, geo::Geo},
    *,
};

fn country(code: &'static str) -> [(&'static str, Value<'static>); 1] {
    [("iso_code", Value::Text(code))]
}

fn countries() -> Writer {
    let mut writer = Writer::new();
    writer
        .add("1.0.0.0/24", &Value::Map(&[("country", Value::Map(&country("AU")))]))
        .add("1.0.1.0/24", &Value::Map(&[("country", Value::Text("CN"))]))
        .add("1.0.2.0/23", &Value::Map(&[("country_code", Value::Text("CN"))]))
        .add("2.0.0.0/8", &Value::Map(&[("country", Value::Text("A1"))]))
        .add("3.0.0.0/8", &Value::Map(&[("city", Value::Text("Nowhere"))]))
        .add("4.0.0.0/8", &Value::Text("not even a map"))
        .add("2400:3200::/32", &Value::Map(&[("country", Value::Map(&country("CN")))]));
    // Where MaxMind lets the carriers of IPv4 addresses lead to the tree of IPv4.
    let v4 = Slot::Node(writer.v4_node());
    writer.put("::ffff:0:0/96", v4).put("2002::/16", v4);
    writer
}

fn geo(bytes: Vec<u8>) -> Result<Geo, Error> {
    Geo::from_mmdb_bytes(Path::new("mine.mmdb"), bytes)
}

fn asn(bytes: Vec<u8>) -> Result<Asn, Error> {
    Asn::from_mmdb_bytes(Path::new("mine.mmdb"), bytes)
}

#[test]
fn countries_wherever_they_stand() {
    let geo = geo(countries().finish()).unwrap();
    let at = |ip: &str| {
        let located = geo.lookup(ip.parse().unwrap())?;
        Some((located.country.code(), located.network.to_string()))
    };
    let is = |code, net: &str| Some((code, net.to_owned()));
    assert_eq!(at("1.0.0.77"), is("AU", "1.0.0.0/24"));
    // Two networks that touch are one range, in which this is the largest network.
    assert_eq!(at("1.0.1.1"), is("CN", "1.0.1.0/24"));
    assert_eq!(at("1.0.3.1"), is("CN", "1.0.2.0/23"));
    assert_eq!(at("2400:3200::1"), is("CN", "2400:3200::/32"));
    assert_eq!(at("2.0.0.1"), None);
    assert_eq!(at("3.0.0.1"), None);
    assert_eq!(at("::ffff:1.0.0.77"), None);
    assert_eq!(geo.ranges_v4().count(), 2);
    assert_eq!(geo.ranges_v6().count(), 1);
    assert_eq!(geo.source().unusable, 3);
    assert_eq!(geo.source().name, "Test (mine.mmdb)");
    assert_eq!(geo.source().date, "2026-09-21");
}

#[test]
fn as_numbers_wherever_they_stand() {
    let (number, text) = (Value::Number, Value::Text);
    let mut writer = Writer::new();
    writer
        .add(
            "1.0.0.0/24",
            &Value::Map(&[
                ("autonomous_system_number", number(4837)),
                ("autonomous_system_organization", text("Unicom")),
            ]),
        )
        .add(
            "1.0.1.0/24",
            &Value::Map(&[("asn", text("AS64512")), ("as_name", text("A\u{1b}lab"))]),
        )
        .add("1.0.2.0/24", &Value::Map(&[("asn", number(64513)), ("name", text("Another"))]))
        .add("1.0.3.0/24", &Value::Map(&[("asn", number(0)), ("name", text("Nobody"))]))
        .add("2001:db8::/32", &Value::Map(&[("asn", text("64514"))]));
    let asn = asn(writer.finish()).unwrap();
    let at = |ip: &str| asn.lookup(ip.parse().unwrap()).map(|origin| origin.asn);
    assert_eq!(at("1.0.0.1"), Some(4837));
    assert_eq!(at("1.0.1.1"), Some(64512));
    assert_eq!(at("1.0.2.1"), Some(64513));
    assert_eq!(at("1.0.3.1"), None);
    assert_eq!(at("2001:db8::1"), Some(64514));
    assert_eq!(asn.name(4837), Some("Unicom"));
    assert_eq!(asn.name(64512), Some("A lab"));
    assert_eq!(asn.name(64513), Some("Another"));
    assert_eq!(asn.name(64514), None);
    assert_eq!(asn.source().unusable, 1);
}

#[test]
fn a_database_of_something_else_is_an_error() {
    let error = asn(countries().finish()).unwrap_err();
    insta::assert_snapshot!(error, @r"
    mine.mmdb (Test) has no network with a usable AS number, and 7 without

    hint: --geo takes a database of countries, --asn one of AS numbers
    ");
}

#[test]
fn what_is_no_database_is_an_error() {
    for bytes in [&b""[..], b"hello", &[0xff; 4096], b"\xab\xcd\xefMaxMind.com"] {
        assert!(matches!(geo(bytes.to_vec()), Err(Error::Mmdb { .. })));
    }
    let missing = Geo::from_mmdb(Path::new("/nonexistent.mmdb")).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }));
}

#[test]
fn a_cut_database_is_an_error() {
    let whole = countries().finish();
    for length in 0..whole.len() {
        assert!(geo(whole[..length].to_vec()).is_err(), "{length} of {}", whole.len());
    }
}

/// A tree whose nodes lead to one another has more paths than anyone can walk.
#[test]
fn a_tree_that_loops_is_an_error() {
    let mut writer = countries();
    let v4 = writer.v4_node();
    for node in &mut writer.nodes {
        if let [Slot::Node(next), Slot::Empty] = *node {
            *node = [Slot::Node(next), Slot::Node(next)];
        }
    }
    assert!(geo(writer.finish()).is_err());
    writer.nodes[v4 as usize] = [Slot::Node(0); 2];
    assert!(geo(writer.finish()).is_err());
}

proptest! {
    /// What is read from a damaged database may be wrong, but reading it ends, and well.
    #[test]
    fn damage_never_panics(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = countries().finish();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = geo(bytes.clone());
        let _ = asn(bytes);
    }
}

#[test]
fn days() {
    for (seconds, day) in [
        (0, "1970-01-01"),
        (86_399, "1970-01-01"),
        (951_782_400, "2000-02-29"),
        (1_735_689_599, "2024-12-31"),
        (1_781_654_400, "2026-06-17"),
        (4_107_542_400, "2100-03-01"),
    ] {
        assert_eq!(date(seconds), day);
    }
}
