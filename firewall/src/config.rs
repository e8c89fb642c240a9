//! `firewall.toml`: how verdicts are carried out. What they are is in the policies.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use firewall_common::{
    layout::{DNS_PORTS, RESOLVERS},
    name_table::Keys,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    intel::{
        organisations::Organisations,
        resolver::{self, DNS, MOST_UPSTREAMS, Upstream, WrongUpstream},
    },
    policy::{
        Default as Standard,
        compile::{Inbound, OnDeny, Quic, Settings},
        diagnostic::{Diagnostics, Place, Severity, printable, quoted},
        parse::{
            integer, nearest, not_utf8,
            values::{self, Complaint, complaint},
            walk::{Field, Walker},
        },
        source::Disk,
    },
    regular,
};

/// Where the configuration of this machine is.
pub const CONFIG: &str = "/etc/firewall/firewall.toml";

/// Where the daemon of this machine answers.
pub const SOCKET: &str = "/run/firewall/api.sock";

/// Where the policy is that holds where nothing else can.
pub const BOOT: &str = "/etc/firewall/boot.toml";

/// Where the state of this machine is.
pub const STATE: &str = "/var/lib/firewall";

/// More than settings ever have.
const LARGEST: u64 = 1 << 20;

/// Where the system's resolvers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The two addresses of systemd-resolved's stub (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// The keys of `firewall.toml`. A key that is not here is an error.
const KEYS: [&str; 20] = [
    "default",
    "on_deny",
    "inbound",
    "unparsable",
    "ambiguous",
    "quic",
    "quic_unattended",
    "resolvers",
    "dns_ports",
    "upstreams",
    "ahead",
    "backstop",
    "organisations",
    "geo",
    "asn",
    "stop",
    "boot",
    "watch",
    "log",
    "metrics",
];

/// The keys of its table `[log]`.
const LOG_KEYS: [&str; 6] =
    ["keep_days", "keep_size", "json", "json_size", "json_files", "journal"];

/// The keys of its table `[metrics]`.
const METRICS_KEYS: [&str; 1] = ["listen"];

/// What `firewall.toml` says; what it leaves out is `None`.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What no rule and no policy's default decides.
    pub default: Option<Standard>,
    /// How a denied `connect` or `sendto` fails.
    pub on_deny: Option<OnDeny>,
    /// Replies on connections that came from outside.
    pub inbound: Option<Inbound>,
    /// Packets that cannot be read far enough to judge them.
    pub unparsable: Option<Standard>,
    /// Flows known by several names, of which one is denied, that show no name.
    pub ambiguous: Option<Standard>,
    /// QUIC.
    pub quic: Option<Quic>,
    /// QUIC whose name decides while nobody is there to read it.
    pub quic_unattended: Option<Standard>,
    /// Resolvers whose answers can support an allow by name, in place of the system's.
    pub resolvers: Option<Vec<(IpAddr, u16)>>,
    /// Ports that are asked for names beside 53.
    pub dns_ports: Vec<u16>,
    /// Whom the firewall itself asks for names, in place of the system's resolvers.
    pub upstreams: Option<Vec<Asked>>,
    /// Whether names that are denied are looked up before any app asks for them.
    pub ahead: Option<bool>,
    /// Whether the daemon judges at the interfaces what is sent past every cgroup.
    pub backstop: Option<bool>,
    /// A file of organisations beside those in the binary.
    pub organisations: Option<PathBuf>,
    /// A database of countries in place of the one in the binary.
    pub geo: Option<PathBuf>,
    /// A database of AS numbers in place of the one in the binary.
    pub asn: Option<PathBuf>,
    /// What a clean stop of the daemon leaves.
    pub stop: Option<Stop>,
    /// The policy that holds where nothing else can.
    pub boot: Option<PathBuf>,
    /// Whether the daemon looks for changes of the policies by itself.
    pub watch: Option<bool>,
    /// Where events go beside the log in the state folder.
    pub sinks: Sinks,
    /// The file, for what is found about it later.
    pub findings: Diagnostics,
    /// Where `resolvers` stands.
    pub resolvers_place: Option<Place>,
}

