//! `cargo xtask fuzz`: every target of `firewall/fuzz` for its share of the time.
//!
//! What a run learns stays in `firewall/fuzz/corpus` for the next one. What makes a target fail is
//! made small and put into `firewall/fuzz/regressions`, where `cargo test` reads it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::command::{cargo, command, output, target_directory, workspace};

#[derive(clap::Args)]
pub struct Arguments {
    /// How long it takes in all, without building; shared between the targets
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only this target; may be repeated
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Targets at the same time (default: one for each processor)
    #[arg(long)]
    jobs: Option<usize>,
}

/// Chooses the target of the program.
const TARGET: &str = "FIREWALL_FUZZ_TARGET";
/// Seconds that one input may take.
const SLOWEST: u64 = 60;
/// Seconds for making a failing input small.
const MINIMISING: u64 = 60;

/// Runs them; a table comes last.
pub fn run(arguments: &Arguments) -> Result<()> {
    let fuzzer = Fuzzer::build()?;
    let mut targets = fuzzer.targets()?;
    if let Some(none) =
        arguments.target.iter().find(|name| !targets.iter().any(|t| t.name == **name))
    {
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target `{none}`\n\nhint: one of {}", names.join(", "));
    }
    if !arguments.target.is_empty() {
        targets.retain(|target| arguments.target.contains(&target.name));
    }
    let jobs =
        arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    let jobs = jobs.clamp(1, targets.len());
    let share = (arguments.minutes * 60 * jobs as u64 / targets.len() as u64).max(1);
    eprintln!("fuzz: {} targets, {share} s each, {jobs} at a time", targets.len());

    let queue = Mutex::new(targets.into_iter());
    let next = || queue.lock().ok()?.next();
    let worker = || {
        iter::from_fn(next).map(|target| fuzzer.fuzz(&target, share)).collect::<Result<Vec<_>>>()
    };
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut results: Vec<Outcome> = results.into_iter().flatten().collect();
    results.sort_by(|a, b| a.name.cmp(&b.name));
    print!("{}", table(&results));
    match results.iter().filter(|result| result.failed.is_some()).count() {
        0 => Ok(()),
        count => bail!("{count} of the targets failed"),
    }
}

/// The program with all targets.
struct Fuzzer {
    program: PathBuf,
    /// `firewall/fuzz`.
    folder: PathBuf,
    /// What targets and libFuzzer write beside the corpus.
    scratch: tempfile::TempDir,
    logs: PathBuf,
}

/// A target, and the bytes that an input of it has at most.
struct Target {
    name: String,
    longest: u32,
}

/// What became of a target.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    name: String,
    executions: u64,
    per_second: u64,
    /// Edges that were reached.
    coverage: u64,
    /// The failing input, or the log that says why there is none.
    failed: Option<PathBuf>,
}

impl Fuzzer {
    fn build() -> Result<Self> {
        let folder = workspace().join("firewall/fuzz");
        let target = target_directory()?.join("fuzz");
        eprintln!("fuzz: building, which takes minutes the first time");
        let built = output(
            cargo()
                .current_dir(&folder)
                // They would stand in the place of those that make it a fuzzer.
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .args(["build", "--release", "--message-format=json-render-diagnostics"])
                .arg("--target-dir")
                .arg(&target),
        )?;
        let program = built.lines().rev().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message.get("executable")?.as_str()?))
        });
        let logs = target.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let program = program.context("cargo has built no program")?;
        Ok(Self { program, folder, scratch: tempfile::tempdir()?, logs })
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let listed = output(self.command().env_remove(TARGET))?;
        let target = |line: &str| {
            let (name, longest) = line.split_once('\t')?;
            Some(Target { name: name.to_owned(), longest: longest.parse().ok()? })
        };
        let targets: Option<Vec<Target>> = listed.lines().map(target).collect();
        targets.filter(|targets| !targets.is_empty()).context("the program names no targets")
    }

    fn command(&self) -> Command {
        let mut command = command(&self.program.to_string_lossy());
        command.current_dir(self.scratch.path()).env("TMPDIR", self.scratch.path());
        command
    }

    fn of(&self, target: &Target, log: &Path) -> Result<Command> {
        let mut command = self.command();
        let log = File::create(log).with_context(|| format!("making {}", log.display()))?;
        command
            .env(TARGET, &target.name)
            .stdout(log.try_clone()?)
            .stderr(log)
            .arg(format!("-max_len={}", target.longest))
            .arg(format!("-timeout={SLOWEST}"));
        Ok(command)
    }

    fn fuzz(&self, target: &Target, seconds: u64) -> Result<Outcome> {
        let name = &target.name;
        let corpus = self.folder.join("corpus").join(name);
        let found = self.scratch.path().join("found").join(name);
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let log = self.logs.join(name);
        let mut command = self.of(target, &log)?;
        let words = self.folder.join("dictionaries").join(name);
        if words.is_file() {
            command.arg(format!("-dict={}", words.display()));
        }
        let status = command
            .args(["-print_final_stats=1", "-reload=0", "-report_slow_units=30"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args([&corpus, &self.folder.join("regressions").join(name)])
            .status()
            .with_context(|| format!("{}: not started", self.program.display()))?;
        let said = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
        let mut outcome = Outcome::of(name, &String::from_utf8_lossy(&said));
        if !status.success() {
            outcome.failed = Some(self.keep(target, &found)?.unwrap_or(log));
        }
        let failed = outcome.failed.as_deref().map(|path| format!(", FAILED: {}", path.display()));
        eprintln!("fuzz: {name}: {} executions{}", outcome.executions, failed.unwrap_or_default());
        Ok(outcome)
    }

    /// Makes the input small that made the target fail, and puts it among the regressions.
    fn keep(&self, target: &Target, found: &Path) -> Result<Option<PathBuf>> {
        let failing = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (!name.starts_with("slow-unit-")).then(|| entry.path())
        };
        let Some(input) = fs::read_dir(found)?.flatten().find_map(failing) else { return Ok(None) };
        let small = found.join("small");
        // What took too long or too much memory would do so each time.
        if input.file_name().is_some_and(|name| name.to_string_lossy().starts_with("crash-")) {
            let log = self.logs.join(format!("{}-minimising", target.name));
            let mut command = self.of(target, &log)?;
            command
                .arg("-minimize_crash=1")
                .arg(format!("-max_total_time={MINIMISING}"))
                .arg(format!("-exact_artifact_path={}", small.display()))
                .arg(&input);
            // It ends with the status of the last crash.
            let _ = command.status()?;
        }
        let bytes = fs::read(&small).or_else(|_| fs::read(&input))?;
        let digest = Sha256::digest(&bytes);
        let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let kept =
            self.folder.join("regressions").join(&target.name).join(format!("found-{digest}"));
        fs::create_dir_all(kept.parent().unwrap_or(&kept))?;
        fs::write(&kept, bytes).with_context(|| format!("writing {}", kept.display()))?;
        Ok(Some(kept))
    }
}

