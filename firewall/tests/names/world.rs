//! Two hosts with name servers and web servers, and what tests ask of an outcome.

use std::{path::PathBuf, process::Command, time::Duration};

use libc::{ECONNABORTED, ECONNREFUSED, ECONNRESET, EPERM, EPIPE};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{Capture, Https, Kind, Listener, NameServer, Net, Resolver, Zone},
    support::{self, AMAZON, BAIDU_HK, FIREWALL, FREE, Outcome, Run},
};

/// The name server of the client, on both of the server's own addresses.
pub const DNS: &str = "10.200.0.1:53";
pub const DNS_V6: &str = "[fd00:f1e3::1]:53";
/// Another one, that no resolv.conf has.
pub const OTHER_DNS: &str = "9.9.9.9:53";
/// Addresses that are nobody's special.
pub const SINGAPORE: &str = "43.109.38.198";
pub const ELSEWHERE: &str = "3.173.21.63";
/// Where Cloudflare offers encrypted DNS.
pub const CLOUDFLARE: [&str; 2] = ["1.1.1.1", "2606:4700:4700::1111"];

/// What is denied has to fail in this time, for whoever asked.
pub const AT_ONCE: Duration = Duration::from_secs(1);

/// The two hosts. Everything that tests ask for is in one zone.
pub struct World {
    pub net: Net,
    pub capture: Capture,
    pub http: Listener,
    pub https: Https,
    pub names: NameServer,
    resolver: Resolver,
    directory: TempDir,
}

/// The names that every world knows. `hm.baidu.com` is an alias, and `shop.example` and
/// `tracker.example` are at one address.
pub fn zone() -> Zone {
    Zone::default()
        .host("hm.e.shifen.com", &[BAIDU_HK, "2001:df1:801::1"])
        .alias("hm.baidu.com", "hm.e.shifen.com")
        .host("gator.volces.com", &[SINGAPORE])
        .host("evilbaidu.com", &[ELSEWHERE, AMAZON])
        .host("shop.example", &[FREE])
        .host("tracker.example", &[FREE])
        .host("good.example", &[FREE])
        .host("bad.example", &[FREE])
        .host("far.example", &[AMAZON])
}

impl World {
    pub fn new() -> Self {
        Self::with(Kind::Dnsmasq, &["10.200.0.1"], "", &zone())
    }

    /// With this program as the name server, `nameserver` lines and options of resolv.conf.
    pub fn with(kind: Kind, nameservers: &[&str], options: &str, zone: &Zone) -> Self {
        let addresses =
            [BAIDU_HK, SINGAPORE, ELSEWHERE, FREE, AMAZON, "2001:df1:801::1", "9.9.9.9"];
        let net = Net::new(&[&addresses[..], &CLOUDFLARE].concat());
        let http = net.serve_http(&["[::]:80"]);
        let https = net.serve_https(&["[::]:443"]);
        let names = net.serve_names(kind, zone, &[DNS, DNS_V6, OTHER_DNS]);
        let capture = net.capture();
        let resolver = Resolver::new(nameservers, options);
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { net, capture, http, https, names, resolver, directory }
    }

    /// A file of this world.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.into_os_string().into_string().expect("UTF-8")
    }

    /// A policy `names` with one rule `those`, which drops these names and perhaps has more keys.
    pub fn deny(&self, names: &[&str], more: &str) -> String {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        self.file(
            "names.toml",
            &format!(
                "[policy]\nname = \"names\"\n[[rule]]\nname = \"those\"\naction = \"drop\"\n\
                 to = {{ domains = [{}] }}\n{more}\n",
                names.join(", ")
            ),
        )
    }

    /// The firewall where this world's resolver is.
    pub fn firewall(&self) -> Command {
        let mut command = self.net.client_command(FIREWALL);
        self.resolver.enter(&mut command);
        command
    }

    /// `firewall run` there.
    pub fn start(&self, options: &[&str]) -> Run {
        Run::of(self.firewall(), options)
    }

    /// Runs a script under options, to its end.
    #[track_caller]
    pub fn script(&self, options: &[&str], lines: &[&str]) -> Outcome {
        let outcome = self.start(options).client(&lines.join("\n"));
        outcome.assert_status(0);
        for event in &outcome.events {
            support::assert_keys(event);
        }
        outcome
    }

    /// Whether a question for a name arrived at the server's network card.
    pub fn on_the_wire(&self, name: &str) -> bool {
        let wanted = support::dns::encode(&name.to_lowercase());
        self.capture.packets().iter().any(|packet| {
            packet.bytes.to_ascii_lowercase().windows(wanted.len()).any(|bytes| bytes == wanted)
        })
    }

    /// Nobody got to hear a name: not a name server, and nobody else on the wire.
    #[track_caller]
    pub fn assert_never_asked(&self, name: &str) {
        assert!(!self.on_the_wire(name), "a question for {name} arrived");
        assert!(!self.names.was_asked(name), "the name server was asked for {name}");
        assert_eq!(self.capture.lost(), 0);
    }

    /// How many connections to an address came through to the web servers.
    pub fn visits(&self, ip: &str) -> usize {
        let contacts = self.http.contacts().into_iter().chain(self.https.contacts());
        contacts.filter(|contact| contact.to.ip().to_string() == ip).count()
    }

    /// Whether the web servers were sent these bytes.
    pub fn heard(&self, text: &str) -> bool {
        self.http
            .contacts()
            .into_iter()
            .chain(self.https.contacts())
            .any(|one| one.data.windows(text.len()).any(|bytes| bytes == text.as_bytes()))
    }
}

