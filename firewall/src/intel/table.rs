//! What holds for which addresses: sorted starts beside values, searched by halving.
//!
//! Invariants, kept by [`Transitions`]: starts ascend strictly, neighbours differ, and the value
//! that is `V::default()` means that nothing is known.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::format::{Address, Damaged, Source, Transitions};

/// A map from addresses of both families to values.
#[derive(Debug)]
pub(super) struct Table<V> {
    source: Arc<Source>,
    v4: Family<Vec<u32>, V>,
    v6: Family<Halves, V>,
}

impl<V: Copy + Default + PartialEq> Table<V> {
    /// `value` says what a number of the transitions, never 0, stands for.
    pub(super) fn new(
        source: Source,
        v4: Transitions<u32>,
        v6: Transitions<u128>,
        value: impl Fn(u32) -> Option<V>,
    ) -> Result<Self, Damaged> {
        let values = |numbers: Vec<u32>| -> Result<Vec<V>, Damaged> {
            numbers
                .into_iter()
                .map(|number| match number {
                    0 => Ok(V::default()),
                    number => value(number).ok_or(Damaged("a value that means nothing")),
                })
                .collect()
        };
        let mut starts = v4.starts;
        // Columns grown by pushing have room for up to twice what they hold.
        starts.shrink_to_fit();
        Ok(Self {
            source: Arc::new(source),
            v4: Family { starts, values: values(v4.values)? },
            v6: Family { starts: Halves::new(&v6.starts)?, values: values(v6.values)? },
        })
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What holds for an address, and in which network around it.
    pub(super) fn lookup(&self, ip: IpAddr) -> Option<(V, IpNet)> {
        match ip {
            IpAddr::V4(ip) => {
                let (value, range) = self.v4.lookup(ip.to_bits())?;
                Some((value, block_v4(ip, &range)))
            }
            IpAddr::V6(ip) => {
                let (value, range) = self.v6.lookup(ip.to_bits())?;
                Some((value, block_v6(ip, &range)))
            }
        }
    }

    pub(super) fn ranges_v4(&self) -> impl Iterator<Item = (RangeInclusive<u32>, V)> {
        self.v4.ranges()
    }

    pub(super) fn ranges_v6(&self) -> impl Iterator<Item = (RangeInclusive<u128>, V)> {
        self.v6.ranges()
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        (self.v4.values.capacity() + self.v6.values.capacity()) * size_of::<V>()
            + self.v4.starts.capacity() * 4
            + self.v6.starts.high.capacity() * 8
            + self.v6.starts.low.capacity() * 16
    }
}

#[derive(Debug)]
struct Family<S, V> {
    starts: S,
    values: Vec<V>,
}

impl<S: Starts, V: Copy + Default + PartialEq> Family<S, V> {
    fn lookup(&self, address: S::Address) -> Option<(V, RangeInclusive<S::Address>)> {
        let index = self.starts.up_to(address).checked_sub(1)?;
        let value = self.values[index];
        (value != V::default()).then(|| (value, self.range(index)))
    }

    fn ranges(&self) -> impl Iterator<Item = (RangeInclusive<S::Address>, V)> {
        self.values
            .iter()
            .enumerate()
            .filter(|(_, value)| **value != V::default())
            .map(|(index, value)| (self.range(index), *value))
    }

    fn range(&self, index: usize) -> RangeInclusive<S::Address> {
        let end = if index + 1 == self.values.len() {
            S::Address::MAX
        } else {
            // The next start is above this one, so above 0.
            S::Address::narrow(self.starts.at(index + 1).wide() - 1)
        };
        self.starts.at(index)..=end
    }
}

/// A column of ascending addresses.
trait Starts {
    type Address: Address;
    fn at(&self, index: usize) -> Self::Address;
    /// How many are not above an address.
    fn up_to(&self, address: Self::Address) -> usize;
}

impl Starts for Vec<u32> {
    type Address = u32;

    fn at(&self, index: usize) -> u32 {
        self[index]
    }

    fn up_to(&self, address: u32) -> usize {
        self.partition_point(|start| *start <= address)
    }
}

/// IPv6 addresses, of which all but a few hundred in 300,000 end in 64 zero bits.
#[derive(Debug)]
struct Halves {
    high: Vec<u64>,
    /// Of those that do not, the index and the low half.
    low: Vec<(u32, u64)>,
}

impl Halves {
    fn new(starts: &[u128]) -> Result<Self, Damaged> {
        let high = starts.iter().map(|start| (start >> 64) as u64).collect();
        let mut low = Vec::new();
        for (index, start) in starts.iter().enumerate() {
            if *start as u64 != 0 {
                let index = u32::try_from(index).map_err(|_| Damaged("too many ranges"))?;
                low.push((index, *start as u64));
            }
        }
        low.shrink_to_fit();
        Ok(Self { high, low })
    }
}

impl Starts for Halves {
    type Address = u128;

    fn at(&self, index: usize) -> u128 {
        let found = self.low.binary_search_by_key(&index, |(index, _)| *index as usize);
        let low = found.map_or(0, |found| self.low[found].1);
        u128::from(self.high[index]) << 64 | u128::from(low)
    }

    fn up_to(&self, address: u128) -> usize {
        let high = (address >> 64) as u64;
        let mut index = self.high.partition_point(|start| *start < high);
        let mut above = index + self.high[index..].partition_point(|start| *start == high);
        // What is left has the same high half: halve by whole addresses.
        while index < above {
            let middle = index.midpoint(above);
            if self.at(middle) <= address {
                index = middle + 1;
            } else {
                above = middle;
            }
        }
        index
    }
}

/// The largest network around an address that lies in a range that holds it.
fn block_v4(ip: Ipv4Addr, range: &RangeInclusive<u32>) -> IpNet {
    let fits = |net: &Ipv4Net| {
        range.contains(&net.network().to_bits()) && range.contains(&net.broadcast().to_bits())
    };
    let host = Ipv4Net::from(ip);
    let net = (0..=32).filter_map(|length| Ipv4Net::new(ip, length).ok()).find(fits);
    net.unwrap_or(host).trunc().into()
}

fn block_v6(ip: Ipv6Addr, range: &RangeInclusive<u128>) -> IpNet {
    let fits = |net: &Ipv6Net| {
        range.contains(&net.network().to_bits()) && range.contains(&net.broadcast().to_bits())
    };
    let host = Ipv6Net::from(ip);
    let net = (0..=128).filter_map(|length| Ipv6Net::new(ip, length).ok()).find(fits);
    net.unwrap_or(host).trunc().into()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
