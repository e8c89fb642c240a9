//! `firewall explain`: what would happen to a connection. Needs no privileges.

use std::{
    borrow::Cow,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use firewall_common::{
    evaluate::Named,
    flow::{Destination, ICMP, ICMPV6, TCP, UDP, UDPLITE, has_ports},
    verdict::Verdict,
};
use serde::Serialize;

use super::set;
use crate::{
    events::{Endpoint, protocol_number, protocol_word},
    policy::explain::{Explainer, Finding, Geo, RunnerUp},
};

/// Says what would happen to a connection, by which rule and on what evidence.
///
/// Needs no privileges: the policies are compiled as for the kernel and asked here.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    set: set::PolicySet,
    /// Print one JSON object, with the keys of a verdict event
    #[arg(long)]
    json: bool,
    /// Exit with 1 if the verdict is deny
    #[arg(long)]
    exit_code: bool,
    /// Where to: an address, with a port (default 443) and a protocol (default tcp):
    /// 1.2.3.4, 1.2.3.4:80, 1.2.3.4:53/udp, [2400:3200::1]:443, 1.2.3.4/icmp
    #[arg(value_name = "DEST[:PORT[/PROTO]]")]
    destination: String,
}

/// The port of a connection that none is named for.
const DEFAULT_PORT: u16 = 443;

/// What would happen. The keys are those of a verdict event.
#[derive(Debug, Serialize)]
struct Explanation {
    schema: u32,
    #[serde(flatten)]
    finding: Finding,
    hook: &'static str,
    proto: Cow<'static, str>,
    dst: Endpoint,
    #[serde(skip_serializing_if = "Geo::is_empty")]
    geo: Geo,
    /// What policies that only observe would have done besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    observed: Vec<Finding>,
    runners_up: Vec<RunnerUp>,
}

/// Runs `firewall explain`.
///
/// # Errors
/// The tables cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let destination = match parse(&args.destination) {
        Ok(destination) => destination,
        Err(message) => {
            eprintln!("error: {message}");
            return Ok(ExitCode::from(super::USAGE));
        }
    };
    let set = match args.set.load() {
        Ok(set) => set,
        Err(failure) => {
            eprintln!("{failure}");
            return Ok(ExitCode::from(match failure {
                set::Failure::Usage(_) => super::USAGE,
                set::Failure::Invalid(_) | set::Failure::Other(_) => 1,
            }));
        }
    };
    let explainer = Explainer { generation: &set.generation, intel: &set.intel };
    let explanation = explain(&explainer, &destination)?;
    let denied = explanation.finding.verdict == Verdict::Deny.word();
    let text =
        if args.json { serde_json::to_string(&explanation)? + "\n" } else { human(&explanation) };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if args.exit_code && denied { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn explain(explainer: &Explainer<'_>, destination: &Destination) -> anyhow::Result<Explanation> {
    let outcome = explainer
        .generation
        .evaluate(destination, &Named::default())
        .map_err(|fault| anyhow::anyhow!("the compiled policies have no answer: {fault:?}"))?;
    let decision = explainer
        .generation
        .decision(outcome.decision)
        .ok_or_else(|| anyhow::anyhow!("there is no decision {}", outcome.decision))?;
    let mut findings = explainer.findings::<&str>(decision, Some(destination), &[])?;
    let finding = findings.pop().ok_or_else(|| anyhow::anyhow!("a decision without a finding"))?;
    Ok(Explanation {
        schema: crate::events::SCHEMA,
        finding,
        hook: hook(destination.protocol),
        proto: protocol_word(destination.protocol),
        dst: Endpoint {
            ip: destination.address.into(),
            port: has_ports(destination.protocol).then_some(destination.port),
        },
        geo: explainer.geo(destination.address)?,
        observed: findings,
        runners_up: explainer.runners_up::<&str>(decision, Some(destination), &[])?,
    })
}

/// Where such a flow is decided first: only TCP and UDP have a hook before the packet.
const fn hook(protocol: u8) -> &'static str {
    if matches!(protocol, TCP | UDP | UDPLITE) { "connect" } else { "packet" }
}

