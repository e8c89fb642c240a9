//! The words of the language, each from its text: what it is, or what is wrong and what to write.
//!
//! Policies and the command line's SPEC read the same words by the same functions.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::super::diagnostic::quoted;
use super::super::domains::{Domain, DomainError};
use super::super::model::{Action, Default, Mode, Moment, Ports};
use super::nearest;
use crate::intel::country::Country;
use crate::intel::organisations::Organisations;

/// What is wrong with a word, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub message: String,
    pub hint: String,
}

pub(crate) fn complaint<T>(
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, Complaint> {
    Err(Complaint { message: message.into(), hint: hint.into() })
}

/// The name of a policy, a rule or a list.
pub(super) fn name(text: &str) -> Result<String, Complaint> {
    const LONGEST: usize = 64;
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    let starts = text.bytes().next().is_some_and(|b| inner(b) && !matches!(b, b'-' | b'_' | b'.'));
    if starts && text.bytes().all(inner) && text.len() <= LONGEST {
        return Ok(text.to_owned());
    }
    let form =
        "lower-case letters, digits, `-`, `_` and `.`, the first a letter or digit, at most 64";
    let tidy: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii() && inner(c as u8) { c } else { '-' })
        .take(LONGEST)
        .collect();
    let tidy = tidy.trim_matches(['-', '_', '.']);
    let hint = match tidy.is_empty() {
        true => form.to_owned(),
        false => format!("`{tidy}` would do: {form}"),
    };
    complaint(format!("{} is not a name", quoted(text)), hint)
}

/// `enforce` or `observe`.
pub(super) fn mode(text: &str) -> Result<Mode, Complaint> {
    let meant = match text {
        "enforce" => return Ok(Mode::Enforce),
        "observe" => return Ok(Mode::Observe),
        "audit" | "monitor" | "log" | "watch" | "dry-run" | "permissive" | "off" => Some("observe"),
        "enforcing" | "block" | "deny" | "drop" | "on" => Some("enforce"),
        _ => nearest(text, ["enforce", "observe"]),
    };
    complaint(format!("there is no mode {}", quoted(text)), one_of(meant, "`enforce` or `observe`"))
}

/// The end of a rule: the start of the machine by the kernel's number of it, and seconds since.
pub(super) fn moment(text: &str) -> Result<Moment, Complaint> {
    let found = text.split_once('+').and_then(|(boot, second)| {
        let parts: Vec<&str> = boot.split('-').collect();
        let is_boot = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
            && boot.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        let second = second.strip_suffix('s').filter(|n| decimal(n))?.parse().ok()?;
        is_boot.then(|| Moment { boot: boot.to_owned(), second })
    });
    found.map_or_else(
        || {
            complaint(
                format!("{} is not a moment of a start of this machine", quoted(text)),
                "`firewall allow SEQ --for 1h` writes one: /proc/sys/kernel/random/boot_id, `+`, \
                 and the second since that start, as `…+5400s`",
            )
        },
        Ok,
    )
}

/// `allow`, `log` or `drop`.
pub(super) fn action(text: &str) -> Result<Action, Complaint> {
    let meant = match text {
        "allow" => return Ok(Action::Allow),
        "log" => return Ok(Action::Log),
        "drop" => return Ok(Action::Drop),
        "audit" | "record" => Some("log"),
        _ => verdict_like(text).or_else(|| nearest(text, ["allow", "log", "drop"])),
    };
    complaint(
        format!("there is no action {}", quoted(text)),
        one_of(meant, "`allow`, `log` (allow and record) or `drop`"),
    )
}

/// `allow` or `drop`.
pub(crate) fn default(text: &str) -> Result<Default, Complaint> {
    let meant = match text {
        "allow" => return Ok(Default::Allow),
        "drop" => return Ok(Default::Drop),
        _ => verdict_like(text).or_else(|| nearest(text, ["allow", "drop"])),
    };
    complaint(format!("there is no default {}", quoted(text)), one_of(meant, "`allow` or `drop`"))
}

fn verdict_like(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "deny" | "block" | "reject" | "forbid" | "drop" => Some("drop"),
        "accept" | "pass" | "permit" | "allow" => Some("allow"),
        "log" => Some("log"),
        _ => None,
    }
}

pub(crate) fn one_of(meant: Option<&str>, all: &str) -> String {
    match meant {
        Some(meant) => format!("did you mean `{meant}`? It is one of {all}"),
        None => format!("write {all}"),
    }
}