/// The step that has real curl fetch a page.
pub fn curl(arguments: &str) -> String {
    format!("exec curl -s -k --noproxy * --max-time 5 --connect-timeout 4 -o /dev/null {arguments}")
}

/// The exit statuses of curl: the name was not resolved, the connection was refused, the
/// connection ended early (in TLS; before an answer; while sending or receiving).
pub const UNRESOLVED: i32 = 6;
pub const REFUSED: i32 = 7;
pub const CLOSED: [i32; 4] = [35, 52, 55, 56];

/// That a step failed with an error, and at once.
#[track_caller]
pub fn assert_fails(outcome: &Outcome, line: &str, errors: &[i32]) {
    let step = outcome.step(line);
    assert!(
        errors.contains(&step.errno),
        "{line}: {} is not of {errors:?}\n{}{:#?}",
        step.errno,
        outcome.stderr,
        outcome.events
    );
    assert!(step.took < AT_ONCE, "{line} took {:?}", step.took);
}

#[track_caller]
pub fn assert_passes(outcome: &Outcome, line: &str) {
    let step = outcome.step(line);
    assert_eq!(step.errno, 0, "{line}: {}\n{:#?}", outcome.stderr, outcome.events);
}

/// What a client can see of a connection that was closed to it.
pub const TORN: [i32; 4] = [ECONNABORTED, ECONNRESET, EPIPE, EPERM];
/// What a denied `connect` gives.
pub const DENIED: [i32; 1] = [ECONNREFUSED];
/// What a denied datagram gives whose address was not denied.
pub const DROPPED: [i32; 1] = [EPERM];

/// The event that denied a name at a hook.
#[track_caller]
pub fn denied<'a>(outcome: &'a Outcome, hook: &str, name: &str) -> &'a Value {
    outcome
        .events
        .iter()
        .find(|event| {
            event["verdict"] == "deny" && event["hook"] == hook && event["host"]["name"] == name
        })
        .unwrap_or_else(|| {
            panic!("no deny of {name} at {hook}: {:#?}\n{}", outcome.events, outcome.stderr)
        })
}

/// That an event is by the rule that [`World::deny`] makes, because of this name.
#[track_caller]
pub fn assert_rule(event: &Value, name: &str) {
    for (key, value) in [
        ("reason", "rule"),
        ("action", "drop"),
        ("mode", "enforce"),
        ("policy", "names"),
        ("rule", "those"),
    ] {
        assert_eq!(event[key], value, "{key}: {event}");
    }
    let evidence = event["evidence"].as_array().expect("evidence");
    assert!(evidence.iter().any(|fact| fact.as_str().is_some_and(|f| f.contains(name))), "{event}");
}

/// That an event is a denied question by that rule. Its destination is the name server.
#[track_caller]
pub fn assert_question(event: &Value, name: &str, server: &str, proto: &str) {
    assert_rule(event, name);
    assert_eq!(event["host"]["via"], "dns", "{event}");
    assert_eq!(event["dst"]["ip"], server, "{event}");
    assert_eq!(event["dst"]["port"], 53, "{event}");
    assert_eq!(event["proto"], proto, "{event}");
    assert!(event["geo"].is_null(), "the server's place says nothing: {event}");
}

/// That an event tells how its name was learned.
#[track_caller]
pub fn assert_learned(event: &Value, via: &str, confidence: &str) {
    assert_eq!(event["host"]["via"], via, "{event}");
    assert_eq!(event["host"]["confidence"], confidence, "{event}");
}

/// Nothing was denied.
#[track_caller]
pub fn assert_nothing_denied(outcome: &Outcome) {
    let denied: Vec<&Value> =
        outcome.events.iter().filter(|event| event["verdict"] == "deny").collect();
    assert!(denied.is_empty(), "{denied:#?}");
}