/// Reads `DEST[:PORT[/PROTO]]`.
fn parse(text: &str) -> Result<Destination, String> {
    let (place, protocol) = match text.rsplit_once('/') {
        Some((place, word)) => (place, Some(word)),
        None => (text, None),
    };
    let protocol = match protocol {
        None => TCP,
        Some(word) => protocol_number(word).ok_or_else(|| {
            format!(
                "`{word}` is not a protocol\n\n\
                 hint: tcp, udp, udplite, sctp, icmp, icmpv6 or a number, as in 1.2.3.4:53/udp"
            )
        })?,
    };
    let bare = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(place);
    let (ip, port) = match (bare.parse::<IpAddr>(), place.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, None),
        (Err(_), Ok(socket)) => (socket.ip(), Some(socket.port())),
        (Err(_), Err(_)) => return Err(complaint(place)),
    };
    if port.is_some() && !has_ports(protocol) {
        return Err(format!(
            "{} has no ports\n\nhint: write `{ip}/{}`",
            protocol_word(protocol),
            protocol_word(protocol)
        ));
    }
    // The family says which of the two is meant.
    let protocol = match (protocol, ip) {
        (ICMP, IpAddr::V6(_)) => ICMPV6,
        (other, _) => other,
    };
    let port = if has_ports(protocol) { port.unwrap_or(DEFAULT_PORT) } else { 0 };
    let address = firewall_common::flow::Address::from(ip).destination();
    Ok(Destination { address, port, protocol, port_hidden: 0 })
}

fn complaint(place: &str) -> String {
    let name = place.rsplit_once(':').map_or(place, |(host, _)| host);
    let looks_like_name = name.contains('.')
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if looks_like_name {
        format!(
            "this version cannot judge names yet, only addresses: `{name}`\n\n\
             hint: look it up first, and explain each address"
        )
    } else {
        format!(
            "`{place}` is not an address, or its port is not one\n\n\
             hint: 1.2.3.4, 1.2.3.4:80, 1.2.3.4:53/udp, [2400:3200::1]:443 or 2400:3200::1"
        )
    }
}

fn human(explanation: &Explanation) -> String {
    let Explanation { finding, dst, geo, proto, .. } = explanation;
    let place = match dst.port {
        Some(port) => SocketAddr::new(dst.ip, port).to_string(),
        None => dst.ip.to_string(),
    };
    let mut text = format!("{} {place}/{proto}\n", finding.verdict);
    let mut row = |name: &str, value: String| text += &format!("  {name:<10} {value}\n");
    row("because", because(finding));
    if !finding.evidence.is_empty() {
        row("evidence", finding.evidence.join(", "));
    }
    if let Some(country) = geo.country {
        row("country", country.to_owned());
    }
    if let Some(asn) = geo.asn {
        let owner = geo.as_name.clone().unwrap_or_default();
        let organisation =
            geo.organisation.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        row("owner", format!("AS{asn} {owner}{organisation}"));
    }
    for observed in &explanation.observed {
        row("observed", because(observed));
    }
    for RunnerUp { policy, rule, action, mode, evidence } in &explanation.runners_up {
        row("then", format!("{action} by {policy}/{rule} ({mode}): {}", evidence.join(", ")));
    }
    text
}

fn because(finding: &Finding) -> String {
    let action = finding.action.unwrap_or("nothing");
    match (&finding.policy, &finding.rule) {
        (Some(policy), Some(rule)) => {
            format!("rule `{rule}` of policy `{policy}` ({}) says {action}", finding.mode)
        }
        (Some(policy), None) => format!("no rule matches; policy `{policy}` says {action}"),
        _ => format!("no rule matches; the default is {action}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let parsed = |text: &str| {
            parse(text).map(|d| (IpAddr::from(d.address).to_string(), d.port, d.protocol))
        };
        let of = |ip: &str, port, protocol| Ok((ip.to_owned(), port, protocol));
        assert_eq!(parsed("1.2.3.4"), of("1.2.3.4", 443, 6));
        assert_eq!(parsed("1.2.3.4:80"), of("1.2.3.4", 80, 6));
        assert_eq!(parsed("1.2.3.4:53/udp"), of("1.2.3.4", 53, 17));
        assert_eq!(parsed("1.2.3.4/icmp"), of("1.2.3.4", 0, 1));
        assert_eq!(parsed("2400:3200::1/icmp"), of("2400:3200::1", 0, 58));
        assert_eq!(parsed("2400:3200::1"), of("2400:3200::1", 443, 6));
        assert_eq!(parsed("[2400:3200::1]"), of("2400:3200::1", 443, 6));
        assert_eq!(parsed("[2400:3200::1]:80"), of("2400:3200::1", 80, 6));
        assert_eq!(parsed("::ffff:1.2.3.4"), of("1.2.3.4", 443, 6));
        assert_eq!(parsed("0.0.0.0:80"), of("127.0.0.1", 80, 6));
        assert_eq!(parsed("1.2.3.4/47"), of("1.2.3.4", 0, 47));
        for (text, says) in [
            ("1.2.3.4:70000", "port is not one"),
            ("1.2.3.4:80/tcpp", "not a protocol"),
            ("1.2.3.4:80/icmp", "has no ports"),
            ("chat.deepseek.com:443", "cannot judge names yet"),
            ("", "is not an address"),
        ] {
            assert!(parse(text).unwrap_err().contains(says), "{text}");
        }
    }
}
