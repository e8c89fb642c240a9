//! Real name servers.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::program::{Program, find};
use super::{Certificate, Namespace};

/// The time to live of every record: shorter than any time that a name is kept.
const TTL: u32 = 60;
/// The number of HTTPS records (RFC 9460, section 14.1).
const HTTPS: u16 = 65;

/// Which program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dnsmasq,
    Unbound,
}

#[derive(Clone)]
enum Record {
    Host(String, Vec<IpAddr>),
    Alias(String, String),
    Raw(String, u16, Vec<u8>),
}

/// Names and what they stand for.
#[derive(Clone, Default)]
pub struct Zone {
    records: Vec<Record>,
}

impl Zone {
    /// A name with addresses, v4 or v6.
    #[must_use]
    pub fn host<A: AsRef<str>>(mut self, name: &str, addresses: &[A]) -> Self {
        let addresses =
            addresses.iter().map(|text| text.as_ref().parse().expect("an address")).collect();
        self.records.push(Record::Host(name.to_owned(), addresses));
        self
    }

    /// A CNAME. What it leads to has to be in the zone, before it.
    #[must_use]
    pub fn alias(mut self, name: &str, target: &str) -> Self {
        self.records.push(Record::Alias(name.to_owned(), target.to_owned()));
        self
    }

    /// An HTTPS record in service mode (RFC 9460); the target `.` is the name itself.
    #[must_use]
    pub fn https(mut self, name: &str, target: &str, hints: &[&str]) -> Self {
        let mut data = vec![0, 1];
        for label in target.split('.').filter(|label| !label.is_empty()) {
            data.push(u8::try_from(label.len()).expect("a short label"));
            data.extend(label.as_bytes());
        }
        data.push(0);
        let hints: Vec<IpAddr> = hints.iter().map(|text| text.parse().expect("a hint")).collect();
        // The keys of ipv4hint and ipv6hint (section 14.3.2), in order.
        for (key, bytes) in [
            (4_u16, hints.iter().filter_map(v4).flatten().collect::<Vec<u8>>()),
            (6_u16, hints.iter().filter_map(v6).flatten().collect()),
        ] {
            if !bytes.is_empty() {
                data.extend(key.to_be_bytes());
                data.extend(u16::try_from(bytes.len()).expect("few hints").to_be_bytes());
                data.extend(bytes);
            }
        }
        self.records.push(Record::Raw(name.to_owned(), HTTPS, data));
        self
    }

    fn dnsmasq(&self) -> Vec<String> {
        let mut options = Vec::new();
        for record in &self.records {
            match record {
                // One address of each family a line.
                Record::Host(name, addresses) => options
                    .extend(addresses.iter().map(|ip| format!("--host-record={name},{ip},{TTL}"))),
                Record::Alias(name, target) => {
                    options.push(format!("--cname={name},{target},{TTL}"));
                }
                Record::Raw(name, kind, data) => {
                    options.push(format!("--dns-rr={name},{kind},{}", hex(data)));
                }
            }
        }
        options
    }

    fn unbound(&self) -> String {
        let mut text = format!(
            "$ORIGIN .\n$TTL {TTL}\n@ SOA ns.test. hostmaster.test. 1 3600 600 86400 {TTL}\n@ NS ns.test.\n"
        );
        for record in &self.records {
            let line = match record {
                Record::Host(name, addresses) => addresses
                    .iter()
                    .map(|ip| format!("{name}. {} {ip}\n", if ip.is_ipv4() { "A" } else { "AAAA" }))
                    .collect(),
                Record::Alias(name, target) => format!("{name}. CNAME {target}.\n"),
                // The form for types that a server does not know (RFC 3597, section 5).
                Record::Raw(name, kind, data) => {
                    format!("{name}. TYPE{kind} \\# {} {}\n", data.len(), hex(data))
                }
            };
            text.push_str(&line);
        }
        text
    }
}

fn v4(ip: &IpAddr) -> Option<Vec<u8>> {
    if let IpAddr::V4(v4) = ip { Some(v4.octets().to_vec()) } else { None }
}

