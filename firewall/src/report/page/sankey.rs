//! From app to organisation to country.

use std::{cmp::Reverse, collections::HashMap};

use maud::{Markup, html};

use super::{Measure, Width, at};
use crate::report::{
    Report, Talker,
    terminal::{country, fitted, owner, title},
};

/// Nodes of each column; what is beyond is one more.
const MOST: [usize; 3] = [8, 12, 12];
/// Units that all of it together is high.
const FLOWS: f64 = 300.0;
/// Units of a label.
const LINE: f64 = 15.0;
const GAP: f64 = 5.0;
const BAR: f64 = 8.0;

const OTHERS: &str = "others";

/// A node of a column.
struct Node {
    label: String,
    value: u64,
    /// Its upper end.
    y: f64,
}

/// From a node to one of the next column, in the colour of an app.
struct Link {
    from: usize,
    to: usize,
    app: usize,
    value: u64,
}

/// The chart.
pub(super) fn draw(report: &Report, measure: Measure, width: Width) -> Markup {
    let all: Vec<([String; 3], u64)> = report
        .apps
        .iter()
        .enumerate()
        .flat_map(|(number, talker)| steps(number, talker, measure, width))
        .filter(|(_, value)| *value > 0)
        .collect();
    if all.is_empty() {
        return html! { p.what { "Nothing went anywhere." } };
    }
    let mut columns: Vec<Vec<Node>> = Vec::new();
    let mut places: Vec<HashMap<&str, usize>> = Vec::new();
    for column in 0..3 {
        let (nodes, place) = nodes(&all, column);
        columns.push(nodes);
        places.push(place);
    }
    let total: u64 = all.iter().map(|(_, value)| *value).fold(0, u64::saturating_add);
    let scale = FLOWS / total.max(1) as f64;
    let heights: Vec<f64> = columns.iter_mut().map(|nodes| stack(nodes, scale)).collect();
    let height = heights.into_iter().fold(0.0, f64::max);
    let xs = match width {
        Width::Wide => [0.0, 400.0, width.units() - BAR],
        Width::Narrow => [0.0, 145.0, width.units() - BAR],
    };
    let place =
        |column: usize, key: &String| places[column].get(key.as_str()).copied().unwrap_or(0);
    let links = |column: usize| {
        let mut sums: HashMap<(usize, usize, usize), u64> = HashMap::new();
        for (keys, value) in &all {
            let key = (
                place(column, &keys[column]),
                place(column + 1, &keys[column + 1]),
                place(0, &keys[0]),
            );
            *sums.entry(key).or_default() += value;
        }
        let links = sums.into_iter().map(|((from, to, app), value)| Link { from, to, app, value });
        let mut links: Vec<Link> = links.collect();
        links.sort_by_key(|link| (link.from, link.app, link.to));
        links
    };
    let size = if width == Width::Wide { 12.0 } else { 10.0 };
    // Letters that fit, by a wide one.
    let letters = |room: f64| (room / (size * 0.62)) as usize;
    let rooms = match width {
        Width::Wide => [letters(370.0), letters(330.0), letters(190.0)],
        Width::Narrow => [letters(128.0), letters(145.0), letters(44.0)],
    };
    html! {
        svg viewBox=(format!("0 0 {} {}", at(width.units()), at(height))) role="img" aria-label="From app to organisation to country" {
            @for column in 0..2 {
                (bands(&links(column), &columns[column], &columns[column + 1], [xs[column] + BAR, xs[column + 1]], scale, measure))
            }
            @for (column, nodes) in columns.iter().enumerate() {
                @for node in nodes {
                    rect.node x=(at(xs[column])) y=(at(node.y)) width=(at(BAR)) height=(at(tall(node, scale))) rx="1" {
                        title { (node.label) ": " (measure.told(node.value)) }
                    }
                }
            }
            @for (column, nodes) in columns.iter().enumerate() {
                @for node in nodes {
                    @let (x, anchor) = if column == 2 { (xs[2] - 5.0, "end") } else { (xs[column] + BAR + 5.0, "start") };
                    @let y = node.y + tall(node, scale) / 2.0 + size * 0.36;
                    text.halo x=(at(x)) y=(at(y)) font-size=(size) text-anchor=(anchor) { (fitted(&node.label, rooms[column])) }
                }
            }
        }
    }
}

