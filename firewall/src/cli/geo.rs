//! `firewall geo`: what the tables say of addresses. Needs no privileges and no daemon.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::ExitCode,
};

use firewall_common::flow::Address;
use serde::Serialize;

use crate::{
    intel::{Intel, Source, asn::Asn, country::Country, geo::Geo, organisations::Organisations},
    policy::evidence::Table,
};

/// Ask the tables of countries and owners.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the country and the owner of addresses.
    Lookup(Lookup),
}

#[derive(Debug, clap::Args)]
struct Lookup {
    /// IPv4 or IPv6 addresses. Of one that carries an IPv4 address (IPv4-mapped, NAT64, 6to4, Teredo)
    /// that one is looked up.
    #[arg(required = true, value_name = "IP")]
    addresses: Vec<String>,
    /// Take countries from this database.
    #[arg(long, value_name = "FILE.mmdb")]
    geo: Option<PathBuf>,
    /// Take owners from this database.
    #[arg(long, value_name = "FILE.mmdb")]
    asn: Option<PathBuf>,
    /// Print a JSON object a line for each address.
    #[arg(long)]
    json: bool,
}

/// Runs `firewall geo`.
///
/// # Errors
/// A table cannot be read.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Lookup(args) = args.command;
    let addresses = match parse(&args.addresses) {
        Ok(addresses) => addresses,
        Err(message) => {
            eprint!("{message}");
            return Ok(ExitCode::from(2));
        }
    };
    let intel = Intel::new(args.geo, args.asn);
    let tables =
        Tables { geo: intel.geo()?, asn: intel.asn()?, organisations: intel.organisations()? };
    let answers: Vec<_> = addresses.into_iter().map(|ip| tables.answer(ip)).collect();
    let mut out = io::stdout().lock();
    if args.json {
        for answer in &answers {
            writeln!(out, "{}", serde_json::to_string(answer)?)?;
        }
    } else {
        out.write_all(human(&answers, &tables).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All the addresses, or all that is wrong with them.
fn parse(texts: &[String]) -> Result<Vec<IpAddr>, String> {
    let (mut addresses, mut message) = (Vec::new(), String::new());
    for text in texts {
        match text.parse() {
            Ok(ip) => addresses.push(ip),
            // Writing to a string cannot fail.
            Err(_) => drop(writeln!(message, "error: `{text}` is not an IP address")),
        }
    }
    if message.is_empty() {
        return Ok(addresses);
    }
    message.push_str("\nhint: write addresses like 110.242.68.66 or 2400:3200::1, ");
    message.push_str("with no port, prefix length, brackets or zone\n");
    if texts.iter().any(|text| text.parse::<IpAddr>().is_err() && is_name(text)) {
        message.push_str(
            "hint: `getent ahosts NAME` tells the addresses of a name, \
                          `firewall explain NAME` what happens to the question for it\n",
        );
    }
    Err(message)
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.contains('.') && text.bytes().all(allowed) && text.bytes().any(|b| b.is_ascii_alphabetic())
}

struct Tables<'a> {
    geo: &'a Geo,
    asn: &'a Asn,
    organisations: &'a Organisations,
}

/// What is known of one address. The keys are a contract.
#[derive(Serialize)]
struct Answer<'a> {
    ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    unwrapped: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<Country>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organisation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_network: Option<String>,
    source: Sources<'a>,
}

#[derive(Serialize)]
struct Sources<'a> {
    country: Table<'a>,
    asn: Table<'a>,
}

impl<'a> Tables<'a> {
    fn answer(&self, ip: IpAddr) -> Answer<'a> {
        let unwrapped = match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => unwrap(ip),
        };
        let inner = unwrapped.map_or(ip, IpAddr::V4);
        let (located, origin) = (self.geo.lookup(inner), self.asn.lookup(inner));
        let asn = origin.map(|origin| origin.asn);
        Answer {
            ip,
            unwrapped,
            country: located.map(|located| located.country),
            network: located.map(|located| located.network.to_string()),
            asn,
            as_name: asn.and_then(|asn| self.asn.name(asn)),
            organisation: asn.and_then(|asn| self.organisations.of(asn)),
            as_network: origin.map(|origin| origin.network.to_string()),
            source: Sources {
                country: self.geo.source().as_ref().into(),
                asn: self.asn.source().as_ref().into(),
            },
        }
    }
}

/// The IPv4 address that an IPv6 address carries, by which it is judged too.
fn unwrap(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let address = Address::from(IpAddr::V6(ip));
    address.as_v4().or(address.embedded_v4()).map(Ipv4Addr::from_bits)
}

/// A table, and under it where the facts come from.
fn human(answers: &[Answer<'_>], tables: &Tables<'_>) -> String {
    let header = ["IP", "COUNTRY", "NETWORK", "AS", "AS NETWORK", "ORGANISATION", "AS NAME"];
    let absent = || "-".to_owned();
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(answers.iter().map(|answer| {
        [
            match answer.unwrapped {
                Some(inner) => format!("{} ({inner})", answer.ip),
                None => answer.ip.to_string(),
            },
            answer.country.map_or_else(absent, |c| format!("{} {}", c.code(), c.name())),
            answer.network.clone().unwrap_or_else(absent),
            answer.asn.map_or_else(absent, |asn| format!("AS{asn}")),
            answer.as_network.clone().unwrap_or_else(absent),
            answer.organisation.map_or_else(absent, str::to_owned),
            answer.as_name.map_or_else(absent, str::to_owned),
        ]
    }));
    let mut text = align(&rows);
    for (what, source) in [("country", tables.geo.source()), ("AS", tables.asn.source())] {
        let unusable = match source.unusable {
            0 => String::new(),
            count => format!("; {count} of its networks say nothing usable"),
        };
        let Source { name, version, date, licence, .. } = source.as_ref();
        let line = format!("\n{what}: {name} {version}, of {date} ({licence}){unusable}");
        text.push_str(&line);
    }
    text.push_str("\nThe country is the one an address is registered in.\n");
    text
}

/// Columns as wide as their widest cell, but for the last.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[path = "geo_tests.rs"]
mod tests;
