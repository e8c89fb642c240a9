//! The autonomous system (AS) that announces an address, and what it is called.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, OnceLock},
};

use ipnet::IpNet;

use super::{Error, Source, format, mmdb, table::Table};

/// A table of origin AS numbers.
#[derive(Debug)]
pub struct Asn {
    table: Table<u32>,
    /// Of the embedded table they are only read when asked for: enforcement needs none.
    names: OnceLock<Names>,
}

/// What is known of the origin of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Number of the AS.
    pub asn: u32,
    /// The largest network around the address that is all of this AS. The table's, not an
    /// announcement's: neighbouring ones of one AS are one range.
    pub network: IpNet,
}

/// Why a text is no AS number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAsn {
    /// AS 0 is reserved by RFC 7607: nobody has it, and nothing can match it.
    #[error("AS 0 belongs to nobody")]
    Zero,
    /// It is no number from 1 to 4294967295.
    #[error("not an AS number, which is `AS` and a number up to 4294967295, as in AS4837")]
    NotANumber,
}

/// Reads an AS number: `AS4837`, or the number alone.
///
/// # Errors
/// It is none, or 0.
pub fn parse_asn(text: &str) -> Result<u32, BadAsn> {
    let prefix = text.get(..2).filter(|prefix| prefix.eq_ignore_ascii_case("AS"));
    let digits = prefix.map_or(text, |_| &text[2..]);
    // `u32::from_str` takes a leading plus, too.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadAsn::NotANumber);
    }
    match digits.parse() {
        Ok(0) => Err(BadAsn::Zero),
        Ok(asn) => Ok(asn),
        Err(_) => Err(BadAsn::NotANumber),
    }
}

impl Asn {
    /// The table in the binary.
    ///
    /// # Errors
    /// None, unless the binary is damaged.
    pub fn embedded() -> Result<Self, Error> {
        let (source, v4, v6) = format::decode_table(super::AS_TABLE)?;
        Ok(Self { table: Table::new(source, v4, v6, Some)?, names: OnceLock::new() })
    }

    /// A table from a user's `.mmdb` file. The number stands at `autonomous_system_number` or `asn`,
    /// as a number or as a text; a name at `autonomous_system_organization`, `as_name`,
    /// `organization` or `name`.
    ///
    /// # Errors
    /// The file cannot be read, is no such database, or has no record with an AS number.
    pub fn from_mmdb(path: &Path) -> Result<Self, Error> {
        Self::from_mmdb_bytes(path, mmdb::read(path)?)
    }

    pub(super) fn from_mmdb_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let mut names = BTreeMap::new();
        let (source, v4, v6) = mmdb::collect(path, bytes, "AS number", |record| {
            let mut asn = None;
            for key in ["autonomous_system_number", "asn"] {
                let number = record.number(&[key])?;
                let text = record.text(&[key])?.and_then(|text| parse_asn(text).ok());
                asn = asn.or(number).or(text).filter(|asn| *asn != 0);
            }
            if let Some(asn) = asn {
                for key in ["autonomous_system_organization", "as_name", "organization", "name"] {
                    if let Some(name) = record.text(&[key])?.filter(|name| !name.is_empty()) {
                        // Names are printed to terminals.
                        let readable = |c: char| if c.is_control() { ' ' } else { c };
                        names.entry(asn).or_insert_with(|| name.chars().map(readable).collect());
                        break;
                    }
                }
            }
            Ok(asn)
        })?;
        let table = Table::new(source, v4, v6, Some)?;
        Ok(Self { table, names: OnceLock::from(Names::new(&names)) })
    }

    /// The origin AS of an address, if the table has one.
    #[must_use]
    pub fn lookup(&self, ip: IpAddr) -> Option<Origin> {
        self.table.lookup(ip).map(|(asn, network)| Origin { asn, network })
    }

    /// The name of an AS. The first call reads the names of the embedded table.
    #[must_use]
    pub fn name(&self, asn: u32) -> Option<&str> {
        self.names.get_or_init(Names::embedded).get(asn)
    }

    /// All IPv4 ranges, ascending and apart; those that touch differ in AS.
    pub fn ranges_v4(&self) -> impl Iterator<Item = (RangeInclusive<u32>, u32)> {
        self.table.ranges_v4()
    }

    /// All IPv6 ranges, ascending and apart; those that touch differ in AS.
    pub fn ranges_v6(&self) -> impl Iterator<Item = (RangeInclusive<u128>, u32)> {
        self.table.ranges_v6()
    }

    /// Where the table comes from.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        self.table.source()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.table.size()
    }
}

/// Names by AS number, in one text.
#[derive(Debug, Default)]
struct Names {
    asns: Vec<u32>,
    /// Where each name ends.
    ends: Vec<u32>,
    text: String,
}

impl Names {
    fn embedded() -> Self {
        // No verdict rests on a name; a binary with damaged ones (a test would have failed) still
        // does its work without them.
        format::decode_names(super::AS_NAMES)
            .map(|(_, asns, ends, text)| Self { asns, ends, text })
            .unwrap_or_default()
    }

    fn new(names: &BTreeMap<u32, String>) -> Self {
        let mut new = Self::default();
        for (asn, name) in names {
            new.text.push_str(name);
            // Names past 4 GB, which no database comes near, are left out.
            let Ok(end) = u32::try_from(new.text.len()) else { break };
            new.asns.push(*asn);
            new.ends.push(end);
        }
        new
    }

    fn get(&self, asn: u32) -> Option<&str> {
        let index = self.asns.binary_search(&asn).ok()?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start as usize..self.ends[index] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers() {
        for (text, asn) in
            [("AS4837", 4837), ("as4837", 4837), ("1", 1), ("AS4294967295", u32::MAX)]
        {
            assert_eq!(parse_asn(text), Ok(asn));
        }
        assert_eq!(parse_asn("AS0"), Err(BadAsn::Zero));
        assert_eq!(parse_asn("0"), Err(BadAsn::Zero));
        for wrong in ["", "AS", "AS 1", "+1", "AS+1", "-1", "AS4294967296", "ÄS1", "1.10"] {
            assert_eq!(parse_asn(wrong), Err(BadAsn::NotANumber), "{wrong}");
        }
    }
}
