//! Whom the firewall asks for addresses, as it stands in `firewall.toml`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::policy::{diagnostic::quoted, domains};

/// The port of DNS.
pub const DNS: u16 = 53;
/// The port of DNS over TLS (RFC 7858).
const DNS_OVER_TLS: u16 = 853;
/// The port of HTTPS.
const HTTPS: u16 = 443;
/// Where DNS over HTTPS is as a rule (RFC 8484 has it in its examples).
const PATH: &str = "/dns-query";

/// A resolver, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// By what.
    pub transport: Transport,
}

/// What questions go over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, and TCP where an answer does not fit.
    Plain,
    /// TLS.
    Tls {
        /// Whose certificate it has to have: a name or an address.
        name: String,
    },
    /// HTTPS.
    Https {
        /// As of TLS.
        name: String,
        /// What is asked for.
        path: String,
    },
}

/// Why a text is no upstream, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongUpstream {
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// The forms of an upstream.
pub const FORMS: &str = "write `system`, `10.0.0.1`, `10.0.0.1:5353`, \
    `tls://9.9.9.9#dns.quad9.net` or `https://dns.quad9.net/dns-query#9.9.9.9`";

impl Upstream {
    /// A resolver that is asked by plain DNS.
    pub const fn plain(address: SocketAddr) -> Self {
        Self { address, transport: Transport::Plain }
    }

    /// Whether its answers can support an allow by name: a resolver of the setting is the same one
    /// by whatever it is asked.
    pub fn is_trusted(&self, resolvers: &[(IpAddr, u16)]) -> bool {
        let plain = self.transport == Transport::Plain;
        resolvers
            .iter()
            .any(|(ip, port)| *ip == self.address.ip() && (!plain || *port == self.address.port()))
    }
}

impl FromStr for Upstream {
    type Err = WrongUpstream;

    /// Reads `ADDRESS[:PORT]`, `tls://HOST[:PORT]#OTHER` or `https://HOST[:PORT][/PATH]#OTHER`. Of
    /// HOST and OTHER one is the address and one the name in the certificate: systemd-resolved and
    /// unbound write the address first, NextDNS the name. Without OTHER the certificate has to be
    /// for the address.
    fn from_str(text: &str) -> Result<Self, WrongUpstream> {
        let wrong = |what: &str| WrongUpstream {
            message: format!("{} {what}", quoted(text)),
            hint: FORMS.to_owned(),
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            let address =
                socket(text, DNS).ok_or_else(|| wrong("is not the address of a resolver"))?;
            return Ok(Self::plain(address));
        };
        let (rest, other) = match rest.split_once('#') {
            Some((rest, other)) => (rest, Some(other)),
            None => (rest, None),
        };
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = match scheme {
            "tls" => DNS_OVER_TLS,
            "https" => HTTPS,
            _ => return Err(wrong("has a scheme that is not spoken here")),
        };
        if path.contains('?') || path.contains('{') {
            return Err(wrong("has a query, and questions are sent in the body"));
        }
        if scheme == "tls" && !path.is_empty() {
            return Err(wrong("has a path, which DNS over TLS knows nothing of"));
        }
        let (host, port) = host(place, port).ok_or_else(|| wrong("has no host that is one"))?;
        let other = match other.map(|text| (text, self::host(text, 0))) {
            None => None,
            Some((_, Some((other, 0)))) => Some(other),
            Some(_) => return Err(wrong("has neither an address nor a name behind `#`")),
        };
        let (ip, name) = match (host, other) {
            (Host::Address(ip), Some(Host::Name(name)))
            | (Host::Name(name), Some(Host::Address(ip))) => (ip, name),
            (Host::Address(ip), None) if scheme == "tls" || ip.is_ipv4() => (ip, ip.to_string()),
            // A library that cannot write such an address into a request.
            (Host::Address(_), None) => return Err(wrong("needs the name in the certificate")),
            (Host::Name(_), None) => {
                return Err(wrong("has a name and no address, which stands behind `#`"));
            }
            (Host::Address(_), Some(_)) => return Err(wrong("has two addresses and no name")),
            (Host::Name(_), Some(_)) => return Err(wrong("has two names and no address")),
        };
        let transport = match scheme {
            "tls" => Transport::Tls { name },
            _ => Transport::Https {
                name,
                path: if path.is_empty() { PATH } else { path }.to_owned(),
            },
        };
        Ok(Self { address: SocketAddr::new(ip, port), transport })
    }
}

