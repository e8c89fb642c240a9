//! A verdict in a line, for people.

use firewall_common::verdict::{Hook, Reason};

use crate::{
    events::{Endpoint, Event, record::Record},
    policy::diagnostic::printable,
};

/// What of a verdict a line shows.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    verdict: &'a str,
    reason: &'a str,
    policy: Option<&'a str>,
    rule: Option<&'a str>,
    hook: &'a str,
    app: &'a str,
    proto: &'a str,
    dst: Endpoint,
    /// The name, and whether it is the outer one of an encrypted hello.
    host: Option<(&'a str, bool)>,
    country: Option<&'a str>,
    asn: Option<u32>,
    owner: Option<&'a str>,
}

impl<'a> From<&'a Event> for Shown<'a> {
    fn from(Event { finding, hook, app, proto, dst, host, geo, .. }: &'a Event) -> Self {
        Self {
            verdict: finding.verdict,
            reason: finding.reason,
            policy: finding.policy.as_deref(),
            rule: finding.rule.as_deref(),
            hook,
            app: &app.name,
            proto,
            dst: *dst,
            host: host.as_ref().map(|host| (host.name.as_str(), host.encrypted_hello)),
            country: geo.country,
            asn: geo.asn,
            owner: geo.organisation.as_deref().or(geo.as_name.as_deref()),
        }
    }
}

impl<'a> From<&'a Record> for Shown<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { verdict, reason, policy, rule, hook, app, proto, dst, host, geo, .. } = record;
        Self {
            verdict: verdict.word(),
            reason,
            policy: policy.as_deref(),
            rule: rule.as_deref(),
            hook,
            app: &app.name,
            proto,
            dst: *dst,
            host: host.as_ref().map(|host| (host.name.as_str(), host.encrypted_hello)),
            country: geo.country.as_deref(),
            asn: geo.asn,
            owner: geo.organisation.as_deref().or(geo.as_name.as_deref()),
        }
    }
}

/// A verdict in one line, without how often.
pub fn line<'a>(verdict: impl Into<Shown<'a>>, colour: bool) -> String {
    let Shown { verdict, reason, policy, rule, hook, app, proto, dst, host, country, asn, owner } =
        verdict.into();
    let (on, off) = match (colour, verdict) {
        (false, _) => ("", ""),
        (true, "deny") => ("\x1b[1;31m", "\x1b[0m"),
        (true, "audit") => ("\x1b[33m", "\x1b[0m"),
        (true, _) => ("\x1b[32m", "\x1b[0m"),
    };
    let place = format!("{}/{proto}", endpoint(dst));
    let to = match host {
        None => place,
        Some((name, _)) if hook == Hook::Dns.word() => format!("{name} (question to {place})"),
        Some((name, _)) => format!("{name} {place}"),
    };
    let mut text = format!("{app} -> {to}");
    let facts: Vec<String> = host
        .filter(|(_, outer)| *outer)
        .map(|_| "outer name")
        .into_iter()
        .chain(country)
        .map(str::to_owned)
        .chain(asn.map(|asn| format!("AS{asn}")))
        .chain(owner.map(str::to_owned))
        .collect();
    if !facts.is_empty() {
        text += &format!(" ({})", facts.join(", "));
    }
    match (policy, rule) {
        (Some(policy), Some(rule)) => text += &format!(" by {policy}/{rule}"),
        (Some(policy), None) => text += &format!(" by the default of {policy}"),
        _ => {
            text += &format!(" ({reason})");
            if reason == Reason::ParseError.word() {
                text += &format!(": unreadable {}", unreadable(hook));
            }
        }
    }
    if policy.is_some() && reason == Reason::Ambiguous.word() {
        text += &format!(" ({reason})");
    }
    // A process calls itself what it likes.
    format!("{on}{verdict}{off} {}", printable(&text))
}