/// A country by its code.
pub(super) fn country(text: &str) -> Result<Country, Complaint> {
    if let Some(country) = Country::from_code(text) {
        return Ok(country);
    }
    let form = "an ISO 3166-1 alpha-2 code in upper case";
    let hint = match short(text).and_then(Country::suggest) {
        Some(country) => format!("did you mean `{}`? It is {form}", country.code()),
        None => format!("write {form}, as `CN`"),
    };
    complaint(format!("there is no country {}", quoted(text)), hint)
}

/// An organisation by its name.
pub(super) fn organisation(text: &str, known: &Organisations) -> Result<String, Complaint> {
    if known.asns(text).is_some() {
        return Ok(text.to_owned());
    }
    let hint = match short(text).and_then(|text| known.suggest(text)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "an owner that has no name here can be given by AS number: `asns = [\"AS64500\"]`"
            .to_owned(),
    };
    complaint(format!("there is no organisation {}", quoted(text)), hint)
}

/// `AS37963`.
pub(super) fn asn(text: &str) -> Result<u32, Complaint> {
    let digits = text.strip_prefix("AS").filter(|digits| decimal(digits));
    match digits.map(str::parse::<u32>) {
        Some(Ok(number)) if number != 0 => return Ok(number),
        _ => {}
    }
    let bare = text.trim_start_matches(['A', 'a', 'S', 's', 'N', 'n', ' ', '-', ':']);
    let form = "an AS number is `AS1` to `AS4294967295`";
    if !decimal(bare) {
        return complaint(format!("{} is not an AS number", quoted(text)), form);
    }
    match bare.parse::<u32>() {
        Ok(0) => complaint("AS 0 is reserved: nobody announces addresses with it", form),
        Ok(number) => complaint(
            format!("{} is not an AS number", quoted(text)),
            format!("write `AS{number}`"),
        ),
        Err(_) => complaint(format!("{} is too large for an AS number", quoted(text)), form),
    }
}

/// A CIDR or a bare address.
pub(super) fn network(text: &str) -> Result<IpNet, Complaint> {
    let not = || format!("{} is not an address or a CIDR", quoted(text));
    let form = "write an address or a CIDR, as `192.0.2.7`, `192.0.2.0/24` or `2001:db8::/32`";
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let name = text.contains('.') && text.bytes().any(|b| b.is_ascii_alphabetic());
        let hint = match text.split_once('-').map(|(a, b)| (a.trim().parse(), b.trim().parse())) {
            _ if name && !text.contains(':') => {
                "a name is not a network; names belong under `domains`".to_owned()
            }
            Some((Ok(first), Ok(last))) => match range(first, last) {
                Some(net) => format!("a range is written as CIDRs: `{net}`"),
                None => "a range is written as CIDRs".to_owned(),
            },
            _ => form.to_owned(),
        };
        return complaint(not(), hint);
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let net = match length {
        None => IpNet::from(address),
        Some(length) if decimal(length) => {
            let Some(net) = length.parse().ok().and_then(|l| IpNet::new(address, l).ok()) else {
                return complaint(
                    format!("{} has a prefix that is too long", quoted(text)),
                    format!("the prefix of {family} is `/0` to `/{most}`"),
                );
            };
            net
        }
        Some(mask) => {
            let net = mask.parse().ok().and_then(|mask| IpNet::with_netmask(address, mask).ok());
            let hint = match net {
                Some(net) => format!("write the mask as a prefix: `{}`", net.trunc()),
                None => format!("the prefix of {family} is `/0` to `/{most}`"),
            };
            return complaint(not(), hint);
        }
    };
    if net.trunc() != net {
        return complaint(
            format!("{} has bits set behind its prefix", quoted(text)),
            format!("did you mean `{}`, or the one address `{}`?", net.trunc(), net.addr()),
        );
    }
    match mapped(&net) {
        Some(inner) => complaint(
            format!("{} is IPv4 in the form of IPv6, which is judged as IPv4", quoted(text)),
            format!("write `{inner}`"),
        ),
        None => Ok(net),
    }
}

/// The IPv4 network in an IPv4-mapped one.
fn mapped(net: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else { return None };
    let inner: Ipv4Addr = net.addr().to_ipv4_mapped()?;
    Ipv4Net::new(inner, net.prefix_len().checked_sub(96)?).ok()
}

