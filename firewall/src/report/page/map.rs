//! Where it went: a square for each country, about where the country lies.
//!
//! A map with shapes would show large countries large. Here each has the same room, and the smallest can be
//! seen.

use std::{collections::HashMap, sync::LazyLock};

use maud::{Markup, html};

use super::{Measure, Width, at};
use crate::{
    intel::country::Country,
    report::{Name, Report, Row, Sums, terminal::country},
};

/// Rows and columns of codes; `..` is water.
const TILES: &str = include_str!("tiles.txt");

/// Every country on the map, with its column and row.
static PLACES: LazyLock<Vec<(&str, usize, usize)>> = LazyLock::new(|| {
    let rows = TILES.lines().enumerate();
    let tiles = rows.flat_map(|(row, line)| {
        line.split(' ').enumerate().map(move |(column, code)| (code, column, row))
    });
    tiles.filter(|(code, ..)| *code != "..").collect()
});

const COLUMNS: f64 = 32.0;
const ROWS: f64 = 22.0;
/// Of a larger square, with room for a code.
const TAG: (f64, f64) = (19.0, 13.0);
/// Steps of the scale.
const STEPS: u32 = 5;

/// The map.
pub(super) fn draw(report: &Report, measure: Measure, width: Width) -> Markup {
    let side = width.units() / COLUMNS;
    let tall = if width == Width::Wide { side * 0.85 } else { side };
    let legend = if width == Width::Wide { 30.0 } else { 44.0 };
    let height = tall * ROWS + legend;
    let of: HashMap<&str, &Sums> =
        report.countries.iter().map(|row| (row.of.name.as_str(), &row.sums)).collect();
    let most = most(report, measure);
    let size = if width == Width::Wide { 11.0 } else { 10.0 };
    html! {
        svg viewBox=(format!("0 0 {} {}", at(width.units()), at(height))) role="img" aria-label="Map of countries" {
            @for (code, column, row) in PLACES.iter() {
                @let (x, y) = (*column as f64 * side, *row as f64 * tall);
                @let sums = of.get(code).copied();
                rect class=(class(sums, measure, most)) x=(at(x + 0.8)) y=(at(y + 0.8)) width=(at(side - 1.6)) height=(at(tall - 1.6)) rx="2" {
                    title { (told(code, sums, measure)) }
                }
                @if width == Width::Wide {
                    text class=(text_class(sums, measure, most)) x=(at(x + side / 2.0)) y=(at(y + tall / 2.0 + size * 0.36)) font-size=(size) text-anchor="middle" pointer-events="none" { (code) }
                }
            }
            @if width == Width::Narrow {
                @for (row, x, y) in tags(report, side, tall) {
                    @let sums = Some(&row.sums);
                    rect class=(format!("tag {}", class(sums, measure, most))) x=(at(x - TAG.0 / 2.0)) y=(at(y - TAG.1 / 2.0)) width=(at(TAG.0)) height=(at(TAG.1)) rx="2" {
                        title { (told(&row.of.name, sums, measure)) }
                    }
                    text class=(text_class(sums, measure, most)) x=(at(x)) y=(at(y + size * 0.36)) font-size=(size) font-weight="600" text-anchor="middle" pointer-events="none" { (row.of.name) }
                }
            }
            (scale(most, measure, tall * ROWS + 10.0, width))
        }
    }
}

/// The largest country's.
fn most(report: &Report, measure: Measure) -> u64 {
    let there = report.countries.iter().filter(|row| Country::from_code(&row.of.name).is_some());
    there.map(|row| measure.value(&row.sums)).max().unwrap_or(0)
}

/// The step of a value, from 1: the highest begins at a quarter of the most, and each below at a quarter of
/// the one above.
fn step(value: u64, most: u64) -> u32 {
    let below = (1..STEPS).filter(|step| value < most >> (2 * step)).count() as u32;
    STEPS - below
}

fn class(sums: Option<&Sums>, measure: Measure, most: u64) -> String {
    match sums {
        None => "tile".to_owned(),
        Some(sums) if sums.flows.deny > 0 && sums.flows.deny == sums.flows.all() => {
            "stopped-only".to_owned()
        }
        Some(sums) => format!("q{}", step(measure.value(sums), most)),
    }
}

