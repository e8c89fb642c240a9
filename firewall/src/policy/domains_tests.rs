use super::*;
use proptest::prelude::*;

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn an_entry_has_one_form() {
    let cases = [
        ("baidu.com", "baidu.com", Scope::Tree),
        ("=HM.Baidu.com.", "hm.baidu.com", Scope::Exact),
        ("*.baidu.com.", "baidu.com", Scope::Below),
        ("_dmarc.x-.-y", "_dmarc.x-.-y", Scope::Tree),
        ("com", "com", Scope::Tree),
        ("Bücher.example", "xn--bcher-kva.example", Scope::Tree),
        ("*.百度。中国", "xn--wxtr44c.xn--fiqs8s", Scope::Below),
        ("XN--FIQS8S", "xn--fiqs8s", Scope::Tree),
    ];
    for (text, name, scope) in cases {
        let parsed = domain(text);
        assert_eq!((parsed.name.as_str(), parsed.scope), (name, scope), "{text}");
        assert_eq!(domain(&parsed.to_string()), parsed);
    }
}

#[test]
fn what_is_no_domain_says_what_to_write() {
    let label = "a".repeat(64);
    let long = format!("{}xx", "abc.".repeat(63));
    let many = "a.".repeat(33);
    let cases = [
        ("", "`` is not a domain", "`baidu.com`"),
        (".", "`.` is not a domain", "`baidu.com`"),
        ("*", "`*` is not a domain", "`baidu.com`"),
        ("*.", "`*.` is not a domain", "`baidu.com`"),
        ("=*.x.y", "`=*.x.y` is not a domain", "mean `*.x.y`?"),
        ("*://*.x.y/*", "`*://*.x.y/*` is not a domain", "mean `*.x.y`?"),
        ("=x.y/z", "`=x.y/z` is not a domain", "mean `=x.y`?"),
        (".x.y", "`.x.y` is not a domain", "mean `x.y`?"),
        ("a..b", "`a..b` is not a domain", "`baidu.com`"),
        ("x.*.y", "`x.*.y` is not a domain", "`*` stands only in front, once"),
        ("ads*.x", "`ads*.x` is not a domain", "`*` stands only in front, once"),
        ("https://x.y/z", "`https://x.y/z` is not a domain", "mean `x.y`?"),
        ("||x.y^", "`||x.y^` is not a domain", "mean `x.y`?"),
        ("a b", "`a b` is not a domain", "`baidu.com`"),
        ("a\0b", "`a\\u{0}b` is not a domain", "`baidu.com`"),
        ("1.2.3.4", "`1.2.3.4` is an address", "`networks`"),
        ("=::1", "`=::1` is an address", "`networks`"),
        (&many, &format!("`{}…` is not a domain", &many[..60]), "32 labels"),
        (&label, &format!("`{}…` is not a domain", &label[..60]), "63"),
        (&long, &format!("`{}…` is not a domain", &long[..60]), "253"),
    ];
    for (text, message, hint) in cases {
        let error = Domain::parse(text).unwrap_err();
        assert_eq!(error.message, message);
        assert!(error.hint.contains(hint), "{text}: {}", error.hint);
    }
    // To follow a hint never means more than was written.
    for text in ["*.*.com", "*.*.co.uk", "*.*.x.y", "||com^", ".com", "*com"] {
        let hint = Domain::parse(text).unwrap_err().hint;
        assert!(!hint.contains("did you mean"), "{text}: {hint}");
    }
    assert!(Domain::parse(&"a.".repeat(32)).is_ok());
    assert!(Domain::parse(&"a".repeat(63)).is_ok());
    assert!(Domain::parse(&format!("{}.x", [&"a".repeat(62)[..]; 4].join("."))).is_ok());
}

#[test]
fn names_match_at_a_label_boundary() {
    let cases = [
        ("baidu.com", "baidu.com", true),
        ("baidu.com", "hm.baidu.com", true),
        ("baidu.com", "evilbaidu.com", false),
        ("baidu.com", "com", false),
        ("=baidu.com", "baidu.com", true),
        ("=baidu.com", "hm.baidu.com", false),
        ("*.baidu.com", "baidu.com", false),
        ("*.baidu.com", "a.b.baidu.com", true),
        ("*.baidu.com", ".baidu.com", true),
        ("*.baidu.com", "evilbaidu.com", false),
    ];
    for (entry, name, wanted) in cases {
        assert_eq!(domain(entry).matches(name), wanted, "{entry} {name}");
    }
}

