//! `firewall list`, `import` and the lists of `check`, on the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Exit status and both outputs of a command that is run in `folder`.
fn firewall(folder: &Path, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_firewall"))
        .args(words)
        .current_dir(folder)
        .output()
        .expect("the firewall");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let status = output.status.code().expect("no signal");
    format!("$ firewall {}\nstatus: {status}\n-- stdout\n{out}-- stderr\n{err}", words.join(" "))
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("writing");
    }
    folder
}

const HOSTS: &[u8] = b"# x\n127.0.0.1 localhost\n0.0.0.0 ads.example\n0.0.0.0 ADS.example\n0.0.0.0 b\x1b[2Jad\n10.0.0.1 nas.example\n";
const ADBLOCK: &[u8] = b"[Adblock Plus 2.0]\n||ads.example^$third-party\n||b.example^\n@@||ok.b.example^\n||192.0.2.7^\nx.example##.ad\n/regexp/\n||c.example^$script\n";
const POLICY: &[u8] = br#"[policy]
name = "p"

[[rule]]
name = "r"
action = "drop"
to = { domains = ["baidu.com"], lists = ["own", "easy"] }

[list.own]
domains = ["=hm.baidu.com"]
networks = ["192.0.2.0/24"]

[list.easy]
file = "lists/easy.txt"
"#;

#[test]
fn a_list_is_shown_with_what_became_of_each_line() {
    let folder = folder(&[("hosts", HOSTS), ("easy.txt", ADBLOCK), ("none", b"\0\x01\n")]);
    let shown = |words: &[&str]| firewall(folder.path(), &[&["list", "show"], words].concat());
    insta::assert_snapshot!("list_show", shown(&["hosts", "easy.txt"]));
    insta::assert_snapshot!("list_show_json", shown(&["--json", "easy.txt"]));
    insta::assert_snapshot!("list_show_names", shown(&["--names", "easy.txt"]));
    insta::assert_snapshot!("list_show_undetected", shown(&["hosts", "none"]));
    insta::assert_snapshot!("list_show_missing", shown(&["no-such"]));
    insta::assert_snapshot!("list_show_as_domains", shown(&["--format", "domains", "hosts"]));
}

#[test]
fn check_shows_the_lists_of_policies() {
    let folder = folder(&[("p.toml", POLICY), ("lists/easy.txt", ADBLOCK)]);
    insta::assert_snapshot!("check_lists", firewall(folder.path(), &["check", "p.toml"]));
    // From another folder as well: a path starts at the policy's.
    let path = folder.path().join("p.toml");
    let shown = firewall(Path::new("/"), &["check", path.to_str().unwrap()]);
    assert!(shown.contains("status: 0"), "{shown}");
    let shown = firewall(folder.path(), &["list", "show", "p.toml"]);
    insta::assert_snapshot!("list_show_policy", shown);

    fs::remove_file(folder.path().join("lists/easy.txt")).expect("removing");
    insta::assert_snapshot!("check_list_missing", firewall(folder.path(), &["check", "p.toml"]));
}

#[test]
fn an_import_is_a_sound_policy() {
    let rule = |name: &str, operand: &str, data: &str| {
        format!(
            r#"{{"name":"{name}","enabled":true,"action":"deny","duration":"always","operator":{{"type":"simple","operand":"{operand}","data":"{data}"}}}}"#
        )
    };
    let folder = folder(&[
        ("easy.txt", ADBLOCK),
        ("empty.txt", b"# x\n"),
        ("rules/a.json", rule("a", "dest.host", "hm.baidu.com").as_bytes()),
        ("rules/b.json", rule("b", "process.path", "/usr/bin/x").as_bytes()),
        ("rules/c.json", b"{"),
        ("rules/notes.txt", b"x"),
    ]);
    let import = |words: &[&str]| firewall(folder.path(), &[&["import"], words].concat());
    insta::assert_snapshot!("import_adblock", import(&["adblock", "easy.txt"]));
    insta::assert_snapshot!("import_opensnitch", import(&["opensnitch", "rules"]));
    insta::assert_snapshot!("import_nothing", import(&["hosts", "empty.txt"]));
    for words in [&["adblock", "easy.txt"][..], &["opensnitch", "rules"]] {
        let shown = import(words);
        let policy =
            shown.split_once("-- stdout\n").unwrap().1.split_once("-- stderr\n").unwrap().0;
        fs::write(folder.path().join("imported.toml"), policy).expect("writing");
        let checked = firewall(folder.path(), &["check", "imported.toml"]);
        assert!(checked.contains("status: 0") && checked.contains("0 warnings"), "{checked}");
    }
}

#[test]
fn the_networks_of_a_list_decide_and_are_evidence() {
    let folder = folder(&[("p.toml", POLICY), ("lists/easy.txt", ADBLOCK)]);
    let explain = |words: &[&str]| firewall(folder.path(), &[&["explain"], words].concat());
    let shown = explain(&["--policy", "p.toml", "192.0.2.7"]);
    assert!(shown.contains("-- stdout\ndeny 192.0.2.7:443/tcp\n"), "{shown}");
    assert!(shown.contains("list:own=192.0.2.0/24"), "{shown}");
    assert!(shown.contains("list:easy=192.0.2.7/32"), "{shown}");
    let shown = explain(&["--policy", "p.toml", "198.51.100.1"]);
    assert!(shown.contains("-- stdout\nallow"), "{shown}");
    let shown = explain(&["--deny", "list:lists/easy.txt", "192.0.2.7"]);
    assert!(shown.contains("list:lists/easy.txt=192.0.2.7/32"), "{shown}");
}

#[test]
fn check_covers_the_settings_that_are_named() {
    let folder = folder(&[
        ("p.toml", b"[policy]\nname = \"p\"\ndefault = \"drop\"\n"),
        ("good.toml", b"stop = \"off\"\nwatch = \"on\"\nboot = \"p.toml\"\n"),
        ("bad.toml", b"stopp = \"off\"\n"),
    ]);
    let check = |config| firewall(folder.path(), &["check", "p.toml", "--config", config]);
    assert!(check("good.toml").contains("\nstatus: 0\n"), "{}", check("good.toml"));
    let bad = check("bad.toml");
    assert!(bad.contains("\nstatus: 1\n") && bad.contains("bad.toml:1:1"), "{bad}");
    assert!(bad.contains("hint: did you mean `stop`?"), "{bad}");
    let none = check("none.toml");
    assert!(none.contains("\nstatus: 2\n") && none.contains("cannot read none.toml"), "{none}");
}