fn v6(ip: &IpAddr) -> Option<Vec<u8>> {
    if let IpAddr::V6(v6) = ip { Some(v6.octets().to_vec()) } else { None }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where an unbound has the names of a zone from.
fn auth_zone(zone: &Zone, directory: &TempDir) -> String {
    let file = directory.path().join("zone");
    std::fs::write(&file, zone.unbound()).expect("a file");
    format!(
        "auth-zone:\n  name: \".\"\n  zonefile: \"{}\"\n  for-downstream: yes\n  \
         for-upstream: no\n  fallback-enabled: no\n",
        file.display()
    )
}

/// A name server, until it is dropped.
pub struct NameServer {
    program: Program,
    _directory: TempDir,
}

impl NameServer {
    pub(super) fn new(namespace: &Namespace, kind: Kind, zone: &Zone, on: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        match kind {
            Kind::Dnsmasq => Self::dnsmasq(namespace, zone, on, directory),
            Kind::Unbound => {
                let source = auth_zone(zone, &directory);
                Self::unbound(namespace, on, "", &source, directory)
            }
        }
    }

    /// An unbound that is asked by TLS and by HTTPS.
    pub(super) fn encrypted(
        namespace: &Namespace,
        zone: &Zone,
        on: [SocketAddr; 2],
        certificate: &Certificate,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let source = auth_zone(zone, &directory);
        let options = format!(
            "  tls-port: {}\n  https-port: {}\n  http-endpoint: \"/dns-query\"\n  \
             tls-service-key: \"{}\"\n  tls-service-pem: \"{}\"\n",
            on[0].port(),
            on[1].port(),
            certificate.key().display(),
            certificate.file().display()
        );
        Self::unbound(namespace, &on, &options, &source, directory)
    }

    /// A resolver that caches, and asks another one.
    pub(super) fn stub(namespace: &Namespace, on: SocketAddr, upstream: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let source = format!(
            "forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\n",
            upstream.ip(),
            upstream.port()
        );
        Self::unbound(namespace, &[on], "", &source, directory)
    }

    /// Whether anybody asked for a name here.
    pub fn was_asked(&self, name: &str) -> bool {
        let output = self.program.output().to_lowercase();
        let name = name.to_lowercase();
        // dnsmasq: `query[A] NAME from ADDRESS`; unbound: `info: ADDRESS NAME. A IN`.
        output.lines().any(|line| {
            (line.contains("query[") && line.contains(&format!(" {name} from ")))
                || (line.contains("info: ") && line.contains(&format!(" {name}. ")))
        })
    }

    fn dnsmasq(namespace: &Namespace, zone: &Zone, on: &[SocketAddr], directory: TempDir) -> Self {
        let mut command = namespace.command(find("dnsmasq").expect("dnsmasq"));
        command
            .args(["--conf-file=/dev/null", "--keep-in-foreground", "--no-resolv", "--no-hosts"])
            .args(["--user=root", "--group=root", "--pid-file=", "--bind-interfaces"])
            .args(["--log-queries", "--log-facility=-", "--cache-size=0"])
            .arg(format!("--port={}", on[0].port()))
            .args(on.iter().map(|place| format!("--listen-address={}", place.ip())))
            .args(zone.dnsmasq());
        Self::started(namespace, command, on, directory)
    }

    /// With further options of the server, and where its names are from.
    fn unbound(
        namespace: &Namespace,
        on: &[SocketAddr],
        options: &str,
        source: &str,
        directory: TempDir,
    ) -> Self {
        let mut text = String::from("server:\n");
        for place in on {
            let _ = writeln!(text, "  interface: {}@{}", place.ip(), place.port());
        }
        for line in [
            "access-control: 0.0.0.0/0 allow",
            "access-control: ::/0 allow",
            "do-daemonize: no",
            "do-not-query-localhost: no",
            "use-syslog: no",
            "logfile: \"\"",
            "log-queries: yes",
            "username: \"\"",
            "chroot: \"\"",
            "pidfile: \"\"",
            "num-threads: 1",
            "module-config: \"iterator\"",
        ] {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "  directory: \"{}\"", directory.path().display());
        text.push_str(options);
        text.push_str("remote-control:\n  control-enable: no\n");
        text.push_str(source);
        let file = directory.path().join("unbound.conf");
        std::fs::write(&file, text).expect("a file");
        let mut command = namespace.command(find("unbound").expect("unbound"));
        command.args(["-d", "-c"]).arg(file);
        Self::started(namespace, command, on, directory)
    }

    fn started(
        namespace: &Namespace,
        mut command: Command,
        on: &[SocketAddr],
        directory: TempDir,
    ) -> Self {
        let what = command.get_program().display().to_string();
        let mut program = Program::start(&mut command, &directory.path().join("output"));
        program.wait_until(&what, || {
            namespace.run(|| {
                on.iter().all(|place| {
                    TcpStream::connect_timeout(place, Duration::from_millis(500)).is_ok()
                })
            })
        });
        Self { program, _directory: directory }
    }
}