/// As it can stand in `firewall.toml`.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, transport } = self;
        let name = match transport {
            Transport::Plain => return address.fmt(f),
            Transport::Tls { name } => {
                write!(f, "tls://{address}")?;
                name
            }
            Transport::Https { name, path } => {
                write!(f, "https://{address}{path}")?;
                name
            }
        };
        if *name == address.ip().to_string() { Ok(()) } else { write!(f, "#{name}") }
    }
}

/// An address with a port, or with the usual one.
pub fn socket(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => Some(SocketAddr::new(ip, port)),
        (_, Ok(socket)) if socket.port() != 0 => Some(socket),
        _ => None,
    }
}

enum Host {
    Address(IpAddr),
    Name(String),
}

/// An address or a name with a port, or with the usual one.
fn host(text: &str, port: u16) -> Option<(Host, u16)> {
    if let Some(address) = socket(text, port) {
        return Some((Host::Address(address.ip()), address.port()));
    }
    let (text, port) = match text.split_once(':') {
        Some((text, port)) => (text, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, port),
    };
    let mut name = String::new();
    domains::normalise(text, &mut name).ok()?;
    Some((Host::Name(name), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5353", "10.0.0.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]:5353", "[::1]:5353"),
            ("tls://9.9.9.9", "tls://9.9.9.9:853"),
            ("tls://9.9.9.9#dns.quad9.net", "tls://9.9.9.9:853#dns.quad9.net"),
            ("tls://Dns.Quad9.net.#9.9.9.9", "tls://9.9.9.9:853#dns.quad9.net"),
            ("tls://[2620:fe::fe]:8853#dns.quad9.net", "tls://[2620:fe::fe]:8853#dns.quad9.net"),
            ("tls://2620:fe::fe", "tls://[2620:fe::fe]:853"),
            ("https://dns.example#10.0.0.1", "https://10.0.0.1:443/dns-query#dns.example"),
            ("https://dns.example:8443/x/y#::1", "https://[::1]:8443/x/y#dns.example"),
            ("https://9.9.9.9/dns-query", "https://9.9.9.9:443/dns-query"),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.to_string(), shown);
            assert_eq!(shown.parse(), Ok(upstream), "what is shown is read again");
        }
        for (text, says) in [
            ("", "is not the address of a resolver"),
            ("dns.example", "is not the address of a resolver"),
            ("10.0.0.1:0", "is not the address of a resolver"),
            ("quic://9.9.9.9", "a scheme that is not spoken here"),
            ("https://dns.example/dns-query", "a name and no address"),
            ("https://dns.example/dns-query{?dns}#10.0.0.1", "has a query"),
            ("https://[2620:fe::fe]/dns-query", "needs the name in the certificate"),
            ("tls://9.9.9.9/dns-query#dns.quad9.net", "has a path"),
            ("tls://9.9.9.9#9.9.9.10", "two addresses"),
            ("tls://a.example#b.example", "two names"),
            ("tls://9.9.9.9#", "neither an address nor a name behind `#`"),
            ("tls://9.9.9.9#dns.quad9.net:853", "neither an address nor a name behind `#`"),
            ("tls://:853#9.9.9.9", "has no host"),
            ("tls://a.example:0#9.9.9.9", "has no host"),
        ] {
            let wrong = text.parse::<Upstream>().unwrap_err();
            assert!(wrong.message.contains(says), "{text}: {}", wrong.message);
            assert_eq!(wrong.hint, FORMS);
        }
    }

    #[test]
    fn a_resolver_is_trusted_by_whatever_it_is_asked() {
        let trusted = |text: &str| {
            let upstream: Upstream = text.parse().unwrap();
            upstream.is_trusted(&[([10, 0, 0, 1].into(), 53), ([10, 0, 0, 2].into(), 5353)])
        };
        for text in ["10.0.0.1", "10.0.0.2:5353", "tls://10.0.0.1", "https://x.example#10.0.0.2"] {
            assert!(trusted(text), "{text}");
        }
        for text in ["10.0.0.1:5353", "10.0.0.2", "10.0.0.3", "tls://10.0.0.3#x.example"] {
            assert!(!trusted(text), "{text}");
        }
    }
}
