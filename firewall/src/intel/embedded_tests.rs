//! What the embedded tables say of addresses whose owner and country are known from elsewhere, and
//! that they are the tables that `provenance.toml` speaks of.

use std::{fmt::Write as _, net::IpAddr};

use sha2::{Digest as _, Sha256};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn known_addresses() {
    let intel = Intel::default();
    let (geo, asn) = (intel.geo().unwrap(), intel.asn().unwrap());
    let organisations = intel.organisations().unwrap();
    let mut seen = String::new();
    for text in [
        "110.242.68.66",
        "103.235.46.191",
        "2400:3200::1",
        "3.173.21.63",
        "212.27.48.10",
        "2600:9000::10",
        "2001:200::1",
        "1.94.179.165",
        "43.109.38.198",
        "193.0.6.139",
        "10.0.0.1",
        "127.0.0.1",
        "::1",
        "fe80::1",
    ] {
        let located = geo.lookup(ip(text));
        let origin = asn.lookup(ip(text));
        let country = located.map_or("-", |located| located.country.code());
        let network = located.map_or_else(|| "-".to_owned(), |located| located.network.to_string());
        let number =
            origin.map_or_else(|| "-".to_owned(), |o| format!("AS{} {}", o.asn, o.network));
        let owner = origin.and_then(|origin| organisations.of(origin.asn)).unwrap_or("-");
        let name = origin.and_then(|origin| asn.name(origin.asn)).unwrap_or("-");
        writeln!(seen, "{text} | {country} {network} | {number} | {owner} | {name}").unwrap();
    }
    insta::assert_snapshot!(seen, @r"
    110.242.68.66 | CN 110.240.0.0/12 | AS4837 110.240.0.0/12 | - | CHINA UNICOM China169 Backbone
    103.235.46.191 | HK 103.235.44.0/22 | AS55967 103.235.44.0/22 | baidu | Beijing Baidu Netcom Science and Technology Co., Ltd.
    2400:3200::1 | CN 2400:3200::/32 | AS37963 2400:3200::/32 | alibaba | Hangzhou Alibaba Advertising Co.,Ltd.
    3.173.21.63 | US 3.0.0.0/8 | AS16509 3.128.0.0/10 | - | Amazon.com, Inc.
    212.27.48.10 | FR 212.27.32.0/19 | AS12322 212.27.32.0/19 | - | Free SAS
    2600:9000::10 | US 2600:9000::/28 | AS16509 2600:9000::/34 | - | Amazon.com, Inc.
    2001:200::1 | JP 2001:200::/32 | AS2500 2001:200::/40 | - | WIDE Project
    1.94.179.165 | CN 1.80.0.0/12 | AS55990 1.94.0.0/15 | huawei-cloud | Huawei Cloud Service data center
    43.109.38.198 | SG 43.0.0.0/9 | AS24429 43.109.0.0/16 | alibaba | Zhejiang Taobao Network Co.,Ltd
    193.0.6.139 | NL 193.0.0.0/19 | AS3333 193.0.0.0/21 | - | Reseaux IP Europeens Network Coordination Centre (RIPE NCC)
    10.0.0.1 | - - | - | - | -
    127.0.0.1 | - - | - | - | -
    ::1 | - - | - | - | -
    fe80::1 | - - | - | - | -
    ");
}

/// Every AS of the table has a name, and names are read only when asked for.
#[test]
fn every_as_has_a_name() {
    let asn = Asn::embedded().unwrap();
    assert!(!format!("{asn:?}").contains("Amazon"));
    let unnamed = |(_, number): &(_, u32)| asn.name(*number).is_none_or(str::is_empty);
    let mut nameless: Vec<_> = asn.ranges_v4().map(|(_, n)| ((), n)).filter(unnamed).collect();
    nameless.extend(asn.ranges_v6().map(|(_, n)| ((), n)).filter(unnamed));
    assert_eq!(nameless, []);
}

#[test]
fn ranges_ascend_apart() {
    let (geo, asn) = (Geo::embedded().unwrap(), Asn::embedded().unwrap());
    apart(geo.ranges_v4());
    apart(geo.ranges_v6());
    apart(asn.ranges_v4());
    apart(asn.ranges_v6());
}

fn apart<A: format::Address, V: PartialEq>(
    ranges: impl Iterator<Item = (std::ops::RangeInclusive<A>, V)>,
) {
    let mut before: Option<(A, V)> = None;
    for (range, value) in ranges {
        assert!(range.start() <= range.end());
        if let Some((end, last)) = before {
            assert!(end < *range.start());
            assert!(end.next() != Some(*range.start()) || last != value);
        }
        before = Some((*range.end(), value));
    }
}

#[test]
fn the_tables_are_those_of_the_provenance() {
    let provenance: toml::Table = include_str!("../../data/provenance.toml").parse().unwrap();
    let (geo, asn) = (Geo::embedded().unwrap(), Asn::embedded().unwrap());
    let (names_source, names, ..) = format::decode_names(AS_NAMES).unwrap();
    let count = |v4: usize, v6: usize| vec![("ranges_v4", v4), ("ranges_v6", v6)];
    for (file, bytes, source, counts) in [
        (
            "country.table",
            COUNTRY_TABLE,
            geo.source().as_ref(),
            count(geo.ranges_v4().count(), geo.ranges_v6().count()),
        ),
        (
            "as.table",
            AS_TABLE,
            asn.source().as_ref(),
            count(asn.ranges_v4().count(), asn.ranges_v6().count()),
        ),
        ("as.names", AS_NAMES, &names_source, vec![("names", names.len())]),
    ] {
        let said = provenance[file].as_table().unwrap();
        let sum =
            Sha256::digest(bytes).iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        assert_eq!(said["sha256"].as_str(), Some(sum.as_str()), "{file}");
        assert_eq!(said["bytes"].as_integer(), i64::try_from(bytes.len()).ok(), "{file}");
        assert_eq!(said["source"].as_str(), Some(source.name.as_str()));
        assert_eq!(said["version"].as_str(), Some(source.version.as_str()));
        assert_eq!(said["date"].as_str(), Some(source.date.as_str()));
        assert!(source.licence.starts_with(said["licence"].as_str().unwrap()));
        assert!(source.licence.ends_with(said["credit"].as_str().unwrap()));
        for (key, count) in counts {
            assert_eq!(said[key].as_integer(), i64::try_from(count).ok(), "{file} {key}");
        }
    }
}

/// Damage anywhere gives an error or a table, never a panic.
#[test]
fn damaged_tables_are_errors() {
    let decode = |bytes: &[u8]| format::decode_table(bytes).is_ok();
    assert!(!decode(&[]));
    assert!(!decode(AS_NAMES));
    assert!(format::decode_names(COUNTRY_TABLE).is_err());
    for length in [4, 8, 9, 50, 200, 300, COUNTRY_TABLE.len() / 2, COUNTRY_TABLE.len() - 1] {
        assert!(!decode(&COUNTRY_TABLE[..length]), "{length}");
        assert!(format::decode_names(&AS_NAMES[..length]).is_err(), "{length}");
    }
    let header = COUNTRY_TABLE.len().min(250);
    for at in 0..header {
        let mut bytes = COUNTRY_TABLE[..header].to_vec();
        bytes[at] ^= 0xff;
        assert!(!decode(&bytes));
    }
    assert!(!decode(&[COUNTRY_TABLE, &[0]].concat()));
}

/// Prints what loading costs: `cargo test --release -p firewall --lib cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_loading() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = |key| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        format!("{} {}", line("VmRSS"), line("VmHWM"))
    };
    println!("before: {}", resident());
    let start = std::time::Instant::now();
    let geo = Geo::embedded().unwrap();
    let countries = start.elapsed();
    let asn = Asn::embedded().unwrap();
    let both = start.elapsed();
    println!("both tables: {}", resident());
    let name = asn.name(4837).map(str::to_owned);
    println!("countries {countries:?}, both {both:?}, and names {:?}", start.elapsed());
    println!("with names: {} ({name:?})", resident());
    println!("heap: countries {}, AS {}", geo.size(), asn.size());
}
