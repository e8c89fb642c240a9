use super::*;

const MACHINE: &str = r#"{"machine":{"kernel":"6.18","cpu":"a <fast> one","cores":2,"date":"2026-11-23T01:02:03Z","load":0.5,"compiler":"c","optimized":true}}"#;
const CONNECT: &str = r#"{"part":"network","what":"connect","with":"firewall","measured":{"value":30.5,"unit":"µs","ratio":1.05,"min":0.9,"max":1.2,"goal":{"most":1.03}}}"#;
const SENDS: &str = r#"{"part":"network","what":"sends","with":"firewall","measured":{"value":300000.0,"unit":"/s","ratio":0.96,"min":0.9,"max":1.0,"goal":{"least":0.95}}}"#;
const LOST: &str = r#"{"part":"network","what":"lost","with":"","measured":{"value":0.0,"unit":"","ratio":null,"min":0.0,"max":0.0,"goal":{"most":0.0}}}"#;
const OTHER: &str = r#"{"part":"network","what":"connect","with":"OpenSnitch","missing":"not installed: apt-get install opensnitch"}"#;

fn report(lines: &[&str]) -> Report {
    let mut report = Report::default();
    report.read(Part::Network, &lines.join("\n")).unwrap();
    report
}

#[test]
fn the_table_marks_what_is_missed_and_says_what_is_not_there() {
    let text = table::text(&report(&[MACHINE, CONNECT, SENDS, OTHER]));
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(
        text.starts_with("2026-11-23, 2 cores of a <fast> one, kernel 6.18, load 0.5 before\n")
    );
    assert!(
        line("connect").ends_with("30.5 µs        1.05      0.90      1.20    ≤ 1.03  MISSED"),
        "{text}"
    );
    assert!(
        line("sends").ends_with("300000 /s        0.96      0.90      1.00    ≥ 0.95"),
        "{text}"
    );
    assert!(
        text.contains("OpenSnitch                           not installed: apt-get install"),
        "{text}"
    );
    assert!(text.ends_with("; 1 of 2 goals missed\n"), "{text}");
}

#[test]
fn a_build_for_tests_says_so() {
    let text = table::text(&report(&[&MACHINE.replace("true", "false"), CONNECT]));
    assert!(text.lines().next().unwrap().ends_with("a build for tests, whose numbers say little"));
}

#[test]
fn the_json_has_all_and_what_is_missed() {
    let text = report(&[MACHINE, CONNECT, SENDS, OTHER]).json().unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["machine"]["cores"], 2);
    let missed: Vec<&Value> =
        value["rows"].as_array().unwrap().iter().map(|row| &row["missed"]).collect();
    assert_eq!(missed, [&Value::Bool(true), &Value::Bool(false), &Value::Null]);
    assert_eq!(value["rows"][0]["measured"]["ratio"], 1.05);
}

#[test]
fn what_is_no_row_or_of_another_part_is_a_failure() {
    let read = |part, text: &str| Report::default().read(part, text).map_err(|e| format!("{e:#}"));
    assert!(read(Part::Network, "").unwrap_err().contains("told nothing"));
    assert!(read(Part::Network, MACHINE).unwrap_err().contains("told nothing"));
    assert!(read(Part::Network, "oops").unwrap_err().contains("not a row: oops"));
    assert!(read(Part::Kernel, CONNECT).unwrap_err().contains("another part"));
    let other = CONNECT.replace("\"value\"", "\"values\"");
    assert!(read(Part::Network, &other).unwrap_err().contains("not a row"));
}

#[test]
fn a_measurement_that_fails_keeps_what_it_told_and_fails() {
    let mut report = Report::default();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo \"$1\"; exit 3", "sh", CONNECT]);
    let error = report.add(&BENCHES[1], &mut command).unwrap_err();
    assert!(error.to_string().contains('3'), "{error}");
    assert_eq!(report.rows.len(), 1);
}

#[test]
fn the_picture_is_sound_and_has_a_bar_for_each_goal_and_each_ratio() {
    let svg = picture::svg(&report(&[MACHINE, CONNECT, SENDS, LOST, OTHER]));
    assert_eq!(svg.matches("<rect class=\"missed\"").count(), 1);
    assert_eq!(svg.matches("<rect class=\"kept\"").count(), 2);
    assert_eq!(svg.matches("<rect class=\"firewall\"").count(), 2);
    assert!(svg.contains("a &lt;fast&gt; one"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(svg.contains(">1.04 × (300000 /s)<"), "{svg}");
    // What takes 2 % more than its goal ends as much behind it.
    assert!(svg.contains("width=\"214.1\""), "{svg}");
}
