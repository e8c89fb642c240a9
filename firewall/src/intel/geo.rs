//! The country an address is registered in.
//!
//! It is neither the place of the machine nor the seat of its owner. Look-ups take an address as it
//! is: unwrap what carries an IPv4 address (mapped, NAT64, 6to4, Teredo) before.

use std::{net::IpAddr, ops::RangeInclusive, path::Path, sync::Arc};

use ipnet::IpNet;

use super::{Error, Source, country::Country, format, mmdb, table::Table};

/// A table of countries.
#[derive(Debug)]
pub struct Geo(Table<u8>);

/// What is known of the country of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The country.
    pub country: Country,
    /// The largest network around the address that is all of this country. The table's, not the
    /// registry's: neighbouring blocks of one country are one range.
    pub network: IpNet,
}

impl Geo {
    /// The table in the binary.
    ///
    /// # Errors
    /// None, unless the binary is damaged.
    pub fn embedded() -> Result<Self, Error> {
        let (source, v4, v6) = format::decode_table(super::COUNTRY_TABLE)?;
        // A code is two letters, the first in the low byte.
        let mut values = vec![0; 1 << 16];
        for country in Country::all() {
            if let &[first, second] = country.code().as_bytes() {
                values[usize::from(u16::from_le_bytes([first, second]))] = country.to_value();
            }
        }
        let value = |code: u32| values.get(code as usize).copied().filter(|value| *value != 0);
        Ok(Self(Table::new(source, v4, v6, value)?))
    }

    /// A table from a user's `.mmdb` file. The code of a record's country stands at
    /// `country.iso_code`, `country` or `country_code`.
    ///
    /// # Errors
    /// The file cannot be read, is no such database, or has no record with a country.
    pub fn from_mmdb(path: &Path) -> Result<Self, Error> {
        Self::from_mmdb_bytes(path, mmdb::read(path)?)
    }

    pub(super) fn from_mmdb_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let (source, v4, v6) = mmdb::collect(path, bytes, "country", |record| {
            let code = record.text(&["country", "iso_code"])?;
            let code = code.or(record.text(&["country"])?).or(record.text(&["country_code"])?);
            Ok(code.and_then(Country::from_code).map(|country| country.to_value().into()))
        })?;
        Ok(Self(Table::new(source, v4, v6, |value| u8::try_from(value).ok())?))
    }

    /// The country of an address, if the table has one.
    #[must_use]
    pub fn lookup(&self, ip: IpAddr) -> Option<Located> {
        let (value, network) = self.0.lookup(ip)?;
        Some(Located { country: Country::from_value(value)?, network })
    }

    /// All IPv4 ranges, ascending and apart; those that touch differ in country.
    pub fn ranges_v4(&self) -> impl Iterator<Item = (RangeInclusive<u32>, Country)> {
        self.0.ranges_v4().filter_map(|(range, v)| Some((range, Country::from_value(v)?)))
    }

    /// All IPv6 ranges, ascending and apart; those that touch differ in country.
    pub fn ranges_v6(&self) -> impl Iterator<Item = (RangeInclusive<u128>, Country)> {
        self.0.ranges_v6().filter_map(|(range, v)| Some((range, Country::from_value(v)?)))
    }

    /// Where the table comes from.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        self.0.source()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.0.size()
    }
}
