//! What must hold whatever the bytes are: a check for each place where bytes of others are read, for
//! the fuzzer and for the test that replays what it found.

pub mod apps;
pub mod events;
pub mod framing;
pub mod headers;
pub mod kept;
pub mod lists;
pub mod matcher;
#[path = "../../../firewall-common/tests/message/mod.rs"]
pub mod message;
#[path = "../../../firewall-common/tests/packet/mod.rs"]
pub mod packet;
pub mod quic;
pub mod replay;
pub mod requests;
pub mod settings;
#[path = "../../../firewall-common/tests/stream/mod.rs"]
pub mod stream;

use firewall::lists::Format;

/// A check, by the name of the folder that has its inputs.
pub struct Target {
    /// The folder.
    pub name: &'static str,
    /// Bytes of an input at most, of those that are made up.
    pub longest: usize,
    /// Panics if something does not hold.
    pub check: fn(&[u8]),
}

const fn target(name: &'static str, longest: usize, check: fn(&[u8])) -> Target {
    Target { name, longest, check }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("api", 512, requests::api),
    target("args", 520, headers::args),
    target("cgroup", 256, apps::cgroup),
    target("containers", 1024, apps::containers),
    target("dns", 768, message::check),
    target("dns_answer", 1024, requests::answer),
    target("dns_stream", 1024, framing::dns_stream),
    target("encrypted_dns", 2048, apps::encrypted_dns),
    target("events", 2048, events::decoded),
    target("filter", 512, events::filter),
    target("http", 1024, |bytes| {
        if bytes.first() != Some(&22) {
            stream::check(bytes)
        }
    }),
    target("inputs", 4096, kept::inputs),
    target("ip", 256, packet::check),
    target("list_adblock", 2048, |bytes| lists::check(Format::Adblock, bytes)),
    target("list_dnsmasq", 2048, |bytes| lists::check(Format::Dnsmasq, bytes)),
    target("list_domains", 2048, |bytes| lists::check(Format::Domains, bytes)),
    target("list_geosite", 2048, |bytes| lists::check(Format::Geosite, bytes)),
    target("list_hosts", 2048, |bytes| lists::check(Format::Hosts, bytes)),
    target("list_import", 2048, lists::check_import),
    target("list_lsrules", 2048, |bytes| lists::check(Format::Lsrules, bytes)),
    target("list_netset", 2048, |bytes| lists::check(Format::Netset, bytes)),
    target("list_rpz", 2048, |bytes| lists::check(Format::Rpz, bytes)),
    target("list_unbound", 2048, |bytes| lists::check(Format::Unbound, bytes)),
    target("list_wildcard", 2048, |bytes| lists::check(Format::Wildcard, bytes)),
    target("matcher", 32, matcher::check),
    target("mmdb", 4096, kept::database),
    target("packages", 2048, apps::packages),
    target("policy", 2048, settings::policies),
    target("proc_stat", 256, apps::stat),
    target("quic_frames", 1024, |bytes| drop(quic::frames(bytes))),
    target("quic_header", 256, headers::quic),
    target("quic_packet", 4096, quic::packets),
    target("records", 4096, events::records),
    target("replay", 4096, |bytes| drop(replay::replay(bytes))),
    target("resolv_conf", 512, settings::resolvers),
    target("selector", 256, apps::selector),
    target("settings", 2048, settings::settings),
    target("spec", 256, settings::spec),
    target("store", 65_536, kept::store),
    target("tls", 2048, |bytes| {
        if bytes.first() == Some(&22) {
            stream::check(bytes)
        }
    }),
    target("wire", 1024, kept::wire),
];
