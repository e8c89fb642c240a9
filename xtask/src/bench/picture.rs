//! The picture: how much of each goal is used, and what connections take beside others.

use std::fmt::Write as _;

use super::{Goal, Measured, Outcome, Part, Report, Row, table::short};

const WIDTH: f64 = 1090.0;
/// Where bars begin, and how long they can get.
const LEFT: f64 = 500.0;
const LENGTH: f64 = 420.0;
const LINE: f64 = 20.0;
const BAR: f64 = 11.0;

/// Goals are drawn up to so many times themselves, ratios between these.
const MOST_OF_GOAL: f64 = 2.0;
const RATIOS: [f64; 2] = [0.5, 64.0];

/// Both in light and dark; the colours tell kept from missed, and who, also to the colour-blind.
const STYLE: &str = "
text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px } .small { fill: #59636e } .back { fill: #ffffff }
.kept, .firewall { fill: #0969da } .missed { fill: #d1622b } .other { fill: #8c959f }
.spread { stroke: #1f2328; stroke-width: 1 } .axis { stroke: #d1d9e0 } .goal { stroke: #1f2328; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 } .back { fill: #0d1117 }
.kept, .firewall { fill: #4493f8 } .missed { fill: #f0883e } .other { fill: #6e7681 }
.spread { stroke: #f0f6fc } .axis { stroke: #3d444d } .goal { stroke: #f0f6fc }
}
";

struct Picture {
    body: String,
    y: f64,
}

/// One bar, in parts of [`LENGTH`].
struct Bar<'r> {
    label: String,
    class: &'r str,
    from: f64,
    to: f64,
    spread: [f64; 2],
    /// Behind it.
    says: String,
}

pub(super) fn svg(report: &Report) -> String {
    let mut picture = Picture { body: String::new(), y: 24.0 };
    picture.text(16.0, "small", "start", &report.machine());
    picture.y += 28.0;
    let measured = |row: &'_ Row| match &row.outcome {
        Outcome::Measured(measured) => Some(measured.clone()),
        Outcome::Missing(_) => None,
    };
    let goals: Vec<Bar<'_>> =
        report.rows.iter().filter_map(|row| goal_bar(row, &measured(row)?)).collect();
    if !goals.is_empty() {
        picture.heading("How much of its goal each takes (the goal is the dashed line)");
        picture.group(&goals, &[(0.0, "0"), (0.5, "goal"), (1.0, "2 ×")], 0.5);
    }
    let beside: Vec<Bar<'_>> = report
        .rows
        .iter()
        .filter(|row| row.part == Part::Network)
        .filter_map(|row| ratio_bar(row, &measured(row)?))
        .collect();
    if !beside.is_empty() {
        picture.heading("How many times as long it takes as without a firewall (dashed: the same)");
        let ticks = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        let names = ticks.map(|tick: f64| format!("{tick}"));
        let ticks: Vec<(f64, &str)> =
            ticks.iter().zip(&names).map(|(tick, name)| (place(*tick), &**name)).collect();
        picture.group(&beside, &ticks, place(1.0));
    }
    let height = picture.y;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"What the firewall costs\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n{}</svg>\n",
        picture.body
    )
}

fn goal_bar<'r>(row: &Row, measured: &Measured) -> Option<Bar<'r>> {
    let of_goal = measured.of_goal()?;
    let at = |judged: f64| {
        let one = Measured { value: judged, ratio: None, ..measured.clone() };
        one.of_goal().unwrap_or_default() / MOST_OF_GOAL
    };
    let (judged, unit) = match measured.ratio {
        Some(ratio) => (ratio, ""),
        None => (measured.value, &*measured.unit),
    };
    let goal = match measured.goal? {
        Goal::Most(most) => format!("≤ {most}"),
        Goal::Least(least) => format!("≥ {least}"),
    };
    Some(Bar {
        label: label(row),
        class: if measured.is_missed() { "missed" } else { "kept" },
        from: 0.0,
        to: of_goal / MOST_OF_GOAL,
        spread: [at(measured.min), at(measured.max)],
        says: format!("{} {unit} ({goal})", short(judged)).replace("  ", " "),
    })
}

fn ratio_bar<'r>(row: &Row, measured: &Measured) -> Option<Bar<'r>> {
    let ratio = measured.ratio?;
    // Where more is better, less is what takes longer.
    let per_time = measured.unit.ends_with("/s");
    let longer = |ratio: f64| if per_time { ratio.recip() } else { ratio };
    Some(Bar {
        label: label(row),
        class: if row.with == "firewall" { "firewall" } else { "other" },
        from: place(1.0),
        to: place(longer(ratio)),
        spread: [place(longer(measured.min)), place(longer(measured.max))],
        says: format!("{} × ({} {})", short(longer(ratio)), short(measured.value), measured.unit),
    })
}

/// Where a ratio is, each doubling as far.
fn place(ratio: f64) -> f64 {
    let [least, most] = RATIOS.map(f64::log2);
    (ratio.log2() - least) / (most - least)
}

fn label(row: &Row) -> String {
    if row.with.is_empty() { row.what.clone() } else { format!("{} · {}", row.what, row.with) }
}

impl Picture {
    fn heading(&mut self, title: &str) {
        self.text(16.0, "title", "start", title);
        self.y += 24.0;
    }

    fn group(&mut self, bars: &[Bar<'_>], ticks: &[(f64, &str)], goal: f64) {
        let (top, bottom) = (self.y, self.y + bars.len() as f64 * LINE);
        for (at, name) in ticks {
            let x = LEFT + at * LENGTH;
            self.line("axis", [x, top - 6.0, x, bottom]);
            self.y = bottom + 14.0;
            self.text(x, "small", "middle", name);
        }
        self.y = top;
        for bar in bars {
            self.bar(bar);
        }
        let x = LEFT + goal * LENGTH;
        self.line("goal", [x, top - 6.0, x, bottom]);
        self.y = bottom + 48.0;
    }

    fn bar(&mut self, bar: &Bar<'_>) {
        let x = |part: f64| LEFT + part.clamp(0.0, 1.0) * LENGTH;
        let (from, to) = (x(bar.from.min(bar.to)), x(bar.from.max(bar.to)));
        let middle = self.y + BAR / 2.0;
        let _ = writeln!(
            self.body,
            "<rect class=\"{}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            bar.class,
            self.y,
            (to - from).max(1.0)
        );
        let [low, high] = bar.spread.map(x);
        self.line("spread", [low, middle, high, middle]);
        self.y += BAR - 1.0;
        self.text(LEFT - 8.0, "label", "end", &bar.label);
        self.text(to.max(low).max(high) + 6.0, "small", "start", &bar.says);
        self.y += LINE - BAR + 1.0;
    }

    fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        // Writing to memory does not fail, here and below.
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    fn text(&mut self, x: f64, class: &str, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            self.y
        );
    }
}
