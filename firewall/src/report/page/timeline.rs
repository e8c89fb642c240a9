//! When it was: verdicts over time.

use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::{Width, at};
use crate::report::{
    Bucket, Report,
    terminal::{count, number},
};

const HEIGHT: f64 = 180.0;
/// Below the axis.
const FOOT: f64 = 26.0;
/// Above the highest bar.
const HEAD: f64 = 20.0;

/// What the chart shows.
pub(super) fn caption(report: &Report, zone: &TimeZone) -> String {
    let seconds = report.times.seconds();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let unit = units.into_iter().find(|(unit, _)| seconds % unit == 0).unwrap_or((1, "second"));
    let step = match seconds / unit.0 {
        1 => unit.1.to_owned(),
        times => format!("{times} {}s", unit.1),
    };
    let offset = report.last.map(|last| last.to_zoned(zone.clone()).strftime("%:z").to_string());
    format!("Flows in each {step}, at {}", offset.unwrap_or_default())
}

/// The chart.
pub(super) fn draw(report: &Report, zone: &TimeZone, width: Width) -> Markup {
    let all = report.times.buckets();
    let most = all.iter().map(|one| one.flows.all()).max().unwrap_or(0).max(1);
    let across = width.units() / all.len().max(1) as f64;
    // Few steps are no walls.
    let bar = (across * 0.86).min(40.0);
    let floor = HEIGHT - FOOT;
    let room = floor - HEAD;
    let size = if width == Width::Wide { 12.0 } else { 10.0 };
    let kinds = [("allow", "allowed"), ("audit", "audited"), ("deny", "denied")];
    let gap = if width == Width::Wide { 90.0 } else { 76.0 };
    html! {
        svg viewBox=(format!("0 0 {} {}", at(width.units()), at(HEIGHT))) role="img" aria-label="Flows over time" {
            text.soft x="0" y="12" font-size=(size) { (number(most)) " at most" }
            @for (index, (class, what)) in kinds.into_iter().enumerate() {
                @let x = width.units() - gap * (3 - index) as f64;
                rect class=(class) x=(at(x)) y="3" width="10" height="10" rx="2" {}
                text.soft x=(at(x + 15.0)) y="12" font-size=(size) { (what) }
            }
            line x1="0" x2=(at(width.units())) y1=(at(floor + 0.5)) y2=(at(floor + 0.5)) {}
            @for (index, one) in all.iter().enumerate() {
                @let x = index as f64 * across + (across - bar) / 2.0;
                @let flows = one.flows;
                @let heights = [flows.allow, flows.audit, flows.deny].map(|value| value as f64 / most as f64 * room);
                g {
                    title { (label(one, zone, "%Y-%m-%d %H:%M:%S")) ": " (count(flows.all(), "flow", "flows")) ", " (number(flows.deny)) " denied" }
                    @for (part, (class, _)) in kinds.into_iter().enumerate() {
                        @if heights[part] > 0.0 {
                            @let below: f64 = heights[..part].iter().sum();
                            rect class=(class) x=(at(x)) y=(at(floor - below - heights[part])) width=(at(bar)) height=(format!("{:.2}", heights[part])) {}
                        }
                    }
                }
            }
            @for (x, anchor, text) in ticks(&all, report.times.seconds(), zone, width, across) {
                text.soft x=(at(x)) y=(at(floor + 18.0)) font-size=(size) text-anchor=(anchor) { (text) }
            }
        }
    }
}

/// Where times stand below the axis.
fn ticks(
    all: &[Bucket],
    seconds: i64,
    zone: &TimeZone,
    width: Width,
    across: f64,
) -> Vec<(f64, &'static str, String)> {
    let most = if width == Width::Wide { 7 } else { 3 };
    let every = all.len().div_ceil(most).max(1);
    // The day is told with the first, and with each where steps are long.
    let marks = all.iter().enumerate().step_by(every).map(|(index, one)| {
        let x = index as f64 * across;
        let anchor = if all.len() == 1 { "middle" } else { "start" };
        let x = if all.len() == 1 { x + across / 2.0 } else { x };
        let format = match (index, seconds) {
            (0, _) | (_, 3_600..) => "%Y-%m-%d %H:%M",
            (_, 60..) => "%H:%M",
            _ => "%H:%M:%S",
        };
        (x, anchor, label(one, zone, format))
    });
    // Nothing stands over the edge.
    let room = if width == Width::Wide { 118.0 } else { 100.0 };
    marks.filter(|(x, ..)| *x + room <= width.units() || all.len() == 1).collect()
}

fn label(one: &Bucket, zone: &TimeZone, format: &str) -> String {
    one.time.to_zoned(zone.clone()).strftime(format).to_string()
}
