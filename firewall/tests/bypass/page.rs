//! What is printed, and written as a page.

use std::{fmt::Write as _, path::Path, time::Duration};

use crate::probe::{Trial, Word};

/// A line of the table, of at most 100 columns.
pub fn line(trial: &Trial) -> String {
    let Trial { what, family, policy, by, .. } = trial;
    let came = match (&trial.skip, trial.word(), trial.known) {
        (Some(reason), ..) => reason.clone(),
        (_, Word::Known, Some(issue)) => format!("known: {issue}"),
        _ => format!("{:<7} {}", trial.denied_at(), trial.app()),
    };
    let line = format!("{:<10} {family:<2} {by:<8} {policy:<10} {what:<44} {came}", trial.word());
    line.trim_end().chars().take(COLUMNS).collect()
}

const COLUMNS: usize = 100;

/// How many of each.
pub fn summary(trials: &[Trial], took: Duration) -> String {
    let count = |word: Word| trials.iter().filter(|trial| trial.word() == word).count();
    let failures = trials.iter().filter(|trial| trial.word().fails()).count();
    format!(
        "{} probes in {} s: {} stopped, {} got out as known-issues.md says, {} skipped, {failures} failed",
        trials.len(),
        took.as_secs(),
        count(Word::Stopped),
        count(Word::Known),
        count(Word::Skipped),
    )
}

/// The table in Markdown.
pub fn page(trials: &[Trial], summary: &str) -> String {
    let seen = |seen| if seen { "seen" } else { "–" };
    let system = rustix::system::uname();
    let date = jiff::Zoned::now().date();
    let mut page = format!(
        "# Ways around, written by `cargo xtask bypass`\n\n\
         It tries each of these by a real socket, and looks for it at \
         the receiving side. So that it proves something, the same is tried where it is to arrive: to what \
         no rule denies, without a firewall, or by who may (*control*). What gets out stands in \
         [known issues](known-issues.md) with its reason.\n\n\
         | | |\n|---|---|\n| date | {date} |\n| kernel | {} |\n| result | {summary} |\n\n\
         {}\n\
         | result | probe | IP | by | policy | denied | control | recorded | charged to |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        system.release().to_string_lossy(),
        POLICIES,
    );
    for trial in trials {
        let Trial { what, family, policy, by, .. } = trial;
        let result = match (&trial.skip, trial.known) {
            (Some(reason), _) => format!("skipped: {reason}"),
            (_, Some(issue)) => format!("{}: {issue}", trial.word()),
            _ => trial.word().to_string(),
        };
        let _ = writeln!(
            page,
            "| {result} | {what} | {family} | {by} | {policy} | {} | {} | {} | {} |",
            seen(trial.seen),
            seen(trial.control),
            trial.denied_at(),
            trial.app(),
        );
    }
    page
}

const POLICIES: &str = "\
- `country`: `cn-jurisdiction` (of the daemon: a drop of all that is registered in CN), and drops of a few networks for many
- `inbound`: the same with `inbound = \"enforce\"`
- `one-app`: a default of drop, and an allow for the program that tries
- `not-app`, `not-script`: a drop for the program that tries, or for a script
- `name`: a drop of a domain
- `one-name`: a default of drop, and an allow for a domain
- `private`: a drop of `10.0.0.0/8`, an allow for a domain behind it, a default of drop
- `ambiguous`: a drop of one of two names of an address
";

/// Every reason for what gets out is in the documentation.
pub fn assert_known(trials: &[Trial]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/known-issues.md");
    let issues = std::fs::read_to_string(&path).expect("known-issues.md");
    for issue in trials.iter().filter_map(|trial| trial.known) {
        assert!(issues.contains(&format!("\n**{issue}")), "{}: no `**{issue}`", path.display());
    }
}