/// What a clean stop of the daemon leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// The generation that runs goes on deciding.
    #[default]
    Keep,
    /// Nothing: everything passes.
    Off,
}

/// What the tables `[log]` and `[metrics]` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// For how many days the audit store keeps a record.
    pub keep_days: Option<u32>,
    /// Bytes of records that the audit store keeps.
    pub keep_size: Option<u64>,
    /// A file of JSON lines.
    pub json: Option<PathBuf>,
    /// Bytes after which it is begun anew.
    pub json_size: Option<u64>,
    /// How many files that were begun before it stay.
    pub json_files: Option<u32>,
    /// Whether systemd's journal gets events.
    pub journal: Option<bool>,
    /// Where metrics can be read.
    pub metrics: Option<Listen>,
}

impl Sinks {
    /// Bytes after which the file of JSON lines is begun anew, if nothing else is said.
    pub const JSON_SIZE: u64 = 64 << 20;
    /// For how many days the audit store keeps a record, if nothing else is said.
    pub const KEEP_DAYS: u32 = 90;
    /// Bytes of records that the audit store keeps, if nothing else is said.
    pub const KEEP_SIZE: u64 = 1 << 30;
    /// How many files that were begun before it stay, if nothing else is said.
    pub const JSON_FILES: u32 = 4;
    /// What `json_size` can be: a file gets whole pieces of what waits.
    const JSON_SIZES: RangeInclusive<u64> = 64 << 10..=1 << 40;
    /// What `json_files` can be.
    const MOST_JSON_FILES: u32 = 1000;
    /// What `keep_days` can be.
    const MOST_KEEP_DAYS: u32 = 36_500;
}

/// Where metrics can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket, for its owner and group.
    Socket(PathBuf),
    /// A port of a loopback address, for everybody on this host.
    Port(SocketAddr),
}

/// One entry of `upstreams`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The resolvers of the system.
    System,
    /// One resolver.
    One(Upstream),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", printable(&path.display().to_string()))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong: what is wrong stands in the findings.
    #[error("{}: the settings are not valid\n\n{}", path.display(), findings.render(false).trim_end())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of it.
        findings: Box<Diagnostics>,
    },
}

