//! What must hold of policies, settings and what the system says of its resolvers, as text.

use std::{net::IpAddr, path::Path, sync::LazyLock};

use firewall::{
    config::{Config, Error, resolvers_in},
    contents::Contents,
    intel::{asn::parse_asn, organisations::Organisations},
    policy::{
        self, AppFacts, Domain,
        compile::{self, Facts},
        diagnostic::Diagnostics,
        source::{Content, Files, Origin, Source},
    },
};
use firewall_common::{
    app::Kind,
    evaluate::Fault,
    flow::{Address, Destination, TCP},
    layout::RESOLVERS,
    name_table::Keys,
};
use ipnet::IpNet;

static ORGANISATIONS: LazyLock<Organisations> =
    LazyLock::new(|| Organisations::embedded().unwrap_or_else(|error| panic!("{error}")));

/// Every list of the machine is this one.
struct OneList;

impl Files for OneList {
    fn read(&self, path: &Path) -> Result<Contents, String> {
        match path.extension() {
            Some(_) => Ok(b"0.0.0.0 hm.baidu.com\n! a\n10.0.0.0/8\n".to_vec().into()),
            None => Err("there is none".to_owned()),
        }
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        Ok((name == "ada").then_some(1000))
    }
}

/// Policies, a byte 0xff between two files: mistakes are told at their places, and what has none can be
/// compiled and asked.
pub fn policies(bytes: &[u8]) {
    let texts: Vec<&[u8]> = bytes.split(|byte| *byte == 0xff).take(3).collect();
    let source = |(number, text): (usize, &&[u8])| Source {
        origin: Origin::File(format!("/p/{number}.toml").into()),
        content: match std::str::from_utf8(text) {
            Ok(text) => Content::Text(text.into()),
            Err(_) => Content::Bytes(text.to_vec()),
        },
    };
    let sources: Vec<Source> = texts.iter().enumerate().map(source).collect();
    let (mut policies, findings) = policy::load(&sources, &ORGANISATIONS, &OneList);
    told(&findings, &texts.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>());
    assert_eq!(policies.is_empty(), findings.has_errors());
    if findings.has_errors() {
        return;
    }
    assert_eq!(policies.len(), sources.len());
    compile::order(&mut policies);
    let facts = Facts { countries: None, asns: None, organisation: &|_| Vec::new() };
    let settings = compile::Settings::default();
    let Ok(generation) = compile::compile(policies, facts, settings) else { return };
    let kernel = AppFacts { kind: Kind::Kernel, ..AppFacts::default() };
    let apps = [AppFacts::default(), kernel];
    for named in [&[][..], &["hm.baidu.com"], &["a.b.c", "org"]] {
        let named = generation.named(named, true);
        for ip in ["10.0.0.1", "255.255.255.255", "::", "64:ff9b::1.2.3.4"] {
            let address = Address::from(ip.parse::<IpAddr>().expect("an address"));
            let destination = Destination { address, port: 443, protocol: TCP, port_hidden: 0 };
            for app in &apps {
                match generation.evaluate(generation.class_of_app(app), &destination, &named) {
                    Ok(outcome) => assert!(generation.decision(outcome.decision).is_some()),
                    Err(Fault::PortHidden) => panic!("the port is shown"),
                    Err(Fault::Damaged) => panic!("damaged tables"),
                }
            }
        }
    }
    assert!(generation.question(0, "hm.baidu.com").is_ok());
}

/// `firewall.toml`.
pub fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Config::of(Path::new("/p/0.toml"), bytes.to_vec()) {
        Ok(config) => {
            told(&config.findings, &[text]);
            assert!(!config.findings.has_errors());
            let keys = Keys { seed: 1, factor: 3 };
            let settings = config.settings(keys, vec![(IpAddr::from([127, 0, 0, 1]), 53)]);
            assert_eq!(settings.name_keys, keys);
        }
        Err(Error::Invalid { findings, .. }) => {
            assert!(findings.has_errors());
            told(&findings, &[text]);
        }
        Err(other) => panic!("{other}"),
    }
}

/// Every finding has its place in the text, and nothing that is shown steers a terminal.
fn told<T: AsRef<str>>(findings: &Diagnostics, texts: &[T]) {
    for (finding, record) in findings.iter().zip(findings.records()) {
        let record = serde_json::to_value(record).expect("JSON");
        let file = record["file"].as_str().expect("a file");
        let mut of = texts.iter().enumerate();
        // Others are lists.
        let Some((_, text)) = of.find(|(number, _)| file == format!("/p/{number}.toml")) else {
            continue;
        };
        let text = text.as_ref();
        let span = &finding.place.span;
        assert!(span.start <= span.end, "{finding:?}");
        // Of what is no text, another text is shown.
        if !text.contains('\u{fffd}') {
            let before = text.get(..span.start).unwrap_or_else(|| panic!("{finding:?}"));
            assert!(text.get(span.clone()).is_some(), "{finding:?}");
            let line = before.matches('\n').count() as u64 + 1;
            assert_eq!(record["line"], line, "{finding:?}");
        }
        assert!(!finding.message.is_empty() && finding.hint != Some(String::new()));
        assert!(!finding.message.contains('\n'), "{finding:?}");
    }
    let shown = findings.render(false);
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!shown.contains(steers), "{shown:?}");
    assert_eq!(shown.is_empty(), findings.iter().next().is_none());
    assert_eq!(findings.first_error().is_some(), findings.has_errors());
    assert!(findings.render(true).len() >= shown.len());
}

/// resolv.conf(5).
pub fn resolvers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let found = resolvers_in(&text);
    assert!((1..=RESOLVERS).contains(&found.len()));
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    for (place, (ip, port)) in found.iter().enumerate() {
        assert_eq!(*port, 53);
        assert!(!found[..place].contains(&(*ip, *port)), "{ip} twice");
        let stands = |word: &&str| word.split('%').next().and_then(|w| w.parse().ok()) == Some(*ip);
        assert!(ip.is_loopback() || words.iter().any(stands), "{ip} in {text:?}");
    }
}

/// One matcher of the command line, a domain, a network, an AS.
pub fn spec(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Lists are read from the disk.
    if !text.starts_with("list:")
        && let Err(error) = policy::parse_spec(&text, &ORGANISATIONS)
    {
        let shown = error.to_string();
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        assert!(!error.hint.is_empty());
    } else if let Some((kind, value)) = text.split_once(':') {
        match kind {
            "net" => {
                let one = value.parse::<IpAddr>().map(IpNet::from);
                assert!(one.is_ok() || value.parse::<IpNet>().is_ok(), "{value}");
            }
            "as" => drop(parse_asn(value).unwrap_or_else(|error| panic!("{value}: {error}"))),
            _ => {}
        }
    }
    if let Ok(domain) = Domain::parse(&text) {
        let written = format!("{}{}", domain.scope.mark(), domain.name);
        assert_eq!(Domain::parse(&written).as_ref(), Ok(&domain), "{text:?}");
        assert!(domain.name.len() <= 253 && domain.name == domain.name.to_lowercase());
        let below = format!("x.{}", domain.name);
        assert!(domain.matches(&domain.name) || domain.matches(&below), "{text:?}");
        assert!(!domain.matches(&format!("x{}", domain.name)), "{text:?}");
    }
}
