//! Addresses and flows as the matcher sees them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::forget::forget_u64;

/// `IPPROTO_ICMP`
pub const ICMP: u8 = 1;
/// `IPPROTO_TCP`
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`
pub const UDP: u8 = 17;
/// `IPPROTO_ICMPV6`
pub const ICMPV6: u8 = 58;
/// `IPPROTO_SCTP`
pub const SCTP: u8 = 132;
/// `IPPROTO_UDPLITE`
pub const UDPLITE: u8 = 136;

/// Whether the protocol's header starts with a source and a destination port.
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | UDPLITE | SCTP)
}

/// An IP address in two words of the host's byte order, IPv4 in its v4-mapped form.
///
/// Two words because that is what a trie walk shifts through and what a comparison in the kernel
/// costs least with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Bits 0 to 63.
    pub high: u64,
    /// Bits 64 to 127.
    pub low: u64,
}

const MAPPED: u64 = 0xffff << 32;

impl Address {
    /// An IPv4 address, by its value in the host's byte order.
    #[inline(always)]
    pub const fn v4(bits: u32) -> Self {
        Self { high: 0, low: MAPPED | bits as u64 }
    }

    /// An IPv6 address from four words in network byte order, as the kernel keeps them.
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self {
            high: (u32::from_be(words[0]) as u64) << 32 | u32::from_be(words[1]) as u64,
            low: (u32::from_be(words[2]) as u64) << 32 | u32::from_be(words[3]) as u64,
        }
    }

    /// The IPv4 address, if this is one (`::ffff:0:0/96`, RFC 4291 section 2.5.5.2).
    #[inline(always)]
    pub const fn as_v4(self) -> Option<u32> {
        if self.high == 0 && self.low >> 32 == 0xffff { Some(self.low as u32) } else { None }
    }

    /// The IPv4 address that an IPv6 address carries inside:
    /// NAT64 `64:ff9b::/96` (RFC 6052), 6to4 `2002::/16` (RFC 3056) and the client of Teredo
    /// `2001::/32`, whose bits are inverted (RFC 4380).
    #[inline(always)]
    pub const fn embedded_v4(self) -> Option<u32> {
        if self.high == 0x0064_ff9b_0000_0000 && self.low >> 32 == 0 {
            Some(self.low as u32)
        } else if self.high >> 48 == 0x2002 {
            Some((self.high >> 16) as u32)
        } else if self.high >> 32 == 0x2001_0000 {
            Some(!(self.low as u32))
        } else {
            None
        }
    }

    /// The same address, of which the verifier knows nothing.
    #[inline(always)]
    pub fn forget(self) -> Self {
        Self { high: forget_u64(self.high), low: forget_u64(self.low) }
    }

    /// Where a connection to this address goes: the unspecified address means this host
    /// (Linux `inet_connect` and `ip6_datagram_connect` put the loopback in its place).
    #[inline(always)]
    pub const fn destination(self) -> Self {
        if self.high != 0 {
            return self;
        }
        match self.low {
            0 => Self { high: 0, low: 1 },
            MAPPED => Self::v4(0x7f00_0001),
            _ => self,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                Self { high: (bits >> 64) as u64, low: bits as u64 }
            }
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        match address.as_v4() {
            Some(bits) => Self::V4(Ipv4Addr::from_bits(bits)),
            None => Self::V6(Ipv6Addr::from_bits(
                u128::from(address.high) << 64 | u128::from(address.low),
            )),
        }
    }
}

/// Whether an IPv4 address is one that the internet routes: not private, shared, loopback,
/// link-local, multicast or reserved (RFC 6890).
#[inline(always)]
pub const fn is_global_v4(bits: u32) -> bool {
    let [a, b, ..] = bits.to_be_bytes();
    !matches!(
        (a, b),
        (0 | 10 | 127 | 224.., _) | (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168)
    )
}

/// What a verdict is asked for: where to, by which protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address.
    pub address: Address,
    /// The port in the host's byte order; 0 for protocols without ports.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// 1 if the protocol has ports but this packet does not show them: a fragment other than the
    /// first.
    pub port_hidden: u8,
}

/// Random numbers that make a [`fingerprint`] one's own.
pub const SEEDS: usize = 14;

/// 62 bits that stand for a destination in one generation; the low two bits are zero.
///
/// Two sums of 32-bit words, each with 64-bit random factors, of which the upper halves are kept:
/// who does not know the factors hits the fingerprint of another destination with a chance of
/// 2^-62 a try (multilinear hashing; Lemire and Kaser, "Strongly universal string hashing is fast",
/// 2014).
#[inline(always)]
pub fn fingerprint(seed: impl Fn(usize) -> u64, generation: u32, to: &Destination) -> u64 {
    let Destination { address: Address { high, low }, port, protocol, .. } = *to;
    let words = [
        high >> 32,
        high & 0xffff_ffff,
        low >> 32,
        low & 0xffff_ffff,
        (port as u64) << 8 | protocol as u64,
        generation as u64,
    ];
    fingerprint_words(seed, words)
}

/// As [`fingerprint`], of any six numbers of 32 bits.
#[inline(always)]
pub fn fingerprint_words(seed: impl Fn(usize) -> u64, words: [u64; 6]) -> u64 {
    let mut upper = seed(0);
    let mut lower = seed(1);
    for (index, word) in words.into_iter().enumerate() {
        upper = upper.wrapping_add(seed(2 + 2 * index).wrapping_mul(word));
        lower = lower.wrapping_add(seed(3 + 2 * index).wrapping_mul(word));
    }
    (upper >> 32 << 32 | lower >> 32) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn inside_of_transition_addresses() {
        let inside = |text| address(text).embedded_v4().map(Ipv4Addr::from_bits);
        let want = Some(Ipv4Addr::new(110, 242, 68, 66));
        assert_eq!(inside("64:ff9b::6ef2:4442"), want);
        assert_eq!(inside("2002:6ef2:4442::1"), want);
        assert_eq!(inside("2001:0:1234:5678:9abc:def0:910d:bbbd"), want);
        assert_eq!(inside("2001:200::1"), None);
        assert_eq!(inside("64:ff9b:1::6ef2:4442"), None);
        assert_eq!(inside("110.242.68.66"), None);
    }

    #[test]
    fn mapped_is_v4_and_comes_back() {
        assert_eq!(address("::ffff:1.2.3.4"), address("1.2.3.4"));
        for text in ["1.2.3.4", "::", "0.0.0.0", "2001:db8::5", "::1"] {
            assert_eq!(IpAddr::from(address(text)).to_string(), text);
        }
        let words = [0x2001_0db8u32, 1, 2, 3].map(u32::to_be);
        assert_eq!(Address::v6(words), address("2001:db8:0:1:0:2:0:3"));
    }

    #[test]
    fn every_part_of_a_destination_makes_its_fingerprint() {
        let seed = |index: usize| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 * 2 + 3);
        let one = Destination {
            address: address("2001:db8::5"),
            port: 443,
            protocol: TCP,
            port_hidden: 0,
        };
        let of = |generation, to| fingerprint(seed, generation, &to);
        assert_eq!(of(1, one), of(1, one));
        let other = |text| Destination { address: address(text), ..one };
        let all = [
            of(1, one),
            of(2, one),
            of(1, Destination { port: 444, ..one }),
            of(1, Destination { protocol: UDP, ..one }),
            of(1, other("2001:db9::5")),
            of(1, other("2001:db8:0:1::5")),
            of(1, other("2001:db8::1:0:5")),
            of(1, other("2001:db8::6")),
        ];
        for (index, a) in all.iter().enumerate() {
            assert_eq!(a & 3, 0);
            assert!(all[..index].iter().all(|b| a != b), "{index}");
        }
    }

    #[test]
    fn unspecified_is_this_host() {
        assert_eq!(address("0.0.0.0").destination(), address("127.0.0.1"));
        assert_eq!(address("::").destination(), address("::1"));
        assert_eq!(address("::2").destination(), address("::2"));
    }
}
