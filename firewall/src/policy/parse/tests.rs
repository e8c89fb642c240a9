mod mistakes;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::contents::Contents;
use crate::intel::country::Country;
use crate::policy::source::Origin;
use crate::policy::{
    Action, AppFacts, Apps, Default, Destinations, Domain, ListSource, Means, Paths, Ports, Rule,
    SHIPPED, Selector, Whole,
};
use crate::remote::{Attempts, Failure, Head, Kept, KeptCopy, Reason, Remote, Validators};
use mistakes::{with_rule, with_to};

fn organisations() -> Organisations {
    Organisations::embedded().unwrap()
}

fn source(name: &str, text: &str) -> Source {
    Source { origin: Origin::File(name.into()), content: Content::Text(Arc::from(text)) }
}

/// The files that lists of these tests can name.
struct Shelf;

impl Files for Shelf {
    fn read(&self, path: &Path) -> Result<Contents, String> {
        match path.to_str() {
            Some("sub/hosts.txt") => {
                Ok(b"# Comment\n0.0.0.0 ads.x\n0.0.0.0 localhost\n".to_vec().into())
            }
            Some("sub/nets.txt") => Ok(b"192.0.2.0/24\n".to_vec().into()),
            Some("empty.txt") => Ok(b"# Nothing yet.\n".to_vec().into()),
            Some("unusable.txt") => Ok(b"##.ad\n/x/\n".to_vec().into()),
            Some("binary") => Ok(b"\x7fELF\0\xff".to_vec().into()),
            Some("broken.lsrules") => Ok(b"{\n  \"rules\": [\n}".to_vec().into()),
            _ => Err("No such file or directory (os error 2)".to_owned()),
        }
    }

    /// `/bin` and `/alias` are links.
    fn real(&self, path: &Path) -> PathBuf {
        let text = path.to_str().unwrap();
        let real = match text.split_at_checked(4) {
            Some(("/bin", rest)) if rest.is_empty() || rest.starts_with('/') => {
                format!("/usr/bin{rest}")
            }
            _ => text.replace("/alias", "/st*r"),
        };
        real.into()
    }

    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        match name {
            "ada" => Ok(Some(1000)),
            "broken" => Err("no answer".to_owned()),
            _ => Ok(None),
        }
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Ok((name == "staff").then_some(50))
    }

    /// Copies of the age in days that the path of the URL tells.
    fn kept(&self, remote: &Remote) -> Kept {
        let now = at(365);
        let failed = |message: &str| {
            let failure =
                Failure { time: now, reason: Reason::Status, message: message.to_owned() };
            Attempts::default().then(remote, now, Some(failure))
        };
        let days = match remote.url.path() {
            "/never" => return Kept { now, ..Kept::default() },
            "/gone" => return Kept { now, attempts: failed("it is gone"), ..Kept::default() },
            "/damaged" => {
                return Kept { now, copy: Err("it is damaged".to_owned()), ..Kept::default() };
            }
            path => path[1..].parse::<i64>().unwrap_or_default(),
        };
        let bytes = Contents::from(b"0.0.0.0 ads.example\n".to_vec());
        let report = crate::lists::parse(None, "0.0.0.0 ads.example\n").unwrap().report;
        let head = Head::new(remote, Validators::default(), &bytes, &report, at(365 - days));
        let attempts = match remote.url.query() {
            Some("found-unchanged") => Attempts::default().then(remote, at(364), None),
            Some("failing") => failed("it is gone"),
            _ => Attempts::default(),
        };
        Kept { copy: Ok(Some(KeptCopy { head, bytes })), attempts, now }
    }
}

/// So many days after a beginning.
fn at(days: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + days * 86_400).unwrap()
}

