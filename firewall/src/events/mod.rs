//! From what the kernel tells to what people and programs read.
//!
//! ```text
//! ring buffer ─ reader ─▶ FlowEvent ─ recorder (coalesce, enrich) ─▶ Event (JSON) ─▶ log, terminal
//! ```

pub mod apps;
pub mod coalesce;
pub mod enrich;
pub mod filter;
pub mod held;
pub mod log;
pub mod messages;
pub mod names;
pub mod paths;
pub mod reader;
pub mod record;
pub mod recorder;
pub mod seen;

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use firewall_common::flow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    apps::{cgroup::Container, packages::Package},
    policy::explain::{Finding, Geo},
};

/// [`Event::hook`] of the end of a flow.
pub const CLOSE: &str = "close";

/// Version of the event format.
pub const SCHEMA: u32 = 1;

/// A verdict, as it is logged. The keys are a contract; an absent fact is an absent key.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Counts up from 1 over one run.
    pub seq: u64,
    /// RFC 3339 in UTC, with microseconds.
    pub time: String,
    /// What happened and why.
    #[serde(flatten)]
    pub finding: Finding,
    /// Where it was decided, or `close`.
    pub hook: &'static str,
    /// Who.
    #[serde(serialize_with = "shared")]
    #[schema(value_type = App)]
    pub app: Arc<App>,
    /// Name of the protocol, or its number.
    #[schema(value_type = String)]
    pub proto: Cow<'static, str>,
    /// Where from; absent where no packet has shown it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Endpoint>,
    /// Where to: of a question, who is asked.
    pub dst: Endpoint,
    /// The name of the destination, or the one that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// What is known of the destination.
    #[serde(skip_serializing_if = "Geo::is_empty")]
    pub geo: Geo,
    /// How often, within a second; 0 where nothing was decided and only bytes are told.
    pub count: u32,
    /// Transport payload that the flow has sent, in bytes; 0 with a verdict.
    pub bytes_out: u64,
    /// Transport payload that the flow has received, in bytes; 0 with a verdict.
    pub bytes_in: u64,
}

fn shared<S: Serializer>(app: &Arc<App>, to: S) -> Result<S::Ok, S::Error> {
    app.serialize(to)
}

/// Who a flow is charged to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// File name of the executable, or what else is known; `kernel` and `unknown` are special.
    pub name: String,
    /// The executable, links resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The script that it runs, by its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The package that the path of the executable belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Process number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it was started from, its parent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// User number.
    pub uid: u32,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Path of the cgroup in its hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// systemd's name for the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// ID of the Flatpak app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flatpak: Option<String>,
    /// Name of the snap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snap: Option<String>,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

impl App {
    /// Whether it is the kernel, and not a process of that name.
    pub fn is_kernel(&self) -> bool {
        self.name == "kernel" && self.exe.is_none() && self.pid.is_none()
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// Address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Port; absent for protocols without ports.
    #[schema(nullable = false)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a destination is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Host {
    /// The name that was asked for, or that the payload shows.
    pub name: String,
    /// How it was learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<&'static str>,
    /// How sure it is that the flow goes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<&'static str>,
    /// The TLS ClientHello has an encrypted one inside: the name is that of the outer one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted_hello: bool,
    /// What it is an alias of, by the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
}

/// What filters and lines for people look at, of an event that was just made or read back.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// When.
    pub time: Option<Timestamp>,
    /// What happened.
    pub verdict: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The policy that decided.
    pub policy: Option<&'a str>,
    /// The rule.
    pub rule: Option<&'a str>,
    /// Where it was decided.
    pub hook: &'a str,
    /// Who.
    pub app: &'a App,
    /// The protocol.
    pub proto: &'a str,
    /// Where to.
    pub ip: IpAddr,
    /// Where to, by protocols with ports.
    pub port: Option<u16>,
    /// The name of the destination, or the one that is asked for.
    pub host: Option<&'a str>,
    /// It is an outer name.
    pub encrypted_hello: bool,
    /// What it is an alias of.
    pub chain: &'a [String],
    /// Country of the destination.
    pub country: Option<&'a str>,
    /// Its origin AS.
    pub asn: Option<u32>,
    /// Its owner by name.
    pub organisation: Option<&'a str>,
    /// Name of the AS.
    pub as_name: Option<&'a str>,
    /// How often.
    pub count: u64,
    /// Payload sent.
    pub bytes_out: u64,
    /// Payload received.
    pub bytes_in: u64,
}

impl<'a> View<'a> {
    /// Of what was found at a destination, at no time and of no bytes.
    pub(crate) fn of(
        finding: &'a Finding,
        app: &'a App,
        dst: &Endpoint,
        host: Option<&'a Host>,
        geo: &'a Geo,
    ) -> Self {
        Self {
            time: None,
            verdict: finding.verdict,
            reason: finding.reason,
            policy: finding.policy.as_deref(),
            rule: finding.rule.as_deref(),
            hook: "",
            app,
            proto: "",
            ip: dst.ip,
            port: dst.port,
            host: host.map(|host| host.name.as_str()),
            encrypted_hello: host.is_some_and(|host| host.encrypted_hello),
            chain: host.map_or(&[], |host| &host.chain),
            country: geo.country,
            asn: geo.asn,
            organisation: geo.organisation.as_deref(),
            as_name: geo.as_name.as_deref(),
            count: 0,
            bytes_out: 0,
            bytes_in: 0,
        }
    }
}

impl<'a> From<&'a Event> for View<'a> {
    fn from(event: &'a Event) -> Self {
        let Event { finding, app, dst, host, geo, .. } = event;
        Self {
            time: event.time.parse().ok(),
            hook: event.hook,
            proto: &event.proto,
            count: u64::from(event.count),
            bytes_out: event.bytes_out,
            bytes_in: event.bytes_in,
            ..Self::of(finding, app, dst, host.as_ref(), geo)
        }
    }
}

/// Events that the kernel had no room for.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Lost {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `lost`.
    pub kind: &'static str,
    /// How many.
    pub count: u64,
}

impl Lost {
    /// So many.
    pub const fn new(count: u64) -> Self {
        Self { schema: SCHEMA, kind: "lost", count }
    }
}

/// The word for a protocol in events and in the command line: a closed set, or the number.
pub fn protocol_word(protocol: u8) -> Cow<'static, str> {
    match protocol {
        flow::TCP => "tcp".into(),
        flow::UDP => "udp".into(),
        flow::UDPLITE => "udplite".into(),
        flow::SCTP => "sctp".into(),
        flow::ICMP => "icmp".into(),
        flow::ICMPV6 => "icmpv6".into(),
        other => other.to_string().into(),
    }
}

/// The protocol of a word, or of a number.
pub fn protocol_number(word: &str) -> Option<u8> {
    (0..=u8::MAX).find(|number| protocol_word(*number) == word)
}