/// The code is light on dark squares and dark on light ones.
fn text_class(sums: Option<&Sums>, measure: Measure, most: u64) -> &'static str {
    match class(sums, measure, most).as_str() {
        "tile" => "off",
        "q4" | "q5" => "on",
        _ => "",
    }
}

fn told(code: &str, sums: Option<&Sums>, measure: Measure) -> String {
    let name = country(code);
    match sums {
        None => name,
        Some(sums) => format!("{name}: {}", measure.told(measure.value(sums))),
    }
}

/// Where squares are too small for a code, countries that have something to tell get a larger one: of them
/// the largest that are not in each other's way.
fn tags(report: &Report, side: f64, tall: f64) -> Vec<(&Row<Name>, f64, f64)> {
    let mut placed: Vec<(&Row<Name>, f64, f64)> = Vec::new();
    for row in &report.countries {
        let place = PLACES.iter().find(|(code, ..)| *code == row.of.name);
        let Some((_, column, line)) = place else { continue };
        // At the edge it would be cut off.
        let x = ((*column as f64 + 0.5) * side)
            .clamp(TAG.0 / 2.0 + 1.0, COLUMNS * side - TAG.0 / 2.0 - 1.0);
        let y = (*line as f64 + 0.5) * tall;
        let is_apart = |(_, other_x, other_y): &(&Row<Name>, f64, f64)| {
            (x - other_x).abs() > TAG.0 || (y - other_y).abs() > TAG.1
        };
        if placed.iter().all(is_apart) {
            placed.push((row, x, y));
        }
    }
    placed
}

fn scale(most: u64, measure: Measure, y: f64, width: Width) -> Markup {
    let (side, size) = if width == Width::Wide { (36.0, 12.0) } else { (20.0, 10.0) };
    let steps = if most > 0 { STEPS } else { 0 };
    let (x, below) = match width {
        Width::Wide => (width.units() - 100.0, y),
        Width::Narrow => (0.0, y + 17.0),
    };
    html! {
        @for step in 1..=steps {
            rect class=(format!("q{step}")) x=(at(f64::from(step - 1) * side)) y=(at(y)) width=(at(side)) height="10" {}
        }
        @if steps > 0 {
            text.soft x=(at(f64::from(steps) * side + 6.0)) y=(at(y + 9.0)) font-size=(size) {
                "up to " (measure.told(most)) "; each step is a quarter of the next"
            }
        }
        rect.stopped-only x=(at(x + 1.0)) y=(at(below)) width="10" height="10" rx="2" {}
        text.soft x=(at(x + 17.0)) y=(at(below + 9.0)) font-size=(size) { "all stopped" }
    }
}

/// What is in no square.
pub(super) fn elsewhere(report: &Report, measure: Measure) -> Markup {
    let is_there = |row: &&Row<Name>| PLACES.iter().all(|(code, ..)| *code != row.of.name);
    let rest: Vec<String> = report
        .countries
        .iter()
        .filter(is_there)
        .map(|row| format!("{}: {}", country(&row.of.name), measure.told(measure.value(&row.sums))))
        .collect();
    html! { @if !rest.is_empty() { p.what { "In no square: " (rest.join("; ")) "." } } }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_country_has_one_square() {
        let codes: HashSet<&str> = PLACES.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes.len(), PLACES.len(), "none has two");
        let missing: Vec<&str> =
            Country::all().map(Country::code).filter(|code| !codes.contains(code)).collect();
        // No country: a union to which old blocks are registered.
        assert_eq!(missing, ["EU"]);
        assert!(codes.iter().all(|code| Country::from_code(code).is_some()));
        assert!(PLACES.iter().all(|(_, column, row)| *column < 32 && *row < 22));
    }

    #[test]
    fn steps() {
        assert_eq!(
            [0, 3, 4, 15, 16, 63, 64, 255, 256, 1024].map(|value| step(value, 1024)),
            [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        );
        assert_eq!(step(1, 1), STEPS);
    }
}
