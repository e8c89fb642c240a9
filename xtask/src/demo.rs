//! The demonstration: real curl, real public addresses, and no outside network.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

#[path = "../../firewall/tests/harness/mod.rs"]
mod harness;

use crate::run::{POLICIES, policy_arguments};

/// Whose addresses the server has. The last word is only for the reader; the table shows what the
/// firewall knows.
const SERVERS: [&str; 11] = [
    "110.242.68.66",
    "103.235.46.191",
    "1.64.0.1",
    "43.109.38.198",
    "3.173.21.63",
    "212.27.48.10",
    "2400:3200::1",
    "2001:df1:801::1",
    "240b:4000::1",
    "2600:9000::10",
    "2a01:e00::1",
];

/// The parts of an event that the table shows.
#[derive(Debug, Deserialize)]
struct Event {
    verdict: String,
    policy: Option<String>,
    rule: Option<String>,
    reason: String,
    hook: String,
    app: App,
    dst: Endpoint,
    #[serde(default)]
    geo: Geo,
    #[serde(default)]
    evidence: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct App {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    ip: String,
}

#[derive(Debug, Default, Deserialize)]
struct Geo {
    country: Option<String>,
    as_name: Option<String>,
}

/// Makes the two hosts, runs curl under the policies, and prints each verdict.
pub fn run(firewall: &Path) -> Result<()> {
    if !harness::require_kernel() {
        bail!("the demonstration needs root and a kernel that takes the programs; see above");
    }
    println!(
        "Two network namespaces, joined by a wire. The server has {} addresses that belong to\n\
         others; the client runs curl under these policies: {}.\n",
        SERVERS.len(),
        POLICIES.join(", ")
    );
    let net = harness::Net::new(&SERVERS);
    let _server = net.serve_http(&["[::]:80"]);
    let capture = net.capture();
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("verdicts.jsonl");
    let mut rows = Vec::new();
    for address in SERVERS {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let status = net
            .client
            .enter(
                Command::new(firewall)
                    .args(["run", "--quiet", "--log"])
                    .arg(&log)
                    .args(policy_arguments())
                    .args(["--", "curl", "--silent", "--max-time", "5", "--output", "/dev/null"])
                    .arg(format!("http://{host}/")),
            )
            .stdin(Stdio::null())
            .status()
            .context("firewall run")?;
        let got = match status.code() {
            Some(0) => "page",
            Some(7) => "refused",
            _ => "nothing",
        };
        rows.push((address, got));
    }
    let text = std::fs::read_to_string(&log).context("the log of verdicts")?;
    let events: Vec<Event> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("a line of the log")?;
    println!(
        "{:<16} {:<3} {:<6} {:<8} {:<5} {:<8} {:<5} {:<34} EVIDENCE, OWNER",
        "DESTINATION", "IN", "APP", "HOOK", "SAYS", "CURL GOT", "WIRE", "BY"
    );
    let mut contradictions = 0;
    for (address, got) in rows {
        let packets = capture.to(address).len();
        for event in events.iter().filter(|event| event.dst.ip == address) {
            let by = match (&event.policy, &event.rule) {
                (Some(policy), Some(rule)) => format!("{policy}/{rule}"),
                _ => event.reason.clone(),
            };
            let owner = event.geo.as_name.as_deref().unwrap_or("nobody known");
            println!(
                "{address:<16} {:<3} {:<6} {:<8} {:<5} {got:<8} {packets:<5} {by:<34} {}{owner}",
                event.geo.country.as_deref().unwrap_or("-"),
                event.app.name,
                event.hook,
                event.verdict,
                event.evidence.iter().map(|one| format!("{one}, ")).collect::<String>(),
            );
            let stopped = got == "refused" && packets == 0;
            let passed = got == "page" && packets > 0;
            if !(if event.verdict == "deny" { stopped } else { passed }) {
                contradictions += 1;
            }
        }
        if !events.iter().any(|event| event.dst.ip == address) {
            contradictions += 1;
            println!("{address:<16} no verdict was recorded; curl got: {got}");
        }
    }
    println!(
        "\nWIRE counts the packets to that address that arrived at the server's network card."
    );
    if contradictions > 0 {
        bail!("{contradictions} rows do not show what they should");
    }
    Ok(())
}
