//! Who is asked, who is believed, and for how long.

use firewall_common::{
    answers::{DNS, MULTICAST, NO_DNS, lifetime},
    flow::{Address, Destination, UDP},
    layout::{Header, Resolver},
};

#[test]
fn ports_of_questions() {
    let mut header = Header::default();
    for (port, service) in
        [(53, DNS), (5353, MULTICAST), (5355, MULTICAST), (0, NO_DNS), (853, NO_DNS)]
    {
        assert_eq!(header.service(port), service, "{port}");
    }
    header.dns_ports[7] = 853;
    header.dns_ports[2] = 5353;
    for (port, service) in [(53, DNS), (5353, DNS), (5355, MULTICAST), (0, NO_DNS), (853, DNS)] {
        assert_eq!(header.service(port), service, "{port}");
    }
}

#[test]
fn resolvers_are_trusted_by_address_and_port() {
    let at = |address, port| Destination { address, port, protocol: UDP, port_hidden: 0 };
    let (one, other) = (Address::v4(0x0808_0808), Address { high: 1, low: 1 });
    let mut header = Header::default();
    assert!(!header.is_trusted(&at(Address::default(), 0)), "a place without a resolver is none");
    header.resolvers[0] = Resolver { address: one, port: 53, _pad: 0 };
    header.resolvers[7] = Resolver { address: other, port: 5300, _pad: 0 };
    for (address, port, trusted) in
        [(one, 53, true), (other, 5300, true), (one, 5300, false), (other, 53, false)]
    {
        assert_eq!(header.is_trusted(&at(address, port)), trusted, "{address:?} {port}");
    }
}

#[test]
fn a_name_is_kept_for_five_minutes_at_least() {
    for (time_to_live, seconds) in [
        (0, 300),
        (299, 300),
        (301, 301),
        (0x7fff_ffff, 0x7fff_ffff),
        (0x8000_0000, 300),
        (u32::MAX, 300),
    ] {
        assert_eq!(lifetime(time_to_live), seconds, "{time_to_live}");
    }
}
