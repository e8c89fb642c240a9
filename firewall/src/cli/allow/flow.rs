//! The flow of an event, and the narrowest rule that lets it pass.

use firewall_common::app::Kind;
use serde::Deserialize;

use crate::{
    events::{
        filter, protocol_number,
        record::{self, Line, Record, Verdict},
    },
    explanation::{Asked, Explanation, Question, destination},
    policy::{AppFacts, Domain, Moment, escaped, explain::Finding},
};

/// A flow that was stopped, or would have been.
pub struct Flow {
    record: Record,
    via: Option<String>,
}

/// What is asked of an event beside what a record has.
#[derive(Deserialize)]
struct More {
    #[serde(default)]
    mode: String,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    host: Option<Host>,
}

#[derive(Deserialize)]
struct Host {
    #[serde(default)]
    via: Option<String>,
}

impl Flow {
    /// Of the text of an event.
    ///
    /// # Errors
    ///
    /// Why no rule could let it pass, with a hint.
    pub fn of(event: &str) -> Result<Self, String> {
        let unread = |why: String| format!("the event cannot be read: {why}");
        let record = match record::read(event.as_bytes()) {
            Ok(Line::Verdict(record)) => *record,
            Ok(Line::Lost(_)) => return Err(unread("it tells of a loss".to_owned())),
            Err(why) => return Err(unread(why.to_string())),
        };
        let More { mode, action, host } =
            serde_json::from_str(event).map_err(|why| unread(why.to_string()))?;
        let is_stopped = match record.verdict {
            Verdict::Deny => true,
            Verdict::Audit => mode == "observe" && action.as_deref() == Some("drop"),
            Verdict::Allow => false,
        };
        if !is_stopped {
            return Err(format!("event {} passed: there is nothing to allow", record.seq));
        }
        let setting = match record.reason.as_str() {
            "parse-error" => "could not be read. The setting `unparsable` says what happens then",
            "quic" => "was QUIC, which the setting `quic` blocks",
            "unattended" => {
                "was QUIC, and nobody was there to read its name. The setting \
                 `quic_unattended` says what happens then"
            }
            "no-policy" => "was stopped as no policies were in force",
            _ if record.hook == "dns" && record.host.is_none() => "has no name",
            _ => return Ok(Self { record, via: host.and_then(|host| host.via) }),
        };
        Err(format!("no rule lets event {} pass: it {setting}", record.seq))
    }

    /// What is judged.
    pub fn asked(&self) -> Asked {
        let Record { hook, dst, host, proto, .. } = &self.record;
        let protocol = protocol_number(proto).unwrap_or_default();
        let names = host.iter().flat_map(|host| std::iter::once(&host.name).chain(&host.chain));
        match host {
            Some(host) if hook == "dns" => Asked::Question(Question {
                name: host.name.clone(),
                rest: String::new(),
                port: None,
                protocol,
            }),
            _ => Asked::Connection(
                destination(dst.ip, dst.port, protocol),
                names.map(|name| (name.clone(), self.is_told())).collect(),
            ),
        }
    }

    /// For whom it is judged.
    pub fn app(&self) -> AppFacts {
        let facts = filter::facts(&self.record.app);
        // What is in a container has a path of its own mounts, which lets nothing pass.
        match (facts.kind, self.is_apart()) {
            (Kind::Trusted, true) => AppFacts { kind: Kind::Untrusted, ..facts },
            _ => facts,
        }
    }

