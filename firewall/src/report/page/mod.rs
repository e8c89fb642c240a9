//! The report as a page: one file with everything in it, no script, and nothing from elsewhere.
//!
//! Charts are drawn twice, for a wide page and for a narrow one, of which the style sheet shows one: what is
//! drawn for one width cannot be read at the other.

mod map;
mod sankey;
#[cfg(test)]
mod tests;
mod timeline;

use jiff::{Timestamp, tz::TimeZone};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Others, Report, Row, Sums, Talker,
    terminal::{bytes, count, country, flows, missing, number, owner, stopper, title, would},
};
use crate::policy::diagnostic::printable;

/// Rows of a table about all apps.
const ROWS: usize = 20;
/// Rows of a table about one app.
const APP_ROWS: usize = 12;

const STYLE: &str = include_str!("style.css");

/// For which page a chart is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Wide,
    Narrow,
}

impl Width {
    const ALL: [Self; 2] = [Self::Wide, Self::Narrow];

    /// Units of a drawing across.
    const fn units(self) -> f64 {
        match self {
            Self::Wide => 960.0,
            Self::Narrow => 360.0,
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }
}

/// What is drawn: bytes, or flows where no bytes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Bytes,
    Flows,
}

impl Measure {
    fn of(report: &Report) -> Self {
        if report.sums.bytes() > 0 { Self::Bytes } else { Self::Flows }
    }

    const fn value(self, sums: &Sums) -> u64 {
        match self {
            Self::Bytes => sums.bytes(),
            Self::Flows => sums.flows.all(),
        }
    }

    fn told(self, value: u64) -> String {
        match self {
            Self::Bytes => bytes(value),
            Self::Flows => count(value, "flow", "flows"),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Bytes => "Bytes",
            Self::Flows => "Flows",
        }
    }
}

/// The page, made `now`.
pub fn render(report: &Report, now: Timestamp, zone: &TimeZone) -> String {
    let measure = Measure::of(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing of what is told may run or load, should it ever get out of its place.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="color-scheme" content="light dark";
                title { "Who talked to whom" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(report, zone))
                    (figure("Where", &format!("{} by country, one square each, about where it lies on the globe", measure.word()), |width| map::draw(report, measure, width)))
                    (map::elsewhere(report, measure))
                    (figure("When", &timeline::caption(report, zone), |width| timeline::draw(report, zone, width)))
                    (figure("From app to organisation to country", &format!("{}; what is not among the largest is told together", measure.word()), |width| sankey::draw(report, measure, width)))
                    div.columns {
                        section { h2 { "Countries" } (table("country", &report.countries, |of| country(&of.name), None, ROWS, measure)) }
                        section { h2 { "Organisations" } (table("organisation", &report.organisations, owner, None, ROWS, measure)) }
                    }
                    h2 { "Apps" }
                    @for talker in &report.apps { (app(talker, zone, measure)) }
                    (foot(report, now, zone))
                }
            }
        }
    };
    page.into_string()
}

fn time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn head(report: &Report, zone: &TimeZone) -> Markup {
    let Sums { flows, bytes_out, bytes_in } = report.sums;
    let facts = [
        (number(report.apps.len() as u64), "apps"),
        (bytes(bytes_out), "sent"),
        (bytes(bytes_in), "received"),
        (number(flows.allow), "allowed"),
        (number(flows.audit), "audited"),
        (number(flows.deny), "denied"),
    ];
    let new_apps = report.apps.iter().filter(|talker| talker.new).count() as u64;
    let new_owners = report.organisations.iter().filter(|row| row.new).count() as u64;
    let new_countries = report.countries.iter().filter(|row| row.new).count() as u64;
    let new_names =
        report.apps.iter().flat_map(|one| &one.names).filter(|row| row.new).count() as u64;
    html! {
        h1 { "Who talked to whom" }
        @if let (Some(first), Some(last)) = (report.first, report.last) {
            p.when {
                (time(first, zone)) " to " (time(last, zone))
                " (" (last.to_zoned(zone.clone()).strftime("%:z").to_string()) ")"
            }
        }
        dl.facts {
            @for (value, what) in &facts { div { dt { (what) } dd { (value) } } }
        }
        p {
            @match report.last_report {
                Some(before) => {
                    "New since the report of " (time(before, zone)) ": "
                    (count(new_apps, "app", "apps")) ", "
                    (count(new_owners, "organisation", "organisations")) ", "
                    (count(new_countries, "country", "countries")) ", "
                    (count(new_names, "name", "names")) "."
                }
                None => { "Nothing to compare with: no report before is known." }
            }
        }
        @for text in missing(report) { p.missing { "Missing: " (text) } }
    }
}

