//! What must hold of any list, for the fuzz targets and for the test that replays what they found.
#![allow(dead_code, reason = "each user needs a part of it")]

use std::sync::LazyLock;

use firewall::intel::organisations::Organisations;
use firewall::lists::import::{self, Imported};
use firewall::lists::{Format, Parsed, Report, detect, parse};
use firewall::policy::source::{Content, Disk, Origin, Source};
use firewall::policy::{Domain, DomainSet, Scope, load};

/// Every entry is sound, and every line is accounted for.
pub fn check(format: Format, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(parsed) = parse(Some(format), &text) else {
        assert_eq!(format, Format::Lsrules, "only a format of JSON can be broken as a whole");
        return;
    };
    let Parsed { domains, exceptions, networks, report } = parsed;
    entries(&domains);
    entries(&exceptions);
    assert!(networks.is_sorted_by(|a, b| a < b));
    assert!(networks.iter().all(|network| network.trunc() == *network));

    let Report { format: of, lines, comments, entries, duplicates, skipped } = report;
    assert_eq!(of, Some(format));
    assert_eq!(entries, domains.len() + exceptions.len() + networks.len());
    let mut lost = 0;
    for skipped in &skipped {
        assert!(skipped.count > 0 && !skipped.examples.is_empty());
        assert!(skipped.examples.len() <= skipped.count);
        lost += skipped.count;
        assert!(
            skipped
                .examples
                .iter()
                .all(|example| (1..=text.lines().count()).contains(&example.line))
        );
    }
    // The white space that ends a line is that of ASCII, and a byte order mark is none of it.
    let whole = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let blank = |line: &str| line.trim_ascii_end().is_empty();
    assert_eq!(lines, whole.lines().filter(|line| !blank(line)).count());
    if format != Format::Lsrules {
        assert!(comments <= lines);
        assert!(entries + duplicates + lost >= lines - comments, "a line came to nothing");
    }
}

/// Each entry is a name in its form, in its place, and found.
fn entries(set: &DomainSet) {
    let mut last: Option<(&str, Scope)> = None;
    for (name, scope) in set.iter() {
        assert!(last.is_none_or(|last| last < (name, scope)), "{name}");
        last = Some((name, scope));
        let written = format!("{}{name}", scope.mark());
        let domain = Domain::parse(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
        assert_eq!((domain.name.as_str(), domain.scope), (name, scope));
        let below = format!("x.{name}");
        let found = set.find(if scope == Scope::Below { &below } else { name });
        assert!(found.is_some(), "{written}");
    }
}

static ORGANISATIONS: LazyLock<Organisations> =
    LazyLock::new(|| Organisations::embedded().unwrap_or_else(|error| panic!("{error}")));

/// Whatever is imported, the policy is sound.
pub fn check_import(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let files = [("x.json".to_owned(), text.to_string())];
    sound(&import::opensnitch(&files, &text, &text));
    if let Some(format) = detect(&text)
        && let Ok(imported) = import::list(format, &text, &text, &text)
    {
        sound(&imported);
    }
}

fn sound(imported: &Imported) {
    assert_eq!(imported.rules == 0, imported.policy.is_empty());
    if imported.rules == 0 {
        return;
    }
    let content = Content::Text(imported.policy.as_str().into());
    let source = Source { origin: Origin::File("x.toml".into()), content };
    let (policies, findings) = load(&[source], &ORGANISATIONS, &Disk);
    assert!(!findings.has_errors(), "{}\n{}", findings.render(false), imported.policy);
    assert_eq!(policies[0].rules.len(), imported.rules);
}
