//! What answers tell of a name.

use std::net::IpAddr;

use firewall_common::name::Text;
use hickory_resolver::proto::rr::{
    Name, RData, Record,
    rdata::svcb::{IpHint, SVCB, SvcParamValue},
};

/// Names that a name is an alias of, one after the other, at most.
const MOST_ALIASES: usize = 16;

/// Where a name leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it is an alias of (CNAME), the first one first.
    pub chain: Vec<String>,
    /// Its addresses, each once for each way that leads there.
    pub addresses: Vec<Found>,
    /// Which upstream told, in the order in which they were given.
    pub upstream: usize,
    /// Records that were asked for and did not come, with the reason.
    pub missing: Vec<(&'static str, String)>,
}

/// An address of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub ip: IpAddr,
    /// Seconds for which that is so: the shortest time to live on the way there.
    pub ttl: u32,
    /// The kind of the record that has it: `A`, `AAAA` or `HTTPS`.
    pub record: &'static str,
    /// The target of the HTTPS record whose hint it is, if that is another name. Who owns the name
    /// asked for wrote both, so the target can deny and never allow.
    pub target: Option<String>,
}

impl Answer {
    /// Reads the records that came for a name, of whatever answers.
    ///
    /// A record counts if its owner is the name or one that the name is an alias of.
    pub fn read(name: &Name, records: &[Record]) -> Self {
        let chain = chain(name, records);
        let mut answer = Self::default();
        for record in records {
            let on_the_way = chain.iter().find(|(owner, _)| **owner == record.name);
            let Some((_, ttl)) = on_the_way else { continue };
            let ttl = lifetime(record).min(*ttl);
            match &record.data {
                RData::A(a) => answer.add(a.0.into(), ttl, "A", None),
                RData::AAAA(aaaa) => answer.add(aaaa.0.into(), ttl, "AAAA", None),
                RData::HTTPS(https) => {
                    let other = !https.target_name.is_root() && https.target_name != record.name;
                    let target = other.then(|| text(&https.target_name));
                    for ip in hints(https) {
                        answer.add(ip, ttl, "HTTPS", target.clone());
                    }
                }
                _ => {}
            }
        }
        answer.chain = chain.into_iter().skip(1).map(|(alias, _)| text(alias)).collect();
        answer
    }

    fn add(&mut self, ip: IpAddr, ttl: u32, record: &'static str, target: Option<String>) {
        let same = |found: &&mut Found| found.ip == ip && found.target == target;
        match self.addresses.iter_mut().find(same) {
            Some(found) => found.ttl = found.ttl.min(ttl),
            None => self.addresses.push(Found { ip, ttl, record, target }),
        }
    }
}

/// A name and those that it is an alias of, with how long that is so.
fn chain<'r>(name: &'r Name, records: &'r [Record]) -> Vec<(&'r Name, u32)> {
    let mut chain = vec![(name, u32::MAX)];
    let mut place = 0;
    while let Some((owner, ttl)) = chain.get(place).copied() {
        for record in records {
            let RData::CNAME(target) = &record.data else { continue };
            let known = chain.iter().any(|(name, _)| **name == target.0);
            if record.name == *owner && !known && chain.len() <= MOST_ALIASES {
                chain.push((&target.0, lifetime(record).min(ttl)));
            }
        }
        place += 1;
    }
    chain
}

/// RFC 2181 section 8: a time to live with its highest bit set is none.
fn lifetime(record: &Record) -> u32 {
    if record.ttl > i32::MAX as u32 { 0 } else { record.ttl }
}

/// The addresses in a service binding (RFC 9460 section 7.3); in one that is an alias they mean
/// nothing.
fn hints(service: &SVCB) -> Vec<IpAddr> {
    let mut hints: Vec<IpAddr> = Vec::new();
    if service.svc_priority == 0 {
        return hints;
    }
    for (_, value) in &service.svc_params {
        match value {
            SvcParamValue::Ipv4Hint(IpHint(all)) => {
                hints.extend(all.iter().map(|a| IpAddr::V4(a.0)))
            }
            SvcParamValue::Ipv6Hint(IpHint(all)) => {
                hints.extend(all.iter().map(|a| IpAddr::V6(a.0)))
            }
            _ => {}
        }
    }
    hints
}

