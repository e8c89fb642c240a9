//! What a measurement tells `cargo xtask bench`: a line of JSON on standard output for the machine,
//! and one for each row.

use std::{fs, io::Write as _};

use anyhow::{Context as _, Result};
use firewall::datapath::COMPILER;
use serde::Serialize;
use serde_json::json;

use super::Spread;

/// One row of the table.
#[derive(Serialize)]
pub struct Row {
    pub part: &'static str,
    /// What is measured.
    pub what: String,
    /// With what in place.
    pub with: String,
    /// The median, or why there is none.
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Measured(Measured),
    /// Why it was not measured.
    Missing(String),
}

#[derive(Serialize)]
pub struct Measured {
    pub value: f64,
    pub unit: &'static str,
    /// The median of the ratios of each turn.
    pub ratio: Option<f64>,
    /// Of the ratio, where there is one; else of the value.
    pub min: f64,
    /// See [`Self::min`].
    pub max: f64,
    pub goal: Option<Goal>,
}

/// Of the ratio, where there is one; else of the value.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    Most(f64),
    Least(f64),
}

impl Row {
    /// A row of values.
    pub fn values(
        part: &'static str,
        what: impl Into<String>,
        with: impl Into<String>,
        (values, unit): (impl IntoIterator<Item = f64>, &'static str),
        goal: Option<Goal>,
    ) -> Self {
        let Spread { median: value, min, max } = Spread::of(values);
        let measured = Measured { value, unit, ratio: None, min, max, goal };
        Self { part, what: what.into(), with: with.into(), outcome: Outcome::Measured(measured) }
    }

    /// A row of ratios, and the values that they are of.
    pub fn ratios(
        part: &'static str,
        what: impl Into<String>,
        with: impl Into<String>,
        values: (impl IntoIterator<Item = f64>, &'static str),
        ratios: impl IntoIterator<Item = f64>,
        goal: Option<Goal>,
    ) -> Self {
        let mut row = Self::values(part, what, with, values, goal);
        let Spread { median, min, max } = Spread::of(ratios);
        if let Outcome::Measured(measured) = &mut row.outcome {
            (measured.ratio, measured.min, measured.max) = (Some(median), min, max);
        }
        row
    }

    /// A row of what could not be measured here.
    pub fn missing(part: &'static str, what: &str, with: &str, why: &str) -> Self {
        Self {
            part,
            what: what.to_owned(),
            with: with.to_owned(),
            outcome: Outcome::Missing(why.to_owned()),
        }
    }

    /// Tells it.
    ///
    /// # Errors
    /// A value is not a number, or nobody reads.
    pub fn tell(&self) -> Result<()> {
        if let Outcome::Measured(Measured { value, ratio, min, max, .. }) = &self.outcome {
            let numbers = [*value, ratio.unwrap_or_default(), *min, *max];
            anyhow::ensure!(
                numbers.iter().all(|number| number.is_finite()),
                "{} with {}: nothing was measured",
                self.what,
                self.with
            );
        }
        line(&serde_json::to_value(self)?)
    }
}

/// Tells what the numbers depend on. Call it before anything is measured: that is load, too.
///
/// # Errors
/// The machine does not say, or nobody reads.
pub fn tell_machine() -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let cpus = read("/proc/cpuinfo")?;
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg")?;
    let kernel = nix::sys::utsname::uname()?;
    line(&json!({
        "machine": {
            "kernel": kernel.release().to_string_lossy(),
            "cpu": cpu.map_or("unknown", |(_, model)| model),
            // All of them: this process may have been told to stay on one.
            "cores": cpus.lines().filter(|line| line.starts_with("processor")).count(),
            "date": jiff::Timestamp::now().to_string(),
            "load": load.split(' ').next().unwrap_or_default().parse::<f64>()?,
            "compiler": COMPILER,
            "optimized": !cfg!(debug_assertions),
        }
    }))
}

fn line(value: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}
