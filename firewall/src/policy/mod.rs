//! Policies: their model, and the way from TOML text to a generation.

pub mod compile;
mod denied;
pub mod diagnostic;
pub mod domains;
pub mod evidence;
pub mod explain;
mod model;
pub(crate) mod parse;
mod selector;
mod shipped;
pub mod source;

pub use denied::{DeniedNames, denied_names};
pub use domains::{Domain, DomainSet, Scope};
pub use model::*;
pub use parse::SpecError;
pub(crate) use selector::escaped;
pub use selector::{AppFacts, Apps, Means, Paths, Selector, Whole};
pub use shipped::SHIPPED;

use crate::intel::organisations::Organisations;

/// Parses and checks a set of policies, all files of it and the lists that they name, which are read from
/// `files`.
///
/// The policies are in the order of the sources. If the findings have an error there are none: a
/// set with an error is not to be applied in part.
pub fn load(
    sources: &[source::Source],
    organisations: &Organisations,
    files: &dyn source::Files,
) -> (Vec<Policy>, diagnostic::Diagnostics) {
    parse::load(sources, organisations, files)
}

/// The destinations of a SPEC of the command line: `country:CN`, `org:baidu`, `as:37963`,
/// `net:10.0.0.0/8`, `domain:hm.baidu.com` or `list:FILE`.
///
/// # Errors
///
/// When it is none of these, or the list cannot be read.
pub fn parse_spec(text: &str, organisations: &Organisations) -> Result<Destinations, SpecError> {
    parse::parse_spec(text, organisations, &source::Disk)
}

/// An app as policies and the command line name it: `exe:/usr/bin/firefox`, `unit:docker.service`,
/// `user:ada`, `kernel`, …
///
/// # Errors
///
/// When it is none, or `files` knows no such user or group.
pub fn parse_selector(text: &str, files: &dyn source::Files) -> Result<Selector, SpecError> {
    parse::parse_selector(text, files)
}
