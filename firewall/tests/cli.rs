//! The commands that need neither privileges nor a kernel, on the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

use std::{
    io::Read as _,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Exit status, standard output, standard error.
fn firewall(words: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_firewall")).args(words).output().expect("the firewall");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().expect("no signal"), text(&output.stdout), text(&output.stderr))
}

fn json(words: &[&str]) -> Value {
    let (status, out, err) = firewall(words);
    assert_eq!(status, 0, "{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn file(text: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    std::fs::write(file.path(), text).expect("writing");
    file
}

#[test]
fn explain_in_words() {
    let (status, out, err) = firewall(&["explain", "--policy", "baidu", "103.235.46.191:80"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "deny 103.235.46.191:80/tcp");
    assert!(lines[1].contains("policy `baidu` (enforce) says drop"), "{out}");
    assert!(out.contains("evidence   org:baidu") && out.contains("country    HK"), "{out}");

    let (status, out, _) = firewall(&["explain", "--policy", "baidu", "212.27.48.10"]);
    assert_eq!(status, 0);
    assert!(out.starts_with("allow 212.27.48.10:443/tcp\n"), "{out}");
    assert!(out.contains("the default is allow"), "{out}");
}

#[test]
fn explain_as_json_has_the_keys_of_a_verdict_and_who_came_second() {
    let value = json(&[
        "explain",
        "--json",
        "--deny",
        "org:alibaba",
        "--policy",
        "cn-jurisdiction",
        "[2400:3200::1]:53/udp",
    ]);
    assert_eq!(value["schema"], 1);
    assert_eq!(value["verdict"], "deny");
    assert_eq!(value["mode"], "enforce");
    assert_eq!(value["reason"], "rule");
    assert_eq!(value["action"], "drop");
    assert_eq!(value["policy"], "command-line");
    assert_eq!(value["rule"], "--deny org:alibaba");
    assert_eq!(value["proto"], "udp");
    assert_eq!(value["dst"], serde_json::json!({"ip": "2400:3200::1", "port": 53}));
    assert_eq!(value["geo"]["country"], "CN");
    assert_eq!(value["geo"]["organisation"], "alibaba");
    assert_eq!(value["evidence"].as_array().unwrap().len(), 1);
    assert_eq!(value["runners_up"][0]["rule"], "home-jurisdiction");
    assert!(value["runners_up"][0].get("skipped").is_none(), "{value}");
    assert!(value["runners_up"][0]["evidence"][0].as_str().unwrap().starts_with("country:CN="));
}

const NAMES: &[u8] = br#"
[policy]
name = "names"
[[rule]]
name = "telemetry"
action = "drop"
to = { lists = ["baidu-tongji"], domains = ["gator.volces.com"] }
[[rule]]
name = "web"
action = "drop"
to = { domains = ["*.example.org"] }
ports = ["tcp/80"]
[list.baidu-tongji]
domains = ["hm.baidu.com", "=hmcdn.baidu.com"]
"#;

#[test]
fn explain_of_a_name_judges_the_question() {
    let policy = file(NAMES);
    let base = ["explain", "--json", "--policy", policy.path().to_str().unwrap()];
    let explain = |words: &[&str]| json(&[&base[..], words].concat());

    let value = explain(&["HM.Baidu.COM."]);
    assert_eq!((&value["verdict"], &value["hook"]), (&"deny".into(), &"dns".into()));
    assert_eq!((&value["reason"], &value["rule"]), (&"rule".into(), &"telemetry".into()));
    assert_eq!(value["host"], serde_json::json!({"name": "hm.baidu.com"}));
    assert_eq!(value["evidence"], serde_json::json!(["list:baidu-tongji=hm.baidu.com"]));
    for absent in ["dst", "proto", "geo", "observed"] {
        assert!(value.get(absent).is_none(), "{absent}: {value}");
    }
    assert_eq!(explain(&["evilhm.baidu.com"])["verdict"], "allow");
    assert_eq!(explain(&["x.hmcdn.baidu.com"])["verdict"], "allow");
    let value = explain(&["x.gator.volces.com"]);
    assert_eq!(value["evidence"], serde_json::json!(["domain:gator.volces.com"]));

    // A rule with ports leaves the question to the connection.
    let value = explain(&["www.example.org"]);
    assert_eq!((&value["verdict"], &value["reason"]), (&"allow".into(), &"default".into()));
    assert_eq!(value["runners_up"][0]["rule"], "web");
    assert_eq!(value["runners_up"][0]["skipped"], true);
    assert_eq!(value["runners_up"][0]["evidence"], serde_json::json!(["domain:*.example.org"]));
    let of_port =
        |port: &str| explain(&[&format!("192.0.2.7:{port}"), "--name", "www.example.org"]);
    assert_eq!(of_port("80")["verdict"], "deny");
    assert_eq!(of_port("443")["verdict"], "allow");

    // A denied name denies where it leads, as an alias too.
    let value = explain(&["192.0.2.7", "--name", "shop.example", "--name", "hm.baidu.com"]);
    assert_eq!((&value["verdict"], &value["rule"]), (&"deny".into(), &"telemetry".into()));
    let host = serde_json::json!({"name": "shop.example", "chain": ["hm.baidu.com"]});
    assert_eq!((&value["host"], &value["dst"]["ip"]), (&host, &"192.0.2.7".into()));
    assert_eq!(explain(&["192.0.2.7", "--name", "shop.example"])["verdict"], "allow");
}

#[test]
fn explain_says_which_rules_were_passed_by_and_which_come_after() {
    let policy = file(
        b"[policy]\nname = \"pp\"\n\
          [[rule]]\nname = \"a\"\naction = \"drop\"\n\
          to = { domains = [\"example.org\"] }\nports = [\"tcp/80\"]\n\
          [[rule]]\nname = \"b\"\naction = \"allow\"\nto = { domains = [\"example.org\"] }\n\
          ports = [\"tcp/443\"]\n\
          [[rule]]\nname = \"c\"\naction = \"drop\"\nto = { domains = [\"org\"] }\n",
    );
    let policy = policy.path().to_str().unwrap();
    let (status, out, err) = firewall(&["explain", "--policy", policy, "example.org:80"]);
    assert_eq!(status, 0, "{err}");
    insta::assert_snapshot!(err + &out, @r"
    note: the question for a name is judged, in which `:80` plays no part; `firewall explain ADDRESS:80 --name example.org` judges a connection, and --resolve those to all its addresses

    allow the question for example.org
      because    rule `b` of policy `pp` (enforce) says allow
      evidence   domain:example.org
      passed by  drop by pp/a (enforce), which is up to the connection: domain:example.org
      otherwise  drop by pp/c (enforce): domain:org
    ");
}

/// As in the kernel, aliases of which the rules say the same count as one.
#[test]
fn explain_of_a_long_chain_of_aliases() {
    let policy = file(
        b"[policy]\nname = \"aliases\"\n\
          [[rule]]\nname = \"bad\"\naction = \"drop\"\nto = { domains = [\"bad.example\"] }\n\
          [[rule]]\nname = \"cdn\"\naction = \"log\"\nto = { domains = [\"cdn.example\"] }\n",
    );
    let names = ["shop.example", "1.cdn.example", "2.cdn.example", "3.cdn.example", "bad.example"];
    let mut words = vec!["explain", "--json", "--policy", policy.path().to_str().unwrap()];
    words.push("192.0.2.7");
    words.extend(names.iter().flat_map(|name| ["--name", name]));
    assert_eq!(json(&words)["rule"], "bad");
}

#[test]
fn explain_without_anybody_to_ask() {
    let config = file(b"upstreams = []\n");
    let base = ["explain", "--policy", "baidu-tongji", "--config", config.path().to_str().unwrap()];
    let explain = |words: &[&str]| firewall(&[&base[..], words].concat());
    let (status, out, err) = explain(&["--resolve", "hm.baidu.com:443"]);
    assert_eq!(status, 1);
    insta::assert_snapshot!(out + &err, @r"
    deny the question for hm.baidu.com
      because    rule `tongji` of policy `baidu-tongji` (enforce) says drop
      evidence   list:tongji=hm.baidu.com
    error: cannot look up `hm.baidu.com`: there is nobody to ask: `upstreams` is empty

    hint: `upstreams` in firewall.toml says who is asked (--config FILE)
    ");
    let (status, out, err) = explain(&["--resolve", "--json", "192.0.2.7"]);
    assert_eq!(status, 0);
    assert_eq!(err, "note: an address is judged, for which there is nothing to look up\n\n");
    let value: Value = serde_json::from_str(&out).unwrap();
    assert!(value.get("addresses").is_none(), "{value}");
}

#[test]
fn explain_of_a_name_where_little_is_allowed() {
    let base = ["explain", "--exit-code", "--policy", "cn-jurisdiction", "--default", "drop"];
    let explain = |words: &[&str]| firewall(&[&base[..], words].concat());
    let (status, out, err) = explain(&["www.example.org"]);
    assert_eq!((status, err.as_str()), (0, ""), "the loopback can be reached");
    assert!(out.starts_with("allow the question for www.example.org\n"), "{out}");
    assert!(out.contains("some address could be reached"), "{out}");
    let words = ["--deny", "net:0.0.0.0/0", "--deny", "net:::/0", "www.example.org"];
    let (status, out, _) = explain(&words);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("no rule decides; policy `command-line` says drop"), "{out}");
    let words = ["--allow", "domain:example.org", "--deny", "net:0.0.0.0/0", "--deny", "net:::/0"];
    assert_eq!(explain(&[&words[..], &["www.example.org"]].concat()).0, 0);
    assert_eq!(explain(&[&words[..], &["192.0.2.7", "--name", "example.org"]].concat()).0, 0);
    assert_eq!(explain(&[&words[..], &["192.0.2.7", "--name", "example.com"]].concat()).0, 1);
}

#[test]
fn an_allow_that_no_answer_can_support_is_warned_of() {
    let (none, system) = (file(b"resolvers = []\n"), file(b"on_deny = \"refuse\"\n"));
    let err = |config: &tempfile::NamedTempFile, words: &[&str]| {
        let config = config.path().to_str().unwrap();
        let base = ["explain", "--policy", "baidu", "--config", config, "www.example.org"];
        let (status, _, err) = firewall(&[&base[..], words].concat());
        assert_eq!(status, 0, "{err}");
        err
    };
    let words = ["--default", "drop", "--allow", "domain:example.org"];
    let said = err(&none, &words);
    let rule = "warning: rule `--allow domain:example.org` of policy `command-line` allows by name";
    assert!(said.contains(rule) && said.contains(".toml:1:13"), "{said}");
    assert_eq!(err(&system, &words), "");
    assert_eq!(err(&none, &["--allow", "domain:example.org"]), "");
    assert_eq!(err(&none, &["--default", "drop", "--allow", "net:192.0.2.0/24"]), "");
}

#[test]
fn mistakes_in_the_settings_are_told_all_at_once() {
    let config = file(b"on_deni = 1\ndefault = \"deny\"\n");
    let config = config.path().to_str().unwrap();
    let (status, out, err) = firewall(&["explain", "--config", config, "1.2.3.4"]);
    assert_eq!((status, out.as_str()), (1, ""));
    for says in [":1:1", "did you mean `on_deny`?", ":2:11", "did you mean `drop`?"] {
        assert!(err.contains(says), "no {says}: {err}");
    }
}

#[test]
fn explain_of_what_only_observes() {
    let words = ["explain", "--json", "--observe", "--policy", "cn-jurisdiction", "110.242.68.66"];
    let value = json(&words);
    assert_eq!((&value["verdict"], &value["action"]), (&"audit".into(), &"drop".into()));
    assert_eq!(value["mode"], "observe");
}

#[test]
fn explain_says_deny_by_its_status_where_asked() {
    let base = ["explain", "--exit-code", "--policy", "cn-jurisdiction"];
    assert_eq!(firewall(&[&base[..], &["110.242.68.66"]].concat()).0, 1);
    assert_eq!(firewall(&[&base[..], &["64:ff9b::6ef2:4442"]].concat()).0, 1);
    assert_eq!(firewall(&[&base[..], &["212.27.48.10"]].concat()).0, 0);
    assert_eq!(firewall(&["explain", "--policy", "cn-jurisdiction", "110.242.68.66"]).0, 0);
}

#[test]
fn wrong_usage_is_2_and_says_what_to_write() {
    for (words, says) in [
        (&["explain", "110.242.68.66:99999"][..], "port"),
        (&["explain", "chat.deepseek.com", "--name", "example.org"], "needs one"),
        (&["explain", "1.2.3.4", "--name", "not a name"], "`not a name` is not a name"),
        (&["explain", "--policy", "no-such", "1.2.3.4"], "no-such"),
        (&["explain", "--deny", "country:XX", "1.2.3.4"], "XX"),
        (&["explain", "--deny", "contry:CN", "1.2.3.4"], "did you mean `country:CN`?"),
        (&["explain", "--deny", "domain:1.2.3.4", "1.2.3.4"], "did you mean `net:1.2.3.4`?"),
        (&["explain", "--deny", "list:/none/x", "1.2.3.4"], "the list `/none/x` cannot be read"),
        (&["import", "nonsense", "/etc/hosts"], "opensnitch"),
        (&["import", "hosts", "/none/x"], "/none/x"),
        (&["list", "show", "/none/x"], "/none/x"),
        (&["list", "show", "--format", "nonsense", "/etc/hosts"], "there is no such format"),
        (&["explain"], "Usage"),
        (&["no-such-command"], "no-such-command"),
        (&["check", "--no-such-option"], "--no-such-option"),
        (&["geo", "lookup"], "Usage"),
        (&["geo", "lookup", "1.2.3"], "1.2.3"),
        (&["completions", "no-such-shell"], "no-such-shell"),
    ] {
        let (status, out, err) = firewall(words);
        assert_eq!(status, 2, "{words:?}: {err}");
        assert!(err.contains(says) && out.is_empty(), "{words:?}: {err}");
    }
}

#[test]
fn check_finds_every_mistake_of_every_file_with_its_place() {
    let one = file(b"[policy]\nname = \"one\"\nbogus = 1\n[[rule]]\nname = \"r\"\naction = \"drop\"\nto = { jurisdictions = [\"XX\"], networks = [\"10.0.0.0/33\"] }\n");
    let two = file(b"[policy]\nname = \"two\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\nto = { asns = [\"AS0\"] }\nports = [\"tcp/70000\"]\n");
    let three = file(b"");
    let four = file(b"[policy]\nname = \"\xff\"\n");
    let paths: Vec<&str> =
        [&one, &two, &three, &four].iter().map(|file| file.path().to_str().unwrap()).collect();
    let (status, _, err) = firewall(&[&["check"], &paths[..]].concat());
    assert_eq!(status, 1, "{err}");
    for says in [
        "`[policy]` has no key `bogus`",
        ":3:1",
        "there is no country `XX`",
        "10.0.0.0/33",
        "AS0",
        "70000",
        "UTF-8",
        paths[2],
        "^^^^",
        "hint: ",
    ] {
        assert!(err.contains(says), "no {says}: {err}");
    }
    let (status, out, _) = firewall(&[&["check", "--json"], &paths[..]].concat());
    assert_eq!(status, 1);
    let found: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert!(found.len() >= 7, "{out}");
    for finding in &found {
        assert_eq!(finding["severity"], "error", "{finding}");
        assert!(paths.contains(&finding["file"].as_str().unwrap()), "{finding}");
        assert!(finding["line"].as_u64().is_some_and(|line| line > 0), "{finding}");
        assert!(finding["column"].as_u64().is_some_and(|column| column > 0), "{finding}");
    }
    // A policy with a mistake is not used, and is no reason to use another.
    let (status, out, err) = firewall(&["explain", "--policy", paths[0], "1.2.3.4"]);
    assert_eq!((status, out.as_str()), (1, ""), "{err}");
}

#[test]
fn what_is_shipped_is_valid_and_listed_and_shown() {
    let (status, out, _) = firewall(&["policy", "list"]);
    assert_eq!(status, 0);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    for entry in std::fs::read_dir(folder).expect("policies").flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(out.lines().any(|line| line.starts_with(name)), "{name}: {out}");
        let (status, shown, _) = firewall(&["policy", "show", name]);
        assert_eq!((status, shown), (0, std::fs::read_to_string(&path).unwrap()), "{name}");
    }
    let (status, _, err) = firewall(&["check", folder]);
    assert_eq!(status, 0, "{err}");
    assert_eq!(firewall(&["policy", "show", "no-such"]).0, 1);
}

/// By address and port, what of encrypted DNS is denied, and that plain DNS is not.
#[test]
fn the_shipped_policy_of_encrypted_dns() {
    let explain = |destination: &str| {
        let value = json(&["explain", "--json", "--policy", "encrypted-dns", destination]);
        (value["verdict"].as_str().unwrap().to_owned(), value["rule"].as_str().map(str::to_owned))
    };
    for (destination, rule) in [
        ("1.1.1.1:443", "addresses"),
        ("[2606:4700:4700::1111]:443", "addresses"),
        ("[2001:4860:4860::6464]:443/udp", "addresses"),
        ("9.9.9.9:5053", "addresses"),
        ("45.90.28.77:443", "addresses"),
        ("1.1.1.1:853", "tls-and-quic"),
        ("203.0.113.7:853/udp", "tls-and-quic"),
        ("[2001:db8::7]:853", "tls-and-quic"),
        ("use-application-dns.net", "canaries"),
        ("mozilla.cloudflare-dns.com", "services"),
    ] {
        let wanted = ("deny".to_owned(), Some(rule.to_owned()));
        assert_eq!(explain(destination), wanted, "{destination}");
    }
    for destination in
        ["1.1.1.1:53/udp", "[2606:4700:4700::1111]:53/udp", "203.0.113.7:443", "cloudflare.com"]
    {
        assert_eq!(explain(destination), ("allow".to_owned(), None), "{destination}");
    }
    let loopback = ("allow".to_owned(), Some("loopback".to_owned()));
    assert_eq!(explain("127.0.0.1:853"), loopback);
}

#[test]
fn geo_lookup_unwraps() {
    let (status, out, err) = firewall(&[
        "geo",
        "lookup",
        "--json",
        "110.242.68.66",
        "64:ff9b::6ef2:4442",
        "2400:3200::1",
    ]);
    assert_eq!(status, 0, "{err}");
    let rows: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.to_string().contains("\"CN\"")), "{out}");
    assert!(rows[1].to_string().contains("110.242.68.66"), "{out}");
}

#[test]
fn completions_and_manual_name_every_command() {
    let commands = [
        "run",
        "check",
        "explain",
        "policy",
        "list",
        "import",
        "geo",
        "doctor",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, _) = firewall(&["completions", shell]);
        assert_eq!(status, 0);
        assert!(commands.iter().all(|command| out.contains(command)), "{shell}");
    }
    let (status, out, _) = firewall(&["man"]);
    assert_eq!(status, 0);
    assert!(out.contains(".TH firewall 1"));
    assert!(commands.iter().all(|name| out.contains(&format!("FIREWALL {}", name.to_uppercase()))));
    let folder = tempfile::tempdir().expect("a folder");
    let (status, out, _) = firewall(&["man", "--dir", folder.path().to_str().expect("UTF-8")]);
    assert_eq!((status, out.as_str()), (0, ""));
    for command in commands {
        let page = folder.path().join(format!("firewall-{command}.1"));
        let page = std::fs::read_to_string(page).expect(command);
        assert!(page.contains(&format!(".TH firewall-{command} 1")), "{page}");
    }
    assert!(folder.path().join("firewall.1").exists());
    let (status, _, err) = firewall(&["man", "--dir", "/nonexistent"]);
    assert!(status == 1 && err.contains("/nonexistent"), "{err}");
    let (status, out, _) = firewall(&["--version"]);
    assert_eq!(
        (status, out),
        (0, concat!("firewall ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
    );
}

#[test]
fn doctor_reports_each_feature() {
    let (status, out, err) = firewall(&["doctor", "--json"]);
    // On this machine or not: it says which, and never fails otherwise.
    assert!(status == 0 || status == 3, "{err}");
    let rows: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert!(rows.len() > 3 && rows.iter().all(|row| row["feature"].is_string()), "{out}");
    let words = ["yes", "no", "on", "automatic", "off", "unknown"];
    assert!(rows.iter().all(|row| words.iter().any(|word| row["state"] == *word)), "{out}");
}

/// `firewall … | head -1` is not an error.
#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for words in [
        &["doctor"][..],
        &["man"],
        &["policy", "list"],
        &["policy", "show", "baidu"],
        &["completions", "bash"],
        &["explain", "--policy", "baidu", "1.2.3.4"],
        &["geo", "lookup", "1.2.3.4"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_firewall"))
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the firewall");
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("reading");
        let status = child.wait().expect("waiting");
        assert!(!err.contains("panicked"), "{words:?}: {err}");
        assert_eq!(status.code(), Some(0), "{words:?}: {err}");
    }
}
