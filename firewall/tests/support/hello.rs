//! ClientHellos, made by hand.
#![allow(clippy::expect_used, reason = "for tests")]

/// A record with a ClientHello (RFC 8446, section 4.1.2) that offers X25519. Forms: `plain`;
/// `grease`, with reserved values in all places (RFC 8701); `large`, with a post-quantum key share
/// before the name, so that the name is in the second segment; `ech`, with an encrypted hello
/// beside the name; `no-share`, with no key share.
pub fn client_hello(form: &str, name: &str) -> Vec<u8> {
    let grease = form == "grease";
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, data: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(sized16(data));
    };
    let x25519 = [&[0, 0x1d][..], &sized16(&[9; 32])].concat();
    let shares = match form {
        // X25519MLKEM768: 1184 bytes and 32.
        "large" => [&[0x11, 0xec][..], &sized16(&[7; 1216]), &x25519].concat(),
        "no-share" => Vec::new(),
        _ if grease => [&[0x2a, 0x2a, 0, 1, 0][..], &x25519].concat(),
        _ => x25519,
    };
    if grease {
        extension(0x1a1a, &[]);
    }
    if form == "large" {
        extension(51, &sized16(&shares));
    }
    if name != "-" {
        let host = [&[0][..], &sized16(name.as_bytes())].concat();
        extension(0, &sized16(&host));
    }
    extension(10, &sized16(if grease { &[0x3a, 0x3a, 0, 0x1d] } else { &[0, 0x1d] }));
    extension(13, &sized16(&[4, 3, 8, 4, 4, 1]));
    extension(43, &sized8(if grease { &[0x4a, 0x4a, 3, 4] } else { &[3, 4] }));
    if form == "ech" {
        // Outer; HKDF-SHA256 and AES-128-GCM; a configuration; a key; a payload.
        let inner = [&[0, 0, 1, 0, 1, 5][..], &sized16(&[3; 32]), &sized16(&[4; 200])].concat();
        extension(0xfe0d, &inner);
    }
    if form != "large" {
        extension(51, &sized16(&shares));
    }
    if grease {
        extension(0x5a5a, &[0]);
    }
    let ciphers: &[u8] =
        if grease { &[0x6a, 0x6a, 0x13, 1, 0x13, 2] } else { &[0x13, 1, 0x13, 2, 0x13, 3] };
    let body = [
        &[3, 3][..],
        &[5; 32],
        &sized8(&[6; 32]),
        &sized16(ciphers),
        &sized8(&[0]),
        &sized16(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    let handshake = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized16(&handshake)].concat()
}

fn sized8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("short")][..], data].concat()
}

fn sized16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).expect("short").to_be_bytes()[..], data].concat()
}
