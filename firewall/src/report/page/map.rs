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
/// Steps of the scale.
const STEPS: u32 = 5;

/// The map.
pub(super) fn draw(report: &Report, measure: Measure, width: Width) -> Markup {
    let side = width.units() / COLUMNS;
    let tall = if width == Width::Wide { side * 0.85 } else { side };
    let legend = 34.0;
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
                @for (code, x, y) in labels(report, side, tall) {
                    text.halo x=(at(x)) y=(at(y + size * 0.36)) font-size=(size) font-weight="700" text-anchor="middle" { (code) }
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

/// The step of a value, from 1: each is a fifth of the way from 1 to the most, in powers.
fn step(value: u64, most: u64) -> u32 {
    let share = (value.max(1) as f64).ln() / (most.max(2) as f64).ln();
    ((share * f64::from(STEPS)).ceil() as u32).clamp(1, STEPS)
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

/// The middles of the squares that have a code in them, of those the largest that are not in each other's way.
fn labels<'r>(report: &'r Report, side: f64, tall: f64) -> Vec<(&'r str, f64, f64)> {
    let mut placed: Vec<(&str, f64, f64)> = Vec::new();
    for row in &report.countries {
        let place = PLACES.iter().find(|(code, ..)| *code == row.of.name);
        let Some((_, column, line)) = place else { continue };
        let (x, y) = ((*column as f64 + 0.5) * side, (*line as f64 + 0.5) * tall);
        let free =
            placed.iter().all(|(_, at_x, at_y)| (x - at_x).abs() > 20.0 || (y - at_y).abs() > 12.0);
        // At the edge the code would be cut off.
        if free {
            placed.push((&row.of.name, x.clamp(9.0, COLUMNS * side - 9.0), y));
        }
    }
    placed
}

fn scale(most: u64, measure: Measure, y: f64, width: Width) -> Markup {
    let side = if width == Width::Wide { 36.0 } else { 24.0 };
    let size = if width == Width::Wide { 12.0 } else { 10.0 };
    html! {
        @if most > 0 {
            @for step in 1..=STEPS {
                rect class=(format!("q{step}")) x=(at(f64::from(step - 1) * side)) y=(at(y)) width=(at(side)) height="10" {}
            }
            text.soft x=(at(f64::from(STEPS) * side + 6.0)) y=(at(y + 9.0)) font-size=(size) {
                "few to " (measure.told(most)) ", in powers"
            }
        }
        @let x = width.units() - if width == Width::Wide { 130.0 } else { 92.0 };
        rect.stopped-only x=(at(x)) y=(at(y)) width="10" height="10" rx="2" {}
        text.soft x=(at(x + 16.0)) y=(at(y + 9.0)) font-size=(size) { "all stopped" }
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
            [0, 1, 10, 100, 1_000, 1_000_000].map(|value| step(value, 1_000_000)),
            [1, 1, 1, 2, 3, 5]
        );
        assert_eq!(step(1, 0), 1);
    }
}
