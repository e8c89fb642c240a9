//! Records made by hand, and what they come to.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{terminal::Look, *};
use crate::events::record::{self, Line};

/// A verdict event of curl, with other keys in the place of some.
pub(super) fn record(second: u32, other: Value) -> Value {
    let mut event = json!({
        "schema": 1, "seq": second, "verdict": "allow", "reason": "default", "hook": "connect",
        "time": format!("2026-11-22T01:{:02}:{:02}Z", second / 60, second % 60),
        "app": {"name": "curl", "exe": "/usr/bin/curl", "pid": 7, "uid": 1000, "user": "ada"},
        "proto": "tcp", "src": {"ip": "192.168.0.5", "port": 40000},
        "dst": {"ip": "192.0.2.7", "port": 443}, "count": 1, "bytes_out": 0, "bytes_in": 0,
    });
    let Value::Object(other) = other else { panic!("keys") };
    event.as_object_mut().unwrap().extend(other);
    event
}

pub(super) fn records(all: Vec<Value>) -> Vec<Record> {
    let read = |event: Value| match record::read(event.to_string().as_bytes()) {
        Ok(Line::Verdict(record)) => *record,
        other => panic!("{other:?}"),
    };
    all.into_iter().map(read).collect()
}

fn report(all: Vec<Value>, known: &mut Known) -> Report {
    let mut tally = Tally::default();
    records(all).iter().for_each(|record| tally.add(record));
    tally.finish(&Judge::nobody(), known).unwrap()
}

fn sums(sums: &Sums) -> ([u64; 3], [u64; 2]) {
    let Flows { deny, audit, allow } = sums.flows;
    ([deny, audit, allow], [sums.bytes_out, sums.bytes_in])
}

fn names<K>(rows: &[Row<K>], called: impl Fn(&K) -> &str) -> Vec<&str> {
    rows.iter().map(|row| called(&row.of)).collect()
}

/// A flow's totals so far.
fn totals(second: u32, hook: &str, pid: u32, out: u64, received: u64) -> Value {
    let app = json!({"name": "curl", "exe": "/usr/bin/curl", "pid": pid, "uid": 1000});
    record(
        second,
        json!({"hook": hook, "app": app, "count": 0, "bytes_out": out, "bytes_in": received}),
    )
}

#[test]
fn bytes_of_a_flow_are_its_greatest_and_not_their_sum() {
    let of = |all| sums(&report(all, &mut Known::default()).sums);
    let begin = record(
        1,
        json!({"app": {"name": "curl", "exe": "/usr/bin/curl", "pid": 7, "uid": 1000}, "bytes_out": 10}),
    );
    let all = vec![
        begin.clone(),
        totals(2, "connect", 7, 100, 1000),
        totals(4, "close", 7, 150, 1500),
        // A repeat that was held is told late.
        totals(3, "connect", 7, 120, 1100),
    ];
    assert_eq!(of(all.clone()), ([0, 0, 1], [150, 1500]));
    let again = vec![
        // The same ends, later: another flow. So is that of another process.
        totals(9, "close", 7, 30, 300),
        totals(9, "close", 8, 4, 40),
    ];
    assert_eq!(of([all, again].concat()), ([0, 0, 1], [184, 1840]));
    // What is told at the end is no flow more, whatever it is called.
    let closed = record(2, json!({"hook": "close", "count": 1, "bytes_in": 5}));
    assert_eq!(of(vec![begin, closed]), ([0, 0, 1], [10, 5]));
}

#[test]
fn there_is_an_end_to_flows_that_are_remembered() {
    let mut meter = Meter::default();
    let mut all = records(vec![totals(1, "connect", 0, 1, 1)]);
    let mut record = all.remove(0);
    for pid in 0..1 << 18 {
        record.app.pid = Some(pid);
        record.hook = if pid == 5 { "close" } else { "connect" }.to_owned();
        assert_eq!(meter.more(&record), Some((1, 1)));
    }
    record.app.pid = Some(1 << 18);
    assert_eq!(meter.more(&record), Some((1, 1)), "in the place of the one that is closed");
    record.app.pid = Some(1 << 19);
    assert_eq!(meter.more(&record), None);
    record.app.pid = Some(6);
    assert_eq!(meter.more(&record), Some((0, 0)), "those that are remembered go on");
}

