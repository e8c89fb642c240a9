//! What stands beside the hello in a packet.

use super::{
    CID, Said, alone,
    built::{ACK, Initial, PING, V1, close, crypto, padding},
    hello,
};

/// A packet with frames before and behind those of a hello.
fn around(before: &[u8], behind: &[u8]) -> Said {
    let frames = [before, &crypto(0, &hello("a.com")), behind].concat();
    alone(&Initial::new(V1, &CID, &frames).seal())
}

#[test]
fn frames_that_may_be_there() {
    let ack = [2, 6, 0x40, 99, 0, 1];
    let of_long_numbers = [2, 0xc0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0x40, 1, 0, 5, 5];
    for frame in [
        &PING[..],
        &ACK,
        &ack,
        &of_long_numbers,
        &padding(3),
        &close(b""),
        &close(b"no \x06\x00 reason"),
        &crypto(0, b""),
        &crypto(4, b""),
        &[],
    ] {
        assert_eq!(around(frame, b""), Said::name("a.com"), "{frame:02x?} before");
        assert_eq!(around(b"", frame), Said::name("a.com"), "{frame:02x?} behind");
        assert_eq!(around(frame, frame), Said::name("a.com"), "{frame:02x?} twice");
    }
    for frame in [&PING[..], &ACK, &padding(1), &crypto(0, b""), &close(b"")] {
        let packet = Initial::new(V1, &CID, frame).datagram();
        assert_eq!(alone(&packet), Said::More, "{frame:02x?} alone");
    }
}

#[test]
fn frames_that_may_not_be_there() {
    for kind in (0x04..=0x05).chain(0x07..=0x1b).chain(0x1d..=0xff) {
        // Enough behind it to be whatever it would be.
        let frame = [&[kind][..], &[0; 30]].concat();
        assert_eq!(around(&frame, b""), Said::Malformed, "{kind:x} before");
        assert_eq!(around(b"", &frame), Said::Malformed, "{kind:x} behind");
    }
    // Types in more bytes than they need.
    for frame in [&[0x40, 0][..], &[0x40, 1], &[0x80, 0, 0, 1], &[0x40, 6, 0, 0]] {
        assert_eq!(around(frame, b""), Said::Malformed, "{frame:02x?}");
    }
    let nothing = |frames: &[u8]| alone(&Initial::new(V1, &CID, frames).number(0, 4).seal());
    assert_eq!((nothing(b""), nothing(&PING)), (Said::Malformed, Said::More), "no frame at all");
}

/// Whatever is cut short at the end of a packet is malformed, and so is what says it is longer.
#[test]
fn frames_that_are_cut_short() {
    let whole = hello("a.com");
    for frame in [&ACK[..], &[2, 0x40, 6, 0x40, 0, 0, 1], &close(b"reason"), &crypto(9, &whole)] {
        for end in 1..frame.len() {
            assert_eq!(around(b"", &frame[..end]), Said::Malformed, "{:02x?}", &frame[..end]);
        }
    }
    let most = [0xff; 8];
    let huge = |before: &[u8]| [before, &most, &[0; 20]].concat();
    for frame in
        [huge(&[2, 0, 0]), huge(&[6, 0]), [&huge(&[6]), &[0; 9][..]].concat(), huge(&[0x1c, 0, 0])]
    {
        assert_eq!(around(b"", &frame), Said::Malformed, "{frame:02x?}");
    }
}
