//! `firewall.toml`: how verdicts are carried out. What they are is in the policies.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use firewall_common::{layout::RESOLVERS, name_table::Keys};
use serde::Deserialize;

use crate::policy::{
    Default as Standard,
    compile::{Inbound, OnDeny, Settings},
};

/// Where the configuration of this machine is.
pub const CONFIG: &str = "/etc/firewall/firewall.toml";

/// Where the system's resolvers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The two addresses of systemd-resolved's stub (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// The port of DNS.
const DNS: u16 = 53;

/// The keys of `firewall.toml`. A key that is not here is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What no rule and no policy's default decides: `allow` (default) or `drop`.
    pub default: Option<Passage>,
    /// How a denied `connect` or `sendto` fails: `refuse` (default, ECONNREFUSED),
    /// `unreachable` (EHOSTUNREACH) or `blackhole` (EINVAL).
    pub on_deny: Option<Failure>,
    /// Replies on connections that came from outside: `allow` (default) or `enforce`.
    pub inbound: Option<Replies>,
    /// Packets that cannot be read far enough to judge them: `deny` (default) or `allow`.
    pub unparsable: Option<Unparsable>,
    /// Flows known by several names, of which one is denied, that show no name: `deny` (default) or
    /// `allow`.
    pub ambiguous: Option<Unparsable>,
    /// Resolvers whose answers can support an allow by name, in place of the system's.
    pub resolvers: Option<Vec<Server>>,
    /// Ports that are asked for names beside 53.
    pub dns_ports: Option<Vec<Port>>,
    /// A file of organisations beside those in the binary.
    pub organisations: Option<PathBuf>,
    /// A database of countries in place of the one in the binary.
    pub geo: Option<PathBuf>,
    /// A database of AS numbers in place of the one in the binary.
    pub asn: Option<PathBuf>,
}

/// What happens to what no rule decides.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// It passes.
    Allow,
    /// It is dropped.
    Drop,
}

/// How a denied call fails.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// ECONNREFUSED
    Refuse,
    /// EHOSTUNREACH
    Unreachable,
    /// EINVAL
    Blackhole,
}

/// What holds for replies.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replies {
    /// They pass.
    Allow,
    /// They are judged.
    Enforce,
}

/// What holds for what cannot be judged.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unparsable {
    /// They are dropped.
    Deny,
    /// They pass, and are recorded.
    Allow,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// The file that was named, or that of this machine, which need not be there.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(CONFIG));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        toml::from_str(&text)
            .map_err(|source| Error::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// What of it goes into a generation, with secrets for the table of names and the resolvers that
    /// are trusted where it names none.
    pub fn settings(&self, name_keys: Keys, resolvers: Vec<(IpAddr, u16)>) -> Settings {
        let standard = Settings::default();
        Settings {
            default: self.default.map_or(standard.default, Into::into),
            on_deny: match self.on_deny {
                None => standard.on_deny,
                Some(Failure::Refuse) => OnDeny::Refuse,
                Some(Failure::Unreachable) => OnDeny::Unreachable,
                Some(Failure::Blackhole) => OnDeny::Blackhole,
            },
            inbound: match self.inbound {
                None => standard.inbound,
                Some(Replies::Allow) => Inbound::Allow,
                Some(Replies::Enforce) => Inbound::Enforce,
            },
            unparsable: match self.unparsable {
                None => standard.unparsable,
                Some(Unparsable::Deny) => Standard::Drop,
                Some(Unparsable::Allow) => Standard::Allow,
            },
            ambiguous: match self.ambiguous {
                None => standard.ambiguous,
                Some(Unparsable::Deny) => Standard::Drop,
                Some(Unparsable::Allow) => Standard::Allow,
            },
            record_allow: standard.record_allow,
            observe: standard.observe,
            resolvers: match &self.resolvers {
                Some(servers) => servers.iter().map(|Server(ip, port)| (*ip, *port)).collect(),
                None => resolvers,
            },
            dns_ports: self.dns_ports.iter().flatten().map(|Port(port)| *port).collect(),
            name_keys,
        }
    }
}

