//! The examples of RFC 9001 and RFC 9369, both in appendix A.

use super::{
    Said, alone,
    built::{self, Initial, Keys, V1, V2},
};

const CID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const PACKETS: [(u32, &[u8]); 2] =
    [(V1, include_bytes!("../captures/rfc9001")), (V2, include_bytes!("../captures/rfc9369"))];

/// The CRYPTO frame that both packets have.
const FRAME: &str = "\
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c\
    00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006\
    001d0017001800100007000504616c706e000500050100000000003300260024001d00209370b2c9caa4\
    7fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305\
    0306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ff\
    ff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff";

#[test]
fn the_packets_are_opened() {
    for (_, packet) in PACKETS {
        assert_eq!(alone(packet), Said::name("example.com"));
    }
}

/// Every bit of a packet is protected.
#[test]
fn no_bit_can_be_turned() {
    for (version, packet) in PACKETS {
        for at in 0..packet.len() {
            let mut packet = packet.to_vec();
            packet[at] ^= 1 << (at % 8);
            let said = alone(&packet);
            // The first byte may say that it is no Initial.
            let opened = matches!(said, Said::Name(_) | Said::NoName(_) | Said::More | Said::Same);
            assert!(!opened, "byte {at} of version {version:x}: {said:?}");
        }
    }
}

/// What the other tests are built with makes the same packets.
#[test]
fn the_packets_are_built() {
    for (version, want) in PACKETS {
        let frames = [built::unhex(FRAME), built::padding(917)].concat();
        let packet = Initial { source: vec![], ..Initial::new(version, &CID, &frames) };
        assert_eq!(packet.number(2, 4).seal(), want);
    }
}

#[test]
fn the_keys_are_those_of_the_examples() {
    for (version, key, iv, header, sample, mask) in [
        (
            V1,
            "1f369613dd76d5467730efcbe3b1a22d",
            "fa044b2f42a3fd3b46fb255c",
            "9f50449e04a0e810283a1e9933adedd2",
            "d1b1c98dd7689fb8ec11d242b123dc9b",
            "437b9aec36",
        ),
        (
            V2,
            "8b1a0bc121284290a29e0971b5cd045d",
            "91f73e2351d8fa91660e909f",
            "45b95e15235d6f45a6b19cbcb0294ba9",
            "ffe67b6abcdb4298b485dd04de806071",
            "94a0c95e80",
        ),
    ] {
        let keys = Keys::new(version, &CID);
        assert_eq!(keys.key[..], built::unhex(key));
        assert_eq!(keys.iv[..], built::unhex(iv));
        assert_eq!(keys.header[..], built::unhex(header));
        assert_eq!(keys.mask(&built::unhex(sample))[..], built::unhex(mask));
    }
}