/// The bytes of the file that was named, or of that of this machine, which need not be there.
///
/// # Errors
///
/// When it cannot be read.
pub fn read(named: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    let path = named.unwrap_or(Path::new(CONFIG));
    match regular::read(path, LARGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

impl Config {
    /// The file that was named, or that of this machine, which need not be there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or anything in it is wrong.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(CONFIG));
        match read(named)? {
            None => Ok(Self::default()),
            Some(bytes) => Self::of(path, bytes),
        }
    }

    /// What stands in a file.
    ///
    /// # Errors
    ///
    /// When anything in it is wrong.
    pub fn of(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        Self::parse(&path.display().to_string(), bytes)
            .map_err(|findings| Error::Invalid { path: path.to_owned(), findings })
    }

    fn parse(name: &str, bytes: Vec<u8>) -> Result<Self, Box<Diagnostics>> {
        let mut findings = Diagnostics::default();
        let text: Arc<str> = match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(error) => {
                not_utf8(name, error.as_bytes(), &mut findings);
                return Err(findings.into());
            }
        };
        let file = findings.add_file(name, Arc::clone(&text));
        let (root, errors) = DeTable::parse_recoverable(&text);
        let mut walker = Walker {
            file,
            organisations: &Organisations::default(),
            files: &Disk,
            folder: None,
            diagnostics: &mut findings,
            broken: Vec::new(),
        };
        walker.syntax(&text, &errors);
        let config = walker.settings(root.get_ref());
        findings.sort();
        match findings.has_errors() {
            true => Err(findings.into()),
            false => Ok(Self { findings, ..config }),
        }
    }

    /// The policy that holds where nothing else can: the one that is named, or [`BOOT`] if it is there.
    pub fn boot(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(BOOT)).filter(|path| path.exists());
        self.boot.clone().or_else(usual)
    }

    /// Whom the firewall itself asks, in order. The system's resolvers are those of now.
    pub fn upstreams(&self) -> Vec<Upstream> {
        let system = || {
            let all = system_resolvers().into_iter().take(MOST_UPSTREAMS);
            all.map(|(ip, port)| Upstream::plain(SocketAddr::new(ip, port))).collect()
        };
        let asked = self.upstreams.as_deref().unwrap_or(&[Asked::System]);
        let each = asked.iter().flat_map(|asked| match asked {
            Asked::System => system(),
            Asked::One(upstream) => vec![upstream.clone()],
        });
        each.collect()
    }

    /// What of it goes into a generation, with secrets for the table of names and the resolvers that
    /// are trusted where it names none.
    pub fn settings(&self, name_keys: Keys, resolvers: Vec<(IpAddr, u16)>) -> Settings {
        let standard = Settings::default();
        Settings {
            default: self.default.unwrap_or(standard.default),
            on_deny: self.on_deny.unwrap_or(standard.on_deny),
            inbound: self.inbound.unwrap_or(standard.inbound),
            unparsable: self.unparsable.unwrap_or(standard.unparsable),
            ambiguous: self.ambiguous.unwrap_or(standard.ambiguous),
            quic: self.quic.unwrap_or(standard.quic),
            quic_unattended: self.quic_unattended.unwrap_or(standard.quic_unattended),
            record_allow: standard.record_allow,
            observe: standard.observe,
            resolvers: self.resolvers.clone().unwrap_or(resolvers),
            dns_ports: self.dns_ports.clone(),
            backstop: self.backstop.unwrap_or(standard.backstop),
            name_keys,
        }
    }
}

