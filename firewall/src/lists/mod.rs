//! Lists of domains and networks, in the formats in which they are published.
//!
//! Pure: text in, sets and a report out. No line is ever passed over: what is not used is counted
//! by reason, with the first examples.

mod adblock;
mod collect;
mod detect;
mod dnsmasq;
mod geosite;
mod hosts;
pub mod import;
mod lsrules;
mod names;
mod netset;
mod report;
mod rpz;
#[cfg(test)]
mod tests;
mod unbound;

use ipnet::IpNet;

use crate::policy::DomainSet;
use collect::Collector;

pub use detect::detect;
pub use report::{Example, Format, Reason, Report, Skipped};

/// What stands in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Names that are meant.
    pub domains: DomainSet,
    /// Names that are taken out again.
    pub exceptions: DomainSet,
    /// Networks that are meant, sorted, each once.
    pub networks: Vec<IpNet>,
    /// What became of each line.
    pub report: Report,
}

/// Why a text is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing in it tells its format.
    #[error("nothing in it tells its format")]
    Undetected,
    /// It is not the JSON that its format asks for.
    #[error("line {line}: {message}")]
    Json {
        /// From 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
}

/// Reads a list; without a format, in the one that its content tells.
///
/// # Errors
///
/// When the format cannot be told, or a format in JSON is not JSON of that form.
pub fn parse(format: Option<Format>, text: &str) -> Result<Parsed, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let format = match format.or_else(|| detect(text)) {
        Some(format) => format,
        None => return Err(Error::Undetected),
    };
    let mut collector = Collector::new();
    match format {
        Format::Hosts => hosts::parse(text, &mut collector),
        Format::Domains => names::domains(text, &mut collector),
        Format::Wildcard => names::wildcard(text, &mut collector),
        Format::Adblock => adblock::parse(text, &mut collector),
        Format::Dnsmasq => dnsmasq::parse(text, &mut collector),
        Format::Unbound => unbound::parse(text, &mut collector),
        Format::Rpz => rpz::parse(text, &mut collector),
        Format::Netset => netset::parse(text, &mut collector),
        Format::Lsrules => lsrules::parse(text, &mut collector)?,
        Format::Geosite => geosite::parse(text, &mut collector),
    }
    Ok(collector.finish(format))
}