/// The one CIDR from `first` to `last`, if one is enough.
fn range(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let most = if first.is_ipv4() { 32 } else { 128 };
    (0..=most)
        .filter_map(|length| IpNet::new(first, length).ok())
        .find(|net| net.network() == first && net.broadcast() == last)
}

const PROTOCOLS: &[(&str, u8, bool)] = &[
    ("tcp", 6, true),
    ("udp", 17, true),
    ("udplite", 136, true),
    ("sctp", 132, true),
    ("icmp", 1, false),
    ("icmpv6", 58, false),
];

/// `tcp/443`, `tcp/8000-8999`, `tcp`, `icmp`, `proto/47`.
pub(super) fn ports(text: &str) -> Result<Ports, Complaint> {
    let form = "write a protocol and its ports, as `tcp/443`, `udp/8000-8999`, `tcp` or `icmp`";
    let (word, rest) = match text.split_once('/') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text, None),
    };
    if word == "proto" {
        return match rest.filter(|r| decimal(r)).map(str::parse::<u8>) {
            Some(Ok(protocol)) => Ok(Ports { protocol, ports: 0..=u16::MAX }),
            _ => complaint(
                format!("{} names no protocol", quoted(text)),
                "a protocol by number is `proto/0` to `proto/255`, as `proto/47` for GRE",
            ),
        };
    }
    let Some((_, protocol, has_ports)) = PROTOCOLS.iter().find(|(name, _, _)| *name == word) else {
        return complaint(format!("{} is not a port", quoted(text)), other_port(word, rest, form));
    };
    let Some(rest) = rest else {
        return Ok(Ports { protocol: *protocol, ports: 0..=u16::MAX });
    };
    if !has_ports {
        return complaint(format!("`{word}` has no ports"), format!("write `{word}` alone"));
    }
    let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
    if !decimal(first) || !decimal(last) {
        return complaint(format!("{} is not a port", quoted(text)), form);
    }
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => {
            Ok(Ports { protocol: *protocol, ports: first..=last })
        }
        (Ok(first), Ok(last)) => complaint(
            format!("{} runs backwards", quoted(text)),
            format!("did you mean `{word}/{last}-{first}`?"),
        ),
        _ => complaint(format!("{} is past the last port", quoted(text)), "ports end at 65535"),
    }
}

/// What somebody meant who wrote a port of no protocol.
fn other_port(word: &str, rest: Option<&str>, form: &str) -> String {
    let numbers = word.split('-').all(decimal);
    match (rest, word.to_ascii_lowercase().as_str()) {
        (None, _) if numbers => format!("did you mean `tcp/{word}`?"),
        (Some(protocol), _) if numbers && PROTOCOLS.iter().any(|(name, ..)| *name == protocol) => {
            format!("did you mean `{protocol}/{word}`?")
        }
        (None, "http") => "did you mean `tcp/80`?".to_owned(),
        (None, "https") => "did you mean `tcp/443`? QUIC is `udp/443`".to_owned(),
        (None, "quic") => "did you mean `udp/443`?".to_owned(),
        (None, "dns") => "did you mean `udp/53` and `tcp/53`?".to_owned(),
        (_, "ping" | "icmp4" | "icmpv4") => "did you mean `icmp`?".to_owned(),
        (_, "icmp6" | "ping6") => "did you mean `icmpv6`?".to_owned(),
        (_, "gre") => "did you mean `proto/47`?".to_owned(),
        (_, "esp") => "did you mean `proto/50`?".to_owned(),
        (_, "igmp") => "did you mean `proto/2`?".to_owned(),
        (_, lower) => match (nearest(lower, PROTOCOLS.iter().map(|(name, ..)| *name)), rest) {
            (Some(protocol), Some(rest)) if !rest.is_empty() && rest.len() < 12 => {
                format!("did you mean `{protocol}/{rest}`?")
            }
            (Some(protocol), _) => format!("did you mean `{protocol}`?"),
            (None, _) => format!("{form}; any other protocol is `proto/` and its number"),
        },
    }
}

/// `baidu.com`, `=hm.baidu.com` or `*.baidu.com`.
pub(super) fn domain(text: &str) -> Result<Domain, Complaint> {
    Domain::parse(text).map_err(|DomainError { message, hint }| Complaint { message, hint })
}

/// `text` if it is short enough to be worth a guess at what was meant: guessing compares it with
/// every name there is.
fn short(text: &str) -> Option<&str> {
    (text.len() <= 64).then_some(text)
}

/// Digits and nothing else: the standard parsers would take a `+` as well.
pub(super) fn decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
