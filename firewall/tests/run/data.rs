//! Which tables and copies of lists a verdict rests on.

use std::{fs, path::Path, process::Command};

use firewall::{
    lists,
    remote::{Head, Remote, Store, Validators},
};
use serde_json::{Value, json};

use crate::{
    harness::{Net, require_kernel},
    support::{
        AMAZON, BAIDU, FIREWALL, FREE, Run,
        mmdb::{Value as Entry, Writer},
    },
};

/// What it says that the embedded tables are.
fn embedded() -> Value {
    let output = Command::new(FIREWALL).args(["geo", "lookup", "--json", FREE]).output();
    let answer: Value =
        serde_json::from_slice(&output.expect("the firewall").stdout).expect("JSON");
    answer["source"].clone()
}

/// A database by which [`FREE`] is in China.
fn database(path: &Path) {
    let mut writer = Writer::new();
    writer.add("212.27.48.0/24", &Entry::Map(&[("country", Entry::Text("CN"))]));
    fs::write(path, writer.finish()).expect("a file");
}

#[test]
fn the_tables_in_the_binary_and_a_database_of_the_users() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, AMAZON]);
    let script = format!("tcp {BAIDU}:80\ntcp {FREE}:80\ntcp [{AMAZON}]:80");
    let rules = ["--deny", "country:CN", "--deny", "as:16509", "--deny", "net:212.27.48.0/24"];
    let outcome = Run::new(&net, &rules).client(&script);
    let tables = embedded();
    let data = |ip| outcome.denied(ip, 80, "tcp")["data"].clone();
    assert_eq!(data(BAIDU), json!({"country": tables["country"]}));
    assert_eq!(data(AMAZON), json!({"asn": tables["asn"]}));
    assert_eq!(data(FREE), Value::Null, "a network of the command line has no date");
    outcome.assert_explained();

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.mmdb");
    database(&path);
    let path = path.to_str().unwrap();
    let rules = ["--geo", path, "--deny", "country:CN", "--deny", "as:16509"];
    let outcome = Run::new(&net, &rules).client(&script);
    assert!(outcome.find("deny", BAIDU, 80, "tcp").is_none(), "by this table it is nowhere");
    let mine = json!({
        "name": format!("Test ({path})"), "version": "1790000000", "date": "2026-09-21",
    });
    let data = |ip| outcome.denied(ip, 80, "tcp")["data"].clone();
    assert_eq!(data(FREE), json!({"country": mine}));
    assert_eq!(data(AMAZON), json!({"asn": tables["asn"]}));
    outcome.assert_explained();
}

#[test]
fn the_copy_of_a_list_by_url() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("p.toml");
    let url = "https://lists.example/nets";
    let text = format!(
        "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n\
         to = {{ lists = [\"far\", \"near\"] }}\n[list.far]\nurl = \"{url}\"\n\
         [list.near]\nfile = \"near\"\n"
    );
    fs::write(&policy, text).expect("a file");
    fs::write(folder.path().join("near"), "212.27.48.0/24\n").expect("a file");
    let list = "110.242.68.0/24\n";
    let (format, sha256) = (None, None);
    let url = url.parse().expect("a URL");
    let remote = Remote { url, format, sha256, refresh: Remote::REFRESH };
    let store = Store::new(folder.path());
    store.prepare().expect("a store");
    let fetched = "2026-01-02T03:04:05Z".parse().expect("a time");
    let report = lists::parse(None, list).expect("a list").report;
    let head = Head::new(&remote, Validators::default(), list.as_bytes(), &report, fetched);
    store.keep(&remote, &head, list.as_bytes()).expect("a copy");

    let [policy, state] = [policy.as_path(), folder.path()].map(|path| path.to_str().unwrap());
    let rules = ["--policy", policy, "--state", state];
    let script = format!("tcp {BAIDU}:80\ntcp {FREE}:80");
    let outcome = Run::new(&net, &rules).client(&script);
    let event = outcome.denied(BAIDU, 80, "tcp");
    assert_eq!(event["evidence"], json!(["list:far=110.242.68.0/24"]));
    assert_eq!(event["data"], json!({"lists": {"far": {"fetched": "2026-01-02T03:04:05Z"}}}));
    let event = outcome.denied(FREE, 80, "tcp");
    assert_eq!(event["evidence"], json!(["list:near=212.27.48.0/24"]));
    assert_eq!(event["data"], Value::Null);
    outcome.assert_explained();
}