#[test]
fn who_where_and_by_which_name() {
    let to = |second, ip: &str, geo: Value, host: Value, out: u64| {
        record(
            second,
            json!({"dst": {"ip": ip, "port": 443}, "geo": geo, "host": host, "bytes_out": out, "count": 2}),
        )
    };
    let report = report(
        vec![
            to(
                1,
                "192.0.2.1",
                json!({"country": "US", "asn": 1, "organisation": "o"}),
                json!({"name": "a.example"}),
                5,
            ),
            to(
                2,
                "192.0.2.2",
                json!({"country": "DE", "asn": 1, "organisation": "o"}),
                json!({"name": "a.example"}),
                6,
            ),
            to(
                3,
                "192.0.2.3",
                json!({"country": "DE", "asn": 2, "as_name": "N"}),
                json!({"name": "b.example"}),
                1,
            ),
            to(4, "192.0.2.4", json!({"country": "DE", "asn": 3}), json!({"name": "b.example"}), 1),
            to(5, "127.0.0.1", json!({}), json!({"name": "localhost"}), 0),
            to(6, "2001:db8::1", json!({}), json!({"name": "c.example"}), 0),
            record(
                7,
                json!({"hook": "dns", "dst": {"ip": "8.8.8.8", "port": 53}, "count": 4,
                             "host": {"name": "asked.example"}, "geo": {"country": "FR"}}),
            ),
            record(
                8,
                json!({"hook": "dns", "dst": {"ip": "192.168.1.1"}, "count": 0, "bytes_in": 9}),
            ),
            record(8, json!({"dst": {"ip": "192.168.1.1"}, "proto": "icmp", "count": 1})),
        ],
        &mut Known::default(),
    );
    let [app] = &report.apps[..] else { panic!("one app") };
    let owners: Vec<(&str, Kind, _)> = app
        .organisations
        .iter()
        .map(|row| (row.of.name.as_str(), row.of.kind, sums(&row.sums)))
        .collect();
    assert_eq!(
        owners,
        [
            ("o", Kind::Organisation, ([0, 0, 4], [11, 0])),
            ("local", Kind::Local, ([0, 0, 3], [0, 9])),
            ("AS3", Kind::As, ([0, 0, 2], [1, 0])),
            ("N", Kind::As, ([0, 0, 2], [1, 0])),
            ("unknown", Kind::Unknown, ([0, 0, 2], [0, 0])),
        ]
    );
    let countries = names(&app.countries, |of| &of.name);
    assert_eq!(countries, ["local", "DE", "US", "unknown"], "where the resolver is says nothing");
    assert_eq!(app.routes.len(), 6);
    let named = names(&app.names, |of| &of.name);
    assert_eq!(
        named,
        ["a.example", "192.168.1.1", "b.example", "asked.example", "c.example", "localhost"]
    );
    assert_eq!(sums(&app.sums), ([0, 0, 17], [13, 9]));
    assert_eq!(report.organisations, app.organisations);
    assert_eq!((app.first.as_second() % 60, app.last.as_second() % 60), (1, 8));
}

#[test]
fn what_was_stopped_and_by_what() {
    let deny = |policy: Value, rule: Value, host: &str| {
        record(
            1,
            json!({"verdict": "deny", "reason": "rule", "policy": policy, "rule": rule,
                         "host": {"name": host}, "count": 2}),
        )
    };
    let report = report(
        vec![
            deny(json!("p"), json!("r"), "a.example"),
            deny(json!("p"), json!("r"), "b.example"),
            deny(json!("p"), Value::Null, "a.example"),
            deny(Value::Null, Value::Null, "a.example"),
            record(2, json!({"verdict": "audit", "policy": "p", "rule": "r"})),
        ],
        &mut Known::default(),
    );
    let stopped: Vec<(String, u64, usize)> = report.apps[0]
        .stopped
        .iter()
        .map(|one| (terminal::stopper(&one.by), one.flows, one.names.len()))
        .collect();
    let of = |by: &str, flows, names| (by.to_owned(), flows, names);
    assert_eq!(
        stopped,
        [of("p/r", 4, 2), of("no policy (rule)", 2, 1), of("p, its default", 2, 1)]
    );
}

