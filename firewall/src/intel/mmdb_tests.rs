//! Databases written here in the ways that their makers write them, and then damaged.
//! The format: <https://maxmind.github.io/MaxMind-DB/> (version 2.0).

use std::path::Path;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    super::{asn::Asn, geo::Geo},
    *,
};

/// A value of a record or of the metadata. The format's other types are of no use here.
enum Value<'a> {
    Text(&'a str),
    Short(u16),
    Number(u32),
    Long(u64),
    Map(&'a [(&'a str, Value<'a>)]),
    EmptyArray,
}

impl Value<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        // The highest three bits are the type, the others the length, or 29 for "29 and the number
        // in the next byte". Type 0 is one of the extended types; its number less 7 comes next.
        let mut head = |kind: u8, length: usize| match u8::try_from(length).unwrap() {
            length @ ..29 => out.push(kind << 5 | length),
            length => out.extend([kind << 5 | 29, length - 29]),
        };
        match self {
            Self::Text(text) => {
                head(2, text.len());
                out.extend(text.as_bytes());
            }
            Self::Short(number) => {
                head(5, 2);
                out.extend(number.to_be_bytes());
            }
            Self::Number(number) => {
                head(6, 4);
                out.extend(number.to_be_bytes());
            }
            Self::Long(number) => {
                head(0, 8);
                out.push(9 - 7);
                out.extend(number.to_be_bytes());
            }
            Self::Map(map) => {
                head(7, map.len());
                for (key, value) in *map {
                    Value::Text(key).write(out);
                    value.write(out);
                }
            }
            Self::EmptyArray => {
                head(0, 0);
                out.push(11 - 7);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Slot {
    Empty,
    Node(u32),
    Data(u32),
}

/// A database of IPv6, which holds IPv4 at `::/96`, with records of 32 bits.
struct Writer {
    nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        Self { nodes: vec![[Slot::Empty; 2]], data: Vec::new() }
    }

    fn add(&mut self, net: &str, value: &Value<'_>) -> &mut Self {
        let data = Slot::Data(u32::try_from(self.data.len()).unwrap());
        value.write(&mut self.data);
        self.put(net, data)
    }

    /// Sets what a network leads to; no network may lie in another.
    fn put(&mut self, net: &str, slot: Slot) -> &mut Self {
        let (bits, length) = match net.parse().unwrap() {
            IpNet::V4(net) => (u128::from(net.network().to_bits()), 96 + net.prefix_len()),
            IpNet::V6(net) => (net.network().to_bits(), net.prefix_len()),
        };
        let (last, mut node) = (length - 1, 0);
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth == last {
                self.nodes[node][side] = slot;
                break;
            }
            node = match self.nodes[node][side] {
                Slot::Node(next) => next as usize,
                Slot::Data(_) => panic!("{net} lies in another network"),
                Slot::Empty => {
                    let next = self.nodes.len();
                    self.nodes[node][side] = Slot::Node(u32::try_from(next).unwrap());
                    self.nodes.push([Slot::Empty; 2]);
                    next
                }
            };
        }
        self
    }

    /// The node at `::/96`.
    fn v4_node(&self) -> u32 {
        (0..96).fold(0, |node: u32, _| match self.nodes[node as usize][0] {
            Slot::Node(next) => next,
            _ => panic!("no IPv4 network yet"),
        })
    }

    fn finish(&self) -> Vec<u8> {
        let count = u32::try_from(self.nodes.len()).unwrap();
        let mut out = Vec::new();
        for slot in self.nodes.iter().flatten() {
            let record = match slot {
                Slot::Empty => count,
                Slot::Node(node) => *node,
                Slot::Data(offset) => count + 16 + offset,
            };
            out.extend(record.to_be_bytes());
        }
        out.extend([0; 16]);
        out.extend(&self.data);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        Value::Map(&[
            ("binary_format_major_version", Value::Short(2)),
            ("binary_format_minor_version", Value::Short(0)),
            ("build_epoch", Value::Long(1_790_000_000)),
            ("database_type", Value::Text("Test")),
            ("description", Value::Map(&[])),
            ("ip_version", Value::Short(6)),
            ("languages", Value::EmptyArray),
            ("node_count", Value::Number(count)),
            ("record_size", Value::Short(32)),
        ])
        .write(&mut out);
        out
    }
}

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