impl Walker<'_> {
    fn settings(&mut self, root: &DeTable<'_>) -> Config {
        let passes = [("deny", Standard::Drop), ("allow", Standard::Allow)];
        let fails = [
            ("refuse", OnDeny::Refuse),
            ("unreachable", OnDeny::Unreachable),
            ("blackhole", OnDeny::Blackhole),
        ];
        let quic = [("inspect", Quic::Inspect), ("block", Quic::Block), ("allow", Quic::Allow)];
        let unattended = [("block", Standard::Drop), ("allow", Standard::Allow)];
        let stops = [("keep", Stop::Keep), ("off", Stop::Off)];
        let switch = [("off", false), ("on", true)];
        let replies = [("allow", Inbound::Allow), ("enforce", Inbound::Enforce)];
        let fields = self.fields(root, &KEYS, "`firewall.toml`", |key| match key {
            "policy" | "rule" | "list" => {
                Some("policies are files of their own: name them with `--policy`".to_owned())
            }
            _ if LOG_KEYS.contains(&key) => Some(format!("`{key}` stands below `[log]`")),
            _ if METRICS_KEYS.contains(&key) => Some(format!("`{key}` stands below `[metrics]`")),
            _ => None,
        });
        let resolvers = fields.field("resolvers");
        let path = |walker: &mut Self, key, example| {
            fields.field(key).and_then(|path| walker.string(path, example)).map(PathBuf::from)
        };
        Config {
            default: fields.field("default").and_then(|default| {
                let text = self.string(default, "allow")?;
                self.checked(default.value.span(), values::default(text))
            }),
            on_deny: fields.field("on_deny").and_then(|field| self.word(field, &fails)),
            inbound: fields.field("inbound").and_then(|field| self.word(field, &replies)),
            unparsable: fields.field("unparsable").and_then(|field| self.word(field, &passes)),
            ambiguous: fields.field("ambiguous").and_then(|field| self.word(field, &passes)),
            quic: fields.field("quic").and_then(|field| self.word(field, &quic)),
            quic_unattended: fields
                .field("quic_unattended")
                .and_then(|field| self.word(field, &unattended)),
            resolvers: resolvers.map(|field| self.few(field, RESOLVERS, "[\"10.0.0.1\"]", server)),
            dns_ports: fields
                .field("dns_ports")
                .map(|field| self.few(field, DNS_PORTS, "[5300]", port))
                .unwrap_or_default(),
            upstreams: fields
                .field("upstreams")
                .map(|field| self.few(field, MOST_UPSTREAMS, "[\"system\"]", upstream)),
            ahead: fields.field("ahead").and_then(|field| self.word(field, &switch)),
            backstop: fields.field("backstop").and_then(|field| self.word(field, &switch)),
            organisations: path(self, "organisations", "/etc/firewall/organisations.tsv"),
            geo: path(self, "geo", "/var/lib/countries.mmdb"),
            asn: path(self, "asn", "/var/lib/asn.mmdb"),
            stop: fields.field("stop").and_then(|field| self.word(field, &stops)),
            boot: path(self, "boot", BOOT),
            watch: fields.field("watch").and_then(|field| self.word(field, &switch)),
            sinks: self.sinks(fields.field("log"), fields.field("metrics")),
            findings: Diagnostics::default(),
            resolvers_place: resolvers.map(|field| self.place(field.value.span())),
        }
    }

    fn sinks(&mut self, log: Option<&Field<'_>>, metrics: Option<&Field<'_>>) -> Sinks {
        const JSON: &str = "/var/log/firewall/events.jsonl";
        const LISTEN: &str = "127.0.0.1:9477";
        let mut sinks = Sinks::default();
        let log = log.and_then(|log| self.table(log, "`[log]` and its keys below"));
        if let Some(table) = log {
            let fields = self.fields(table, &LOG_KEYS, "`[log]`", |_| None);
            if let Some(field) = fields.field("json") {
                let path = self.string(field, JSON);
                sinks.json =
                    path.and_then(|path| self.checked(field.value.span(), absolute("json", path)));
            }
            if let Some(field) = fields.field("json_size") {
                let text = self.string(field, "64 MiB");
                let size = text.map(|text| size("json_size", text));
                sinks.json_size = size.and_then(|size| self.checked(field.value.span(), size));
            }
            if let Some(field) = fields.field("keep_size") {
                let text = self.string(field, "1 GiB");
                let size = text.map(|text| size("keep_size", text));
                sinks.keep_size = size.and_then(|size| self.checked(field.value.span(), size));
            }
            let mut number = |key, most, what| {
                let field = fields.field(key)?;
                self.checked(field.value.span(), number(key, field.value, most, what))
            };
            sinks.json_files = number("json_files", Sinks::MOST_JSON_FILES, "files");
            sinks.keep_days = number("keep_days", Sinks::MOST_KEEP_DAYS, "days");
            for key in ["json_size", "json_files"] {
                if let (Some(field), None) = (fields.field(key), fields.field("json")) {
                    let message = format!("`{key}` says nothing without `json`");
                    let hint = format!("name a file, as `json = \"{JSON}\"`, or remove it");
                    self.report(Severity::Warning, field.span.clone(), message, None, hint);
                }
            }
            let switch = [("off", false), ("on", true)];
            sinks.journal = fields.field("journal").and_then(|field| self.word(field, &switch));
        }
        let metrics = metrics.and_then(|table| self.table(table, "`[metrics]` and its keys below"));
        if let Some(table) = metrics {
            let fields = self.fields(table, &METRICS_KEYS, "`[metrics]`", |_| None);
            if let Some(field) = fields.field("listen") {
                let text = self.string(field, LISTEN);
                sinks.metrics =
                    text.and_then(|text| self.checked(field.value.span(), listen(text)));
            }
        }
        sinks
    }

    /// The meaning of one of a few words, of which the first is the usual one.
    fn word<T: Copy>(&mut self, field: &Field<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.string(field, words.first().map_or("", |(word, _)| word))?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let names = words.iter().map(|(word, _)| *word);
        let found = found.ok_or_else(|| Complaint {
            message: format!("`{}` cannot be {}", field.key, quoted(text)),
            hint: values::one_of(nearest(text, names.clone()), &listed(names)),
        });
        self.checked(field.value.span(), found)
    }

    /// The elements of an array that holds a few; one that stands there twice is warned of.
    fn few<T: PartialEq>(
        &mut self,
        field: &Field<'_>,
        limit: usize,
        example: &str,
        parse: impl Fn(&Spanned<DeValue<'_>>) -> Result<T, Complaint>,
    ) -> Vec<T> {
        let key = field.key;
        let span = field.value.span();
        let DeValue::Array(array) = field.value.get_ref() else {
            let hint = format!("write `{key} = {example}`");
            self.wrong_type(span, key, "an array", field.value.get_ref(), hint);
            return Vec::new();
        };
        let mut values = Vec::new();
        for element in array.iter() {
            let Some(value) = self.checked(element.span(), parse(element)) else { continue };
            if values.contains(&value) {
                let message = format!("an entry of `{key}` stands there twice");
                let hint = "remove one of the two".to_owned();
                self.report(Severity::Warning, element.span(), message, None, hint);
                continue;
            }
            values.push(value);
        }
        if values.len() > limit {
            let message = format!("`{key}` has {} entries, and {limit} fit", values.len());
            self.error(span, message, "leave out those that are asked least");
        }
        values
    }
}

