//! Every name that a capture shows, and where.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use firewall_common::flow::Address;
use serde::Serialize;

use super::time_of;
use crate::events::SCHEMA;

/// Names that are kept.
const MAX_NAMES: usize = 1 << 16;
/// Addresses of a name that are kept.
const MAX_ADDRESSES: usize = 16;

/// Where a name was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It was asked for.
    DnsQuestion,
    /// An answer says where it is.
    DnsAnswer,
    /// An answer says that another name is an alias of it.
    DnsAlias,
    /// TLS ClientHello.
    Tls,
    /// HTTP/1 request.
    Http,
    /// QUIC Initial.
    Quic,
}

impl Source {
    /// The word in machine output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::DnsQuestion => "dns-question",
            Self::DnsAnswer => "dns-answer",
            Self::DnsAlias => "dns-alias",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Quic => "quic",
        }
    }
}

/// A name and where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Name {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `name`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
    /// Where it was.
    pub source: Source,
    /// When first.
    pub time: String,
    /// How often.
    pub count: u64,
    /// Of an answer, where the name is; of a payload, where it was sent.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
    /// It was the outer name of an encrypted hello.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted_hello: bool,
}

/// The names of a capture.
#[derive(Debug, Default)]
pub struct Found(HashMap<(String, Source), Name>);

impl Found {
    /// Takes a name: whether there is room for it.
    pub fn add(
        &mut self,
        name: &str,
        source: Source,
        time: u64,
        addresses: impl IntoIterator<Item = Address>,
        encrypted_hello: bool,
    ) -> bool {
        let key = (name.to_owned(), source);
        if self.0.len() >= MAX_NAMES && !self.0.contains_key(&key) {
            return false;
        }
        let found = self.0.entry(key).or_insert_with(|| Name {
            schema: SCHEMA,
            kind: "name",
            name: name.to_owned(),
            source,
            time: time_of(time),
            count: 0,
            addresses: BTreeSet::new(),
            encrypted_hello: false,
        });
        found.count += 1;
        found.encrypted_hello |= encrypted_hello;
        for address in addresses {
            if found.addresses.len() < MAX_ADDRESSES {
                found.addresses.insert(address.into());
            }
        }
        true
    }

    /// All of them, in the order of the alphabet.
    pub fn into_names(self) -> Vec<Name> {
        let mut names: Vec<Name> = self.0.into_values().collect();
        names.sort_unstable_by(|a, b| (&a.name, a.source).cmp(&(&b.name, b.source)));
        names
    }
}