fn check(text: &str) -> (Vec<Policy>, Diagnostics) {
    load(&[source("p.toml", text)], &organisations(), &Shelf)
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn records(diagnostics: &Diagnostics) -> String {
    let mut out = String::new();
    for record in diagnostics.records() {
        writeln!(out, "{}", serde_json::to_string(&record).unwrap()).unwrap();
    }
    out
}

const SOUND: &str = r#"
[policy]
name = "everything"
description = """
First line.
Second."""
mode = "observe"
priority = 7
apps = ["*"]
default = "drop"

[[rule]]
name = "a"
action = "log"
to = { jurisdictions = ["CN", "HK"], organisations = ["baidu"], asns = ["AS37963"], networks = [
    "10.0.0.0/8",
    "::1",
], except.networks = ["10.1.0.0/16"] }
ports = ["tcp/443", "tcp/8000-8999", "udp", "icmp", "proto/47"]
apps = ["*"]

[[rule]]
name = "b"
action = "drop"
ports = ["icmpv6", "udplite/1", "sctp/2"]
"#;

#[test]
fn a_sound_policy_becomes_its_model() {
    let (policies, diagnostics) = check(SOUND);
    assert_eq!(diagnostics.render(false), "");
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let ports = |protocol, ports| Ports { protocol, ports };
    let country = |code| Country::from_code(code).unwrap();
    let except = Destinations { networks: vec![net("10.1.0.0/16")], ..Destinations::default() };
    let to = Destinations {
        jurisdictions: vec![country("CN"), country("HK")],
        organisations: vec!["baidu".into()],
        asns: vec![37963],
        networks: vec![net("10.0.0.0/8"), net("::1/128")],
        except: Some(Box::new(except)),
        ..Destinations::default()
    };
    let wanted = Policy {
        name: "everything".into(),
        description: "First line.\nSecond.".into(),
        mode: Mode::Observe,
        priority: 7,
        default: Some(Default::Drop),
        apps: every(),
        rules: vec![
            Rule {
                name: "a".into(),
                action: Action::Log,
                to: Some(to),
                ports: vec![
                    ports(6, 443..=443),
                    ports(6, 8000..=8999),
                    ports(17, 0..=65535),
                    ports(1, 0..=65535),
                    ports(47, 0..=65535),
                ],
                apps: every(),
                until: None,
            },
            Rule {
                name: "b".into(),
                action: Action::Drop,
                to: None,
                ports: vec![ports(58, 0..=65535), ports(136, 1..=1), ports(132, 2..=2)],
                apps: Apps::default(),
                until: None,
            },
        ],
    };
    assert_eq!(policies, [wanted]);
}

/// `apps = ["*"]`
fn every() -> Apps {
    let every = Selector { text: "*".to_owned(), means: Means::Every };
    Apps { only: vec![every], except: Vec::new() }
}

#[test]
fn selectors_become_their_models() {
    let paths = |glob: &str, whole| Paths::new(vec![glob.to_owned()], whole).unwrap();
    let of = |text: &str| apps::selector(text, &Shelf).unwrap();
    for (text, shown, means) in [
        ("exe:/bin/curl", "exe:/usr/bin/curl", Means::Exe(paths("/usr/bin/curl", Whole::Path))),
        ("exe:/bin/cu*", "exe:/usr/bin/cu*", Means::Exe(paths("/usr/bin/cu*", Whole::Path))),
        ("exe:/binary/x", "exe:/binary/x", Means::Exe(paths("/binary/x", Whole::Path))),
        ("exe:/alias/?", "exe:/st[*]r/?", Means::Exe(paths("/st[*]r/?", Whole::Path))),
        ("script:**/x.py", "script:**/x.py", Means::Script(paths("**/x.py", Whole::Path))),
        ("cgroup:/a.slice", "cgroup:/a.slice", Means::Cgroup(paths("/a.slice", Whole::Below))),
        (
            r"unit:app-a\x2db-*.scope",
            r"unit:app-a\x2db-*.scope",
            Means::Cgroup(paths(r"app-a\x2db-*.scope", Whole::Unit)),
        ),
        ("user:ada", "user:ada", Means::User(1000)),
        ("user:7", "user:7", Means::User(7)),
        ("group:staff", "group:staff", Means::Group(50)),
    ] {
        assert_eq!(of(text), Selector { text: shown.to_owned(), means }, "{text}");
    }
}

/// By paths as the engines and systemd make them.
#[test]
fn cgroups_of_apps_are_found() {
    let id = "0123456789abcdef".repeat(4);
    let user = "/user.slice/user-1000.slice/user@1000.service/app.slice";
    let short = &id[..12];
    let other = "ffffffffffff";
    for (selector, yes, no) in [
        (
            "flatpak:org.a.b-c".to_owned(),
            format!(r"{user}/app-flatpak-org.a.b\x2dc-4242.scope"),
            format!("{user}/app-flatpak-org.a.b-4242.scope"),
        ),
        (
            "flatpak:org.a.b".to_owned(),
            format!("{user}/app-flatpak-org.a.b-4242.scope/x"),
            format!("{user}/app-flatpak-org.a.bc-4242.scope"),
        ),
        (
            "snap:firefox".to_owned(),
            format!("{user}/snap.firefox.firefox-6f1a.scope"),
            format!("{user}/snap.firefox-esr.firefox-6f1a.scope"),
        ),
        (
            format!("container:{short}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/system.slice/docker-{other}{id}.scope"),
        ),
        (
            format!("container:{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/machine.slice/libpod-conmon-{id}.scope"),
        ),
        (
            "container:*".to_owned(),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            "/system.slice/docker.service".to_owned(),
        ),
        (format!("container:{id}"), format!("/docker/{id}"), format!("/docker/x{id}")),
        ("container:web-1".to_owned(), "/lxc.payload.web-1/init.scope".to_owned(), "/web-1".into()),
        (
            "container:web-1".to_owned(),
            r"/machine.slice/machine-web\x2d1.scope".to_owned(),
            r"/machine.slice/machine-web\x2d12.scope".to_owned(),
        ),
        (
            "unit:docker.service".to_owned(),
            "/system.slice/docker.service".to_owned(),
            "/system.slice/docker.service.d".to_owned(),
        ),
        (
            "unit:user@1000.service".to_owned(),
            format!("{user}/app-x-1.scope"),
            "/system.slice/x.service/user@1000.service".to_owned(),
        ),
        (
            "unit:system.slice".to_owned(),
            "/system.slice/x.service/y".to_owned(),
            "/docker/0123/system.slice".to_owned(),
        ),
        ("cgroup:/a/*".to_owned(), "/a/b/c".to_owned(), "/a".to_owned()),
    ] {
        let selector = apps::selector(&selector, &Shelf).unwrap();
        let of = |cgroup: String| AppFacts { cgroup: cgroup.into(), ..AppFacts::default() };
        assert!(selector.selects(&of(yes.clone())), "{selector} {yes}");
        assert!(!selector.selects(&of(no.clone())), "{selector} {no}");
    }
}

#[test]
fn names_and_lists_become_their_models() {
    let text = r#"
[policy]
name = "p"

[[rule]]
name = "r"
action = "drop"
to = { domains = ["Baidu.com.", "=hm.bücher.example"], lists = ["own", "file"], except.lists = ["own"] }

[list.own]
domains = ["*.volces.com"]
networks = ["192.0.2.0/24"]

[list.file]
file = "hosts.txt"
format = "hosts"
sha256 = "df8b947f4e8126d609f58dec1c94c4c9d93afa9088b7d27f288c16c81c64de34"
"#;
    let (policies, diagnostics) = load(&[source("sub/p.toml", text)], &organisations(), &Shelf);
    assert_eq!(diagnostics.render(false), "");
    let to = policies[0].rules[0].to.as_ref().unwrap();
    assert_eq!(to.domains, [domain("baidu.com"), domain("=hm.xn--bcher-kva.example")]);
    let [own, file] = &to.lists[..] else { panic!("{to:?}") };
    assert_eq!(own.find("a.volces.com"), Some(domain("*.volces.com")));
    assert_eq!((own.networks.len(), own.report.entries, own.report.format), (1, 2, None));
    assert_eq!(file.name, "file");
    assert_eq!(file.source, ListSource::File("sub/hosts.txt".into()));
    assert_eq!((file.report.entries, file.report.skipped()), (1, 1));
    // One list in memory, however often it is named.
    assert!(Arc::ptr_eq(own, &to.except.as_ref().unwrap().lists[0]));
    let names: Vec<_> = diagnostics.lists().map(|(_, list)| list.name.as_str()).collect();
    assert_eq!(names, ["file", "own"]);

    let shipped =
        Source { origin: Origin::Shipped("p".into()), content: Content::Text(text.into()) };
    let (_, diagnostics) = load(&[shipped], &organisations(), &Shelf);
    assert!(diagnostics.render(false).contains("a shipped policy has no folder"));
}

#[test]
fn a_list_by_url_is_what_was_kept_of_it_and_never_an_error() {
    let read = |keys: &str| {
        let text = format!(
            "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n\
             to = {{ lists = [\"l\"] }}\n[list.l]\n{keys}\n"
        );
        let (policies, diagnostics) = check(&text);
        assert!(!diagnostics.has_errors(), "{}", diagnostics.render(false));
        let list = policies[0].rules[0].to.as_ref().unwrap().lists[0].clone();
        let warnings: Vec<_> = diagnostics.iter().map(|found| found.message.clone()).collect();
        (list, warnings.join("\n"))
    };
    for (keys, entries, warning) in [
        ("url = \"https://x/0\"", 1, ""),
        ("url = \"https://x/3\"", 1, ""),
        (
            "url = \"https://x/4\"",
            1,
            "the list `l` is old: last fetched or found unchanged 2024-11-09T22:13:20Z",
        ),
        ("url = \"https://x/4?found-unchanged\"", 1, ""),
        ("url = \"https://x/4\"\nrefresh = \"2d\"", 1, ""),
        ("url = \"https://x/1?failing\"", 1, ""),
        (
            "url = \"https://x/4?failing\"",
            1,
            "the list `l` is old: last fetched or found unchanged 2024-11-09T22:13:20Z; the last \
             attempt failed: it is gone",
        ),
        ("url = \"https://x/never\"", 0, "the list `l` is empty: it was never fetched"),
        (
            "url = \"https://x/gone\"",
            0,
            "the list `l` is empty: it was never fetched; the last attempt failed: it is gone",
        ),
        ("url = \"https://x/damaged\"", 0, "the list `l` is empty: it is damaged"),
    ] {
        let (list, warnings) = read(keys);
        assert_eq!((list.report.entries, warnings.as_str()), (entries, warning), "{keys}");
        let ListSource::Url(source) = &list.source else { panic!("{:?}", list.source) };
        assert_eq!(matches!(source.copy, Ok(Some(_))), entries > 0, "{keys}");
        assert_eq!(source.current.is_some(), entries > 0, "{keys}");
        assert_eq!(source.stale, warning.contains("is old"), "{keys}");
    }
    let keys = "url = \"https://X.example/0\"\nformat = \"hosts\"\nrefresh = \"90m\"";
    let (list, _) = read(&format!("{keys}\nsha256 = \"{}\"", "A".repeat(64)));
    let ListSource::Url(source) = &list.source else { panic!("{:?}", list.source) };
    let remote = Remote {
        url: "https://x.example/0".parse().unwrap(),
        format: Some(crate::lists::Format::Hosts),
        sha256: Some("a".repeat(64)),
        refresh: Duration::from_mins(90),
    };
    assert_eq!(*source.remote, remote);
}

#[test]
fn defaults_of_a_policy() {
    let (policies, diagnostics) = check("[policy]\nname = \"x\"\ndefault = \"allow\"\n");
    assert_eq!(diagnostics.render(false), "");
    let [policy] = &policies[..] else { panic!("{policies:?}") };
    assert_eq!((policy.mode, policy.priority), (Mode::Enforce, 100));
    assert_eq!(policy.description, "");
}

const MISTAKES: &str = r#"title = 1
[policy]
name = "Deep Seek"
mode = "audit"
priority = "100"
apps = ["*", "firefox"]
prioritty = 3

[[rule]]
action = "deny"
to = { jurisdictions = ["cn", "XX", "CN", "CN"], organisations = "baidu" }

[[rule]]
name = "a"
action = "drop"
to = { asns = [37963, "37963", "AS0"], networks = ["10.0.0.1/8", "1.2.3.4/33"], networkz = ["x"] }
ports = ["443", 443, "tcp/70000", "tcp/9-1", "icmp/8", "tpc/80", "proto/256", "https"]

[[rule]]
name = "a"
action = "drop"

[[rule]]
name = "b"
action = "allow"
to = {}

[[rule]]
name = "c"
action = "drop"
to = { domains = ["https://x.com/y", "=hm.baidu.com"], lists = ["tonji"], except = { except = {} } }

[list.tongji]
domains = ["hm.baidu.com"]
formatt = "x"
"#;

#[test]
fn all_mistakes_of_a_file_come_in_one_go() {
    let (policies, diagnostics) = check(MISTAKES);
    assert!(policies.is_empty());
    insta::assert_snapshot!("mistakes", diagnostics.render(false));
    insta::assert_snapshot!("mistakes_for_machines", records(&diagnostics));
}

#[test]
fn broken_toml_does_not_hide_the_other_mistakes() {
    let (policies, diagnostics) = check(
        r#"[policy]
name = "x"
name = "y"
mode = enforce

[[rule]]
name = "a"
action = "deny"
to = { jurisdictions = ["CN" "HK"] }

[[rule]]
name = "b"
action =
to = { asns = ["AS0"] }

[[rule]
name = "c"

[[rule]]
name = "d"
action = "drop
to = { jurisdictions = ["cn"] }
"#,
    );
    assert!(policies.is_empty());
    insta::assert_snapshot!("broken_toml", diagnostics.render(false));
}

#[test]
fn all_mistakes_of_all_files_come_in_one_go() {
    let rule = "\n[[rule]]\nname = \"r\"\naction = \"drop\"\nports = [\"tcp\"]\n";
    let bytes = b"[policy]\nname = \"gr\xfc\xdfe\"\n".to_vec();
    let file = |name: &str| Origin::File(name.into());
    let (policies, diagnostics) = load(
        &[
            source("a.toml", &format!("[policy]\nname = \"same\"{rule}")),
            source("b.toml", &format!("[policy]\nname = \"other\"{rule}priority = 1\n")),
            source("c.toml", &format!("# Again.\n[policy]\nname = \"same\"{rule}")),
            source("d.toml", ""),
            Source { origin: file("e.toml"), content: Content::Bytes(bytes) },
            Source {
                origin: file("f.toml"),
                content: Content::Unreadable {
                    why: "no permission".into(),
                    hint: "make it readable, or remove it",
                },
            },
            source("g.toml", "# Nothing yet.\n"),
            source("h.toml", "[policy]\n"),
        ],
        &organisations(),
        &Shelf,
    );
    assert!(policies.is_empty());
    assert_eq!((diagnostics.policies(), diagnostics.rules()), (4, 3));
    insta::assert_snapshot!("several_files", diagnostics.render(false));
}

#[test]
fn an_entry_twice_is_a_warning_and_counts_once() {
    let (policies, diagnostics) = check(&with_to("networks = [\"10.0.0.1\", \"10.0.0.1/32\"]"));
    assert_eq!((diagnostics.errors(), diagnostics.warnings()), (0, 1));
    assert_eq!(policies[0].rules[0].to.as_ref().map(|to| to.networks.len()), Some(1));
}

#[test]
fn a_warning_can_be_put_at_a_rule() {
    let (_, mut diagnostics) = check(&with_rule("ports = [\"tcp\"]"));
    assert!(!diagnostics.warn_rule("p", "other", "x".into(), "y".into()));
    assert!(diagnostics.warn_rule("p", "r", "the rule can never match".into(), "move it".into()));
    insta::assert_snapshot!(diagnostics.render(false), @r#"
    warning: the rule can never match
      ┌─ p.toml:4:8
      │
    4 │ name = "r"
      │        ^^^
      │
      = hint: move it
    "#);
}

#[test]
fn nothing_of_a_file_can_steer_the_terminal() {
    let text = "[policy]\nname = \"p\u{1b}[2J\u{202e}\u{9b}\"\ndefault = \"\\u001b[2J\" # \u{1b}]0;x\u{7}\n";
    let shown = check(text).1.render(false);
    assert!(shown.contains("error"));
    assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{9b}', '\u{7}']), "{shown:?}");
    assert!(check("x = 1").1.render(true).contains('\u{1b}'));
}

#[test]
fn a_long_line_is_named_and_not_printed() {
    let text = with_to(&format!("asns = [{}\"AS0\"]", "\"AS1\", ".repeat(400)));
    let shown = check(&text).1.render(false);
    assert!(shown.contains("p.toml:6:2816: error: AS 0 is reserved"), "{shown}");
    assert!(shown.lines().all(|line| line.len() < 300));
}

#[test]
fn a_hundred_thousand_rules() {
    let mut text = String::from("[policy]\nname = \"p\"\n");
    for index in 0..100_000 {
        let (a, b) = (index / 256 % 256, index % 256);
        write!(
            text,
            "[[rule]]\nname = \"r{index}\"\naction = \"drop\"\nto = {{ networks = [\"10.{a}.{b}.0/24\"] }}\n"
        )
        .unwrap();
    }
    let start = Instant::now();
    let (policies, diagnostics) = check(&text);
    assert_eq!(diagnostics.render(false), "");
    assert_eq!(policies[0].rules.len(), 100_000);

    // As many mistakes, the last of them on line 400,002: finding a line must not cost a walk there.
    let (_, diagnostics) = check(&text.replace(".0/24", ".1/24"));
    assert_eq!(diagnostics.errors(), 100_000);
    assert_eq!(diagnostics.render(false).matches("hint: ").count(), 100_000);
    assert!(records(&diagnostics).contains("\"line\":400002,"));
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn every_shipped_policy_is_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort_by_key(|path| path.file_stem().map(ToOwned::to_owned));
    assert_eq!(files.len(), SHIPPED.len(), "each file of policies/ has to be in SHIPPED");
    for (path, (name, text)) in files.iter().zip(SHIPPED) {
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(*name));
        assert_eq!(std::fs::read_to_string(path).unwrap(), *text);
        let (policies, diagnostics) = check(text);
        assert_eq!(diagnostics.render(false), "");
        assert_eq!(policies[0].name, *name);
        assert!(policies[0].description.lines().next().is_some_and(|line| line.ends_with('.')));
        for part in ["Does:", "Breaks:", "Cannot see:"] {
            assert!(policies[0].description.contains(part), "{name}: {part}");
        }
    }
    let (policies, diagnostics) = load(&Source::all_shipped(), &organisations(), &Shelf);
    assert_eq!(diagnostics.render(false), "");
    assert_eq!(policies.len(), SHIPPED.len());
}

#[test]
fn specs() {
    let spec = |text| parse_spec(text, &organisations(), &Shelf);
    assert_eq!(spec("country:CN").unwrap().jurisdictions, [Country::from_code("CN").unwrap()]);
    assert_eq!(spec("org:baidu").unwrap().organisations, ["baidu"]);
    assert_eq!(spec("as:37963").unwrap().asns, [37963]);
    assert_eq!(spec("as:AS37963").unwrap().asns, [37963]);
    assert_eq!(spec("net:10.0.0.0/8").unwrap().networks, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(spec("net:2001:db8::1").unwrap().networks, ["2001:db8::1/128".parse().unwrap()]);
    assert_eq!(spec("domain:=HM.baidu.com").unwrap().domains, [domain("=hm.baidu.com")]);
    let listed = spec("list:sub/hosts.txt").unwrap().lists;
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "sub/hosts.txt"));
    assert!(listed[0].find("ads.x").is_some() && listed[0].find("b.ads.x").is_none());
    let cases = [
        ("country:cn", "there is no country `cn`", "`CN`"),
        ("country:", "there is no country ``", "`CN`"),
        ("org:baidoo", "there is no organisation `baidoo`", "`baidu`"),
        ("org:zzzzzzzz", "there is no organisation `zzzzzzzz`", "`as:64500`"),
        ("as:0", "AS 0 is reserved: nobody announces addresses with it", "AS1"),
        ("as:x", "`x` is not an AS number", "AS1"),
        ("net:10.0.0.1/8", "`10.0.0.1/8` has bits set behind its prefix", "`10.0.0.0/8`"),
        ("domain:1.2.3.4", "`1.2.3.4` is an address", "`net:1.2.3.4`"),
        ("domain:http://x.y/", "`http://x.y/` is not a domain", "`x.y`"),
        (
            "list:/etc/x",
            "the list `/etc/x` cannot be read: No such file or directory (os error 2)",
            "current folder",
        ),
        ("list:binary", "the list cannot be read: nothing in it tells its format", "`format`"),
        ("list:empty.txt", "the list `empty.txt` has no entries", "`firewall list show`"),
        ("list:", "`list:` names no file", "`list:FILE`"),
        ("hm.baidu.com", "`hm.baidu.com` is not a matcher", "`domain:hm.baidu.com`"),
        ("counry:CN", "there is no matcher `counry:`", "`country:CN`"),
        ("asn:1", "there is no matcher `asn:`", "`as:1`"),
        ("ip:1.2.3.4", "there is no matcher `ip:`", "`net:1.2.3.4`"),
        ("CN", "`CN` is not a matcher", "`country:CN`"),
        ("baidu", "`baidu` is not a matcher", "`org:baidu`"),
        ("AS1", "`AS1` is not a matcher", "`as:1`"),
        ("10.0.0.0/8", "`10.0.0.0/8` is not a matcher", "`net:10.0.0.0/8`"),
        ("2001:db8::/32", "`2001:db8::/32` is not a matcher", "`net:2001:db8::/32`"),
        ("", "`` is not a matcher", "`country:CN`"),
    ];
    for (text, message, hint) in cases {
        let error = spec(text).unwrap_err();
        assert_eq!(error.message, message);
        assert!(error.hint.contains(hint), "{text}: {}", error.hint);
    }
    let shown = spec("country:cn").unwrap_err().to_string();
    assert!(shown.starts_with("there is no country `cn`\n\nhint: did you mean `CN`?"), "{shown}");
}

/// What must hold whatever stands in a file.
fn assert_survives(content: Content) {
    let source = Source { origin: Origin::File("x.toml".into()), content };
    let (policies, diagnostics) = load(&[source], &organisations(), &Shelf);
    assert_eq!(policies.is_empty(), diagnostics.has_errors());
    let shown = diagnostics.render(false);
    assert!(shown.matches("x.toml:").count() >= diagnostics.errors(), "{shown}");
    records(&diagnostics);
}

fn mutated() -> impl Strategy<Value = String> {
    let shipped = |name| SHIPPED.iter().find(|(known, _)| *known == name).unwrap().1;
    let sources = [SOUND, MISTAKES, shipped("local-only"), shipped("deepseek-telemetry")];
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,6}");
    (prop::sample::select(sources.to_vec()), prop::collection::vec(edit, 1..4)).prop_map(
        |(source, edits)| {
            let mut chars: Vec<char> = source.chars().collect();
            for (start, length, text) in edits {
                let start = start.index(chars.len());
                let end = start + length.index(12).min(chars.len() - start);
                chars.splice(start..end, text.chars());
                chars.push('\n');
            }
            chars.into_iter().collect()
        },
    )
}