/// Where an app's went, by the labels of the three columns.
fn steps(
    number: usize,
    talker: &Talker,
    measure: Measure,
    width: Width,
) -> Vec<([String; 3], u64)> {
    let app = match number < MOST[0] {
        // Apps of one name are not one.
        true => match talker.app.user.as_deref() {
            Some(user) if width == Width::Wide => {
                format!("{} ({})", title(talker).0, crate::policy::diagnostic::printable(user))
            }
            _ => title(talker).0,
        },
        false => OTHERS.to_owned(),
    };
    let called = |code: &str| match (code, width) {
        ("local" | "unknown", Width::Narrow) => code.to_owned(),
        (_, Width::Narrow) => crate::policy::diagnostic::printable(code),
        ("local", Width::Wide) => "local".to_owned(),
        (_, Width::Wide) => country(code),
    };
    let routes = talker.routes.iter().map(|row| {
        let keys = [app.clone(), owner(&row.of.organisation), called(&row.of.country)];
        (keys, measure.value(&row.sums))
    });
    let others = talker.other_routes.iter().map(|others| {
        ([app.clone(), OTHERS.to_owned(), OTHERS.to_owned()], measure.value(&others.sums))
    });
    routes.chain(others).collect()
}

/// The nodes of a column, the largest first, and where each key is.
fn nodes(all: &[([String; 3], u64)], column: usize) -> (Vec<Node>, HashMap<&str, usize>) {
    let mut sums: HashMap<&str, u64> = HashMap::new();
    for (keys, value) in all {
        let sum = sums.entry(&keys[column]).or_default();
        *sum = sum.saturating_add(*value);
    }
    let mut sorted: Vec<(&str, u64)> = sums.into_iter().collect();
    sorted.sort_by_key(|(key, value)| (*key == OTHERS, Reverse(*value), *key));
    let mut nodes: Vec<Node> = Vec::new();
    let mut places = HashMap::new();
    for (key, value) in sorted {
        if nodes.len() > MOST[column] || nodes.len() == MOST[column] && key != OTHERS {
            // One more that stands for the rest.
            if nodes.len() == MOST[column] {
                nodes.push(Node { label: OTHERS.to_owned(), value: 0, y: 0.0 });
            }
            places.insert(key, MOST[column]);
            nodes[MOST[column]].value = nodes[MOST[column]].value.saturating_add(value);
            continue;
        }
        places.insert(key, nodes.len());
        nodes.push(Node { label: key.to_owned(), value, y: 0.0 });
    }
    (nodes, places)
}

/// Puts nodes below each other, with room for their labels; how high they are together.
fn stack(nodes: &mut [Node], scale: f64) -> f64 {
    let mut y = 0.0;
    for node in nodes {
        // In the middle of its label.
        let room = tall(node, scale).max(LINE);
        node.y = y + (room - tall(node, scale)) / 2.0;
        y += room + GAP;
    }
    y
}

fn tall(node: &Node, scale: f64) -> f64 {
    (node.value as f64 * scale).max(1.0)
}

/// The bands between two columns.
fn bands(
    links: &[Link],
    from: &[Node],
    to: &[Node],
    [left, right]: [f64; 2],
    scale: f64,
    measure: Measure,
) -> Markup {
    let mut starts: Vec<f64> = from.iter().map(|node| node.y).collect();
    let mut ends: Vec<f64> = to.iter().map(|node| node.y).collect();
    let middle = (left + right) / 2.0;
    html! {
        @for link in links {
            @let thick = link.value as f64 * scale;
            @let (start, end) = (starts[link.from] + thick / 2.0, ends[link.to] + thick / 2.0);
            @let () = { starts[link.from] += thick; ends[link.to] += thick; };
            path class=(format!("link c{}", link.app.min(8))) d=(format!("M{} {} C{} {} {} {} {} {}", at(left), at(start), at(middle), at(start), at(middle), at(end), at(right), at(end))) stroke-width=(format!("{:.2}", thick.max(0.6))) {
                title { (from[link.from].label) " to " (to[link.to].label) ": " (measure.told(link.value)) }
            }
        }
    }
}
