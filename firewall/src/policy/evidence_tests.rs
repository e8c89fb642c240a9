use std::path::Path;

use firewall_common::flow::{Destination, TCP};

use crate::{
    contents::Contents,
    intel::Intel,
    policy::{
        self, AppFacts,
        compile::{self, Facts, Settings},
        explain::{Explainer, Finding},
        source::{Content, Files, Origin, Source},
    },
    remote::{Head, Kept, KeptCopy, Remote, Validators},
};

const POLICY: &str = r#"
[policy]
name = "p"
[[rule]]
name = "r"
action = "drop"
to = { jurisdictions = ["CN"], organisations = ["baidu"], asns = ["AS4837"], networks = ["192.0.2.0/24"], domains = ["x.example"], lists = ["url", "other", "nets", "never", "file", "own"] }
[list.url]
url = "https://lists.example/url"
[list.other]
url = "https://lists.example/other"
[list.nets]
url = "https://lists.example/nets"
[list.never]
url = "https://lists.example/never"
[list.file]
file = "some.txt"
[list.own]
domains = ["own.example"]
"#;

/// The copies and files that the policy names.
struct Shelf;

impl Files for Shelf {
    fn read(&self, _: &Path) -> Result<Contents, String> {
        Ok(b"file.example\n".to_vec().into())
    }

    fn kept(&self, remote: &Remote) -> Kept {
        let (text, fetched) = match remote.url.path() {
            "/url" => ("url.example\n", "2026-01-02T03:04:05Z"),
            "/other" => ("url.example\n", "2026-02-02T00:00:00Z"),
            "/nets" => ("192.0.2.0/25\n192.0.2.0/26\n", "2026-03-02T00:00:00Z"),
            _ => return Kept::default(),
        };
        let fetched = fetched.parse().unwrap();
        let bytes = Contents::from(text.as_bytes().to_vec());
        let report = crate::lists::parse(None, text).unwrap().report;
        let head = Head::new(remote, Validators::default(), &bytes, &report, fetched);
        Kept { copy: Ok(Some(KeptCopy { head, bytes })), now: fetched, ..Kept::default() }
    }
}

/// What is found of a connection to an address that is known by these names.
fn found(ip: &str, names: &[&str]) -> Finding {
    let intel = Intel::default();
    let organisations = intel.organisations().unwrap();
    let content = Content::Text(POLICY.into());
    let source = Source { origin: Origin::File("p.toml".into()), content };
    let (policies, findings) = policy::load(&[source], organisations, &Shelf);
    assert!(!findings.has_errors(), "{}", findings.render(false));
    let facts = Facts {
        countries: Some(intel.geo().unwrap()),
        asns: Some(intel.asn().unwrap()),
        organisation: &|name| organisations.asns(name).unwrap_or_default().to_vec(),
    };
    let generation = compile::compile(policies, facts, Settings::default()).unwrap();
    let address = ip.parse::<std::net::IpAddr>().unwrap().into();
    let to = Destination { address, port: 443, protocol: TCP, port_hidden: 0 };
    let outcome = generation.evaluate(0, &to, &generation.named(names, true)).unwrap();
    let decision = generation.decision(outcome.decision).unwrap();
    let explainer = Explainer { generation: &generation, intel: &intel };
    explainer.findings(decision, Some(&to), names, &AppFacts::default()).unwrap().remove(0)
}

/// The facts without what follows `=`, and the data they rest on; of tables which, if they are those in
/// the binary.
fn rests(ip: &str, names: &[&str]) -> String {
    let finding = serde_json::to_value(found(ip, names)).unwrap();
    let intel = Intel::default();
    let mut data = finding["data"].clone();
    for (key, source) in
        [("country", intel.geo().unwrap().source()), ("asn", intel.asn().unwrap().source())]
    {
        let Some(table) = data.get_mut(key) else { continue };
        assert_eq!(table["name"], source.name);
        assert_eq!(table["version"], source.version);
        assert_eq!(table["date"], source.date);
        *table = "embedded".into();
    }
    let facts = finding["evidence"].as_array().into_iter().flatten();
    let facts = facts.map(|fact| fact.as_str().unwrap().split('=').next().unwrap().to_owned());
    format!("{} {data}", facts.collect::<Vec<_>>().join(" "))
}

#[test]
fn data_is_told_of_what_evidence_rests_on_and_of_nothing_else() {
    let all = [
        ("110.242.68.66", &[][..]),
        ("103.235.46.191", &[]),
        ("223.5.5.5", &[]),
        ("192.0.2.200", &[]),
        ("192.0.2.7", &[]),
        ("198.51.100.1", &["x.example"]),
        ("198.51.100.1", &["url.example", "a.url.example"]),
        ("198.51.100.1", &["file.example"]),
        ("198.51.100.1", &["own.example"]),
        ("198.51.100.1", &["nobody.example"]),
    ];
    let all: Vec<String> = all.iter().map(|(ip, names)| rests(ip, names)).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    country:CN as:AS4837 {"asn":"embedded","country":"embedded"}
    org:baidu {"asn":"embedded"}
    country:CN {"country":"embedded"}
    net:192.0.2.0/24 null
    net:192.0.2.0/24 list:nets list:nets {"lists":{"nets":{"fetched":"2026-03-02T00:00:00Z"}}}
    domain:x.example null
    list:url list:other {"lists":{"other":{"fetched":"2026-02-02T00:00:00Z"},"url":{"fetched":"2026-01-02T03:04:05Z"}}}
    list:file null
    list:own null
     null
    "#);
}