    /// What stops it, or would, by an explanation.
    pub fn stopped<'a>(&self, explanation: &'a Explanation) -> Option<&'a Finding> {
        let last = &explanation.finding;
        if self.record.verdict == Verdict::Deny {
            return (last.verdict == Verdict::Deny.word()).then_some(last);
        }
        explanation
            .observed
            .iter()
            .chain([last])
            .find(|one| one.action == Some("drop") && one.policy == self.record.policy)
    }

    /// The rule, in TOML.
    pub fn rule(&self, name: &str, until: Option<&Moment>) -> String {
        let mut text = format!("[[rule]]\nname   = {}\naction = \"allow\"\n", quoted(name));
        let mut line = |key: &str, value: &str| text += &format!("{key:<6} = {value}\n");
        line("apps", &format!("[{}]", quoted(&self.selector())));
        line(
            "to",
            &match self.name() {
                Some(name) => format!("{{ domains = [{}] }}", quoted(&format!("={name}"))),
                None => format!("{{ networks = [\"{}\"] }}", self.record.dst.ip),
            },
        );
        if !self.is_question() {
            line("ports", &format!("[{}]", quoted(&self.port())));
        }
        if let Some(until) = until {
            line("until", &quoted(&until.to_string()));
        }
        text
    }

    /// What else is to be known of the rule.
    pub fn notes(&self) -> Vec<&'static str> {
        let Record { app, host, reason, .. } = &self.record;
        let by_exe = self.selector().starts_with("exe:");
        let all = [
            (
                by_exe && app.script.is_some(),
                "which script an interpreter runs lets nothing pass, so the rule holds for all that \
                 this one runs",
            ),
            (self.is_question(), "a question tells no port, so the rule holds for all of them"),
            (
                !self.is_question() && host.is_some() && self.name().is_none(),
                "the name is the app's own word, which lets nothing pass, so the rule has the address",
            ),
            (
                reason == "ambiguous",
                "the address has several names: if another of them is denied too, it needs a rule too",
            ),
        ];
        all.into_iter().filter_map(|(holds, text)| holds.then_some(text)).collect()
    }

    fn is_question(&self) -> bool {
        self.record.hook == "dns"
    }

    /// Whether an answer told the name, and not the app alone.
    fn is_told(&self) -> bool {
        matches!(self.via.as_deref(), Some("dns" | "resolver"))
    }

    /// Whether the app has mounts of its own.
    fn is_apart(&self) -> bool {
        let app = &self.record.app;
        app.container.is_some() || app.flatpak.is_some() || app.snap.is_some()
    }

    /// The name, where it can support an `allow`.
    fn name(&self) -> Option<&str> {
        let name = self.record.host.as_ref()?.name.as_str();
        let counts = self.is_question() || self.is_told();
        (counts && Domain::parse(name).is_ok()).then_some(name)
    }

    /// Selects the app: by what cannot be made up, as far as it is known.
    fn selector(&self) -> String {
        let app = &self.record.app;
        if app.is_kernel() {
            return "kernel".to_owned();
        }
        let container =
            app.container.as_ref().and_then(|one| one.id.as_ref().or(one.name.as_ref()));
        let apart = [
            ("container", container),
            ("flatpak", app.flatpak.as_ref()),
            ("snap", app.snap.as_ref()),
        ];
        let apart = apart.into_iter().find_map(|(kind, id)| Some(format!("{kind}:{}", id?)));
        // By its name a unit of the system is one that any user can start.
        let cgroup = app.cgroup.as_ref().filter(|path| path.starts_with("/system.slice/"));
        let known = [("exe", &app.exe), ("cgroup", &cgroup.cloned()), ("unit", &app.unit)]
            .into_iter()
            .find_map(|(kind, text)| Some(format!("{kind}:{}", escaped(text.as_ref()?))));
        apart.or(known).unwrap_or_else(|| format!("user:{}", app.uid))
    }

    /// Protocol and port, as rules have them.
    fn port(&self) -> String {
        let proto = &self.record.proto;
        match (proto.parse::<u8>(), self.record.dst.port) {
            (Ok(number), _) => format!("proto/{number}"),
            (Err(_), Some(port)) => format!("{proto}/{port}"),
            (Err(_), None) => proto.clone(),
        }
    }
}

