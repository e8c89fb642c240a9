//! QUIC, as real clients sent it: see `tests/captures/README.md`.

use super::{POLICY, Place, build::*};

const BAIDU: &str = "[policy]\nname = \"p\"\n[[rule]]\nname = \"baidu\"\naction = \"drop\"\nto = { domains = [\"hm.baidu.com\", \"example.com\"] }\n";

fn datagrams(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/");
    names
        .iter()
        .map(|name| {
            let datagram = std::fs::read(format!("{folder}{name}")).expect("a capture");
            udp((CLIENT, 51_000), (SERVER, 443), &datagram)
        })
        .collect()
}

fn judged(settings: &str, packets: &[Vec<u8>]) -> (Vec<String>, String) {
    let judged = Place::new(BAIDU, settings).judge(&pcap(RAW, packets));
    (judged.brief(), judged.err)
}

#[test]
fn the_name_in_initials_of_both_versions() {
    for (names, name) in [
        (&["chromium-1", "chromium-2"][..], "hm.baidu.com"),
        (&["chromium-2", "chromium-1"], "hm.baidu.com"),
        (&["aioquic-v2-1"], "hm.baidu.com"),
        (&["aioquic-compatible-1", "aioquic-compatible-2"], "hm.baidu.com"),
        (&["aioquic-retry-2"], "hm.baidu.com"),
        (&["rfc9001"], "example.com"),
        (&["rfc9369"], "example.com"),
    ] {
        let (brief, _) = judged("", &datagrams(names));
        assert_eq!(brief, [format!("deny baidu quic {name} quic")], "{names:?}");
    }
}

#[test]
fn a_hello_that_is_not_all_there_is_told() {
    let (brief, err) = judged("", &datagrams(&["chromium-1"]));
    assert_eq!(brief, ["allow default connect - -"]);
    assert!(err.contains("1 QUIC connections whose hello is not all there"), "{err}");
    let whole = &datagrams(&["rfc9001"])[0];
    let file = pcap_of(Order::Little, false, RAW, &[(&whole[..400], whole.len())]);
    let judged = Place::new(BAIDU, "").judge(&file);
    assert_eq!(judged.brief(), ["allow default connect - -"]);
    judged.says("1 QUIC connections whose hello is not all there");
}

#[test]
fn settings_of_quic() {
    let packets = datagrams(&["rfc9001"]);
    let (blocked, _) = judged("quic = \"block\"\n", &packets);
    assert_eq!(blocked, ["deny quic quic example.com quic"]);
    let (allowed, _) = judged("quic = \"allow\"\n", &packets);
    assert_eq!(allowed, ["allow default connect example.com quic"], "told, without a say");
    let observed = Place::new(BAIDU, "").run(&["--json", "--observe"], &pcap(RAW, &packets));
    assert_eq!(observed.brief(), ["audit baidu quic example.com quic"]);
    assert_eq!(observed.only()["mode"], "observe");
}

#[test]
fn what_is_no_quic_is_a_datagram_like_any_other() {
    for first in [0x40, 0x80] {
        let packet = udp((CLIENT, 51_000), (SERVER, 443), &[first; 60]);
        let judged = Place::new(POLICY, "").judge(&pcap(RAW, &[packet]));
        assert_eq!(judged.brief(), ["allow default connect - -"]);
    }
    // The long header of another version, where only QUIC has one.
    let other = |port| udp((CLIENT, 51_000), (SERVER, port), &[0xc5; 60]);
    assert_eq!(judged("", &[other(443)]).0, ["deny parse-error quic - -"]);
    assert_eq!(judged("", &[other(9999)]).0, ["allow default connect - -"]);
    // Not to be opened.
    let mut broken = datagrams(&["rfc9001"]);
    broken[0][700] ^= 1;
    assert_eq!(judged("", &broken).0, ["deny parse-error quic - -"]);
}
