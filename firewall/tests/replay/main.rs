//! `firewall replay`, on the real binary and on captures made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]
#![allow(missing_docs, reason = "for tests")]

mod build;
mod dns;
mod files;
#[path = "../../fuzz/checks/replay.rs"]
mod fuzzed;
#[path = "../support/hello.rs"]
mod hello;
mod hostile;
mod links;
mod packets;
mod quic;
mod streams;

use std::{path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

/// What the captures are judged by.
pub const POLICY: &str = r#"[policy]
name = "p"

[[rule]]
name = "net"
action = "drop"
to = { networks = ["203.0.113.0/24", "2001:db8:bad::/48"] }

[[rule]]
name = "tracker"
action = "drop"
to = { domains = ["tracker.example"] }

[[rule]]
name = "log"
action = "log"
to = { domains = ["log.example"] }
"#;

/// What came of a capture.
pub struct Judged {
    pub status: i32,
    pub lines: Vec<Value>,
    pub out: String,
    pub err: String,
}

/// A folder with a policy and settings.
pub struct Place(TempDir);

impl Place {
    pub fn new(policy: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("p.toml"), policy).expect("writing");
        std::fs::write(folder.path().join("firewall.toml"), settings).expect("writing");
        Self(folder)
    }

    pub fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("capture");
        std::fs::write(&path, bytes).expect("writing");
        path
    }

    /// Without `--json` the lines are only text.
    pub fn run(&self, words: &[&str], capture: &[u8]) -> Judged {
        let file = self.file(capture);
        let output = Command::new(env!("CARGO_BIN_EXE_firewall"))
            .arg("replay")
            .args(["--policy", "p.toml", "--config", "firewall.toml"])
            .args(words)
            .arg(file)
            .current_dir(self.0.path())
            .env("TZ", "UTC")
            .output()
            .expect("the firewall");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let lines = out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Judged { status: output.status.code().expect("no signal"), lines, out, err }
    }

    pub fn judge(&self, capture: &[u8]) -> Judged {
        let judged = self.run(&["--json"], capture);
        assert_eq!(judged.status, 0, "{}", judged.err);
        assert_eq!(judged.lines.len(), judged.out.lines().count(), "{}", judged.out);
        judged
    }
}

/// Judges packets, which begin with their IP header.
pub fn judge(packets: &[Vec<u8>]) -> Judged {
    Place::new(POLICY, "").judge(&build::pcap(build::RAW, packets))
}

impl Judged {
    /// The one line that there is.
    #[track_caller]
    pub fn only(&self) -> &Value {
        assert_eq!(self.lines.len(), 1, "{}\n{}", self.out, self.err);
        &self.lines[0]
    }

    /// Verdict, rule or reason, and hook of each line, with its name.
    pub fn brief(&self) -> Vec<String> {
        self.lines.iter().map(brief).collect()
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "not {text:?} in:\n{}", self.err);
        self
    }
}

pub fn brief(line: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let why = if line["rule"].is_null() { &line["reason"] } else { &line["rule"] };
    let host = &line["host"];
    format!(
        "{} {} {} {} {}",
        text(&line["verdict"]),
        text(why),
        text(&line["hook"]),
        text(&host["name"]),
        text(&host["via"])
    )
}
