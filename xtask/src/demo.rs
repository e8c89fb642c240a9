//! The demonstration: real curl, real public addresses, and no outside network.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

#[path = "../../firewall/tests/harness/mod.rs"]
pub mod harness;

use crate::run::{NAME_POLICIES, POLICIES, policy_arguments};

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

/// An address of many sites, as those of CDNs are.
const SHARED: &str = "3.173.21.63";

/// A further policy of the second table. It is not for commands that are only tried: some need what it
/// denies.
const ENCRYPTED_DNS: &str = "encrypted-dns";

/// What the second table shows.
struct Visit {
    /// What curl is given.
    arguments: &'static [&'static str],
    /// The name that decides, where one is denied.
    denied: Option<&'static str>,
    shows: &'static str,
}

const VISITS: [Visit; 10] = [
    Visit {
        arguments: &["https://hm.baidu.com/hm.js"],
        denied: Some("hm.baidu.com"),
        shows: "the question is denied",
    },
    Visit {
        arguments: &["https://GATOR.volces.com/list"],
        denied: Some("gator.volces.com"),
        shows: "in capitals, too",
    },
    Visit {
        arguments: &["https://stats.shop.example/"],
        denied: Some("stats.shop.example"),
        shows: "an alias of hm.baidu.com: its address is denied",
    },
    Visit {
        arguments: &["https://shop.example/"],
        denied: None,
        shows: "a site at a shared address",
    },
    Visit {
        arguments: &["--resolve", "hm.baidu.com:443:3.173.21.63", "https://hm.baidu.com/hm.js"],
        denied: Some("hm.baidu.com"),
        shows: "same address, not asked for: the TLS name is denied",
    },
    Visit {
        arguments: &["--header", "Host: hm.baidu.com", "http://shop.example/hm.gif"],
        denied: Some("hm.baidu.com"),
        shows: "same address: the Host header is denied",
    },
    Visit {
        arguments: &["https://chat.deepseek.com/"],
        denied: Some("chat.deepseek.com"),
        shows: "served from Amazon in the US",
    },
    Visit {
        arguments: &["https://www.google-analytics.com/g/collect"],
        denied: Some("www.google-analytics.com"),
        shows: "one of many measurement services",
    },
    Visit {
        arguments: &["https://cloudflare-dns.com/"],
        denied: Some("cloudflare-dns.com"),
        shows: "DNS over HTTPS, which would hide names",
    },
    Visit { arguments: &["https://evilbaidu.com/"], denied: None, shows: "only looks like it" },
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
    host: Host,
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
struct Host {
    name: Option<String>,
    confidence: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Geo {
    country: Option<String>,
    as_name: Option<String>,
}

/// Shows both tables.
pub fn run(firewall: &Path) -> Result<()> {
    if !harness::require_names() {
        bail!(
            "the demonstration needs root, a kernel that takes the programs, and servers; see above"
        );
    }
    let contradictions = addresses(firewall)? + names(firewall)?;
    if contradictions > 0 {
        bail!("{contradictions} rows do not show what they should");
    }
    Ok(())
}

/// Makes the two hosts, runs curl under the policies by country and owner, and prints each verdict.
fn addresses(firewall: &Path) -> Result<usize> {
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
        let mut command = Command::new(firewall);
        net.client.enter(&mut command);
        let policies = policy_arguments(&POLICIES);
        rows.push((address, curl(command, &log, policies, &[&format!("http://{host}/")])?));
    }
    let events = read(&log)?;
    println!(
        "{:<16} {:<3} {:<6} {:<8} {:<5} {:<8} {:<5} {:<34} EVIDENCE, OWNER",
        "DESTINATION", "IN", "APP", "HOOK", "SAYS", "CURL GOT", "WIRE", "BY"
    );
    let mut contradictions = 0;
    for (address, got) in rows {
        let packets = capture.to(address).len();
        for event in events.iter().filter(|event| event.dst.ip == address) {
            let owner = event.geo.as_name.as_deref().unwrap_or("nobody known");
            println!(
                "{address:<16} {:<3} {:<6} {:<8} {:<5} {got:<8} {packets:<5} {:<34} {}{owner}",
                event.geo.country.as_deref().unwrap_or("-"),
                event.app.name,
                event.hook,
                event.verdict,
                event.by(),
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
    Ok(contradictions)
}

/// The same with names: a real dnsmasq answers, and several sites are at one address.
fn names(firewall: &Path) -> Result<usize> {
    println!(
        "\nNames: the client asks a dnsmasq beside the server, under these policies: {}, {}.\n",
        NAME_POLICIES.join(", "),
        ENCRYPTED_DNS
    );
    let zone = harness::Zone::default()
        .host("hm.e.shifen.com", &["103.235.46.191"])
        .alias("hm.baidu.com", "hm.e.shifen.com")
        .alias("stats.shop.example", "hm.baidu.com")
        .host("gator.volces.com", &["43.109.38.198"])
        .host("chat.deepseek.com", &[SHARED])
        .host("www.google-analytics.com", &["212.27.48.10"])
        .host("cloudflare-dns.com", &[SHARED])
        .host("shop.example", &[SHARED])
        .host("evilbaidu.com", &[SHARED]);
    let net = harness::Net::new(&SERVERS);
    let _dns = net.serve_names(harness::Kind::Dnsmasq, &zone, &["10.200.0.1:53"]);
    let resolver = harness::Resolver::new(&["10.200.0.1"], "");
    let web = net.serve_http(&["[::]:80"]);
    let secure = net.serve_https(&["[::]:443"]);
    let folder = tempfile::tempdir()?;
    println!(
        "{:<34} {:<8} {:<5} {:<8} {:<6} {:<29} EVIDENCE, WHAT IT SHOWS",
        "CURL ASKED FOR", "HOOK", "SAYS", "CURL GOT", "SERVER", "BY"
    );
    let mut contradictions = 0;
    for (number, visit) in VISITS.iter().enumerate() {
        let before = sent(&web, &secure);
        let log = folder.path().join(format!("{number}.jsonl"));
        let mut command = Command::new(firewall);
        net.client.enter(&mut command);
        resolver.enter(&mut command);
        let policies = policy_arguments(&NAME_POLICIES).chain(["--policy", ENCRYPTED_DNS]);
        let got = curl(command, &log, policies, visit.arguments)?;
        let events = read(&log)?;
        let event = match visit.denied {
            Some(name) => events
                .iter()
                .find(|event| event.verdict == "deny" && event.host.name.as_deref() == Some(name)),
            // A question that passes is a verdict too; this is on the connection.
            None => events.iter().find(|event| event.dst.ip == SHARED),
        };
        // Of a connection that is closed for its name, the server does not get to see the name.
        let heard = sent(&web, &secure) > before;
        let url = visit.arguments.last().copied().unwrap_or_default();
        let server = if heard { "asked" } else { "-" };
        let Some(event) = event else {
            // What passes by no rule need not be recorded.
            let passed = visit.denied.is_none() && got == "page" && heard;
            contradictions += usize::from(!passed);
            let says = if passed { "" } else { "no verdict was recorded; " };
            println!(
                "{url:<34} {:<8} {:<5} {got:<8} {server:<6} {:<29} {says}{}",
                "-", "-", "-", visit.shows
            );
            continue;
        };
        println!(
            "{url:<34} {:<8} {:<5} {got:<8} {server:<6} {:<29} {}{}{}",
            event.hook,
            event.verdict,
            event.by(),
            event.evidence.iter().map(|one| format!("{one}, ")).collect::<String>(),
            event.host.confidence.iter().map(|word| format!("{word}; ")).collect::<String>(),
            visit.shows,
        );
        let stopped = got != "page" && !heard;
        let passed = got == "page" && heard;
        if !(if visit.denied.is_some() { stopped } else { passed }) {
            contradictions += 1;
        }
    }
    println!("\nSERVER tells whether the web server got anything to read.");
    Ok(contradictions)
}

/// How many bytes visitors have sent to the web servers.
fn sent(web: &harness::Listener, secure: &harness::Https) -> usize {
    let contacts = web.contacts().into_iter().chain(secure.contacts());
    contacts.map(|contact| contact.data.len()).sum()
}

impl Event {
    fn by(&self) -> String {
        match (&self.policy, &self.rule) {
            (Some(policy), Some(rule)) => format!("{policy}/{rule}"),
            _ => self.reason.clone(),
        }
    }
}

/// Runs curl under the firewall, and says in a word what it got.
fn curl<'a>(
    mut firewall: Command,
    log: &Path,
    policies: impl Iterator<Item = &'a str>,
    arguments: &[&str],
) -> Result<&'static str> {
    let status = firewall
        .args(["run", "--quiet", "--log"])
        .arg(log)
        .args(policies)
        .args(["--", "curl", "--silent", "--insecure", "--noproxy", "*", "--max-time", "5"])
        .args(["--output", "/dev/null"])
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("firewall run")?;
    Ok(match status.code() {
        Some(0) => "page",
        Some(6) => "no name",
        Some(7) => "refused",
        Some(35 | 52 | 55 | 56) => "closed",
        _ => "nothing",
    })
}

fn read(log: &Path) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(log).context("the log of verdicts")?;
    text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("a line of the log")
}
