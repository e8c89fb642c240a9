//! What is known of names and of those who tell them: who is asked on which port, whom to believe, and for how
//! long. The kernel programs and the replay of a capture go by it.

use crate::{
    flow::Destination,
    layout::{Header, MIN_LIFETIME, Resolver},
};

/// What a port of a server is for: another service.
pub const NO_DNS: u32 = 0;
/// DNS.
pub const DNS: u32 = 1;
/// mDNS (RFC 6762) or LLMNR (RFC 4795): seen, and judged only by rules that match the name.
pub const MULTICAST: u32 = 2;

impl Header {
    /// Whether a port of a server is one for questions: [`NO_DNS`], [`DNS`] or [`MULTICAST`].
    #[inline(always)]
    pub fn service(&self, port: u16) -> u32 {
        if port == 53 {
            return DNS;
        }
        for further in self.dns_ports {
            if further != 0 && further == port {
                return DNS;
            }
        }
        if matches!(port, 5353 | 5355) { MULTICAST } else { NO_DNS }
    }

    /// Whether a server is one of the resolvers whose answers can support an allow.
    #[inline(always)]
    pub fn is_trusted(&self, server: &Destination) -> bool {
        for resolver in &self.resolvers {
            if resolver.is(server) {
                return true;
            }
        }
        false
    }
}

impl Resolver {
    /// Whether a server is this one.
    #[inline(always)]
    fn is(&self, server: &Destination) -> bool {
        self.port == u32::from(server.port) && self.port != 0 && self.address == server.address
    }
}

/// Seconds for which a name is kept that has this time to live.
#[inline(always)]
pub const fn lifetime(time_to_live: u32) -> u32 {
    // RFC 2181 section 8: a time to live with its highest bit set is none.
    let lifetime = if time_to_live > i32::MAX as u32 { 0 } else { time_to_live };
    if lifetime < MIN_LIFETIME { MIN_LIFETIME } else { lifetime }
}
