//! `cargo bench --package firewall --bench quic`: Initial packets of QUIC that one core reads in a
//! second, and what a flood of them leaves in memory.
#![allow(clippy::print_stdout, reason = "a tool for people")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what is built is right")]

#[path = "../tests/support/quic.rs"]
mod built;
mod common;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use built::{Initial, PING, V1, crypto};
use clap::Parser;
use common::{Spread, timed};
use firewall::quic::{Found, Inspector};

/// Initials of new connections in a second.
const GOAL: f64 = 50_000.0;
/// Connections of a turn.
const CONNECTIONS: u64 = 4_000;
/// Packets of a flood.
const FLOOD: u64 = 1_000_000;
/// MiB that a flood may leave behind: what connections may have, and their tables.
const FLOOD_GOAL: f64 = 24.0;

/// What browsers send: a hello of ordinary size, and one with a post-quantum key share.
const HELLOS: [(&str, &[u8]); 2] = [
    ("hello of 313 B in 1 datagram", include_bytes!("../../firewall-common/tests/payload/openssl")),
    (
        "hello of 1921 B in 2 datagrams",
        include_bytes!("../../firewall-common/tests/payload/rustls-mlkem768-ech-grease"),
    ),
];
/// Bytes of a datagram, as Chromium sends them.
const DATAGRAM: usize = 1250;

/// QUIC packets in a second, and memory after a flood
#[derive(Parser)]
#[command(name = "cargo bench --package firewall --bench quic")]
struct Arguments {
    /// How many turns each row takes
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One line of the result: datagrams, each with its flow.
struct Row {
    name: &'static str,
    datagrams: Vec<(u64, Vec<u8>)>,
    /// What was taken before, of the same flows.
    before: Vec<(u64, Vec<u8>)>,
    /// What all of them must be.
    is: fn(usize, &Found) -> bool,
    goal: Option<f64>,
    rates: Vec<f64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    common::pin_to_core()?;
    println!("{}\n", common::surroundings()?);
    // Before the rest has memory of its own.
    let floods = floods()?;
    let mut rows = rows();
    for _ in 0..arguments.rounds {
        for row in &mut rows {
            row.take_turn()?;
        }
    }
    println!(
        "{:<36} {:>10} {:>10} {:>10} {:>8}",
        "Initials in a second", "median", "min", "max", "goal"
    );
    for row in rows {
        let Spread { median, min, max } = Spread::of(row.rates);
        let goal = row.goal.map_or(String::new(), |goal| goal.to_string());
        let missed = if row.goal.is_some_and(|goal| median < goal) { "  MISSED" } else { "" };
        println!("{:<36} {median:>10.0} {min:>10.0} {max:>10.0} {goal:>8}{missed}", row.name);
    }
    println!("medians of {} turns, on one core\n", arguments.rounds);
    println!(
        "{:<36} {:>10} {:>10} {:>10} {:>8}",
        "memory in MiB after a flood", "per second", "before", "after", "goal"
    );
    for Flood { name, rate, before, after } in floods {
        let missed = if after - before > FLOOD_GOAL { "  MISSED" } else { "" };
        println!("{name:<36} {rate:>10.0} {before:>10.1} {after:>10.1} {FLOOD_GOAL:>+8}{missed}");
    }
    println!("{FLOOD} Initials each");
    Ok(())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, record) in HELLOS {
        let connections = (0..CONNECTIONS).flat_map(|number| {
            let datagrams = first_flight(number, &record[5..]);
            datagrams.into_iter().map(move |datagram| (number, datagram))
        });
        let is = if record.len() < 1000 {
            |_, found: &Found| matches!(found, Found::Hello(_))
        } else {
            |at, found: &Found| at % 2 == 0 || matches!(found, Found::Hello(_))
        };
        rows.push(Row { goal: Some(GOAL), ..Row::new(name, connections.collect(), is) });
    }
    let again = rows[0].datagrams.clone();
    let same = |_, found: &Found| matches!(found, Found::Same(_));
    rows.push(Row { before: again.clone(), ..Row::new("the same again", again, same) });
    // One after the other, so that each packet is tried with the keys of all others.
    let on_one_flow = |of: std::ops::Range<u64>| {
        let hello = &HELLOS[0].1[5..];
        of.flat_map(|number| first_flight(number, hello)).map(|datagram| (0, datagram)).collect()
    };
    let full: Vec<(u64, Vec<u8>)> = on_one_flow(0..64);
    rows.push(Row {
        before: full.clone(),
        ..Row::new("64 connections on the flow already", on_one_flow(64..2064), rows[0].is)
    });
    let malformed = |_, found: &Found| matches!(found, Found::Malformed);
    let forged = (0..2000).map(|number| (0, forged(number))).collect();
    rows.push(Row { before: full, ..Row::new("the same, none can be opened", forged, malformed) });
    rows
}

