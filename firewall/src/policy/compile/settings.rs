//! What goes into a generation besides the policies.

use std::net::IpAddr;

use firewall_common::{
    flow::Address,
    layout::{Header, Resolver, flags},
    name_table::Keys,
};

use super::Error;
use crate::policy::Default;

/// What `firewall.toml` says of the verdicts, not of the destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What no rule and no policy's default decides.
    pub default: Default,
    /// How a denied `connect` or `sendto` fails.
    pub on_deny: OnDeny,
    /// Whether replies on connections from outside are judged.
    pub inbound: Inbound,
    /// What holds for packets that cannot be read.
    pub unparsable: Default,
    /// What holds for flows known by names that get different verdicts, and that show none.
    pub ambiguous: Default,
    /// What becomes of QUIC.
    pub quic: Quic,
    /// What becomes of QUIC whose name decides while nobody is there to read it.
    pub quic_unattended: Default,
    /// Whether allowed flows are recorded.
    pub record_allow: bool,
    /// Whether everything that would be denied is let through and recorded.
    pub observe: bool,
    /// Resolvers whose answers can support an allow, at most eight.
    pub resolvers: Vec<(IpAddr, u16)>,
    /// Ports that are asked for names beside 53, at most eight.
    pub dns_ports: Vec<u16>,
    /// Whether what is sent past every cgroup is judged at the interfaces.
    pub backstop: bool,
    /// Secrets of the table of names: whoever knows them can make names that fall together with
    /// others. Those of [`Settings::default`] are known to all.
    pub name_keys: Keys,
}

impl std::default::Default for Settings {
    fn default() -> Self {
        Self {
            default: Default::Allow,
            on_deny: OnDeny::Refuse,
            inbound: Inbound::Allow,
            unparsable: Default::Drop,
            ambiguous: Default::Drop,
            quic: Quic::Inspect,
            quic_unattended: Default::Drop,
            record_allow: true,
            observe: false,
            resolvers: Vec::new(),
            dns_ports: Vec::new(),
            backstop: false,
            name_keys: Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 },
        }
    }
}

/// How a denied `connect` or `sendto` fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeny {
    /// `ECONNREFUSED`
    Refuse,
    /// `EHOSTUNREACH`
    Unreachable,
    /// `EINVAL`, as for a blackhole route.
    Blackhole,
}

impl OnDeny {
    const fn errno(self) -> i32 {
        match self {
            Self::Refuse => libc::ECONNREFUSED,
            Self::Unreachable => libc::EHOSTUNREACH,
            Self::Blackhole => libc::EINVAL,
        }
    }
}

/// What holds for replies on connections from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// They pass and are not recorded.
    Allow,
    /// They are judged like connections of the app's own.
    Enforce,
}

/// What becomes of QUIC (RFC 9000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quic {
    /// The server name that a connection begins with is judged, before anything gets out.
    Inspect,
    /// None passes.
    Block,
    /// It is a datagram like any other: judged by address, and by the names the address is known by.
    Allow,
}

impl Settings {
    /// A header with what the settings say, and no tables.
    pub(super) fn header(&self) -> Result<Header, Error> {
        let mut header = Header {
            errno: -self.on_deny.errno(),
            flags: self.flags(),
            // An even factor would lose bits with each byte.
            name_keys: Keys { factor: self.name_keys.factor | 1, ..self.name_keys },
            ..Header::default()
        };
        let mut ports = self.dns_ports.clone();
        ports.retain(|port| ![0, 53].contains(port));
        ports.sort_unstable();
        ports.dedup();
        fill(&mut header.dns_ports, ports, "dns_ports")?;
        let mut resolvers: Vec<Resolver> = Vec::new();
        for (address, port) in &self.resolvers {
            let address = Address::from(*address).destination();
            let resolver = Resolver { address, port: u32::from(*port), _pad: 0 };
            if !resolvers.contains(&resolver) {
                resolvers.push(resolver);
            }
        }
        fill(&mut header.resolvers, resolvers, "resolvers")?;
        Ok(header)
    }

    fn flags(&self) -> u32 {
        // Who only observes holds nothing back.
        let mut bits = match (self.quic, self.observe) {
            (Quic::Allow, _) => 0,
            (_, true) => flags::QUIC_WATCH,
            (Quic::Inspect, false) => flags::QUIC_INSPECT,
            (Quic::Block, false) => flags::QUIC_BLOCK,
        };
        for (is, bit) in [
            (self.observe || self.unparsable == Default::Allow, flags::UNPARSABLE_ALLOW),
            (self.inbound == Inbound::Enforce, flags::INBOUND_ENFORCE),
            (self.record_allow, flags::RECORD_ALLOW),
            (self.observe || self.ambiguous == Default::Allow, flags::AMBIGUOUS_ALLOW),
            (self.quic_unattended == Default::Allow, flags::UNATTENDED_ALLOW),
            (self.backstop && !self.observe, flags::BACKSTOP),
        ] {
            if is {
                bits |= bit;
            }
        }
        bits
    }
}

fn fill<T>(to: &mut [T], from: Vec<T>, setting: &'static str) -> Result<(), Error> {
    if from.len() > to.len() {
        return Err(Error::TooMany { setting, count: from.len(), limit: to.len() });
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to = from;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_observes_denies_nothing() {
        let passing = flags::UNPARSABLE_ALLOW | flags::AMBIGUOUS_ALLOW;
        let settings = Settings::default();
        assert_eq!(settings.header().unwrap().flags & passing, 0);
        let settings = Settings { observe: true, ..settings };
        assert_eq!(settings.header().unwrap().flags & passing, passing);
        for quic in [Quic::Inspect, Quic::Block, Quic::Allow] {
            let settings = Settings { quic, ..settings.clone() };
            let holding = flags::QUIC_INSPECT | flags::QUIC_BLOCK;
            assert_eq!(settings.header().unwrap().flags & holding, 0);
        }
    }
}
