//! Tables from a user's own MaxMind DB file, whatever its makers put into it.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use maxminddb::{LookupResult, MaxMindDbError, PathElement, Reader, WithinOptions};

use super::{
    Error,
    format::{Damaged, Source, Transitions},
};

/// A database with far more networks than its tree has room for is one whose tree loops.
const NETWORKS_PER_NODE: u64 = 2;

/// A record of the database.
pub(super) struct Record<'r, 'a>(&'r LookupResult<'a, Vec<u8>>);

impl<'a> Record<'_, 'a> {
    /// The text at a path, if there is one.
    pub(super) fn text(&self, path: &[&str]) -> Result<Option<&'a str>, MaxMindDbError> {
        self.at(path)
    }

    /// The number at a path, if there is one.
    pub(super) fn number(&self, path: &[&str]) -> Result<Option<u32>, MaxMindDbError> {
        self.at(path)
    }

    fn at<T: serde::Deserialize<'a>>(&self, path: &[&str]) -> Result<Option<T>, MaxMindDbError> {
        let path: Vec<_> = path.iter().map(|key| PathElement::Key(key)).collect();
        match self.0.decode_path(&path) {
            // Something else stands there.
            Err(MaxMindDbError::Decoding { .. }) => Ok(None),
            found => found,
        }
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Goes through all networks of a database. `value` says what a record stands for, `None` if it has
/// no `what`; 0 is nothing as well.
pub(super) fn collect(
    path: &Path,
    bytes: Vec<u8>,
    what: &'static str,
    mut value: impl FnMut(&Record<'_, '_>) -> Result<Option<u32>, MaxMindDbError>,
) -> Result<(Source, Transitions<u32>, Transitions<u128>), Error> {
    let broken = |source| Error::Mmdb { path: path.to_owned(), source };
    let reader = Reader::from_source(bytes).map_err(broken)?;
    let metadata = reader.metadata();
    let limit = (u64::from(metadata.node_count) + 1) * NETWORKS_PER_NODE;

    let (mut v4, mut v6) = (Transitions::default(), Transitions::default());
    let (mut usable, mut unusable) = (0_u64, 0);
    // Many networks share a record.
    let mut known = HashMap::new();
    let options = WithinOptions::default().include_networks_without_data();
    for (count, network) in (1..).zip(reader.networks(options).map_err(broken)?) {
        if count > limit {
            return Err(damaged(path, Damaged("its tree loops")));
        }
        let network = network.map_err(broken)?;
        let Some(offset) = network.offset() else { continue };
        let number = match known.get(&offset) {
            Some(number) => *number,
            None => {
                let number = value(&Record(&network)).map_err(broken)?.unwrap_or(0);
                known.insert(offset, number);
                number
            }
        };
        if number == 0 {
            unusable += 1;
            continue;
        }
        usable += 1;
        let net = network.network().map_err(broken)?;
        match (net.network(), net.broadcast()) {
            (IpAddr::V4(start), IpAddr::V4(end)) => v4.push(start.to_bits(), end.to_bits(), number),
            (IpAddr::V6(start), IpAddr::V6(end)) => v6.push(start.to_bits(), end.to_bits(), number),
            _ => Err(Damaged("a network of both families")),
        }
        .map_err(|error| damaged(path, error))?;
    }
    if usable == 0 {
        return Err(Error::Useless {
            path: path.to_owned(),
            what,
            kind: metadata.database_type.clone(),
            unusable,
        });
    }
    v4.finish();
    v6.finish();
    let source = Source {
        name: format!("{} ({})", metadata.database_type, path.display()),
        version: metadata.build_epoch.to_string(),
        date: date(metadata.build_epoch),
        licence: "that of the file".to_owned(),
        unusable,
    };
    Ok((source, v4, v6))
}

fn damaged(path: &Path, source: Damaged) -> Error {
    Error::Broken { path: PathBuf::from(path), source }
}

/// The day of a Unix time, as ISO 8601 has it. After Howard Hinnant's `civil_from_days`, which
/// counts in eras of 400 years that begin on the first of March.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
#[path = "mmdb_tests.rs"]
mod tests;
