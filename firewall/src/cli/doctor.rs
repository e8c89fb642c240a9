//! `firewall doctor`: what this kernel and this machine can and cannot enforce.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use serde::Serialize;

use crate::datapath::probe::{self, Feature, State};

/// Says what this kernel and this machine can and cannot enforce, feature by feature.
///
/// Exits with 0 if policies can be enforced, 3 if not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object a feature
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    feature: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

/// Runs `firewall doctor`.
///
/// # Errors
/// Standard output cannot be written; what else fails is what it reports.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let features = probe::all();
    let mut out = io::stdout().lock();
    for Feature { name, state, detail, .. } in &features {
        if args.json {
            let row = serde_json::to_string(&Row { feature: name, state: state.word(), detail })?;
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{:<8} {name:<42} {detail}", state.word())?;
        }
    }
    let missing: Vec<&str> = features
        .iter()
        .filter(|feature| feature.required && feature.state != State::Present)
        .map(|feature| feature.name)
        .collect();
    if missing.is_empty() {
        eprintln!("policies can be enforced on this machine");
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("policies cannot be enforced here; what is missing: {}", missing.join(", "));
        Ok(ExitCode::from(super::CANNOT))
    }
}
