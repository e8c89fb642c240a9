//! `cargo xtask verify`: what the kernel's verifier goes through, and how long it takes until
//! `cn-jurisdiction` decides, from nothing.
//!
//! The instructions are the same in every run and grow only with the code, the compiler or the
//! kernel; so they are checked everywhere, the time only where the machine is quiet enough.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people")]

mod common;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use common::{Spread, milliseconds, timed};
use firewall::{
    datapath::{
        OBJECT, apply,
        load::{Verified, load},
    },
    policy::compile::Settings,
};

/// Milliseconds for verification and load of all programs and of `cn-jurisdiction`.
const TIME_BUDGET: f64 = 250.0;
/// Instructions the verifier may go through for one program. The kernel's own limit is a million.
const INSTRUCTION_BUDGET: u32 = 100_000;

/// What the kernel's verifier goes through, and how long loading takes
#[derive(Parser)]
#[command(name = "cargo xtask verify", bin_name = "cargo xtask verify")]
struct Arguments {
    /// Report the time without checking it, for machines that do other things meanwhile
    #[arg(long)]
    report_time: bool,
    /// How often to measure
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// From nothing to a generation that decides.
struct Round {
    programs: Vec<Program>,
    /// In order; together they are the whole.
    steps: [(&'static str, Duration); 5],
}

struct Program {
    verified: Verified,
    translated: Option<u32>,
    jitted: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is within its budget.
fn run(arguments: &Arguments) -> Result<bool> {
    println!("{}\n", common::surroundings()?);
    let rounds: Vec<Round> = (0..arguments.rounds)
        .map(|_| round())
        .collect::<Result<_>>()
        .context("the kernel programs and cn-jurisdiction do not load")?;
    let instructions = print_programs(&rounds);
    println!();
    let time = print_steps(&rounds);
    if !instructions {
        eprintln!("error: a program is over its budget of {INSTRUCTION_BUDGET} instructions");
    }
    if !time && !arguments.report_time {
        eprintln!("error: loading takes longer than the budget of {TIME_BUDGET} ms");
    }
    Ok(instructions && (time || arguments.report_time))
}

fn round() -> Result<Round> {
    let (read, intel) = timed(common::tables);
    let intel = intel?;
    let (compile, generation) = timed(|| {
        common::compile(common::shipped("cn-jurisdiction", &intel)?, &intel, Settings::default())
    });
    let generation = generation?;
    let loaded = load(OBJECT, 0)?;
    let (write, applied) = timed(|| apply::apply(&loaded.maps()?, &generation));
    applied?;
    let verification = loaded.programs_time;
    let mut programs = Vec::with_capacity(loaded.verified.len());
    for verified in loaded.verified {
        let program = loaded.ebpf.program(&verified.name).context("a program that was loaded")?;
        let info = program.info()?;
        let translated = info.size_translated();
        programs.push(Program { verified, translated, jitted: info.size_jitted() });
    }
    Ok(Round {
        programs,
        steps: [
            ("country and AS tables read", read),
            ("cn-jurisdiction parsed and compiled", compile),
            ("object parsed and maps made", loaded.maps_time),
            ("programs verified and loaded", verification),
            ("generation written and read back", write),
        ],
    })
}

/// Prints the programs, and says whether each is within its budget of instructions.
fn print_programs(rounds: &[Round]) -> bool {
    /// Bytes of an instruction.
    const INSTRUCTION: u32 = 8;

    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for Program { verified, .. } in rounds.iter().flat_map(|round| &round.programs) {
        times.entry(&verified.name).or_default().push(milliseconds(verified.time));
    }
    println!(
        "{:<14} {:>12} {:>12} {:>12} {:>10}",
        "program", "processed", "instructions", "jitted bytes", "ms"
    );
    let mut programs: Vec<&Program> =
        rounds.first().map(|round| round.programs.iter().collect()).unwrap_or_default();
    programs.sort_by_key(|program| std::cmp::Reverse(program.verified.instructions));
    let or_unknown =
        |number: Option<u32>| number.map_or("unknown".to_owned(), |number| number.to_string());
    let mut within = true;
    let mut total = 0;
    for Program { verified, translated, jitted } in programs {
        let over = verified.instructions.is_some_and(|processed| processed > INSTRUCTION_BUDGET);
        within &= !over;
        total += verified.instructions.unwrap_or_default();
        let time = Spread::of(times.get(verified.name.as_str()).into_iter().flatten().copied());
        println!(
            "{:<14} {:>12} {:>12} {:>12} {:>10.2}{}",
            verified.name,
            or_unknown(verified.instructions),
            or_unknown(translated.map(|bytes| bytes / INSTRUCTION)),
            jitted,
            time.median,
            if over { "  MISSED" } else { "" }
        );
    }
    println!("{:<14} {total:>12}  (at most {INSTRUCTION_BUDGET} for each program)", "together");
    within
}

/// Prints the steps, and says whether the whole is within its budget of time.
fn print_steps(rounds: &[Round]) -> bool {
    let print = |name: &str, times: &mut dyn Iterator<Item = Duration>| {
        let Spread { median, min, max } = Spread::of(times.map(milliseconds));
        println!("{name:<38} {median:>8.1} {min:>8.1} {max:>8.1}");
        median
    };
    println!("{:<38} {:>8} {:>8} {:>8}", "step", "ms", "min", "max");
    for step in 0..rounds.first().map_or(0, |round| round.steps.len()) {
        let name = rounds[0].steps[step].0;
        print(name, &mut rounds.iter().map(|round| round.steps[step].1));
    }
    let whole = print(
        "the whole",
        &mut rounds.iter().map(|round| round.steps.iter().map(|(_, time)| *time).sum()),
    );
    println!(
        "medians of {} rounds; at most {TIME_BUDGET} ms{}",
        rounds.len(),
        if whole > TIME_BUDGET { ": MISSED" } else { "" }
    );
    whole <= TIME_BUDGET
}