proptest! {
    #[test]
    fn any_text_survives(text in "(?s).{0,200}") {
        assert_survives(Content::Text(Arc::from(text)));
    }

    #[test]
    fn any_bytes_survive(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_survives(match String::from_utf8(bytes) {
            Ok(text) => Content::Text(Arc::from(text)),
            Err(error) => Content::Bytes(error.into_bytes()),
        });
    }

    #[test]
    fn any_change_of_a_policy_survives(text in mutated()) {
        assert_survives(Content::Text(Arc::from(text)));
    }

    #[test]
    fn any_word_survives(word in "(?s).{0,40}") {
        for key in ["jurisdictions", "organisations", "asns", "networks", "domains", "lists"] {
            let text = with_to(&format!("{key} = [{}]", toml::Value::from(word.as_str())));
            assert_survives(Content::Text(Arc::from(text)));
        }
        for key in ["ports", "apps"] {
            let text = with_rule(&format!("{key} = [{}]", toml::Value::from(word.as_str())));
            assert_survives(Content::Text(Arc::from(text)));
        }
        let _ = parse_spec(&word, &organisations(), &Shelf);
        for kind in ["country", "org", "as", "net", "domain", "list"] {
            let _ = parse_spec(&format!("{kind}:{word}"), &organisations(), &Shelf);
        }
    }
}
