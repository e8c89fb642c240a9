//! The page of a report in which names want to harm.

use super::*;
use crate::report::tests::example;

fn page(report: &Report) -> String {
    let now: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
    render(report, now, &TimeZone::UTC)
}

#[test]
fn names_are_text_and_nothing_else() {
    let page = page(&example());
    for harmful in ["<script", "<img", "\"><b>", "alert(1)</", "\u{1b}", "\u{202e}"] {
        assert!(!page.contains(harmful), "{harmful:?}");
    }
    assert!(page.contains("x&lt;script&gt;alert(1)&lt;/script&gt;?[31m?next"));
    assert!(page.contains("&lt;img src=x&gt;?"));
    assert!(page.contains("/tmp/&quot;&gt;&lt;b&gt;&amp;'"));
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn nothing_is_from_elsewhere() {
    let page = page(&example());
    for elsewhere in ["http:", "https:", "//", "url(", "@import", "src=", "href="] {
        let there = page.replace("src=x", "");
        assert!(!there.contains(elsewhere), "{elsewhere}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn everything_is_told() {
    let page = page(&example());
    for told in [
        "12.3 kB",
        "10.0 MB",
        "1,200",
        "hm.baidu.com",
        "baidu-tongji/tongji",
        "local-only, its default",
        "United States",
        "this machine and its networks",
        "events that were lost before they were written: 3",
        "New since the report of 2026-11-21 00:00:00: 1 app, 2 organisations, 2 countries, 2 names.",
    ] {
        assert!(page.contains(told), "{told}");
    }
    assert_eq!(page.matches("<svg").count(), 6, "three charts, each for wide and narrow pages");
    assert!(page.contains("class=\"stopped-only\""), "Hong Kong, where all was stopped");
    let empty = self::page(&Report {
        apps: Vec::new(),
        organisations: Vec::new(),
        countries: Vec::new(),
        sums: Sums::default(),
        times: Default::default(),
        first: None,
        last: None,
        ..example()
    });
    assert!(empty.contains("Nothing went anywhere."));
    assert!(!empty.contains("NaN") && !page.contains("NaN"));
}

/// The numbers of an attribute of all elements of a kind.
fn numbers_of<'p>(
    page: &'p str,
    element: &'p str,
    name: &'p str,
) -> impl Iterator<Item = f64> + 'p {
    let elements = page.split(element).skip(1).filter_map(|rest| rest.split('>').next());
    elements.filter_map(move |text| {
        let value = text.split(&format!(" {name}=\"")).nth(1)?;
        value.split('"').next()?.parse().ok()
    })
}

#[test]
fn charts_stay_in_their_frames() {
    let page = page(&example());
    for chart in page.split("<svg").skip(1) {
        let chart = chart.split("</svg>").next().unwrap();
        let frame = chart.split("viewBox=\"0 0 ").nth(1).unwrap().split('"').next().unwrap();
        let (width, height) = frame.split_once(' ').unwrap();
        let (width, height): (f64, f64) = (width.parse().unwrap(), height.parse().unwrap());
        for (x, wide) in numbers_of(chart, "<rect", "x").zip(numbers_of(chart, "<rect", "width")) {
            assert!(x >= 0.0 && x + wide <= width + 0.1, "{x} + {wide} of {width}");
        }
        for (y, high) in numbers_of(chart, "<rect", "y").zip(numbers_of(chart, "<rect", "height")) {
            assert!(y >= -0.1 && y + high <= height + 0.1, "{y} + {high} of {height}");
        }
        for y in numbers_of(chart, "<text", "y") {
            assert!(y > 0.0 && y <= height, "{y} of {height}");
        }
    }
}
