//! A verdict in one line, for people.

use std::net::SocketAddr;

use firewall_common::verdict::{Hook, Reason};

use crate::{
    events::{CLOSE, View},
    policy::diagnostic::printable,
};

/// What stands behind the line: how often, or what the flow has moved.
pub fn tail(event: &View<'_>) -> String {
    match event.count {
        0 => format!(" ({} bytes out, {} in)", event.bytes_out, event.bytes_in),
        1 => String::new(),
        times => format!(" ({times} times)"),
    }
}

/// The line, without how often and when.
pub fn line(event: &View<'_>, colour: bool) -> String {
    let (on, off) = colours(colour, event.verdict);
    // A process calls itself what it likes, and a log can be written by somebody else.
    let end = if event.hook == CLOSE { "end of " } else { "" };
    format!("{end}{on}{}{off} {}", printable(event.verdict), printable(&rest(event)))
}

/// What turns the colour of a verdict on and off.
pub fn colours(colour: bool, verdict: &str) -> (&'static str, &'static str) {
    match verdict {
        "deny" if colour => ("\x1b[1;31m", "\x1b[0m"),
        "audit" if colour => ("\x1b[33m", "\x1b[0m"),
        "allow" if colour => ("\x1b[32m", "\x1b[0m"),
        _ => ("", ""),
    }
}

fn rest(event: &View<'_>) -> String {
    let place = match event.port {
        None => format!("{}/{}", event.ip, event.proto),
        Some(port) => format!("{}/{}", SocketAddr::new(event.ip, port), event.proto),
    };
    let to = match event.host {
        None => place,
        Some(host) if event.hook == Hook::Dns.word() => format!("{host} (question to {place})"),
        Some(host) => format!("{host} {place}"),
    };
    let mut text = format!("{} -> {to}", event.app.name);
    let owner = event.organisation.or(event.as_name);
    let facts: Vec<String> = event
        .encrypted_hello
        .then_some("outer name")
        .into_iter()
        .chain(event.country)
        .map(str::to_owned)
        .chain(event.asn.map(|asn| format!("AS{asn}")))
        .chain(owner.map(str::to_owned))
        .collect();
    if !facts.is_empty() {
        text += &format!(" ({})", facts.join(", "));
    }
    match (event.policy, event.rule) {
        (Some(policy), Some(rule)) => text += &format!(" by {policy}/{rule}"),
        (Some(policy), None) => text += &format!(" by the default of {policy}"),
        _ => {
            text += &format!(" ({})", event.reason);
            if event.reason == Reason::ParseError.word() {
                text += &format!(": unreadable {}", unreadable(event.hook));
            }
        }
    }
    if event.policy.is_some() && event.reason == Reason::Ambiguous.word() {
        text += &format!(" ({})", event.reason);
    }
    text
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
