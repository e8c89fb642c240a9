//! The table for people.

use std::fmt::Write as _;

use super::{Goal, Measured, Outcome, Part, Report};

/// The widths of what is measured, and of what with.
const COLUMNS: [usize; 2] = [44, 36];

pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}\n", report.machine());
    let mut part = None;
    for row in &report.rows {
        // Writing to memory does not fail.
        if part.replace(row.part) != Some(row.part) {
            let _ = writeln!(text, "\n{}", title(row.part));
            let _ =
                writeln!(text, "{}", line("", "", ["value", "", "ratio", "min", "max", "goal"]));
        }
        let _ = match &row.outcome {
            Outcome::Missing(why) => {
                writeln!(
                    text,
                    "{:<what$} {:<with$} {why}",
                    row.what,
                    row.with,
                    what = COLUMNS[0],
                    with = COLUMNS[1]
                )
            }
            Outcome::Measured(measured) => {
                let line = measured_line(&row.what, &row.with, measured);
                writeln!(text, "{line}{}", if measured.is_missed() { "  MISSED" } else { "" })
            }
        };
    }
    let count = |of: fn(&Measured) -> bool| {
        let measured = report.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Missing(_) => None,
        });
        measured.filter(|measured| of(measured)).count()
    };
    let goals = count(|measured| measured.goal.is_some());
    let _ = writeln!(
        text,
        "\nmedians; min, max and goal are of the ratio where there is one; {} of {goals} goals missed",
        count(Measured::is_missed)
    );
    text
}

pub(super) const fn title(part: Part) -> &'static str {
    match part {
        Part::Kernel => "in the kernel: a packet, as a ratio to an empty program",
        Part::Network => "end to end: as a ratio to no firewall in the same round",
        Part::Space => "in user space",
    }
}

fn measured_line(what: &str, with: &str, measured: &Measured) -> String {
    let Measured { value, unit, ratio, min, max, goal } = measured;
    let ratio = ratio.map(short).unwrap_or_default();
    let goal = match goal {
        Some(Goal::Most(most)) => format!("≤ {most}"),
        Some(Goal::Least(least)) => format!("≥ {least}"),
        None => String::new(),
    };
    line(what, with, [&short(*value), unit, &ratio, &short(*min), &short(*max), &goal])
}

fn line(what: &str, with: &str, [value, unit, ratio, min, max, goal]: [&str; 6]) -> String {
    let line = format!(
        "{what:<w0$} {with:<w1$} {value:>9} {unit:<6} {ratio:>7} {min:>9} {max:>9} {goal:>9}",
        w0 = COLUMNS[0],
        w1 = COLUMNS[1],
    );
    line.trim_end().to_owned()
}

/// As many digits as say something.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 || size == 0.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