/// A name as events have it.
fn text(name: &Name) -> String {
    let mut text = Text::EMPTY;
    for (place, label) in name.iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        label.iter().for_each(|byte| text.push(*byte));
    }
    text.to_string()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{
        A, AAAA, CNAME, HTTPS,
        svcb::{Alpn, SvcParamKey},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(name(owner), ttl, data)
    }

    fn a(owner: &str, ttl: u32, ip: [u8; 4]) -> Record {
        record(owner, ttl, RData::A(A(ip.into())))
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        record(owner, ttl, RData::CNAME(CNAME(name(target))))
    }

    fn https(owner: &str, priority: u16, target: &str, hint: [u8; 4]) -> Record {
        let parameters = vec![
            (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h3".to_owned()]))),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A(hint.into())]))),
        ];
        let service = SVCB::new(priority, name(target), parameters);
        record(owner, 60, RData::HTTPS(HTTPS(service)))
    }

    fn found(ip: &str, ttl: u32, record: &'static str, target: Option<&str>) -> Found {
        Found { ip: ip.parse().unwrap(), ttl, record, target: target.map(str::to_owned) }
    }

    #[test]
    fn a_chain_is_followed_in_whatever_order_it_comes() {
        let records = [
            a("C.example.", 300, [192, 0, 2, 1]),
            record("c.example.", 20, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
            cname("b.example.", 200, "c.EXAMPLE."),
            cname("A.example.", 100, "b.example."),
            cname("c.example.", 100, "a.example."),
            a("other.example.", 300, [192, 0, 2, 9]),
            a("c.example.", u32::MAX, [192, 0, 2, 2]),
            a("c.example.", 30, [192, 0, 2, 1]),
            a("c.example.", 1000, [192, 0, 2, 3]),
        ];
        let answer = Answer::read(&name("a.example."), &records);
        assert_eq!(answer.chain, ["b.example", "c.example"]);
        let want = [
            found("192.0.2.1", 30, "A", None),
            found("2001:db8::1", 20, "AAAA", None),
            found("192.0.2.2", 0, "A", None),
            found("192.0.2.3", 100, "A", None),
        ];
        assert_eq!(answer.addresses, want);
    }

    #[test]
    fn a_hint_tells_whose_it_is() {
        let records = [
            a("shop.example.", 300, [192, 0, 2, 1]),
            https("shop.example.", 1, ".", [192, 0, 2, 1]),
            https("shop.example.", 2, "cdn.example.", [192, 0, 2, 1]),
            https("shop.example.", 0, "alias.example.", [192, 0, 2, 7]),
            https("cdn.example.", 1, ".", [192, 0, 2, 8]),
        ];
        let answer = Answer::read(&name("shop.example."), &records);
        assert_eq!(answer.chain, [""; 0]);
        let want = [
            found("192.0.2.1", 60, "A", None),
            found("192.0.2.1", 60, "HTTPS", Some("cdn.example")),
        ];
        assert_eq!(answer.addresses, want);
    }

    #[test]
    fn a_chain_has_an_end() {
        let at = |number: usize| format!("{number}.example.");
        let records: Vec<Record> =
            (0..1000).map(|number| cname(&at(number), 60, &at(number + 1))).collect();
        assert_eq!(Answer::read(&name("0.example."), &records).chain.len(), MOST_ALIASES);
    }

    #[test]
    fn any_bytes_are_text() {
        let odd = Name::from_labels([&b"\x1b[2J"[..], &b"Example"[..]]).unwrap();
        assert_eq!(text(&odd), "\\x1b[2j.example");
    }
}