/// What could not be read at a hook.
fn unreadable(hook: &str) -> &'static str {
    match hook {
        _ if hook == Hook::Dns.word() => "DNS question",
        _ if hook == Hook::Tls.word() => "TLS hello",
        _ if hook == Hook::Http.word() => "HTTP request",
        _ => "packet",
    }
}

/// An address and its port as they are written in a URL.
fn endpoint(Endpoint { ip, port }: Endpoint) -> String {
    match port {
        None => ip.to_string(),
        Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        events::{App, Host, SCHEMA},
        policy::explain::{Finding, Geo},
    };

    fn event() -> Event {
        Event {
            schema: SCHEMA,
            seq: 1,
            time: String::new(),
            finding: Finding {
                verdict: "deny",
                mode: "enforce",
                reason: "rule",
                action: Some("drop"),
                policy: Some("baidu-tongji".to_owned()),
                rule: Some("tongji".to_owned()),
                evidence: Vec::new(),
            },
            hook: "connect",
            app: Arc::new(App { name: "curl".to_owned(), ..App::default() }),
            proto: "tcp".into(),
            src: None,
            dst: Endpoint { ip: [103, 235, 46, 191].into(), port: Some(443) },
            host: Some(Host {
                name: "hm.baidu.com".to_owned(),
                via: Some("dns"),
                confidence: Some("unique"),
                encrypted_hello: false,
                chain: vec!["hm.e.shifen.com".to_owned()],
            }),
            geo: Geo {
                country: Some("HK"),
                asn: Some(55967),
                organisation: Some("baidu".to_owned()),
                as_name: None,
            },
            count: 1,
            bytes_out: 0,
            bytes_in: 0,
        }
    }

    #[test]
    fn a_name_gives_the_terminal_no_orders() {
        let app = App { name: "a\x1b]0;b\x07\nfirewall: 0 denied".to_owned(), ..App::default() };
        let line = line(&Event { app: Arc::new(app), ..event() }, false);
        assert!(line.starts_with("deny a?]0;b??firewall: 0 denied -> "), "{line:?}");
    }

    #[test]
    fn lines() {
        let no_name = Event { host: None, ..event() };
        let question = Event {
            hook: "dns",
            proto: "udp".into(),
            dst: Endpoint { ip: [10, 0, 0, 1].into(), port: Some(53) },
            geo: Geo::default(),
            ..event()
        };
        let unreadable = Event {
            host: None,
            finding: Finding { reason: "parse-error", policy: None, rule: None, ..event().finding },
            ..question.clone()
        };
        let unreadable_hello = Event { hook: "tls", proto: "tcp".into(), ..unreadable.clone() };
        let hello = Event {
            hook: "tls",
            host: event().host.map(|host| Host { encrypted_hello: true, ..host }),
            ..event()
        };
        let nowhere = Event { geo: Geo::default(), ..hello.clone() };
        let differ = Finding { reason: "ambiguous", ..event().finding };
        let differ = Event { finding: differ, ..event() };
        let all =
            [event(), no_name, question, unreadable, unreadable_hello, hello, nowhere, differ]
                .map(|event| line(&event, false) + "\n")
                .concat();
        insta::assert_snapshot!(all, @r"
        deny curl -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
        deny curl -> 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji
        deny curl -> hm.baidu.com (question to 10.0.0.1:53/udp) by baidu-tongji/tongji
        deny curl -> 10.0.0.1:53/udp (parse-error): unreadable DNS question
        deny curl -> 10.0.0.1:53/tcp (parse-error): unreadable TLS hello
        deny curl -> hm.baidu.com 103.235.46.191:443/tcp (outer name, HK, AS55967, baidu) by baidu-tongji/tongji
        deny curl -> hm.baidu.com 103.235.46.191:443/tcp (outer name) by baidu-tongji/tongji
        deny curl -> hm.baidu.com 103.235.46.191:443/tcp (HK, AS55967, baidu) by baidu-tongji/tongji (ambiguous)
        ");
        assert!(line(&event(), true).starts_with("\x1b[1;31mdeny\x1b[0m curl -> "));
    }
}