/// `a`, `b` or `c`, each in backquotes.
fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// A resolver: `10.0.0.1`, `10.0.0.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.
fn server(value: &Spanned<DeValue<'_>>) -> Result<(IpAddr, u16), Complaint> {
    let form = "write `\"10.0.0.1\"`, `\"10.0.0.1:5353\"` or `\"[2001:db8::1]:53\"`";
    let DeValue::String(text) = value.get_ref() else {
        return complaint("`resolvers` holds addresses, each a string", form);
    };
    match resolver::socket(text, DNS) {
        Some(socket) => Ok((socket.ip(), socket.port())),
        None => complaint(format!("{} is not the address of a resolver", quoted(text)), form),
    }
}

/// Whom the firewall asks: `system`, or one resolver.
fn upstream(value: &Spanned<DeValue<'_>>) -> Result<Asked, Complaint> {
    match value.get_ref() {
        DeValue::String(text) if text == "system" => Ok(Asked::System),
        DeValue::String(text) => text
            .parse()
            .map(Asked::One)
            .map_err(|WrongUpstream { message, hint }| Complaint { message, hint }),
        _ => complaint("`upstreams` holds resolvers, each a string", resolver::FORMS),
    }
}

/// A path from the root on: where the daemon is started says nothing.
fn absolute(key: &str, path: &str) -> Result<PathBuf, Complaint> {
    match path.starts_with('/') && !path.ends_with('/') {
        true => Ok(PathBuf::from(path)),
        false => complaint(
            format!("`{key}` is the path of a file, and {} is none", quoted(path)),
            "write it from the root on, as `\"/var/log/firewall/events.jsonl\"`",
        ),
    }
}