/// A string of TOML in which no character does or hides anything.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            _ if crate::policy::diagnostic::printable(letter.encode_utf8(&mut [0; 4])) == "?"
                && letter != '?' =>
            {
                out += &format!("\\U{:08X}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::{self, source::Disk};

    fn event(change: &Value) -> String {
        let mut event = json!({
            "schema": 1, "seq": 42, "time": "2026-11-22T01:25:18Z", "verdict": "deny",
            "mode": "enforce", "reason": "rule", "action": "drop", "policy": "p", "rule": "r",
            "hook": "connect", "app": {"name": "curl", "exe": "/usr/bin/curl", "uid": 1000},
            "proto": "tcp", "dst": {"ip": "192.0.2.7", "port": 443}, "count": 1,
        });
        for (key, value) in change.as_object().unwrap() {
            event[key] = value.clone();
        }
        event.to_string()
    }

    fn line(change: &Value, key: &str) -> Option<String> {
        let rule = Flow::of(&event(change)).unwrap().rule("event-42", None);
        let line = rule.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once("= ").unwrap().1.to_owned())
    }

    #[test]
    fn the_destination_is_a_name_where_that_can_support_an_allow() {
        let by_name = Some("{ domains = [\"=a.example\"] }");
        let by_address = Some("{ networks = [\"192.0.2.7\"] }");
        let of = |name: &str, via: &str| json!({"host": {"name": name, "via": via}});
        for (change, to) in [
            (json!({}), by_address),
            (of("a.example", "dns"), by_name),
            (of("a.example", "resolver"), by_name),
            (of("a.example", "tls"), by_address),
            (of("a.example", "quic"), by_address),
            (of("a.example", "http"), by_address),
            (of("a.example", "ahead"), by_address),
            (of("a\\x1b.example", "dns"), by_address),
        ] {
            assert_eq!(line(&change, "to").as_deref(), to, "{change}");
        }
        let mut question = of("a.example", "dns");
        question["hook"] = "dns".into();
        assert_eq!(line(&question, "to").as_deref(), by_name);
        assert_eq!(line(&question, "ports"), None);
    }

    #[test]
    fn protocols_and_ports() {
        for (proto, port, written) in [
            ("tcp", Some(8443), "[\"tcp/8443\"]"),
            ("udplite", Some(1), "[\"udplite/1\"]"),
            ("icmp", None, "[\"icmp\"]"),
            ("47", None, "[\"proto/47\"]"),
        ] {
            let mut change = json!({"proto": proto, "dst": {"ip": "192.0.2.7"}});
            if let Some(port) = port {
                change["dst"]["port"] = port.into();
            }
            assert_eq!(line(&change, "ports").as_deref(), Some(written));
        }
    }

    /// What is written selects the app of the event.
    #[test]
    fn apps() {
        let cgroup = "/system.slice/x.service";
        for (app, selector) in [
            (json!({"name": "curl", "exe": "/usr/bin/curl"}), "exe:/usr/bin/curl"),
            (json!({"name": "x", "exe": "/opt/{a}*/[x]?"}), "exe:/opt/[{]a[}][*]/[[]x[]][?]"),
            (
                json!({"name": "x", "cgroup": cgroup, "unit": "x.service"}),
                "cgroup:/system.slice/x.service",
            ),
            (
                json!({"name": "x", "cgroup": "/user.slice/user@7.service/x.scope", "unit": "x.scope"}),
                "unit:x.scope",
            ),
            (json!({"name": "unknown"}), "user:1000"),
            (json!({"name": "kernel"}), "kernel"),
        ] {
            let mut change = json!({"app": app});
            change["app"]["uid"] = 1000.into();
            let flow = Flow::of(&event(&change)).unwrap();
            assert_eq!(flow.selector(), selector);
            let parsed = policy::parse_selector(selector, &Disk).unwrap();
            assert!(parsed.selects(&flow.app()), "{selector}");
        }
        let id = "5d2c".repeat(16);
        let change = json!({"app": {
            "name": "x", "exe": "/x", "uid": 0, "cgroup": format!("/system.slice/docker-{id}.scope"),
            "container": {"id": id},
        }});
        let flow = Flow::of(&event(&change)).unwrap();
        let parsed = policy::parse_selector(&flow.selector(), &Disk).unwrap();
        assert!(parsed.selects(&flow.app()), "{}", flow.selector());
    }

    #[test]
    fn what_would_be_obeyed_is_written_as_an_escape() {
        let written = quoted("a\"\\\u{1b}\u{9b}\u{202e}\nß?");
        assert_eq!(written, r#""a\"\\\U0000001B\U0000009B\U0000202E\U0000000Aß?""#);
        let value: toml::Table = format!("x = {written}").parse().unwrap();
        assert_eq!(value["x"].as_str(), Some("a\"\\\u{1b}\u{9b}\u{202e}\nß?"));
    }

    #[test]
    fn what_no_rule_lets_pass() {
        for (change, says) in [
            (json!({"verdict": "allow"}), "event 42 passed"),
            (json!({"verdict": "audit", "action": "log"}), "event 42 passed"),
            (json!({"reason": "parse-error"}), "`unparsable`"),
            (json!({"reason": "quic"}), "`quic`"),
            (json!({"reason": "unattended"}), "`quic_unattended`"),
            (json!({"reason": "no-policy"}), "no policies"),
            (json!({"hook": "dns"}), "no name"),
            (json!({"schema": 2}), "cannot be read: schema 2"),
        ] {
            let why = Flow::of(&event(&change)).err().unwrap();
            assert!(why.contains(says), "{why}");
        }
        assert!(Flow::of(&event(&json!({"verdict": "audit", "mode": "observe"}))).is_ok());
    }
}
