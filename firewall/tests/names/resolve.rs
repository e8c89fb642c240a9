//! `explain --resolve`: what real name servers tell, by whatever they are asked, and what would happen
//! there.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness::{Certificate, DECOY, Kind, require_names},
    support::{AMAZON, BAIDU_HK, FREE},
};

use super::world::{
    DENIED, DNS, DROPPED, OTHER_DNS, SINGAPORE, World, assert_fails, assert_passes, zone,
};

const BAIDU_V6: &str = "2001:df1:801::1";
/// Where a server is asked by TLS, and by HTTPS.
const ENCRYPTED: [&str; 2] = ["10.200.0.1:853", "10.200.0.1:8443"];
/// As long as a look-up may take that nobody answers: three servers, and the last one's other records.
const PATIENCE: Duration = Duration::from_secs(12);

struct Explained {
    status: i32,
    out: String,
    err: String,
}

impl Explained {
    fn of(command: &mut Command, words: &[&str]) -> Self {
        let output = command.arg("explain").args(words).output().expect("the firewall");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let status = output.status.code().expect("no signal");
        Self { status, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The one object; the rest of the output is for people.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// `explain --resolve --json` where the world's resolver is. The notes are of dnsmasq alone, which
/// knows of no kinds of records but those it was given.
#[track_caller]
fn explain(world: &World, words: &[&str]) -> Value {
    let base = ["--resolve", "--json"];
    let explained = Explained::of(&mut world.firewall(), &[&base[..], words].concat());
    let notes =
        |line: &str| line.starts_with("note: ") && line.ends_with("it says `Query Refused`");
    let mut lines = explained.err.lines().filter(|line| !line.is_empty());
    assert_eq!((explained.status, lines.all(notes)), (0, true), "{}", explained.err);
    explained.json()
}

/// Each address with its verdict, the record that has it and how long that holds.
fn addresses(value: &Value) -> Value {
    let all = value["addresses"].as_array().expect("addresses");
    all.iter()
        .map(|one| json!([one["dst"]["ip"], one["verdict"], one["record"], one["ttl"]]))
        .collect()
}

/// A name that is denied as an alias: the question passes, and no address can be reached.
#[test]
fn a_name_is_followed_to_its_addresses() {
    if !require_names() {
        return;
    }
    for kind in [Kind::Dnsmasq, Kind::Unbound] {
        let world = World::with(kind, &["10.200.0.1"], "", &zone().host(DECOY, &[FREE]));
        let policy = world.deny(&["shifen.com"], "");
        let value = explain(&world, &["--policy", &policy, "HM.baidu.com:80"]);
        let want = json!([[BAIDU_HK, "deny", "A", 60], [BAIDU_V6, "deny", "AAAA", 60]]);
        assert_eq!(addresses(&value), want);
        let host = json!({"name": "hm.baidu.com", "chain": ["hm.e.shifen.com"]});
        for one in [&value, &value["addresses"][0], &value["addresses"][1]] {
            assert_eq!(one["verdict"], "deny", "{one}");
            assert_eq!(one["hook"], "connect", "{one}");
            assert_eq!(one["evidence"], json!(["domain:shifen.com"]), "{one}");
            assert_eq!(one["geo"]["country"], "HK", "{one}");
            assert_eq!(one["host"], host, "{one}");
            assert_eq!((&one["dst"]["port"], &one["proto"]), (&json!(80), &json!("tcp")));
        }
        let question = &value["question"];
        assert_eq!((&question["verdict"], &question["hook"]), (&json!("allow"), &json!("dns")));
        assert_eq!(value["upstream"], json!({"server": DNS, "trusted": true}));

        // Of a name that nobody denies there is nothing but what happens.
        let value = explain(&world, &["--policy", &policy, "far.example:53/udp"]);
        assert_eq!(addresses(&value), json!([[AMAZON, "allow", "AAAA", 60]]));
        assert_eq!((&value["verdict"], &value["hook"]), (&json!("allow"), &json!("dns")));
        assert_eq!(value["host"], json!({"name": "far.example"}));
        assert_eq!(value["addresses"][0]["proto"], "udp");
        let value = explain(&world, &["--policy", &policy, DECOY]);
        assert_eq!(addresses(&value), json!([[FREE, "allow", "A", 60]]));
    }
}

#[test]
fn explain_shows_the_question_and_each_address() {
    if !require_names() {
        return;
    }
    let zone = zone().https("hm.e.shifen.com", ".", &[]);
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone);
    let explained = |words: &[&str]| {
        let base = ["--policy", "baidu", "--resolve", "--exit-code"];
        let Explained { status, out, err } =
            Explained::of(&mut world.firewall(), &[&base[..], words].concat());
        format!("{out}{err}exit {status}\n")
    };
    insta::assert_snapshot!(explained(&["--deny", "domain:shifen.com", "hm.baidu.com"]), @r"
    allow the question for hm.baidu.com
      because    no rule decides; the default is allow
      alias of   hm.e.shifen.com
      asked      10.200.0.1:53

    deny 103.235.46.191:443/tcp hm.baidu.com hm.e.shifen.com
      because    rule `--deny domain:shifen.com` of policy `command-line` (enforce) says drop
      evidence   domain:shifen.com
      country    HK
      owner      AS55967 Beijing Baidu Netcom Science and Technology Co., Ltd. (baidu)
      otherwise  drop by baidu/owner (enforce): org:baidu=AS55967
      told by    A record, for 60 s

    deny [2001:df1:801::1]:443/tcp hm.baidu.com hm.e.shifen.com
      because    rule `--deny domain:shifen.com` of policy `command-line` (enforce) says drop
      evidence   domain:shifen.com
      country    HK
      owner      AS133752 LEASEWEB HONG KONG LIMITED
      told by    AAAA record, for 60 s
    exit 1
    ");
    insta::assert_snapshot!(explained(&["evilbaidu.com/icmp"]), @r"
    allow the question for evilbaidu.com
      because    no rule decides; the default is allow
      asked      10.200.0.1:53

    allow 3.173.21.63/icmp evilbaidu.com
      because    no rule decides; the default is allow
      country    US
      owner      AS16509 Amazon.com, Inc.
      told by    A record, for 60 s

    allow 2600:9000::10/icmpv6 evilbaidu.com
      because    no rule decides; the default is allow
      country    US
      owner      AS16509 Amazon.com, Inc.
      told by    AAAA record, for 60 s
    exit 0
    ");
    insta::assert_snapshot!(explained(&["--deny", "domain:example", "nobody.example"]), @r"
    deny the question for nobody.example
      because    rule `--deny domain:example` of policy `command-line` (enforce) says drop
      evidence   domain:example
    error: cannot look up `nobody.example`: there is no such name
    exit 1
    ");
}

/// A question that is denied, and a run that denies it, do not stop the firewall itself from asking.
#[test]
fn the_firewall_may_ask_for_what_it_denies() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let deny = ["--deny", "domain:hm.baidu.com", "--deny", "domain:hm.e.shifen.com"];
    let resolve = [&deny[..], &["--resolve", "--json", "hm.baidu.com"]].concat();
    let lines = ["dns 10.200.0.1:53 evilbaidu.com A", "sleep 8000"];
    let run = world.start(&deny).start_client(&lines.join("\n"));
    run.wait_for_step(lines[0]);
    let value = Explained::of(&mut world.firewall(), &resolve).json();
    assert_eq!((&value["verdict"], &value["hook"]), (&json!("deny"), &json!("dns")), "{value}");
    assert_eq!(addresses(&value)[0], json!([BAIDU_HK, "deny", "A", 60]));
    drop(run);

    // What is run under the policies is an app like any, whatever it is.
    let mut run = world.start(&deny);
    run.command.args(["--quiet", "--"]).args([crate::support::FIREWALL]);
    let explained = Explained::of(&mut run.command, &resolve);
    assert_eq!(explained.status, 1, "{}", explained.err);
    assert_eq!(explained.json()["unresolved"], "no-answer");
    assert!(explained.err.contains("Operation not permitted"), "{}", explained.err);
}

/// What it says is what the kernel does after the same answer.
#[test]
fn explain_says_what_the_kernel_does() {
    if !require_names() {
        return;
    }
    let zone = zone()
        .https("front.example", "tracker.example", &[FREE])
        .host("own.example", &[SINGAPORE, AMAZON])
        .https("own.example", ".", &[SINGAPORE]);
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone);
    let sets: [&[&str]; 4] = [
        &["--deny", "domain:shifen.com", "--deny", "domain:tracker.example"],
        &["--default", "drop", "--allow", "domain:hm.baidu.com", "--allow", "domain:own.example"],
        // Some address can be reached, so that questions pass.
        &["--default", "drop", "--allow", "domain:tracker.example", "--allow", "net:127.0.0.0/8"],
        &["--deny", "country:HK", "--allow", "domain:own.example", "--default", "drop"],
    ];
    let names = ["hm.baidu.com", "front.example", "own.example", "evilbaidu.com"];
    for set in sets {
        for name in names {
            let value = explain(&world, &[set, &[&format!("{name}:80")]].concat());
            let reached = value["addresses"].as_array().expect("addresses");
            assert!(!reached.is_empty(), "{value}");
            let mut lines: Vec<String> =
                ["A", "AAAA", "HTTPS"].map(|kind| format!("dns {DNS} {name} {kind}")).into();
            for one in reached {
                let ip = one["dst"]["ip"].as_str().expect("an address");
                let place = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                lines.push(format!("tcp {place}:80"));
            }
            let outcome = world.script(set, &lines.iter().map(String::as_str).collect::<Vec<_>>());
            let passes = !DROPPED.contains(&outcome.errno(&lines[0]));
            assert_eq!(passes, value["question"]["verdict"] != "deny", "{set:?}: {value}");
            if !passes {
                continue;
            }
            for (line, one) in lines[3..].iter().zip(reached) {
                match one["verdict"] == "deny" {
                    true => assert_fails(&outcome, line, &DENIED),
                    false => assert_passes(&outcome, line),
                }
            }
        }
    }
}

/// A resolver that is not one of the settings' allows nothing: nor would its answer.
#[test]
fn who_is_not_trusted_allows_nothing() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let of = |settings: &str| {
        let config = world.file("firewall.toml", settings);
        let words = ["--config", &config, "--default", "drop", "--allow", "domain:good.example"];
        let base = [&words[..], &["--resolve", "good.example"]].concat();
        let Explained { status, out, err } = Explained::of(&mut world.firewall(), &base);
        assert_eq!(status, 0, "{err}");
        let value = explain(&world, &[&words[..], &["good.example"]].concat());
        let question = value["question"]["verdict"].clone();
        (question, value["addresses"][0]["verdict"].clone(), value["upstream"].clone(), out)
    };
    let (question, address, upstream, out) = of("upstreams = [\"9.9.9.9\"]\n");
    assert_eq!((question, address), (json!("allow"), json!("deny")));
    assert_eq!(upstream, json!({"server": OTHER_DNS, "trusted": false}));
    let note = "asked      9.9.9.9:53, not one of `resolvers`: allows nothing by name";
    assert!(out.contains(note), "{out}");
    let (question, address, upstream, _) =
        of("upstreams = [\"9.9.9.9\"]\nresolvers = [\"9.9.9.9\"]\n");
    assert_eq!((question, address), (json!("allow"), json!("allow")));
    assert_eq!(upstream, json!({"server": OTHER_DNS, "trusted": true}));
}

/// An answer that does not fit a datagram is fetched over TCP.
#[test]
fn a_long_answer_comes_whole() {
    if !require_names() {
        return;
    }
    let many: Vec<String> = (0..300).map(|last| format!("2001:db8::{last:x}")).collect();
    let zone = zone().host("many.example", &many).host("many.example", &[FREE]);
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone);
    let value = explain(&world, &["--policy", "baidu", "many.example"]);
    assert_eq!(value["addresses"].as_array().expect("addresses").len(), 301);
}

/// By TLS and HTTPS, checked by the roots of the system or those of `SSL_CERT_FILE`.
#[test]
fn encrypted_upstreams() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let certificate = Certificate::new(&["DNS:dns.test", "IP:10.200.0.1"]);
    let other = Certificate::new(&["DNS:dns.test", "IP:10.200.0.1"]);
    let zone = zone().https("hm.e.shifen.com", ".", &[]);
    let server = world.net.serve_names_encrypted(&zone, ENCRYPTED, &certificate);
    let explained = |upstream: &str, roots: &Path| {
        let config = world.file("firewall.toml", &format!("upstreams = [\"{upstream}\"]\n"));
        let words = ["--config", &config, "--deny", "domain:shifen.com", "--resolve", "--json"];
        let mut command = world.firewall();
        command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        Explained::of(&mut command, &[&words[..], &["hm.baidu.com"]].concat())
    };
    for upstream in [
        "tls://10.200.0.1#dns.test",
        "tls://dns.test#10.200.0.1",
        "tls://10.200.0.1",
        "https://dns.test:8443/dns-query#10.200.0.1",
        "https://10.200.0.1:8443#dns.test",
        "https://10.200.0.1:8443/dns-query",
    ] {
        let told = explained(upstream, &certificate.file());
        assert_eq!((told.status, told.err.as_str()), (0, ""), "{upstream}");
        let value = told.json();
        let want = json!([[BAIDU_HK, "deny", "A", 60], [BAIDU_V6, "deny", "AAAA", 60]]);
        assert_eq!(addresses(&value), want, "{upstream}");
        assert_eq!(value["host"]["chain"], json!(["hm.e.shifen.com"]), "{upstream}");
        assert_eq!(value["upstream"]["trusted"], true, "by whatever it is asked: {upstream}");
    }
    assert!(server.was_asked("hm.baidu.com"));
    world.assert_never_asked("hm.baidu.com");

