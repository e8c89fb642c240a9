//! What would happen to a connection or to the question for a name: what is asked, and the answer.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use firewall_common::flow::{Destination, ICMP, ICMPV6, TCP, UDP, UDPLITE, has_ports};
use serde::Serialize;

use crate::{
    api::dto,
    events::{Endpoint, Host, protocol_number, protocol_word},
    policy::{
        self, AppFacts, domains,
        explain::{self, Explainer, Finding, Geo, RunnerUp},
        source::Disk,
    },
    set::Set,
};

/// The port of a connection that none is named for.
const DEFAULT_PORT: u16 = 443;

/// What is asked about.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A connection to an address, which is known by names. Of each, whether a trusted resolver told
    /// it.
    Connection(Destination, Vec<(String, bool)>),
    /// The question for a name.
    Question(Question),
}

/// A name, and what stood behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In the form in which names are compared.
    pub name: String,
    /// As it was written.
    pub rest: String,
    /// Its port, where one was written.
    pub port: Option<u16>,
    /// As in IP headers.
    pub protocol: u8,
}

/// What would happen. The keys are those of a verdict event.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// [`crate::events::SCHEMA`]
    pub schema: u32,
    /// What decides.
    #[serde(flatten)]
    pub finding: Finding,
    /// Where it is decided first.
    pub hook: &'static str,
    /// By its word, or as in IP headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Cow<'static, str>>,
    /// Where to; a question goes nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Endpoint>,
    /// By what names that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Where that is, and whose.
    #[serde(skip_serializing_if = "Geo::is_empty")]
    pub geo: Geo,
    /// What policies that only observe would have done besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Finding>,
    /// What else would have decided.
    pub runners_up: Vec<RunnerUp>,
}

/// The answer to a request, as `firewall explain --json` prints it.
///
/// # Errors
///
/// What is wrong with the question, with a hint, or the tables cannot be read.
pub fn answer(set: &Set, question: &dto::Question) -> Result<serde_json::Value, String> {
    let asked = asked(&question.destination, &question.name)?;
    let app = app(&question.app)?;
    let explainer = Explainer { generation: &set.generation, intel: &set.intel };
    explain(&explainer, &asked, &app)
        .and_then(|explanation| Ok(serde_json::to_value(&explanation)?))
        .map_err(|error| error.to_string())
}

/// What the policies say of it, and why.
///
/// # Errors
///
/// The tables cannot be read.
pub fn explain(
    explainer: &Explainer<'_>,
    asked: &Asked,
    app: &AppFacts,
) -> anyhow::Result<Explanation> {
    let generation = explainer.generation;
    let class = generation.class_of_app(app);
    let (destination, names, outcome) = match asked {
        Asked::Connection(destination, names) => {
            let told = names.iter().map(|(name, trusted)| (name.as_str(), *trusted));
            let outcome = generation.evaluate(class, destination, &generation.named_by(told));
            (Some(destination), names.iter().map(|(name, _)| name.as_str()).collect(), outcome)
        }
        Asked::Question(Question { name, .. }) => {
            (None, vec![name.as_str()], generation.question(class, name))
        }
    };
    let outcome = outcome
        .map_err(|fault| anyhow::anyhow!("the compiled policies have no answer: {fault:?}"))?;
    let decision = generation
        .decision(outcome.decision)
        .ok_or_else(|| anyhow::anyhow!("there is no decision {}", outcome.decision))?;
    let to = destination;
    let mut findings = explainer.findings(decision, to, &names, app)?;
    let finding = findings.pop().ok_or_else(|| anyhow::anyhow!("a decision without a finding"))?;
    let runners_up = explainer.runners_up(decision, to, &names, app)?;
    let mut names = names.into_iter().map(str::to_owned);
    Ok(Explanation {
        schema: crate::events::SCHEMA,
        finding,
        hook: to.map_or("dns", |to| hook(to.protocol)),
        proto: to.map(|to| protocol_word(to.protocol)),
        dst: to.map(|to| Endpoint {
            ip: to.address.into(),
            port: has_ports(to.protocol).then_some(to.port),
        }),
        host: names.next().map(|name| Host {
            name,
            via: None,
            confidence: None,
            encrypted_hello: false,
            chain: names.collect(),
        }),
        geo: to
            .map(|to| explain::geo(explainer.intel, to.address))
            .transpose()?
            .unwrap_or_default(),
        observed: findings,
        runners_up,
    })
}

/// Reads what is asked, with the names of an address.
///
/// # Errors
///
/// What is wrong with it, with a hint.
pub fn asked(destination: &str, names: &[String]) -> Result<Asked, String> {
    let asked = parse(destination)?;
    match asked {
        Asked::Question(..) if !names.is_empty() => {
            Err("--name says by what an address is known, so it needs one\n\n\
             hint: firewall explain 192.0.2.7 --name example.org"
                .to_owned())
        }
        Asked::Question(..) => Ok(asked),
        Asked::Connection(destination, _) => {
            let told = |name: &String| Ok((normal(name)?, true));
            let names = names.iter().map(told).collect::<Result<_, String>>()?;
            Ok(Asked::Connection(destination, names))
        }
    }
}

/// The app that is judged.
///
/// # Errors
///
/// Which selector is wrong, or does not go with another.
pub fn app(apps: &[String]) -> Result<AppFacts, String> {
    let mut selectors = Vec::with_capacity(apps.len());
    for text in apps {
        let selector = policy::parse_selector(text, &Disk);
        selectors.push(selector.map_err(|error| format!("--app {text}: {error}"))?);
    }
    AppFacts::of(&selectors)
}

