//! `cargo xtask bench`: what the firewall costs, in one table, as JSON and as a picture.
//!
//! What measures stands in `firewall/benches`, because this crate does not depend on `firewall`. Each tells
//! a line of JSON for the machine and one for each row; `firewall/benches/common/report.rs` has the shape.

mod picture;
mod table;

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::{self, cargo};

#[derive(clap::Args)]
pub struct Arguments {
    /// A try of every measurement, whose numbers say little
    #[arg(long)]
    short: bool,
    /// Measure one part alone
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Write machine and rows as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw them, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// What a packet costs in the kernel
    Kernel,
    /// What connections take, beside those without a firewall and with others
    Network,
    /// Policies, start, memory, events and the log in user space
    Space,
}

/// What measures.
struct Bench {
    part: Part,
    name: &'static str,
    /// What it is given for a try.
    short: &'static [&'static str],
}

const BENCHES: [Bench; 4] = [
    Bench { part: Part::Kernel, name: "kernel", short: &["--rounds=1"] },
    Bench { part: Part::Network, name: "network", short: &["--rounds=3", "--divide=10"] },
    Bench { part: Part::Space, name: "space", short: &["--rounds=1", "--names=100000"] },
    Bench {
        part: Part::Space,
        name: "events",
        short: &["--rounds=1", "--seconds=1", "--records=20000"],
    },
];

/// A line of what measures.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Machine { machine: Map<String, Value> },
    Row(Row),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    part: Part,
    what: String,
    with: String,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Measured(Measured),
    /// Why it was not measured.
    Missing(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    value: f64,
    unit: String,
    ratio: Option<f64>,
    /// Of the ratio where there is one, else of the value; so is the goal.
    min: f64,
    max: f64,
    goal: Option<Goal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Goal {
    Most(f64),
    Least(f64),
}

impl Measured {
    /// What the goal is for.
    fn judged(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }

    /// How much of what it may take it takes: above 1 the goal is missed.
    fn of_goal(&self) -> Option<f64> {
        let (part, whole) = match self.goal? {
            Goal::Most(most) => (self.judged(), most),
            Goal::Least(least) => (least, self.judged()),
        };
        // Nothing where nothing is allowed is all that there can be of it.
        Some(if part == 0.0 { 0.0 } else { part / whole })
    }

    fn is_missed(&self) -> bool {
        self.goal.is_some_and(|goal| match goal {
            Goal::Most(most) => self.judged() > most,
            Goal::Least(least) => self.judged() < least,
        })
    }
}

/// All that was told.
#[derive(Default)]
struct Report {
    machine: Map<String, Value>,
    rows: Vec<Row>,
}

/// Measures all parts or one. Goals that are missed are told; a measurement that fails is a failure.
pub fn run(arguments: &Arguments) -> Result<()> {
    let benches =
        BENCHES.iter().filter(|bench| arguments.only.is_none_or(|only| only == bench.part));
    measure(&["bench"], benches, arguments)
}

/// Tries the measurements on the network where numbers say little: a build for tests on a busy machine.
pub fn try_network() -> Result<()> {
    let arguments = Arguments { short: true, only: Some(Part::Network), json: None, svg: None };
    let benches = BENCHES.iter().filter(|bench| bench.part == Part::Network);
    measure(&["test"], benches, &arguments)
}

fn measure<'b>(
    cargo_words: &[&str],
    benches: impl Iterator<Item = &'b Bench>,
    arguments: &Arguments,
) -> Result<()> {
    let benches: Vec<&Bench> = benches.collect();
    let target = |bench: &Bench| format!("--bench={}", bench.name);
    let mut build = cargo();
    build.args(cargo_words).args(["--package=firewall", "--no-run"]);
    command::run(build.args(benches.iter().map(|bench| target(bench))))?;

    let mut report = Report::default();
    let mut failures = Vec::new();
    for bench in benches {
        let mut command = cargo();
        command.args(cargo_words).args(["--quiet", "--package=firewall", &target(bench), "--"]);
        if arguments.short {
            command.args(bench.short);
        }
        eprintln!("measuring: {}", bench.name);
        if let Err(error) = report.add(bench, command.stdout(Stdio::piped())) {
            failures.push(format!("{}: {error:#}", bench.name));
        }
    }
    print!("{}", table::text(&report));
    let write = |path: &Option<PathBuf>, text: String| match path {
        Some(path) => fs::write(path, text).with_context(|| path.display().to_string()),
        None => Ok(()),
    };
    write(&arguments.json, report.json()?)?;
    write(&arguments.svg, picture::svg(&report))?;
    ensure!(failures.is_empty(), "not everything was measured\n{}", failures.join("\n"));
    Ok(())
}

impl Report {
    /// Runs a measurement. What it told before it failed counts.
    fn add(&mut self, bench: &Bench, command: &mut std::process::Command) -> Result<()> {
        let output = command.stderr(Stdio::inherit()).output()?;
        self.read(bench.part, &String::from_utf8(output.stdout)?)?;
        if !output.status.success() {
            bail!("{}", output.status);
        }
        Ok(())
    }

    fn read(&mut self, part: Part, text: &str) -> Result<()> {
        let mut rows = 0;
        for line in text.lines() {
            match serde_json::from_str(line).with_context(|| format!("not a row: {line}"))? {
                // Of the first: load is what it was before anything was measured.
                Line::Machine { machine } if self.machine.is_empty() => self.machine = machine,
                Line::Machine { .. } => {}
                Line::Row(row) => {
                    ensure!(row.part == part, "a row of another part: {line}");
                    self.rows.push(row);
                    rows += 1;
                }
            }
        }
        ensure!(rows > 0, "it told nothing");
        Ok(())
    }

    fn json(&self) -> Result<String> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut value = serde_json::to_value(row)?;
                if let Outcome::Measured(measured) = &row.outcome {
                    value["missed"] = measured.is_missed().into();
                }
                Ok(value)
            })
            .collect::<Result<_>>()?;
        let all = serde_json::json!({ "machine": self.machine, "rows": rows });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }

    /// What the numbers depend on.
    fn machine(&self) -> String {
        let say = |key: &str| match self.machine.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "unknown".to_owned(),
        };
        let date = say("date");
        let mut text = format!(
            "{}, {} cores of {}, kernel {}, load {} before",
            date.split('T').next().unwrap_or_default(),
            say("cores"),
            say("cpu"),
            say("kernel"),
            say("load"),
        );
        if self.machine.get("optimized") == Some(&Value::Bool(false)) {
            text += "; a build for tests, whose numbers say little";
        }
        text
    }
}

#[cfg(test)]
mod tests;