#[test]
fn a_set_is_sorted_and_counts_duplicates() {
    let mut builder = DomainSetBuilder::default();
    for text in ["b.c", "a.a-very-long-name.c", "b.c", "=b.c", "*.b.c", "a.a-very-long-name.d"] {
        builder.push(&domain(text));
    }
    builder.push_text("B.C.", Scope::Tree).unwrap();
    assert_eq!(builder.push_text("B..C.", Scope::Tree), Err(NotAName::Characters));
    let (set, duplicates) = builder.finish();
    assert_eq!(duplicates, 2);
    let all: Vec<_> = set.iter().map(|(name, scope)| format!("{}{name}", scope.mark())).collect();
    assert_eq!(all, ["a.a-very-long-name.c", "a.a-very-long-name.d", "=b.c", "*.b.c", "b.c"]);
    assert_eq!(set.find("b.c").unwrap().to_string(), "=b.c");
    assert_eq!(set.find("x.b.c").unwrap().to_string(), "*.b.c");
    assert!(set.contains("b.c", Scope::Below) && !set.contains("c", Scope::Below));
    assert_eq!(DomainSet::default().find("b.c"), None);
}

#[test]
fn a_million_names_are_quick_and_small() {
    let names: Vec<Domain> = (0..1_000_000u64)
        .map(|n| domain(&format!("{:x}.example{}.com", n.wrapping_mul(0x9e37_79b9) >> 4, n % 977)))
        .collect();
    let start = std::time::Instant::now();
    let mut builder = DomainSetBuilder::default();
    for domain in &names {
        builder.push_text(&domain.name, domain.scope).unwrap();
    }
    let (set, duplicates) = builder.finish();
    let took = start.elapsed();
    assert_eq!(set.len() + duplicates, names.len());
    let bytes: usize = set.iter().map(|(name, _)| name.len() + 4).sum();
    assert_eq!(set.0.text.len() + 4 * set.0.entries.len(), bytes);
    // Far more than it takes, even in a debug build under load: only a change of order is caught.
    assert!(took.as_secs() < 20, "{took:?}");
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("ab"), Just("com"), Just("a-very-long-label")]
        .prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join("."))
}

fn entry() -> impl Strategy<Value = Domain> {
    let scope = prop_oneof![Just(Scope::Exact), Just(Scope::Below), Just(Scope::Tree)];
    (name(), scope).prop_map(|(name, scope)| Domain { name, scope })
}

proptest! {
    #[test]
    fn a_set_finds_what_a_walk_over_its_entries_finds(
        entries in prop::collection::vec(entry(), 0..30),
        names in prop::collection::vec(name(), 1..30),
    ) {
        let set: DomainSet = entries.iter().cloned().collect();
        let sorted: std::collections::BTreeSet<_> = entries.iter().cloned().collect();
        let all: Vec<_> = set
            .iter()
            .map(|(name, scope)| Domain { name: name.to_owned(), scope })
            .collect();
        prop_assert_eq!(&all, &sorted.iter().cloned().collect::<Vec<_>>());
        for name in names {
            let matching = entries.iter().filter(|entry| entry.matches(&name));
            let wanted = matching.max_by_key(|entry| (entry.name.len(), std::cmp::Reverse(entry.scope)));
            prop_assert_eq!(set.find(&name), wanted.cloned());
        }
    }

    #[test]
    fn what_is_parsed_is_a_name(text in "(?s)[*=]?[.]?.{0,30}") {
        if let Ok(domain) = Domain::parse(&text) {
            prop_assert!(check(&domain.name).is_ok());
            prop_assert_eq!(domain.name.to_ascii_lowercase(), domain.name.as_str());
            prop_assert_eq!(Domain::parse(&domain.to_string()), Ok(domain));
        }
    }
}