impl Outcome {
    /// What libFuzzer says: statistics at the end, and in lines before them how many edges were
    /// reached.
    fn of(name: &str, said: &str) -> Self {
        let last = |key: &str| {
            let mut numbers = said.lines().rev().filter_map(|line| {
                let rest = line.split_once(key)?.1.trim_start();
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            });
            numbers.next().unwrap_or_default()
        };
        Self {
            name: name.to_owned(),
            executions: last("stat::number_of_executed_units:"),
            per_second: last("stat::average_exec_per_sec:"),
            coverage: last(" cov:"),
            failed: None,
        }
    }
}

fn table(results: &[Outcome]) -> String {
    let mut text =
        format!("{:<16}{:>14}{:>10}{:>10}  crashes\n", "target", "executions", "per s", "edges");
    let mut row = |name: &str, executions: u64, per_second: &str, edges: &str, crashes: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{name:<16}{executions:>14}{per_second:>10}{edges:>10}  {crashes}");
    };
    for Outcome { name, executions, per_second, coverage, failed } in results {
        let failed =
            failed.as_ref().map_or("0".to_owned(), |path| format!("1: {}", path.display()));
        row(name, *executions, &per_second.to_string(), &coverage.to_string(), &failed);
    }
    let failed = results.iter().filter(|result| result.failed.is_some()).count();
    row("all", results.iter().map(|result| result.executions).sum(), "", "", &failed.to_string());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
INFO: seed corpus: files: 3 min: 1b max: 50b total: 90b rss: 40Mb
#4\tINITED cov: 120 ft: 130 corp: 3/90b exec/s: 0 rss: 41Mb
#912\tNEW    cov: 131 ft: 150 corp: 4/99b lim: 50 exec/s: 456 rss: 41Mb L: 9/50 MS: 1 EraseBytes-
#1024\tDONE   cov: 131 ft: 150 corp: 4/99b lim: 50 exec/s: 512 rss: 41Mb
Done 1024 runs in 2 second(s)
stat::number_of_executed_units: 1024
stat::average_exec_per_sec:     512
stat::new_units_added:          1
";

    #[test]
    fn statistics_are_read() {
        let failed = None;
        let want = Outcome {
            name: "ip".to_owned(),
            executions: 1024,
            per_second: 512,
            coverage: 131,
            failed,
        };
        assert_eq!(Outcome::of("ip", SAID), want);
        assert_eq!(Outcome::of("ip", "no fuzzer").executions, 0);
    }

    #[test]
    fn a_failure_is_in_the_table_and_in_the_sum() {
        let mut results = vec![Outcome::of("ip", SAID), Outcome::of("dns", SAID)];
        results[1].failed = Some("regressions/dns/found-1".into());
        let table = table(&results);
        assert!(table.contains("1: regressions/dns/found-1"), "{table}");
        let last: Vec<&str> = table.lines().last().unwrap_or_default().split_whitespace().collect();
        assert_eq!(last, ["all", "2048", "1"], "{table}");
    }
}
