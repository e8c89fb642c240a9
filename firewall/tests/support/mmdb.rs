//! Databases of the format MaxMind DB, version 2.0: <https://maxmind.github.io/MaxMind-DB/>.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use ipnet::IpNet;

/// A value of a record or of the metadata. The format's other types are of no use here.
pub enum Value<'a> {
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
pub enum Slot {
    Empty,
    Node(u32),
    Data(u32),
}

/// A database of IPv6, which holds IPv4 at `::/96`, with records of 32 bits.
pub struct Writer {
    pub nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self { nodes: vec![[Slot::Empty; 2]], data: Vec::new() }
    }

    pub fn add(&mut self, net: &str, value: &Value<'_>) -> &mut Self {
        let data = Slot::Data(u32::try_from(self.data.len()).unwrap());
        value.write(&mut self.data);
        self.put(net, data)
    }

    /// Sets what a network leads to; no network may lie in another.
    pub fn put(&mut self, net: &str, slot: Slot) -> &mut Self {
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
    pub fn v4_node(&self) -> u32 {
        (0..96).fold(0, |node: u32, _| match self.nodes[node as usize][0] {
            Slot::Node(next) => next,
            _ => panic!("no IPv4 network yet"),
        })
    }

    pub fn finish(&self) -> Vec<u8> {
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