#[test]
fn what_is_new_since_the_report_before() {
    let folder = tempfile::tempdir().unwrap();
    let to = |organisation: &str, host: &str| {
        record(1, json!({"geo": {"organisation": organisation}, "host": {"name": host}}))
    };
    let mut known = Known::load(folder.path()).unwrap();
    let first = report(vec![to("o", "a.example")], &mut known);
    let is_new = |report: &Report| {
        let app = &report.apps[0];
        let fresh = |new: &[bool]| new.iter().filter(|new| **new).count();
        (
            app.new,
            fresh(&app.organisations.iter().map(|row| row.new).collect::<Vec<_>>()),
            fresh(&app.names.iter().map(|row| row.new).collect::<Vec<_>>()),
        )
    };
    assert_eq!(
        (is_new(&first), first.last_report),
        ((false, 0, 0), None),
        "nothing to compare with"
    );
    let now: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
    known.store(folder.path(), now).unwrap();

    let mut known = Known::load(folder.path()).unwrap();
    let second =
        report(vec![to("o", "a.example"), to("p", "a.example"), to("p", "b.example")], &mut known);
    assert_eq!((is_new(&second), second.last_report), ((false, 1, 1), Some(now)));
    assert!(second.organisations[0].new || second.organisations[1].new);
    known.store(folder.path(), now).unwrap();

    let mut known = Known::load(folder.path()).unwrap();
    assert_eq!(is_new(&report(vec![to("p", "b.example")], &mut known)), (false, 0, 0));
    let mut other = to("o", "a.example");
    other["app"]["exe"] = json!("/opt/curl");
    assert_eq!(is_new(&report(vec![other], &mut known)), (true, 1, 1));

    let path = folder.path().join(known::FILE);
    std::fs::write(&path, r#"{"schema":2,"time":"2026-11-22T02:00:00Z","seen":[]}"#).unwrap();
    let error = Known::load(folder.path()).unwrap_err().to_string();
    assert_eq!(error, "it has schema 2, and this reads schema 1");
    std::fs::write(&path, "{").unwrap();
    assert!(Known::load(folder.path()).is_err());
}

#[test]
fn there_is_an_end_to_what_is_told_and_kept() {
    let named = |number: usize| {
        record(1, json!({"host": {"name": format!("{number:04}.example")}, "count": 3}))
    };
    let told = report((0..TOLD + 7).map(named).collect(), &mut Known::default());
    assert_eq!(told.apps[0].names.len(), TOLD);
    let others = told.apps[0].other_names.unwrap();
    assert_eq!((others.number, sums(&others.sums).0), (7, [0, 0, 21]));

    let app = |number: usize| {
        record(
            1,
            json!({"app": {"name": "x", "exe": format!("/opt/{number}"), "uid": 0}, "count": 2}),
        )
    };
    let many = report((0..MAX_APPS + 2).map(app).collect(), &mut Known::default());
    assert_eq!((many.apps.len(), many.missing.apps), (MAX_APPS, 4));
}

/// Two apps of which one has a name that wants to harm.
pub(super) fn example() -> Report {
    let known = json!({"schema": 1, "time": "2026-11-21T00:00:00Z", "seen": [
        {"app": {"name": "curl", "exe": "/usr/bin/curl", "uid": 1000, "user": "ada"},
         "organisations": ["google", "local"], "countries": ["US", "local"], "names": ["www.google.com", "127.0.0.1"]}]});
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(known::FILE), known.to_string()).unwrap();
    let mut known = Known::load(folder.path()).unwrap();
    let harmful = json!({"name": "x<script>alert(1)</script>\u{1b}[31m\nnext", "exe": "/tmp/\"><b>&'", "uid": 0});
    let google = json!({"country": "US", "asn": 15169, "organisation": "google"});
    let baidu = json!({"country": "HK", "asn": 55967, "organisation": "baidu"});
    let mut tally = Tally::default();
    let all = records(vec![
        record(1, json!({"geo": google, "host": {"name": "www.google.com"}, "count": 3})),
        record(
            2,
            json!({"hook": "close", "geo": google, "host": {"name": "www.google.com"}, "count": 0,
                         "bytes_out": 12_345, "bytes_in": 9_999_999}),
        ),
        record(
            61,
            json!({"verdict": "deny", "reason": "rule", "policy": "baidu-tongji", "rule": "tongji",
                         "geo": baidu, "host": {"name": "hm.baidu.com"}, "dst": {"ip": "103.235.46.191", "port": 443}, "count": 1200}),
        ),
        record(62, json!({"dst": {"ip": "127.0.0.1", "port": 80}, "bytes_out": 1})),
        record(
            63,
            json!({"app": harmful, "verdict": "audit", "geo": {"as_name": "<img src=x>\u{202e}"},
                          "host": {"name": "a-name-that-is-longer-than-anybody-would-want-it.example.org"}}),
        ),
    ]);
    all.iter().for_each(|record| tally.add(record));
    tally.lose(3);
    let mut report = tally.finish(&Judge::nobody(), &mut known).unwrap();
    report.apps[0].would = vec![Would {
        policy: "local-only".to_owned(),
        rule: None,
        place: judge::Place::Shipped,
        flows: 3,
        bytes_out: 12_345,
        bytes_in: 9_999_999,
        names: vec!["www.google.com".to_owned()],
    }];
    report
}

fn look(width: usize, colour: bool) -> Look {
    Look { width, colour, zone: TimeZone::fixed(jiff::tz::offset(1)) }
}

#[test]
fn at_a_terminal() {
    insta::assert_snapshot!(terminal::render(&example(), &look(80, false)));
}

#[test]
fn lines_fit_the_terminal_and_give_it_no_orders() {
    use unicode_width::UnicodeWidthStr as _;
    for width in [60, 80, 120, 200] {
        let text = terminal::render(&example(), &look(width, false));
        let widest = text.lines().map(|line| line.width()).max().unwrap();
        assert!(widest <= width, "{widest} columns at {width}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
    let plain = terminal::render(&example(), &look(80, false));
    let painted = terminal::render(&example(), &look(80, true));
    assert!(painted.contains("\x1b[31m"));
    let own = ["0", "1", "2", "31", "32", "33", "36"].map(|style| format!("\x1b[{style}m"));
    let bare = own.iter().fold(painted, |text, style| text.replace(style, ""));
    let bare: String = bare.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    assert_eq!(bare, plain, "colours are all that differs");
}

#[test]
fn as_json() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&example()).unwrap());
}

#[test]
fn numbers_for_people() {
    let all = [0, 999, 1000, 999_949, 999_950, 1_234_567, u64::MAX].map(terminal::bytes);
    assert_eq!(all, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.2 MB", "18.4 EB"]);
    assert_eq!([7, 999, 1000, 1_234_567].map(terminal::number), ["7", "999", "1,000", "1,234,567"]);
}
