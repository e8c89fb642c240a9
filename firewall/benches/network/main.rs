//! What connections of an app take, end to end between two network namespaces: with nothing in the way, with
//! this firewall, and with what others use. A part of `cargo xtask bench`.
//!
//! Each variant has namespaces, a server and a client of its own, all there at once. They take turns at the
//! same task, in another order each round, and what is told is the ratio of each to what the client with
//! nothing in its way did in the same round: what else the machine does meets them alike.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people")]
#![allow(clippy::expect_used, reason = "the harness panics, too")]

mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod server;
mod variant;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use client::{Done, Task};
use common::report::{Goal, Row, tell_machine};
use harness::SERVER_V4;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use variant::{ALLOWED, Host, Variant};

const PART: &str = "network";

/// Times the same without a firewall.
const CONNECT: f64 = 1.03;
/// See [`CONNECT`].
const FIRST_SEND: f64 = 1.15;
/// See [`CONNECT`].
const SENDS: f64 = 0.95;

/// What connections take, as ratios to those without a firewall
#[derive(Parser)]
struct Arguments {
    /// How many turns each variant takes
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Do so much less of each task: a try
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    divide: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is where it was started by itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    Client { core: usize },
    Server { core: usize },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Client { core }) => {
            stay_on(core)?;
            client::serve()
        }
        Some(Role::Server { core }) => {
            stay_on(core)?;
            server::serve()
        }
        None => measure(&arguments),
    }
}

fn stay_on(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one core")
}

/// Where the client runs, and where the server does.
fn cores() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    let first = cores.next().context("there is no core")?;
    Ok([first, cores.next().unwrap_or(first)])
}

fn measure(arguments: &Arguments) -> Result<()> {
    ensure!(harness::require_kernel(), "the network cannot be measured here");
    tell_machine()?;
    let cores = cores()?;
    let mut hosts = Vec::new();
    let mut missing = Vec::new();
    for variant in Variant::ALL {
        match variant.missing() {
            Some(why) => missing.push((variant, why)),
            None => hosts.push(Host::new(variant, cores)?),
        }
    }
    for row in rows(arguments.divide) {
        row.measure(&mut hosts, arguments.rounds)?;
        for (variant, why) in &missing {
            Row::missing(PART, row.shows[0].0, variant.name(), why).tell()?;
        }
    }
    // That one fell over on the way must not look like a good number.
    hosts.iter_mut().try_for_each(Host::assert_in_force)
}

/// A task, and what is told of it.
struct Measurement {
    task: Task,
    shows: Vec<(&'static str, Show, Option<Goal>)>,
}

#[derive(Clone, Copy)]
enum Show {
    P50,
    P99,
    /// In a second.
    Rate,
    /// Bytes in a second.
    Throughput,
}

fn rows(divide: u32) -> [Measurement; 5] {
    let public = |port| SocketAddr::new(ALLOWED, port);
    let times = |times: u32| (times / divide).max(10);
    let most = |ratio| Some(Goal::Most(ratio));
    let to = public(server::CONNECTIONS);
    let datagrams = public(server::DATAGRAMS);
    let resolver = SocketAddr::new(SERVER_V4.into(), server::NAMES);
    let bytes = u64::from(times(64)) << 20;
    [
        Measurement {
            task: Task::Connect { to, times: times(500) },
            shows: vec![
                ("TCP connect, p50", Show::P50, most(CONNECT)),
                ("TCP connect, p99", Show::P99, None),
                ("TCP connections", Show::Rate, None),
            ],
        },
        Measurement {
            task: Task::FirstSend { to: datagrams, times: times(1_000) },
            shows: vec![("first UDP send, p50", Show::P50, most(FIRST_SEND))],
        },
        Measurement {
            task: Task::Sends { to: datagrams, times: times(10_000) },
            shows: vec![("connected UDP sends", Show::Rate, Some(Goal::Least(SENDS)))],
        },
        Measurement {
            task: Task::Bulk { to: public(server::BULK), bytes },
            shows: vec![("bulk TCP", Show::Throughput, None)],
        },
        Measurement {
            task: Task::LookUp { to: resolver, times: times(500) },
            shows: vec![
                ("DNS look-up, p50", Show::P50, None),
                ("DNS look-up, p99", Show::P99, None),
            ],
        },
    ]
}

impl Measurement {
    fn measure(&self, hosts: &mut [Host], rounds: u32) -> Result<()> {
        let mut done: Vec<Vec<Done>> = vec![Vec::new(); hosts.len()];
        // Brings code, tables and caches to where they are; the first round is not told.
        for round in 0..=rounds as usize {
            for turn in 0..hosts.len() {
                // Each is before and after each other one as often.
                let turn = if round % 2 == 0 { turn } else { hosts.len() - 1 - turn };
                let index = (round / 2 + turn) % hosts.len();
                let result = hosts[index].ask(&self.task)?;
                hosts[index].settle()?;
                if round > 0 {
                    done[index].push(result);
                }
            }
        }
        let base = hosts.iter().position(|host| host.variant == Variant::None);
        let base = &done[base.context("nothing to compare with")?];
        for (what, show, goal) in &self.shows {
            let base: Vec<f64> = show.of(base)?;
            for (host, done) in hosts.iter().zip(&done) {
                let (variant, values) = (host.variant, show.of(done)?);
                let ratios: Vec<f64> =
                    values.iter().zip(&base).map(|(own, base)| own / base).collect();
                let values = (values, show.unit());
                let name = variant.name();
                match variant {
                    Variant::None => Row::values(PART, *what, name, values, None),
                    Variant::Firewall => Row::ratios(PART, *what, name, values, ratios, *goal),
                    _ => Row::ratios(PART, *what, name, values, ratios, None),
                }
                .tell()?;
            }
        }
        Ok(())
    }
}

impl Show {
    fn of(self, done: &[Done]) -> Result<Vec<f64>> {
        done.iter()
            .map(|done| {
                Ok(match (self, done) {
                    (Self::P50, Done::Times { p50, .. }) => *p50,
                    (Self::P99, Done::Times { p99, .. }) => *p99,
                    (Self::Rate, Done::Times { rate, .. } | Done::Rate(rate)) => *rate,
                    (Self::Throughput, Done::Rate(bytes)) => bytes * 8.0 / 1e9,
                    _ => bail!("the client did something else: {done:?}"),
                })
            })
            .collect()
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::P50 | Self::P99 => "µs",
            Self::Rate => "/s",
            Self::Throughput => "Gbit/s",
        }
    }
}
