//! What a verdict rests on: the matchers that hold, each with its fact, and the data that these facts
//! stand in.

use std::{fmt::Display, sync::Arc};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{Destinations, List, ListSource};
use crate::intel::Source;

/// Which matchers hold, and by what.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// For people and machines: `country:CN=110.240.0.0/12`.
    pub facts: Vec<String>,
    /// What they stand in.
    pub data: Data,
}

/// The data that evidence rests on, as they were when it was looked up. What stands in a policy or in a
/// file beside it has no date and is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Data {
    /// The table of countries.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "table")]
    #[schema(value_type = Table)]
    pub country: Option<Arc<Source>>,
    /// The table of AS numbers.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "table")]
    #[schema(value_type = Table)]
    pub asn: Option<Arc<Source>>,
    /// The copies of lists by URL, by the names of the lists.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "copies")]
    #[schema(value_type = std::collections::HashMap<String, ListCopy>)]
    pub lists: Vec<Arc<List>>,
}

/// A table by what its makers call it.
#[derive(Serialize, ToSchema)]
pub struct Table<'a> {
    /// Its name; of a user's database its kind and path.
    name: &'a str,
    /// Its version.
    version: &'a str,
    /// The day the data was made, `YYYY-MM-DD`.
    date: &'a str,
}

/// The copy of a list by URL.
#[derive(Serialize, ToSchema)]
pub struct ListCopy {
    /// When it was received.
    #[schema(value_type = String)]
    fetched: Timestamp,
}

impl<'a> From<&'a Source> for Table<'a> {
    fn from(source: &'a Source) -> Self {
        Self { name: &source.name, version: &source.version, date: &source.date }
    }
}

fn table<S: Serializer>(source: &Option<Arc<Source>>, to: S) -> Result<S::Ok, S::Error> {
    source.as_deref().map(Table::from).serialize(to)
}

fn copies<S: Serializer>(lists: &[Arc<List>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(lists.iter().filter_map(|list| Some((&list.name, copy(list)?))))
}

/// What a list by URL was read from.
fn copy(list: &List) -> Option<ListCopy> {
    let ListSource::Url(remote) = &list.source else { return None };
    remote.copy.as_ref().ok()?.as_ref().map(|head| ListCopy { fetched: head.fetched })
}

impl Data {
    /// Whether there is nothing to tell.
    pub const fn is_empty(&self) -> bool {
        let Self { country, asn, lists } = self;
        country.is_none() && asn.is_none() && lists.is_empty()
    }

    fn add(&mut self, list: &Arc<List>) {
        let is_there = self.lists.iter().any(|one| one.name == list.name);
        if copy(list).is_some() && !is_there {
            self.lists.push(Arc::clone(list));
        }
    }
}

impl Evidence {
    /// Whether no matcher holds.
    pub const fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// Adds what is not there yet.
    pub fn extend(&mut self, other: Self) {
        let Self { facts, data: Data { country, asn, lists } } = other;
        for fact in facts {
            if !self.facts.contains(&fact) {
                self.facts.push(fact);
            }
        }
        let data = &mut self.data;
        data.country = data.country.take().or(country);
        data.asn = data.asn.take().or(asn);
        lists.iter().for_each(|list| data.add(list));
    }

    /// That an entry of a list holds.
    pub fn add(&mut self, list: &Arc<List>, entry: impl Display) {
        self.facts.push(format!("list:{}={entry}", list.name));
        self.data.add(list);
    }
}

/// Which matchers of `to` itself hold for one name.
pub fn by_name(to: &Destinations, name: &str) -> Evidence {
    let domains = to.domains.iter().filter(|domain| domain.matches(name));
    let facts = domains.map(|domain| format!("domain:{domain}")).collect();
    let mut evidence = Evidence { facts, data: Data::default() };
    for list in &to.lists {
        if let Some(entry) = list.find(name) {
            evidence.add(list, entry.name);
        }
    }
    evidence
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
