//! What is known of names and of those who tell them: who is asked on which port, whom to believe, and for how
//! long. The kernel programs and the replay of a capture go by it.

use crate::{
    evaluate::NAMES,
    flow::Destination,
    forget::forget,
    layout::{
        Answer, Answers, Header, MIN_LIFETIME, Resolver,
        flags::{AMBIGUOUS_ALLOW, UNPARSABLE_ALLOW},
    },
    verdict::Verdict,
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

    /// What a flow gets whose names get different verdicts, and that shows none.
    #[inline(always)]
    pub const fn no_name(&self) -> Verdict {
        if self.flags & AMBIGUOUS_ALLOW != 0 { Verdict::Audit } else { Verdict::Deny }
    }

    /// What gets what cannot be read far enough to be judged: it fails closed unless configured otherwise.
    #[inline(always)]
    pub const fn unparsable(&self) -> Verdict {
        if self.flags & UNPARSABLE_ALLOW != 0 { Verdict::Audit } else { Verdict::Deny }
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

impl Answers {
    /// Takes in a name that is known from `now` on: in its own place, or a free one, or that of the one that ends
    /// first. `more`: rules speak of more of its aliases than there is room for. Returns the place.
    #[inline(always)]
    pub fn keep(&mut self, answer: &Answer, more: bool, now: u32) -> usize {
        let mut place = 0;
        let mut rank = u32::MAX;
        for (index, one) in self.names.iter().enumerate() {
            let this = if one.until != 0 && one.named == answer.named {
                0
            } else if one.until <= now {
                1
            } else {
                one.until
            };
            if this < rank {
                rank = this;
                place = index;
            }
        }
        // Until what is pushed out would have run out.
        let more_until = if more { answer.until } else { 0 };
        let more_until = if rank > 1 && rank > more_until { rank } else { more_until };
        if more_until > self.more_until {
            self.more_until = more_until;
        }
        let to = &mut self.names[forget(place as u32) as usize % NAMES];
        let until = if rank == 0 && to.until > answer.until { to.until } else { answer.until };
        if rank == 0 && to.name != answer.name {
            self.several |= 1 << place;
        } else if rank != 0 {
            self.several &= !(1 << place);
        }
        to.name = answer.name;
        to.named = answer.named;
        to.until = until;
        place
    }

    /// Bits of the names that hold and can be meant, where the payload shows a name of this hash and class or
    /// none.
    ///
    /// Names that rules cannot tell apart are as good as one, but their aliases are not: where it is not
    /// kept which of them the payload shows, it can be any of its class.
    #[inline(always)]
    pub fn meant(&self, now: u32, shown: Option<(u64, u32)>) -> u32 {
        let (mut hold, mut exact, mut alike) = (0, 0, 0);
        for (index, answer) in self.names.iter().enumerate() {
            // Without branches, which the verifier would follow for each.
            hold |= (now.wrapping_sub(answer.until) >> 31) << index;
            if let Some((name, class)) = shown {
                exact |= is_zero(answer.name ^ name) << index;
                alike |= is_zero(u64::from(answer.named.classes[0] ^ class)) << index;
            }
        }
        if shown.is_none() {
            hold
        } else if hold & exact != 0 {
            hold & exact
        } else {
            hold & alike & self.several
        }
    }
}

#[inline(always)]
const fn is_zero(number: u64) -> u32 {
    (!(number | number.wrapping_neg()) >> 63) as u32
}