/// A name in the form in which names are compared.
fn normal(text: &str) -> Result<String, String> {
    let mut name = String::new();
    match domains::normalise(text, &mut name) {
        Ok(()) => Ok(name),
        Err(_) => Err(format!("`{text}` is not a name\n\nhint: example.org")),
    }
}

/// Where such a flow is decided first: only TCP and UDP have a hook before the packet.
pub const fn hook(protocol: u8) -> &'static str {
    if matches!(protocol, TCP | UDP | UDPLITE) { "connect" } else { "packet" }
}

/// Reads `DEST[:PORT[/PROTO]]`.
fn parse(text: &str) -> Result<Asked, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(url(text, scheme, rest));
    }
    let (place, protocol) = match text.rsplit_once('/') {
        Some((place, word)) => (place, Some(word)),
        None => (text, None),
    };
    let protocol = match protocol {
        None => TCP,
        Some(word) => protocol_number(word).ok_or_else(|| {
            if word.is_empty() || place.contains('/') {
                return url(text, "", text);
            }
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
        (Err(_), Err(_)) => return question(text, place, protocol),
    };
    if port.is_some() && !has_ports(protocol) {
        return Err(no_ports(&ip.to_string(), protocol));
    }
    Ok(Asked::Connection(destination(ip, port, protocol), Vec::new()))
}

/// Where a connection goes.
pub fn destination(ip: IpAddr, port: Option<u16>, protocol: u8) -> Destination {
    // The family says which of the two is meant.
    let protocol = match (protocol, ip) {
        (ICMP, IpAddr::V6(_)) => ICMPV6,
        (other, _) => other,
    };
    let port = if has_ports(protocol) { port.unwrap_or(DEFAULT_PORT) } else { 0 };
    let address = firewall_common::flow::Address::from(ip).destination();
    Destination { address, port, protocol, port_hidden: 0 }
}

fn no_ports(host: &str, protocol: u8) -> String {
    let word = protocol_word(protocol);
    format!("{word} has no ports\n\nhint: write `{host}/{word}`")
}

/// What to ask of a URL.
fn url(text: &str, scheme: &str, rest: &str) -> String {
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let destination = match parse(place) {
        Err(_) => "example.org".to_owned(),
        Ok(Asked::Question(question)) => question.name,
        Ok(Asked::Connection(..)) => {
            let bare = place.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
            let port = if bare && scheme.eq_ignore_ascii_case("http") { ":80" } else { "" };
            format!("{place}{port}")
        }
    };
    format!("`{text}` is a URL\n\nhint: firewall explain {destination}")
}

/// A name, perhaps with a port and a protocol.
fn question(text: &str, place: &str, protocol: u8) -> Result<Asked, String> {
    let (name, port) = match place.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse::<u16>())),
        None => (place, None),
    };
    match (normal(name), port.transpose()) {
        (Ok(name), Ok(Some(_))) if !has_ports(protocol) => Err(no_ports(&name, protocol)),
        (Ok(normal), Ok(port)) => Ok(Asked::Question(Question {
            name: normal,
            rest: text[name.len()..].to_owned(),
            port,
            protocol,
        })),
        _ => Err(format!(
            "`{place}` is neither an address nor a name, or its port is not one\n\n\
             hint: 1.2.3.4, 1.2.3.4:80, 1.2.3.4:53/udp, [2400:3200::1]:443, 2400:3200::1 or \
             example.org"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let parsed = |text: &str| match parse(text) {
            Ok(Asked::Connection(to, _)) => {
                Ok((IpAddr::from(to.address).to_string(), to.port, to.protocol))
            }
            Ok(Asked::Question(Question { name, .. })) => Ok((name, 0, 0)),
            Err(message) => Err(message),
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
        for text in ["Chat.DeepSeek.com", "chat.deepseek.com.", "chat.deepseek.com:443/udp"] {
            assert_eq!(parsed(text), of("chat.deepseek.com", 0, 0));
        }
        assert_eq!(
            parse("chat.deepseek.com:443/udp"),
            Ok(Asked::Question(Question {
                name: "chat.deepseek.com".to_owned(),
                rest: ":443/udp".to_owned(),
                port: Some(443),
                protocol: UDP,
            }))
        );
        for (text, says) in [
            ("http://hm.baidu.com/", "is a URL\n\nhint: firewall explain hm.baidu.com"),
            ("https://a@hm.baidu.com:8443/x?y#z", "hint: firewall explain hm.baidu.com"),
            ("http://1.2.3.4/x", "hint: firewall explain 1.2.3.4:80"),
            ("http://[2400:3200::1]/x", "hint: firewall explain [2400:3200::1]:80"),
            ("https://1.2.3.4:8443", "hint: firewall explain 1.2.3.4:8443"),
            ("hm.baidu.com/", "is a URL\n\nhint: firewall explain hm.baidu.com"),
            ("hm.baidu.com/a/b.js", "is a URL\n\nhint: firewall explain hm.baidu.com"),
            ("http:///", "hint: firewall explain example.org"),
            ("chat.deepseek.com:80/icmp", "hint: write `chat.deepseek.com/icmp`"),
            ("1.2.3.4:70000", "port is not one"),
            ("1.2.3.4:80/tcpp", "not a protocol"),
            ("1.2.3.4:80/icmp", "has no ports"),
            ("chat.deepseek.com:70000", "its port is not one"),
            ("a b.com", "neither an address nor a name"),
            ("", "neither an address nor a name"),
        ] {
            assert!(parse(text).unwrap_err().contains(says), "{text}");
        }
    }
}
