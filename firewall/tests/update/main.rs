//! `firewall list update` against a real HTTPS server: what it says, and what is kept after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

mod server;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use server::{Page, Request, Server};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A server, and a machine with a state folder and a policy.
struct World {
    server: Server,
    folder: TempDir,
}

/// What a command said.
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines.map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }
}

impl World {
    fn new() -> Self {
        Self { server: Server::new(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A policy that drops what is in lists, each a name with its keys beside `url`: the name is the path
    /// of its page.
    fn policy(&self, lists: &[(&str, &str)]) {
        let names: Vec<String> = lists.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let mut text = format!(
            "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n\
             to = {{ lists = [{}] }}\n",
            names.join(", ")
        );
        for (name, keys) in lists {
            let url = self.server.url(&format!("/{name}"));
            text += &format!("[list.{name}]\nurl = \"{url}\"\n{keys}\n");
        }
        fs::write(self.path("p.toml"), text).expect("writing");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
        command.args(words).arg("--state").arg(self.path("state")).current_dir(self.folder.path());
        command.env("SSL_CERT_FILE", self.server.root()).env_remove("SSL_CERT_DIR");
        for proxy in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        said(&mut self.command(words))
    }

    /// `firewall list update` of the policy.
    fn update(&self, words: &[&str]) -> Said {
        self.run(&[&["list", "update", "--policy", "p.toml"], words].concat())
    }

    /// The copies, in the order of their names.
    fn copies(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("state/lists")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "list")).collect();
        paths.sort();
        paths
    }

    /// The only copy: what stands before it, and the list.
    fn copy(&self) -> (Value, Vec<u8>) {
        let [path] = &self.copies()[..] else { panic!("{:?}", self.copies()) };
        let bytes = fs::read(path).expect("a copy");
        let line = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        (serde_json::from_slice(&bytes[..line]).expect("JSON"), bytes[line..].to_vec())
    }
}

fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the firewall");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said {
        status: output.status.code().expect("no signal"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A list of so many names.
fn names(number: usize) -> String {
    (0..number).map(|n| format!("n{n}.example\n")).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).expect("compressing");
    out.finish().expect("compressing")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("compressing")
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_list_is_fetched_kept_used_asked_for_again_and_replaced() {
    let world = World::new();
    world.policy(&[("ads", "format = \"domains\"")]);
    let policy = ["--policy", "p.toml"];
    let explain =
        || world.run(&[&["explain", "--exit-code"], &policy[..], &["n3.example"]].concat());

    // Never fetched: empty, and said, and no error.
    let before = explain();
    assert_eq!(before.status, 0, "{}", before.err);
    let says = "warning: the list `ads` is empty: it was never fetched";
    assert!(before.err.contains(says), "{}", before.err);
    assert!(before.err.contains("hint: `firewall list update` fetches it"), "{}", before.err);
    assert!(before.err.contains("p.toml:8:7"), "{}", before.err);
    // An empty list is no further reason for a warning.
    assert!(!before.err.contains("can never match"), "{}", before.err);
    let checked = world.run(&["check", "p.toml"]);
    assert_eq!(checked.status, 0);
    assert!(checked.err.contains(says) && checked.err.contains("1 warning"), "{}", checked.err);
    assert!(world.run(&["list", "show", "p.toml"]).out.contains("\n  never fetched\n"));

    let page = |number| {
        let tag = format!("\"{number}\"");
        Page::new(names(number)).header("ETag", tag).header("Last-Modified", "yesterday")
    };
    world.server.put("/ads", page(5));
    let fetched = world.update(&[]);
    assert_eq!((fetched.status, fetched.err.as_str()), (0, ""));
    assert_eq!(fetched.out, "list `ads` of p.toml: updated, 5 entries\n");
    let [request] = &world.server.requests()[..] else { panic!("one request") };
    assert_eq!(request.header("if-none-match"), None);
    let agent = concat!("firewall/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent));
    let (head, list) = world.copy();
    assert_eq!(list, names(5).as_bytes());
    for (key, value) in [
        ("schema", 1.into()),
        ("url", world.server.url("/ads").into()),
        ("etag", "\"5\"".into()),
        ("last_modified", "yesterday".into()),
        ("bytes", names(5).len().into()),
        ("sha256", sha256(&names(5)).into()),
        ("format", "domains".into()),
        ("entries", 5.into()),
    ] as [(&str, Value); 8]
    {
        assert_eq!(head[key], value, "{key}");
    }
    for path in fs::read_dir(world.path("state/lists")).unwrap().map(|entry| entry.unwrap().path())
    {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let hidden = path.file_name().unwrap().to_str().unwrap().starts_with('.');
        assert_eq!(mode, if hidden { 0o600 } else { 0o644 }, "{}", path.display());
    }

    // It decides, without another word.
    let after = explain();
    assert_eq!((after.status, after.err.as_str()), (1, ""));
    assert!(after.out.contains("list:ads=n3.example"), "{}", after.out);
    assert!(world.run(&["check", "p.toml"]).err.contains("0 warnings"));
    let shown = world.run(&["list", "show", "p.toml"]);
    let when = head["fetched"].as_str().unwrap();
    let title = format!("list `ads` of p.toml, {} (domains)\n", world.server.url("/ads"));
    let dates = format!("  fetched {when}, current {when}\n  5 entries (5 names)");
    assert!(shown.out.starts_with(&(title + &dates)), "{}", shown.out);
    assert!(world.server.requests().is_empty(), "only `list update` asks a server");

    // The server has nothing newer, then something newer.
    let again = world.update(&["--json"]);
    assert_eq!((again.status, &again.json()[0]["result"]), (0, &"not-modified".into()));
    assert_eq!(again.json()[0]["fetched"], head["fetched"]);
    let [request] = &world.server.requests()[..] else { panic!("one request") };
    assert_eq!(request.header("if-none-match"), Some("\"5\""));
    assert_eq!(request.header("if-modified-since"), Some("yesterday"));
    world.server.put("/ads", page(7));
    let newer = world.update(&[]);
    assert_eq!(newer.out, "list `ads` of p.toml: updated, 7 entries (5 before)\n");
    assert_eq!(world.copy().1, names(7).as_bytes());
    assert_eq!(world.update(&["--force"]).status, 0);
    assert_eq!(world.server.requests().last().unwrap().header("if-none-match"), None);
}

#[test]
fn a_server_without_validators_is_asked_for_all_and_what_is_the_same_is_not_new() {
    let world = World::new();
    world.policy(&[("ads", "")]);
    world.server.put("/ads", Page::new(names(3)));
    assert_eq!(world.update(&["--json"]).json()[0]["result"], "updated");
    assert_eq!(world.update(&["--json"]).json()[0]["result"], "not-modified");
    // New validators for what is the same are kept, so that the next time little is sent; when that
    // was received is not new.
    let fetched = world.copy().0["fetched"].as_str().unwrap().to_owned();
    let [path] = &world.copies()[..] else { panic!("one copy") };
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace(&fetched, "2026-01-02T03:04:05Z")).unwrap();
    world.server.put("/ads", Page::new(names(3)).header("Last-Modified", "today"));
    assert_eq!(world.update(&["--json"]).json()[0]["result"], "not-modified");
    let (head, _) = world.copy();
    assert_eq!(
        (&head["last_modified"], &head["fetched"]),
        (&"today".into(), &"2026-01-02T03:04:05Z".into())
    );
    world.update(&[]);
    let asked: Vec<_> = world.server.requests();
    let asked = asked.iter().map(|request| request.header("if-modified-since"));
    assert_eq!(asked.collect::<Vec<_>>(), [None, None, None, Some("today")]);
}

#[test]
fn a_list_may_come_compressed_slowly_and_from_elsewhere() {
    let world = World::new();
    let lists = ["gzip", "zstd", "slow", "away", "cut"];
    world.policy(&lists.map(|name| (name, "")));
    let list = names(2_000);
    let encoded =
        |bytes: Vec<u8>, encoding: &str| Page::new(bytes).header("Content-Encoding", encoding);
    world.server.put("/gzip", encoded(gzip(list.as_bytes()), "gzip"));
    world.server.put("/zstd", encoded(zstd(list.as_bytes()), "zstd"));
    // Several frames are one list.
    let (first, second) = list.as_bytes().split_at(5_000);
    world.server.put("/cut", encoded([zstd(first), zstd(second)].concat(), "zstd"));
    world.server.put("/slow", Page::new(names(10)).drip(Duration::from_millis(1)));
    world.server.put("/away", Page::redirect("/further"));
    world.server.put("/further", Page::redirect(world.server.url("/gzip")));
    let said = world.update(&["--json"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{}", said.out);
    for shown in said.json() {
        let (number, text) = match shown["list"].as_str().unwrap() {
            "slow" => (10, names(10)),
            _ => (2_000, list.clone()),
        };
        assert_eq!(shown["entries"], number, "{shown}");
        assert_eq!(shown["sha256"], sha256(&text), "{shown}");
    }
    let asks = |request: &Request| {
        let accepted = request.header("accept-encoding").unwrap_or_default();
        accepted.contains("gzip") && accepted.contains("zstd")
    };
    assert!(world.server.requests().iter().all(asks));
}

/// What servers do, by the name of the page, and what is said of it.
fn failing(world: &World) -> Vec<(&'static str, Page, &'static str, String)> {
    let url = |path: &str| world.server.url(path);
    let encoded =
        |bytes: Vec<u8>, encoding: &str| Page::new(bytes).header("Content-Encoding", encoding);
    let half = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let good = names(2_000);
    let bomb = vec![b'#'; 80 << 20];
    let too_large = "it is larger than 64 MiB";
    let breaks = "it breaks off or is damaged after";
    let html = "<!DOCTYPE html>\n<title>Log in to this network</title>\n";
    vec![
        ("gone", Page::new("").status("404 Not Found"), "status", "404 Not Found".into()),
        ("broken", Page::new("").status("500 Internal Server Error"), "status", "500".into()),
        ("part", Page::new(&good[..]).status("206 Partial Content"), "status", "206".into()),
        ("unasked", Page::new("").status("304 Not Modified"), "status", "".into()),
        ("loop", Page::redirect("/loop"), "redirect", "more than 5 times".into()),
        (
            "plain",
            Page::redirect("http://127.0.0.1/list"),
            "redirect",
            "http://127.0.0.1/list, which is not https".into(),
        ),
        ("nowhere", Page::redirect(url("/none")), "status", "404".into()),
        ("endless", Page::new("# more\n".repeat(10_000)).endless(), "too-large", too_large.into()),
        ("bomb", encoded(gzip(&bomb), "gzip"), "too-large", too_large.into()),
        ("zbomb", encoded(zstd(&bomb), "zstd"), "too-large", too_large.into()),
        ("claim", Page::new(&good[..]).short(64 << 20), "too-large", too_large.into()),
        ("short", Page::new(&good[..]).short(1), "interrupted", breaks.into()),
        ("cut", Page::new(&good[..]).hang_up(), "interrupted", "the server hung up".into()),
        ("gzcut", encoded(half(gzip(good.as_bytes())), "gzip"), "interrupted", breaks.into()),
        ("zcut", encoded(half(zstd(good.as_bytes())), "zstd"), "interrupted", breaks.into()),
        ("garbage", encoded(names(10).into(), "gzip"), "interrupted", "".into()),
        ("brotli", encoded(names(10).into(), "br"), "encoding", "`br`".into()),
        ("portal", Page::new(html), "page", "a page (HTML or XML)".into()),
        ("noise", Page::new([0, 1, 2, 3]), "format", "nothing in it tells its format".into()),
        ("quota", Page::new("Sorry, that is too much.\n"), "format", "".into()),
        ("empty", Page::new(""), "empty", "nothing but comments".into()),
        ("useless", Page::new("##.ad\n/x/\n"), "empty", "none of its 2 items".into()),
        ("few", Page::new(names(4)), "shrunk", "it has 4 entries, the last good copy 9".into()),
    ]
}

#[test]
fn what_is_not_a_good_list_is_refused_and_the_last_good_copy_stays() {
    let world = World::new();
    let cases = failing(&world);
    let lists: Vec<_> = cases.iter().map(|(name, ..)| (*name, "")).collect();
    world.policy(&lists);

    // Without a copy there is none after.
    for (name, page, ..) in &cases {
        world.server.put(&format!("/{name}"), page.clone());
    }
    let said = world.update(&["--json"]);
    assert_eq!(said.status, 1, "{}", said.out);
    let rows = said.json();
    for (name, _, reason, message) in &cases {
        let row = rows.iter().find(|row| row["list"] == *name).unwrap();
        if *name == "few" {
            assert_eq!(row["result"], "updated", "{row}");
            continue;
        }
        assert_eq!(row["reason"], *reason, "{row}");
        assert!(row["message"].as_str().unwrap().contains(message), "{row}");
        let refused = ["page", "format", "empty", "shrunk"].contains(reason);
        assert_eq!(row["result"], if refused { "refused" } else { "failed" }, "{row}");
        assert!(row.get("entries").is_none(), "{row}");
    }
    assert_eq!(world.copies().len(), 1, "only `few` is a list");
    let asked = world.server.requests();
    let asked = asked.iter().filter(|request| request.path == "/loop");
    assert_eq!(asked.count(), 6, "five redirects are followed");
    let shown = world.run(&["list", "show", "p.toml"]).out;
    assert!(shown.contains(" failed (status): the server answers 404 Not Found\n"), "{shown}");
    let said = world.run(&["explain", "--policy", "p.toml", "n0.example"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let why = "it was never fetched; the last attempt failed: the server answers 404 Not Found";
    assert!(said.err.contains(why), "{}", said.err);

    // With one it stays as it is.
    for (name, ..) in &cases {
        world.server.put(&format!("/{name}"), Page::new(names(9)));
    }
    let said = world.update(&[]);
    assert_eq!(said.status, 0, "{}", said.out);
    let content = || world.copies().iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let good = content();
    assert_eq!(good.len(), cases.len());
    for (name, page, ..) in &cases {
        world.server.put(&format!("/{name}"), page.clone());
    }
    let said = world.update(&[]);
    assert_eq!(said.status, 1, "{}", said.out);
    assert_eq!(content(), good);
    for (name, _, reason, message) in &cases {
        let line = said.out.lines().find(|line| line.starts_with(&format!("list `{name}` ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {}", said.out));
        assert!(line.contains(&format!("({reason}): ")) && line.contains(message), "{line}");
        assert!(line.contains("with 9 entries stays"), "{line}");
    }
    let shown = world.run(&["list", "show", "--json", "p.toml"]).json();
    for (name, _, reason, _) in &cases {
        let row = shown.iter().find(|row| row["list"] == *name).unwrap();
        assert_eq!((&row["entries"], &row["failure"]["reason"]), (&9.into(), &(*reason).into()));
    }
    // The lists hold, and nothing is to be said of that yet.
    let said = world.run(&["explain", "--exit-code", "--policy", "p.toml", "n8.example"]);
    assert_eq!((said.status, said.err.as_str()), (1, ""));

    // Who wants the smaller list can have it.
    let said = world.update(&["--force", "few"]);
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "list `few` of p.toml: updated, 4 entries (9 before)\n")
    );
}

#[test]
fn a_download_that_takes_too_long_ends() {
    let world = World::new();
    world.policy(&[("slow", ""), ("stalled", "")]);
    world.server.put("/slow", Page::new(names(10_000)).drip(Duration::from_millis(50)));
    world.server.put("/stalled", Page::new(names(10)).stall());
    let said = world.update(&["--timeout", "1"]);
    assert_eq!(said.status, 1, "{}", said.out);
    for name in ["slow", "stalled"] {
        let line = format!(
            "list `{name}` of p.toml: failed (timeout): it takes longer than 1 s; there is no copy, \
             so the list is empty\n"
        );
        assert!(said.out.contains(&line), "{}", said.out);
    }
    assert!(world.copies().is_empty());
}

#[test]
fn only_the_content_that_the_policy_asks_for_is_taken() {
    let world = World::new();
    let pinned = |sha256: &str| world.policy(&[("ads", &format!("sha256 = \"{sha256}\""))]);
    world.server.put("/ads", Page::new(names(9)));
    pinned(&sha256(&names(8)));
    let said = world.update(&[]);
    assert_eq!(said.status, 1);
    let says = format!(
        "list `ads` of p.toml: refused (sha256): it is another one than the policy asks for: its \
         SHA-256 is {}; there is no copy, so the list is empty\n",
        sha256(&names(9))
    );
    assert_eq!(said.out, says);
    assert!(world.copies().is_empty());
    pinned(&sha256(&names(9)).to_uppercase());
    assert_eq!(world.update(&[]).out, "list `ads` of p.toml: updated, 9 entries\n");
    let (_, good) = world.copy();
    world.server.put("/ads", Page::new(names(10)));
    let said = world.update(&["--force"]);
    assert_eq!(said.status, 1);
    assert!(said.out.contains("refused (sha256)"), "{}", said.out);
    assert!(said.out.contains("with 9 entries stays"), "{}", said.out);
    assert_eq!(world.copy().1, good);
    // A policy that asks for something else does not get what was asked for before.
    pinned(&sha256(&names(10)));
    let said = world.run(&["check", "p.toml"]);
    assert!(said.err.contains("the list `ads` is empty: it was never fetched"), "{}", said.err);
}

#[test]
fn a_server_that_nobody_vouches_for_gives_nothing() {
    let world = World::new();
    let other = Server::new();
    world.policy(&[("ads", "")]);
    world.server.put("/ads", Page::new(names(9)));
    let update = ["list", "update", "--policy", "p.toml"];
    let reply = said(world.command(&update).env("SSL_CERT_FILE", other.root()));
    assert_eq!(reply.status, 1, "{}", reply.err);
    let says = "failed (tls): the server is not to be trusted: ";
    assert!(reply.out.contains(says), "{}", reply.out);
    assert!(world.server.requests().is_empty() && world.copies().is_empty());

    let none = said(world.command(&update).env("SSL_CERT_FILE", world.path("none.pem")));
    assert_eq!((none.status, none.out.as_str()), (3, ""));
    assert!(none.err.contains("there are no trusted root certificates"), "{}", none.err);
    assert!(none.err.contains("hint: install the package ca-certificates"), "{}", none.err);
}

#[test]
fn a_server_that_is_not_there_is_said() {
    let world = World::new();
    world.policy(&[("ads", "")]);
    let policy = fs::read_to_string(world.path("p.toml")).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("https://{}/ads", free.local_addr().unwrap());
    drop(free);
    fs::write(world.path("p.toml"), policy.replace(&world.server.url("/ads"), &nobody)).unwrap();
    let said = world.update(&[]);
    assert_eq!(said.status, 1);
    let says = "failed (unreachable): there is no connection: Connection refused";
    assert!(said.out.contains(says), "{}", said.out);
}

#[test]
fn a_copy_that_is_damaged_is_said_not_used_and_fetched_anew() {
    let world = World::new();
    world.policy(&[("ads", "")]);
    world.server.put("/ads", Page::new(names(9)).header("ETag", "\"1\""));
    assert_eq!(world.update(&[]).status, 0);
    let [path] = &world.copies()[..] else { panic!("one copy") };
    let good = fs::read(path).unwrap();
    fs::write(path, &good[..good.len() - 5]).unwrap();
    let said = world.run(&["explain", "--exit-code", "--policy", "p.toml", "n3.example"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let says = "warning: the list `ads` is empty: it is damaged";
    assert!(said.err.contains(says), "{}", said.err);
    let shown = world.run(&["list", "show", "p.toml"]).out;
    assert!(shown.contains("\n  no copy: it is damaged"), "{shown}");
    world.server.requests();
    assert_eq!(world.update(&[]).out, "list `ads` of p.toml: updated, 9 entries\n");
    assert_eq!(world.server.requests()[0].header("if-none-match"), None);
    assert_eq!(world.copy().1, names(9).as_bytes());
}

#[test]
fn a_copy_that_is_too_old_is_used_and_said() {
    let world = World::new();
    world.policy(&[("ads", "refresh = \"1h\"")]);
    world.server.put("/ads", Page::new(names(9)).header("ETag", "\"1\""));
    assert_eq!(world.update(&[]).status, 0);
    let [path] = &world.copies()[..] else { panic!("one copy") };
    // As if four hours had gone by.
    let (head, _) = world.copy();
    let fetched: jiff::Timestamp = head["fetched"].as_str().unwrap().parse().unwrap();
    let before = fetched - jiff::SignedDuration::from_hours(4);
    for path in [path.clone(), path.with_extension("json")] {
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&fetched.to_string(), &before.to_string())).unwrap();
    }
    let explain = ["explain", "--exit-code", "--policy", "p.toml", "n3.example"];
    let said = world.run(&explain);
    assert_eq!(said.status, 1, "{}", said.err);
    let says = format!("warning: the list `ads` is old: last fetched or found unchanged {before}");
    assert!(said.err.contains(&says), "{}", said.err);
    let shown = world.run(&["list", "show", "p.toml"]).out;
    assert!(shown.contains("which is too long ago"), "{shown}");
    // To hear that it has not changed is enough.
    assert_eq!(world.update(&["--json"]).json()[0]["result"], "not-modified");
    assert_eq!(world.run(&explain).err, "");
}

#[test]
fn lists_that_ask_for_the_same_are_fetched_once_and_lists_can_be_named() {
    let world = World::new();
    world.policy(&[("ads", ""), ("more", "")]);
    let policy = fs::read_to_string(world.path("p.toml")).unwrap();
    let same = policy.replace("name = \"p\"", "name = \"q\"");
    fs::write(world.path("q.toml"), same).unwrap();
    world.server.put("/ads", Page::new(names(3)));
    world.server.put("/more", Page::new(names(4)));
    let said = world.update(&["--policy", "q.toml"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(
        lines,
        [
            "list `ads` of p.toml: updated, 3 entries",
            "list `more` of p.toml: updated, 4 entries",
            "list `ads` of q.toml: updated, 3 entries",
            "list `more` of q.toml: updated, 4 entries",
        ]
    );
    assert_eq!(world.server.requests().len(), 2);
    let said = world.update(&["more", "--json"]);
    let rows = said.json();
    assert_eq!((rows.len(), &rows[0]["list"]), (1, &"more".into()));
    let said = world.update(&["mor"]);
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    assert!(said.err.contains("there is no list `mor` with a `url`"), "{}", said.err);
    assert!(said.err.contains("ads, more"), "{}", said.err);
}

#[test]
fn where_nothing_can_be_fetched_that_is_said() {
    let world = World::new();
    // A folder that not even root can make.
    world.policy(&[("ads", "")]);
    let update = ["list", "update", "--policy", "p.toml", "--state"];
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
        said(command.args(words).current_dir(world.folder.path()))
    };
    let cannot = run(&[&update[..], &["/proc/none"]].concat());
    assert_eq!((cannot.status, cannot.out.as_str()), (3, ""));
    assert!(cannot.err.contains("cannot write to /proc/none/lists: "), "{}", cannot.err);
    assert!(cannot.err.contains("hint: run it as root"), "{}", cannot.err);

    fs::write(world.path("p.toml"), "[policy]\nname = \"p\"\ndefault = \"drop\"\n").unwrap();
    let nothing = world.update(&[]);
    assert_eq!((nothing.status, nothing.out.as_str()), (0, ""));
    assert!(nothing.err.contains("no list of the policies has a `url`"), "{}", nothing.err);
    assert_eq!(world.update(&["ads"]).status, 2);

    // A mistake is told, and nothing else of the policies.
    world.policy(&[("ads", ""), ("more", "url = 1")]);
    let wrong = world.update(&[]);
    assert_eq!((wrong.status, wrong.out.as_str()), (1, ""));
    assert!(wrong.err.contains("error: not TOML: duplicate key"), "{}", wrong.err);
    assert!(!wrong.err.contains("never fetched"), "{}", wrong.err);
    assert!(world.server.requests().is_empty());
    assert_eq!(world.update(&["--policy", "no-such"]).status, 2);
    assert_eq!(world.update(&["--timeout", "0"]).status, 2);
    assert!(!Path::new("/proc/none").exists());
}

/// A terminal: the side that sees what is written, and the side that a command has.
fn pty() -> (fs::File, fs::File) {
    let sees = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&sees).expect("a terminal");
    unlockpt(&sees).expect("a terminal");
    let name = ptsname(&sees, Vec::new()).expect("a terminal");
    let has = fs::File::options().read(true).write(true).open(name.to_str().unwrap());
    (sees.into(), has.expect("a terminal"))
}

/// What is seen up to a word, or to the end, or for as long as anything may take.
fn seen(terminal: &mut fs::File, until: &str) -> String {
    let end = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while Instant::now() < end
        && (until.is_empty() || !String::from_utf8_lossy(&seen).contains(until))
    {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&*terminal, PollFlags::IN)], Some(&second));
        if ready.expect("polling") == 0 {
            continue;
        }
        match terminal.read(&mut buffer) {
            Ok(length @ 1..) => seen.extend_from_slice(&buffer[..length]),
            // The last one who has the other side leaves: that is an error (EIO) for this one.
            Ok(0) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// A command that is ended when it is dropped.
struct Running(Child);

impl Running {
    fn new(mut command: Command) -> Self {
        Self(command.spawn().expect("the firewall"))
    }

    /// What it prints on standard output until it ends.
    fn output(mut self) -> String {
        let mut text = String::new();
        let mut out = self.0.stdout.take().expect("a pipe");
        out.read_to_string(&mut text).expect("UTF-8");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_terminal_shows_downloads_and_reading_that_take_long() {
    let world = World::new();
    world.policy(&[("ads", "")]);
    // Some seconds, of which the bytes are seen after half of the first one.
    let page = Page::new(names(20)).drip(Duration::from_millis(10));
    world.server.put("/ads", page);
    let (mut terminal, stderr) = pty();
    let mut command = world.command(&["list", "update", "--policy", "p.toml"]);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(stderr);
    let running = Running::new(command);
    let shown = seen(&mut terminal, "");
    assert_eq!(running.output(), "list `ads` of p.toml: updated, 20 entries\n");
    assert!(shown.contains("ads  ") && shown.contains(" B of 230 B, "), "{shown:?}");

    // A list that takes some seconds to read.
    fs::write(world.path("list"), names(1_500_000)).expect("writing");
    let text = fs::read_to_string(world.path("p.toml")).unwrap();
    let url = format!("url = \"{}\"", world.server.url("/ads"));
    fs::write(world.path("p.toml"), text.replace(&url, "file = \"list\"")).unwrap();
    let (mut terminal, stderr) = pty();
    let mut command = world.command(&["explain", "--policy", "p.toml", "n1.example"]);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(stderr);
    let running = Running::new(command);
    let shown = seen(&mut terminal, "");
    assert!(shown.contains("reading policies and lists"), "{shown:?}");
    let output = running.output();
    assert!(output.starts_with("deny "), "{output}");
}