/// The resolvers that this machine's programs ask, by `/etc/resolv.conf`.
pub fn system_resolvers() -> Vec<(IpAddr, u16)> {
    resolvers_in(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// The name servers of a resolv.conf(5), as many as fit; this host's own where it names none.
fn resolvers_in(text: &str) -> Vec<(IpAddr, u16)> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let server = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        // The link of a link-local address plays no part where packets are judged.
        server.split('%').next()?.parse::<IpAddr>().ok()
    };
    let mut servers: Vec<IpAddr> = text.lines().filter_map(server).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    // Who asks one of the two may as well ask the other.
    if servers.contains(&STUBS[0]) {
        servers.extend(STUBS);
    }
    let mut unique = Vec::new();
    for server in servers.into_iter().map(|ip| (ip, DNS)) {
        if !unique.contains(&server) {
            unique.push(server);
        }
    }
    unique.truncate(RESOLVERS);
    unique
}

/// A resolver: `10.0.0.1`, `10.0.0.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server(pub IpAddr, pub u16);

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
        match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => Ok(Self(ip, DNS)),
            (_, Ok(socket)) if socket.port() != 0 => Ok(Self(socket.ip(), socket.port())),
            _ => Err(format!(
                "`{text}` is not the address of a resolver; write `10.0.0.1`, `10.0.0.1:5353` or \
                 `[2001:db8::1]:53`"
            )),
        }
    }
}

/// A port, and not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Port(pub u16);

impl TryFrom<i64> for Port {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(Self(port)),
            _ => Err(format!("{number} is not a port; those are 1 to 65535")),
        }
    }
}

impl From<Passage> for Standard {
    fn from(passage: Passage) -> Self {
        match passage {
            Passage::Allow => Self::Allow,
            Passage::Drop => Self::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_values_are_errors_with_their_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, says) in [
            ("on_deni = \"refuse\"", "unknown field `on_deni`"),
            ("\non_deny = \"no\"", "line 2, column 11"),
            ("default = 3", "line 1"),
            ("resolvers = [\"10.0.0.1\", \"dns.example\"]", "`dns.example` is not the address"),
            ("resolvers = [\"10.0.0.1:0\"]", "line 1"),
            ("dns_ports = [5300, 0]", "0 is not a port"),
            ("dns_ports = [65536]", "65536 is not a port"),
            ("ambiguous = \"drop\"", "line 1"),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let message = Config::load(Some(file.path())).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        std::fs::write(file.path(), "on_deny = \"unreachable\"\ndefault = \"drop\"").unwrap();
        let config = Config::load(Some(file.path())).unwrap();
        let system = vec![(Ipv4Addr::LOCALHOST.into(), 53)];
        let settings = config.settings(Keys::default(), system.clone());
        assert_eq!(settings.on_deny, OnDeny::Unreachable);
        assert_eq!(settings.default, Standard::Drop);
        assert_eq!(settings.resolvers, system);

        let text = "resolvers = [\"10.0.0.1\", \"::1\", \"[::1]:5353\"]\ndns_ports = [5300]\n\
                    ambiguous = \"allow\"";
        std::fs::write(file.path(), text).unwrap();
        let config = Config::load(Some(file.path())).unwrap();
        let settings = config.settings(Keys::default(), system);
        let server = |ip: &str, port| (ip.parse().unwrap(), port);
        let want = [server("10.0.0.1", 53), server("::1", 53), server("::1", 5353)];
        assert_eq!(settings.resolvers, want);
        assert_eq!((settings.dns_ports, settings.ambiguous), (vec![5300], Standard::Allow));
    }

    #[test]
    fn resolvers_of_the_system() {
        let servers = |text| -> Vec<String> {
            resolvers_in(text).iter().map(|(ip, port)| format!("{ip} {port}")).collect()
        };
        assert_eq!(servers("# none\nsearch example.org\n"), ["127.0.0.1 53"]);
        assert_eq!(
            servers("nameserver 10.0.0.1\n;nameserver 10.0.0.2\n nameserver\tfe80::1%eth0 x\n"),
            ["10.0.0.1 53", "fe80::1 53"]
        );
        assert_eq!(servers("nameserver 127.0.0.53"), ["127.0.0.53 53", "127.0.0.54 53"]);
        let many: String = (1..20).map(|last| format!("nameserver 10.0.0.{last}\n")).collect();
        assert_eq!(servers(&many).len(), RESOLVERS);
    }
}