/// A size: `64 MiB`, `1 GiB`, `512 KiB`.
fn size(key: &str, text: &str) -> Result<u64, Complaint> {
    let hint = "write a number with `KiB`, `MiB` or `GiB`, as `\"64 MiB\"`: 64 KiB at least";
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let size = units.iter().find_map(|(unit, shift)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    match size {
        Some(size) if Sinks::JSON_SIZES.contains(&size) => Ok(size),
        Some(_) => complaint(format!("`{key}` cannot be {}", quoted(text)), hint),
        None => complaint(format!("{} is not a size", quoted(text)), hint),
    }
}

/// How many of something: 1 at least.
fn number(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    most: u32,
    what: &str,
) -> Result<u32, Complaint> {
    let number = match value.get_ref() {
        DeValue::Integer(number) => integer(number).and_then(|number| u32::try_from(number).ok()),
        _ => None,
    };
    match number {
        Some(number) if (1..=most).contains(&number) => Ok(number),
        _ => complaint(
            format!("`{key}` is a number of {what}"),
            format!("write 1 to {most}, as `{key} = 4`"),
        ),
    }
}

/// Where metrics can be read: never from another host.
fn listen(text: &str) -> Result<Listen, Complaint> {
    let form = "write a loopback address with a port, as `\"127.0.0.1:9477\"` or `\"[::1]:9477\"`, or the \
                path of a socket, as `\"/run/firewall/metrics.sock\"`";
    if text.starts_with('/') && !text.ends_with('/') {
        return Ok(Listen::Socket(PathBuf::from(text)));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => complaint("metrics need a port that is known", form),
        Ok(address) if address.ip().is_loopback() => Ok(Listen::Port(address)),
        Ok(_) => complaint(
            format!("{} is no loopback address: other hosts could read the metrics", quoted(text)),
            form,
        ),
        Err(_) => complaint(format!("metrics cannot be read at {}", quoted(text)), form),
    }
}

/// A port, and not 0.
fn port(value: &Spanned<DeValue<'_>>) -> Result<u16, Complaint> {
    let text = match value.get_ref() {
        DeValue::Integer(number) => {
            match integer(number).and_then(|number| u16::try_from(number).ok()) {
                Some(port) if port != 0 => return Ok(port),
                _ => number.as_str(),
            }
        }
        DeValue::String(text) => text,
        _ => return complaint("`dns_ports` holds numbers", "ports are 1 to 65535, as `5300`"),
    };
    complaint(format!("{} is not a port", quoted(text)), "write a number, 1 to 65535, as `5300`")
}

/// The resolvers that this machine's programs ask, by `/etc/resolv.conf`.
pub fn system_resolvers() -> Vec<(IpAddr, u16)> {
    resolvers_in(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// The name servers of a resolv.conf(5), as many as fit; this host's own where it names none.
pub fn resolvers_in(text: &str) -> Vec<(IpAddr, u16)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Box<Diagnostics>> {
        Config::parse("firewall.toml", text.into())
    }

    #[test]
    fn all_mistakes_are_told_with_their_places_and_hints() {
        let text = "on_deni = \"refuse\"\n\
                    on_deny = \"no\"\n\
                    default = \"deny\"\n\
                    inbound = 3\n\
                    ambiguous = \"drop\"\n\
                    resolvers = [\"10.0.0.1\", \"dns.example\", \"10.0.0.1:0\", 9]\n\
                    dns_ports = [5300, 0, 65536, \"53\"]\n\
                    upstreams = [\"https://dns.example/dns-query\", \"quic://9.9.9.9\", 9]\n\
                    ahead = \"yes\"\n\
                    geo = [\"x\"]\n\
                    stop = \"on\"\n\
                    boot = true\n\
                    watch = \"of\"\n\
                    [policy]\n\
                    name = \"p\"\n";
        insta::assert_snapshot!(parse(text).unwrap_err().render(false));
        let few = (1..=9).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
        for (text, says) in [
            (format!("dns_ports = [{few}]"), "`dns_ports` has 9 entries, and 8 fit"),
            (
                "upstreams = [\"::1\", \"::2\", \"::3\", \"::4\"]".to_owned(),
                "`upstreams` has 4 entries, and 3 fit",
            ),
            ("ahead = true".to_owned(), "`ahead` is a string, not a boolean"),
            ("resolvers = \"10.0.0.1\"".to_owned(), "`resolvers` is an array, not a string"),
            ("default = \"drop\"\ndefault = \"drop\"".to_owned(), "not TOML: duplicate key"),
        ] {
            let shown = parse(&text).unwrap_err().render(false);
            assert!(shown.contains(says) && shown.contains("hint: "), "{shown}");
        }
        let bytes = b"default = \"\xff\"".to_vec();
        let findings = Config::parse("firewall.toml", bytes).unwrap_err();
        assert!(findings.render(false).contains("not UTF-8"));
    }

    #[test]
    fn the_installed_file_shows_every_key_and_sets_none() {
        let installed = include_str!("../dist/firewall.toml");
        let config = parse(installed).unwrap();
        assert_eq!((config.default, config.ahead, config.upstreams), (None, None, None));

        let is_setting = |line: &&str| {
            line.starts_with(|first: char| first.is_ascii_lowercase() || first == '[')
        };
        let settings: Vec<&str> = installed
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(is_setting)
            .collect();
        assert_eq!(parse(&settings.join("\n")).unwrap().findings.render(false), "");
        let mut shown: Vec<&str> = settings
            .iter()
            .filter_map(|line| line.split(' ').next())
            .map(|key| key.trim_matches(['[', ']']))
            .collect();
        let mut keys = [&KEYS[..], &LOG_KEYS, &METRICS_KEYS].concat();
        shown.sort_unstable();
        keys.sort_unstable();
        assert_eq!(shown, keys);
    }

    #[test]
    fn what_is_no_file_has_no_settings() {
        assert_eq!(read(Some(Path::new("/dev/null"))).unwrap(), Some(Vec::new()));
        let error = read(Some(Path::new("/dev/zero"))).unwrap_err().to_string();
        assert_eq!(error, "cannot read /dev/zero: it is no regular file");
    }

    #[test]
    fn settings_of_a_file() {
        let config = parse("on_deny = \"unreachable\"\ndefault = \"drop\"").unwrap();
        let system = vec![(Ipv4Addr::LOCALHOST.into(), 53)];
        let settings = config.settings(Keys::default(), system.clone());
        assert_eq!(settings.on_deny, OnDeny::Unreachable);
        assert_eq!(settings.default, Standard::Drop);
        assert_eq!(settings.resolvers, system);

        let text = "resolvers = [\"10.0.0.1\", \"::1\", \"[::1]:5353\", \"10.0.0.1:53\"]\n\
                    dns_ports = [5300]\nambiguous = \"allow\"";
        let config = parse(text).unwrap();
        assert!(config.findings.render(false).contains("stands there twice"));
        let settings = config.settings(Keys::default(), system);
        let server = |ip: &str, port| (ip.parse().unwrap(), port);
        let want = [server("10.0.0.1", 53), server("::1", 53), server("::1", 5353)];
        assert_eq!(settings.resolvers, want);
        assert_eq!((settings.dns_ports, settings.ambiguous), (vec![5300], Standard::Allow));
    }

    #[test]
    fn what_the_daemon_does() {
        let Config { stop, boot, watch, .. } = parse("").unwrap();
        assert_eq!((stop.unwrap_or_default(), boot, watch), (Stop::Keep, None, None));
        let config = parse("stop = \"off\"\nboot = \"/none/b.toml\"\nwatch = \"on\"").unwrap();
        assert_eq!((config.stop, config.watch), (Some(Stop::Off), Some(true)));
        assert_eq!(
            config.boot(),
            Some("/none/b.toml".into()),
            "it is named, so it has to be there"
        );
        assert_eq!(parse("stop = \"keep\"").unwrap().stop, Some(Stop::Keep));
        assert_eq!(parse("watch = \"off\"").unwrap().watch, Some(false));
    }

    #[test]
    fn where_events_go() {
        assert_eq!(parse("").unwrap().sinks, Sinks::default());
        let text = "[log]\njson = \"/x/e.jsonl\"\njson_size = \"64KiB\"\njson_files = 7\n\
                    journal = \"on\"\nkeep_days = 30\nkeep_size = \"2 GiB\"\n[metrics]\nlisten = \"[::1]:9477\"";
        let config = parse(text).unwrap();
        assert_eq!(config.findings.render(false), "");
        let listen = Some(Listen::Port("[::1]:9477".parse().unwrap()));
        let wanted = Sinks {
            json: Some("/x/e.jsonl".into()),
            keep_days: Some(30),
            keep_size: Some(2 << 30),
            json_size: Some(64 << 10),
            json_files: Some(7),
            journal: Some(true),
            metrics: listen,
        };
        assert_eq!(config.sinks, wanted);
        let socket = parse("metrics.listen = \"/run/m.sock\"").unwrap().sinks.metrics;
        assert_eq!(socket, Some(Listen::Socket("/run/m.sock".into())));
        let warned = parse("[log]\njson_files = 2").unwrap().findings.render(false);
        assert!(warned.contains("`json_files` says nothing without `json`"), "{warned}");
        for (text, says) in [
            ("[metrics]\nlisten = \"0.0.0.0:9477\"", "other hosts could read"),
            ("[metrics]\nlisten = \"10.0.0.1:9477\"", "other hosts could read"),
            ("[metrics]\nlisten = \"[::]:9477\"", "other hosts could read"),
            ("[metrics]\nlisten = \"127.0.0.1:0\"", "a port that is known"),
            ("[metrics]\nlisten = \"localhost:9477\"", "cannot be read at `localhost:9477`"),
            ("[metrics]\nlisten = 9477", "`listen` is a string, not an integer"),
            ("[metrics]\nport = 1", "`[metrics]` has no key `port`"),
            ("metrics = \"on\"", "`metrics` is a table, not a string"),
            ("listen = \"127.0.0.1:9477\"", "`listen` stands below `[metrics]`"),
            ("journal = \"on\"", "`journal` stands below `[log]`"),
            ("[log]\njournal = true", "`journal` is a string, not a boolean"),
            ("[log]\njournald = \"on\"", "did you mean `journal`?"),
            ("[log]\njson = \"e.jsonl\"", "write it from the root on"),
            ("[log]\njson_size = \"64\"", "`64` is not a size"),
            ("[log]\njson_size = \"1 KiB\"", "`json_size` cannot be `1 KiB`"),
            ("[log]\njson_size = \"99999999999 GiB\"", "is not a size"),
            ("[log]\njson_size = 64", "`json_size` is a string"),
            ("[log]\njson_files = 0", "write 1 to 1000"),
            ("[log]\njson_files = \"4\"", "write 1 to 1000"),
            ("[log]\nkeep_days = 0", "write 1 to 36500"),
            ("[log]\nkeep_size = \"1 B\"", "is not a size"),
        ] {
            let shown = parse(text).unwrap_err().render(false);
            assert!(shown.contains(says) && shown.contains("hint: "), "{shown}");
        }
    }

    #[test]
    fn who_is_asked() {
        let config = parse(
            "upstreams = [\"tls://9.9.9.9#dns.quad9.net\", \"10.0.0.1\", \"10.0.0.1:53\"]\n\
             ahead = \"on\"",
        )
        .unwrap();
        assert!(config.findings.render(false).contains("stands there twice"));
        assert_eq!(config.ahead, Some(true));
        let asked = |config: &Config| -> Vec<String> {
            config.upstreams().iter().map(ToString::to_string).collect()
        };
        assert_eq!(asked(&config), ["tls://9.9.9.9:853#dns.quad9.net", "10.0.0.1:53"]);
        assert_eq!(asked(&parse("upstreams = []").unwrap()), [""; 0]);
        assert_eq!(parse("ahead = \"off\"").unwrap().ahead, Some(false));
        let system = asked(&Config::default());
        assert!((1..=MOST_UPSTREAMS).contains(&system.len()), "{system:?}");
        let both = parse("upstreams = [\"::1\", \"system\"]").unwrap();
        assert_eq!(asked(&both), [&["[::1]:53".to_owned()], &system[..]].concat());
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