/// An Initial that cannot be opened.
fn forged(number: u64) -> Vec<u8> {
    let mut datagram = vec![0x5a; DATAGRAM];
    datagram[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
    datagram[6..14].copy_from_slice(&id(number));
    let len = (DATAGRAM - 18) as u16 | 0x4000;
    datagram[14..18].copy_from_slice(&[&[0, 0], &len.to_be_bytes()[..]].concat());
    datagram
}

/// The datagrams of a client with this hello. Connection ids are all different.
fn first_flight(number: u64, hello: &[u8]) -> Vec<Vec<u8>> {
    let cid = id(number);
    let datagram = |(at, part): (usize, &[u8])| {
        let frames = [&crypto((at * 1150) as u64, part), &PING[..]].concat();
        Initial::new(V1, &cid, &frames).number(at as u64 + 1, 1).padded(DATAGRAM).seal()
    };
    hello.chunks(1150).enumerate().map(datagram).collect()
}

fn id(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

impl Row {
    fn new(
        name: &'static str,
        datagrams: Vec<(u64, Vec<u8>)>,
        is: fn(usize, &Found) -> bool,
    ) -> Self {
        Self { name, datagrams, before: Vec::new(), is, goal: None, rates: Vec::new() }
    }

    fn take_turn(&mut self) -> Result<()> {
        let mut inspector = Inspector::default();
        for (flow, datagram) in &self.before {
            inspector.take(*flow, datagram, Duration::ZERO);
        }
        let (time, wrong) = timed(|| {
            let found = self
                .datagrams
                .iter()
                .map(|(flow, datagram)| inspector.take(*flow, datagram, Duration::ZERO).found);
            found.enumerate().filter(|(at, found)| !(self.is)(*at, found)).count()
        });
        ensure!(wrong == 0, "{}: {wrong} were taken for something else", self.name);
        self.rates.push(self.datagrams.len() as f64 / time.as_secs_f64());
        Ok(())
    }
}

/// What a flood left behind.
struct Flood {
    name: &'static str,
    rate: f64,
    before: f64,
    after: f64,
}

fn floods() -> Result<Vec<Flood>> {
    // A byte as far behind as may be needs the most memory.
    let right = |number: u64| Initial::new(V1, &id(number), &crypto(16_000, b"x")).datagram();
    Ok(vec![
        flood("that cannot be opened", forged, |number| number)?,
        flood("of new connections of one flow", right, |_| 0)?,
        flood("of new connections of new flows", right, |number| number)?,
    ])
}

fn flood(
    name: &'static str,
    make: impl Fn(u64) -> Vec<u8>,
    flow: impl Fn(u64) -> u64,
) -> Result<Flood> {
    let mut inspector = Inspector::default();
    let before = memory()?;
    let mut time = Duration::ZERO;
    for number in 0..FLOOD {
        let datagram = make(number);
        time += timed(|| inspector.take(flow(number), &datagram, Duration::from_micros(number))).0;
    }
    let after = memory()?;
    let seen = inspector.counters();
    ensure!(seen.opened + seen.malformed == FLOOD, "{name}: {seen:?}");
    Ok(Flood { name, rate: FLOOD as f64 / time.as_secs_f64(), before, after })
}

/// MiB of this process in memory.
fn memory() -> Result<f64> {
    const PAGE: f64 = 4096.0;
    let text = fs::read_to_string("/proc/self/statm").context("cannot read the memory in use")?;
    let pages: f64 = text.split(' ').nth(1).context("no such number")?.parse()?;
    Ok(pages * PAGE / f64::from(1 << 20))
}
