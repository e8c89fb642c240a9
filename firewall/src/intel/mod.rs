//! What is known of addresses: country, origin AS, the organisations that own them, and the names that
//! lead there.
//!
//! All of it is facts about addresses, and says nothing of what may be done with them. The tables in
//! the binary are as old as their [`Source`] says; a user's `.mmdb` files take their place.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

pub mod ahead;
pub mod asn;
pub mod country;
#[cfg_attr(not(test), expect(dead_code, reason = "`cargo xtask data` writes, the library reads"))]
mod format;
pub mod geo;
mod mmdb;
pub mod organisations;
pub mod resolver;
mod table;

pub use format::{Damaged, Source};

use asn::Asn;
use geo::Geo;
use organisations::{BadLine, Organisations};

use crate::policy::compile::Ranges;

const COUNTRY_TABLE: &[u8] = include_bytes!("../../data/country.table");
const AS_TABLE: &[u8] = include_bytes!("../../data/as.table");
const AS_NAMES: &[u8] = include_bytes!("../../data/as.names");
const ORGANISATIONS: &str = include_str!("../../data/organisations.tsv");

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no MaxMind DB, or a damaged one.
    #[error("{} is not a usable .mmdb file: {source}", path.display())]
    Mmdb {
        /// The file.
        path: PathBuf,
        /// Why.
        source: maxminddb::MaxMindDbError,
    },
    /// A file is a MaxMind DB, but its networks make no sense.
    #[error("{} is not a usable .mmdb file: {source}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Damaged,
    },
    /// A file is a MaxMind DB of something else.
    #[error(
        "{} ({kind}) has no network with a usable {what}, and {unusable} without\n\n\
         hint: --geo takes a database of countries, --asn one of AS numbers",
        path.display()
    )]
    Useless {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What the file says it is.
        kind: String,
        /// Networks whose record does not have it.
        unusable: usize,
    },
    /// The tables in the binary are not as they were written.
    #[error("the tables in the binary are damaged: {0}")]
    Embedded(#[from] Damaged),
    /// Lines of a file of organisations that say nothing.
    #[error("{}", lines(.0))]
    Organisations(Vec<BadLine>),
}

fn lines(bad: &[BadLine]) -> String {
    bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Tables of the binary, as far as they were read.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    geo: Option<Arc<Geo>>,
    asn: Option<Arc<Asn>>,
}

/// All that is known of addresses, each part read when first asked for.
#[derive(Debug, Default)]
pub struct Intel {
    geo_file: Option<PathBuf>,
    asn_file: Option<PathBuf>,
    geo: OnceLock<Arc<Geo>>,
    asn: OnceLock<Arc<Asn>>,
    organisations: OnceLock<Organisations>,
}

impl Intel {
    /// With `.mmdb` files in place of the tables in the binary, where given. Reads nothing yet.
    #[must_use]
    pub fn new(geo: Option<PathBuf>, asn: Option<PathBuf>) -> Self {
        Self { geo_file: geo, asn_file: asn, ..Self::default() }
    }

    /// With tables of the binary that were read already.
    #[must_use]
    pub fn with_embedded(self, Embedded { geo, asn }: Embedded) -> Self {
        let geo = geo.filter(|_| self.geo_file.is_none());
        let asn = asn.filter(|_| self.asn_file.is_none());
        let geo = geo.map_or_else(OnceLock::new, OnceLock::from);
        let asn = asn.map_or_else(OnceLock::new, OnceLock::from);
        Self { geo, asn, ..self }
    }

    /// The tables of the binary that were read.
    pub fn embedded(&self) -> Embedded {
        Embedded {
            geo: self.geo.get().filter(|_| self.geo_file.is_none()).cloned(),
            asn: self.asn.get().filter(|_| self.asn_file.is_none()).cloned(),
        }
    }

    /// With these organisations in place of those in the binary.
    #[must_use]
    pub fn with_organisations(mut self, organisations: Organisations) -> Self {
        self.organisations = OnceLock::from(organisations);
        self
    }

    /// Countries.
    ///
    /// # Errors
    /// As of [`Geo::from_mmdb`] and [`Geo::embedded`]; the next call tries again.
    pub fn geo(&self) -> Result<&Geo, Error> {
        let read = || self.geo_file.as_deref().map_or_else(Geo::embedded, Geo::from_mmdb);
        once(&self.geo, || read().map(Arc::new)).map(AsRef::as_ref)
    }

    /// Origin AS.
    ///
    /// # Errors
    /// As of [`Asn::from_mmdb`] and [`Asn::embedded`]; the next call tries again.
    pub fn asn(&self) -> Result<&Asn, Error> {
        let read = || self.asn_file.as_deref().map_or_else(Asn::embedded, Asn::from_mmdb);
        once(&self.asn, || read().map(Arc::new)).map(AsRef::as_ref)
    }

    /// Organisations.
    ///
    /// # Errors
    /// As of [`Organisations::embedded`].
    pub fn organisations(&self) -> Result<&Organisations, Error> {
        once(&self.organisations, Organisations::embedded)
    }
}

/// What the cell holds, made now if it is empty and that succeeds.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;

impl Ranges<country::Country> for Geo {
    fn v4(&self) -> Box<dyn Iterator<Item = (u32, u32, country::Country)> + '_> {
        Box::new(self.ranges_v4().map(|(range, country)| (*range.start(), *range.end(), country)))
    }

    fn v6(&self) -> Box<dyn Iterator<Item = (u128, u128, country::Country)> + '_> {
        Box::new(self.ranges_v6().map(|(range, country)| (*range.start(), *range.end(), country)))
    }
}

impl Ranges<u32> for Asn {
    fn v4(&self) -> Box<dyn Iterator<Item = (u32, u32, u32)> + '_> {
        Box::new(self.ranges_v4().map(|(range, asn)| (*range.start(), *range.end(), asn)))
    }

    fn v6(&self) -> Box<dyn Iterator<Item = (u128, u128, u32)> + '_> {
        Box::new(self.ranges_v6().map(|(range, asn)| (*range.start(), *range.end(), asn)))
    }
}