fn figure(heading: &str, caption: &str, draw: impl Fn(Width) -> Markup) -> Markup {
    html! {
        figure {
            h2 { (heading) }
            figcaption { (caption) }
            @for width in Width::ALL { div class=(width.class()) { (draw(width)) } }
        }
    }
}

fn table<K>(
    heading: &str,
    rows: &[Row<K>],
    called: impl Fn(&K) -> String,
    others: Option<Others>,
    most: usize,
    measure: Measure,
) -> Markup {
    let hidden = rows.get(most..).unwrap_or_default();
    let mut more = others.unwrap_or_default();
    more.number += hidden.len();
    hidden.iter().for_each(|row| more.sums.add(&row.sums));
    let largest = rows.iter().map(|row| measure.value(&row.sums)).max().unwrap_or(0).max(1);
    html! {
        table {
            thead {
                tr { th { (heading) } th.bar {} th.number { "sent" } th.number { "received" } th.number { "flows" } th.number { "denied" } }
            }
            tbody {
                @for row in rows.iter().take(most) {
                    tr {
                        td.name { (called(&row.of)) @if row.new { " " span.new { "new" } } }
                        td.bar { (bar(measure.value(&row.sums), largest)) }
                        (numbers(&row.sums))
                    }
                }
                @if more.number > 0 {
                    tr.more {
                        td.name { "and " (number(more.number as u64)) " more" }
                        td.bar {}
                        (numbers(&more.sums))
                    }
                }
            }
        }
    }
}

fn bar(value: u64, most: u64) -> Markup {
    let share = format!("inline-size:{:.1}%", value as f64 / most as f64 * 100.0);
    html! { @if value > 0 { span.bar style=(share) {} } }
}

fn numbers(sums: &Sums) -> Markup {
    html! {
        td.number { (bytes(sums.bytes_out)) }
        td.number { (bytes(sums.bytes_in)) }
        td.number { (number(sums.flows.all())) }
        td.number { (number(sums.flows.deny)) }
    }
}

fn app(talker: &Talker, zone: &TimeZone, measure: Measure) -> Markup {
    let (name, rest) = title(talker);
    let Sums { bytes_out, bytes_in, .. } = talker.sums;
    let names =
        |all: &[String]| all.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
    html! {
        article {
            h3 { (name) @if talker.new { " " span.new { "new" } } }
            p.what { (rest) }
            p {
                (flows(&talker.sums)) "; " (bytes(bytes_out)) " sent, " (bytes(bytes_in)) " received. Seen "
                (time(talker.first, zone)) " to " (time(talker.last, zone)) "."
            }
            @if !talker.organisations.is_empty() {
                (table("organisation", &talker.organisations, owner, talker.other_organisations, APP_ROWS, measure))
                (table("country", &talker.countries, |of| country(&of.name), None, APP_ROWS, measure))
            }
            (table("name", &talker.names, |of| printable(&of.name), talker.other_names, APP_ROWS, measure))
            @if !talker.stopped.is_empty() {
                table.rules {
                    thead { tr { th { "stopped by" } th.number { "flows" } th { "among them" } } }
                    tbody {
                        @for one in &talker.stopped {
                            tr.stopped { td.name { (stopper(&one.by)) } td.number { (number(one.flows)) } td.name { (names(&one.names)) } }
                        }
                    }
                }
            }
            @if !talker.would.is_empty() {
                table.rules {
                    thead { tr { th { "passed, and would be stopped by, if it were enabled" } th.number { "flows" } th { "among them" } } }
                    tbody {
                        @for one in &talker.would {
                            tr { td.name { (would(one)) } td.number { (number(one.flows)) } td.name { (names(&one.names)) } }
                        }
                    }
                }
            }
        }
    }
}

fn foot(report: &Report, now: Timestamp, zone: &TimeZone) -> Markup {
    html! {
        footer {
            p {
                "Flows are verdicts: a question for a name is one, and a flow that policies observe has several. "
                "Bytes are transport payload; a kB is 1000. Organisations and countries are those that addresses are "
                "registered to, and say nothing of where a question for a name would lead."
            }
            @if !report.judged.is_empty() {
                p { "Asked what they would have stopped: " (report.judged.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")) "." }
            }
            p { "Made " (time(now, zone)) " by firewall " (env!("CARGO_PKG_VERSION")) "." }
        }
    }
}

/// A coordinate as it is written.
fn at(value: f64) -> String {
    format!("{value:.1}")
}
