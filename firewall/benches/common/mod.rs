//! What the measurements share: the core they run on, medians, and policies from the tables.

#![allow(dead_code, reason = "each measurement uses a part of it")]

pub mod report;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use firewall::{
    datapath::COMPILER,
    intel::Intel,
    policy::{
        self, Policy,
        compile::{self, Facts, Generation, Settings},
        source::{Disk, Source},
    },
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Stays on one core: moving between them costs more than what is measured.
pub fn pin_to_core() -> Result<()> {
    let mut core = CpuSet::new();
    core.set(nix::sched::sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("cannot stay on one core")
}

/// What the numbers depend on.
pub fn surroundings() -> Result<String> {
    let kernel = nix::sys::utsname::uname()?;
    Ok(format!(
        "kernel {}; kernel programs built by {COMPILER}",
        kernel.release().to_string_lossy()
    ))
}

/// How long something took, and what it gave.
pub fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = run();
    (start.elapsed(), result)
}

/// The middle of the values and both ends.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), min: at(0), max: at(values.len().wrapping_sub(1)) }
    }
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Both tables, read now.
pub fn tables() -> Result<Intel> {
    let intel = Intel::default();
    intel.geo()?;
    intel.asn()?;
    intel.organisations()?;
    Ok(intel)
}

/// A shipped policy.
pub fn shipped(name: &str, intel: &Intel) -> Result<Vec<Policy>> {
    let (policies, findings) =
        policy::load(&[Source::shipped(name)?], intel.organisations()?, &Disk);
    if findings.has_errors() {
        bail!("the shipped policy `{name}` has errors");
    }
    Ok(policies)
}

/// Compiles policies by the tables.
pub fn compile(mut policies: Vec<Policy>, intel: &Intel, settings: Settings) -> Result<Generation> {
    let organisations = intel.organisations()?;
    let organisation =
        |name: &str| organisations.asns(name).map(<[u32]>::to_vec).unwrap_or_default();
    let facts = Facts {
        countries: Some(intel.geo()?),
        asns: Some(intel.asn()?),
        organisation: &organisation,
    };
    compile::order(&mut policies);
    Ok(compile::compile(policies, facts, settings)?)
}