    let nowhere = world.file("none.pem", "");
    for (upstream, roots, says) in [
        ("tls://10.200.0.1#dns.test", &*other.file(), "invalid peer certificate"),
        ("https://10.200.0.1:8443#dns.test", &*other.file(), "invalid peer certificate"),
        ("tls://10.200.0.1#other.test", &*certificate.file(), "not valid for"),
        ("https://10.200.0.1:8443#other.test", &*certificate.file(), "not valid for"),
        ("tls://10.200.0.1#dns.test", Path::new(&nowhere), "no root certificates"),
        ("tls://10.200.0.1:854#dns.test", &*certificate.file(), "refused"),
        ("https://10.200.0.1:8443/elsewhere#dns.test", &*certificate.file(), "404"),
    ] {
        let told = explained(upstream, roots);
        assert_eq!(told.status, 1, "{upstream}");
        assert!(told.err.contains(says), "{upstream}: {}", told.err);
        let value = told.json();
        assert_eq!((&value["verdict"], &value["addresses"]), (&json!("allow"), &json!([])));
        assert!(value["unresolved"].is_string(), "{value}");
    }
}

/// What cannot be looked up is said, with the question's verdict, and in time.
#[test]
fn what_cannot_be_looked_up() {
    if !require_names() {
        return;
    }
    let zone = zone().https("far.example", ".", &[]);
    let world = World::with(Kind::Unbound, &["10.200.0.1"], "", &zone);
    // Servers that hear and do not say a word.
    let silent = world
        .net
        .answer_udp(&["10.200.0.1:5301", "10.200.0.1:5302", "[fd00:f1e3::1]:5303"], |_, _| None);
    let explained = |upstreams: &str, name: &str, more: &[&str]| {
        let config = world.file("firewall.toml", &format!("upstreams = [{upstreams}]\n"));
        let deny = ["--policy", "baidu", "--deny", "domain:bad.example", "--config", &config];
        let words = [&deny[..], &["--resolve", "--json", name], more].concat();
        let started = Instant::now();
        let told = Explained::of(&mut world.firewall(), &words);
        // Twice as long as it may take, on a machine that has other things to do.
        assert!(started.elapsed() < 2 * PATIENCE, "{:?}", started.elapsed());
        told
    };
    let silence = "\"10.200.0.1:5301\", \"10.200.0.1:5302\"";
    let all = "\"10.200.0.1:5301\", \"10.200.0.1:5302\", \"[fd00:f1e3::1]:5303\"";
    for (upstreams, name, verdict, word, says) in [
        ("\"system\"", "nobody.example", "allow", "no-such-name", "there is no such name"),
        ("\"system\"", "x.bad.example", "deny", "no-such-name", "there is no such name"),
        // Unbound knows of that name, and has nothing to say of it.
        ("\"system\"", "shifen.com", "allow", "no-address", "the name has no address"),
        ("", "bad.example", "deny", "no-upstream", "there is nobody to ask"),
        (all, "bad.example", "deny", "no-answer", "10.200.0.1:5301: no answer within 3 s; 10.200"),
        // Nobody is there.
        ("\"tls://10.200.0.1:5309\"", "bad.example", "deny", "no-answer", "refused"),
    ] {
        let told = explained(upstreams, name, &[]);
        assert_eq!(told.status, 1, "{name}: {}", told.err);
        assert!(told.err.starts_with(&format!("error: cannot look up `{name}`: ")), "{}", told.err);
        assert!(told.err.contains(says), "{}", told.err);
        let value = told.json();
        assert_eq!((&value["verdict"], &value["unresolved"]), (&json!(verdict), &json!(word)));
        assert_eq!((&value["hook"], &value["addresses"]), (&json!("dns"), &json!([])));
    }
    // One that answers is found behind those that do not.
    let told = explained(&format!("{silence}, \"system\""), "far.example", &["--exit-code"]);
    assert_eq!((told.status, told.err.as_str()), (0, ""));
    assert_eq!(told.json()["upstream"]["server"], DNS);
    assert!(!silent.contacts().is_empty());
    assert_eq!(addresses(&told.json()), json!([[AMAZON, "allow", "AAAA", 60]]));
}
