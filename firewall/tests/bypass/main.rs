//! Ways around the firewall, each tried by a real socket: what is denied is looked for where it would
//! arrive, and what is allowed has to be there.
//!
//! `cargo xtask bypass` runs all of them and shows the table; `cargo test` runs the same.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../daemon/host.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod host;
#[path = "../support/mod.rs"]
mod support;

#[path = "../names/world.rs"]
#[expect(dead_code, reason = "the tests of names use the rest")]
mod world;

mod address;
mod moments;
mod name;
mod outside;
mod page;
mod probe;
mod stages;
mod table;
mod trust;

use harness::require_names;
use probe::Trial;

/// Where to write the table as a page.
const PAGE: &str = "FIREWALL_BYPASS_PAGE";

#[test]
fn nothing_gets_around() {
    if !require_names() {
        return;
    }
    let started = std::time::Instant::now();
    let stages = stages::ALL.map(std::thread::spawn);
    let trials: Vec<Trial> = stages
        .into_iter()
        .flat_map(|stage| match stage.join() {
            Ok(trials) => trials,
            Err(panic) => std::panic::resume_unwind(panic),
        })
        .collect();
    for trial in &trials {
        println!("{}", page::line(trial));
    }
    let summary = page::summary(&trials, started.elapsed());
    println!("\n{summary}");
    if let Some(path) = std::env::var_os(PAGE) {
        std::fs::write(path, page::page(&trials, &summary)).expect("the page");
    }
    page::assert_known(&trials);
    let failed: Vec<String> =
        trials.iter().filter(|trial| trial.word().fails()).map(page::line).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), trials.len(), failed.join("\n"));
}
