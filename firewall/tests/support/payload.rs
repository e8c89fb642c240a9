//! The first bytes of a connection, made by hand: TLS, HTTP and what is neither.

use std::{
    io::{self, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::{
    client::addr,
    dns::{read_all, unhex, write_pieces},
};

const PATIENCE: Duration = Duration::from_millis(2000);

/// Connects, sends in pieces and waits for one byte of an answer. A connection that is closed
/// instead is an `EPIPE`, if the kernel has nothing else to say of it.
pub fn act(words: &[&str]) -> io::Result<()> {
    match words {
        ["tls", to, form, name, cuts] => exchange(to, &client_hello(form, name), cuts),
        ["http", to, host, cuts] => {
            exchange(to, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), cuts)
        }
        ["http-absolute", to, url, host, cuts] => {
            exchange(to, format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), cuts)
        }
        ["opaque", to] => exchange(to, b"SSH-2.0-test\r\n", "whole"),
        ["bytes", to, hex] => exchange(to, &unhex(hex), "whole"),
        // A hello without a share of a key, so that the server asks for another (RFC 8446, section
        // 4.1.4), one with another name, and what comes behind it.
        ["two-hellos", to, first, second] => {
            let mut stream = connect(to)?;
            stream.write_all(&client_hello("no-share", first))?;
            read_all(&mut stream, &mut [0; 99])?;
            stream.write_all(&client_hello("plain", second))?;
            read_all(&mut stream, &mut [0])?;
            stream.write_all(&[20, 3, 3, 0, 1, 1])?;
            stream.write_all(&[23, 3, 3, 0, 1, 1])
        }
        other => panic!("no such step: {other:?}"),
    }
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr(to), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(to: &str, data: &[u8], cuts: &str) -> io::Result<()> {
    let mut stream = connect(to)?;
    write_pieces(&mut stream, data, &places(cuts, data.len()))?;
    read_all(&mut stream, &mut [0])
}

/// `hundreds` is a cut at each hundredth byte; anything else is for [`write_pieces`].
fn places(cuts: &str, length: usize) -> String {
    match cuts {
        "hundreds" => {
            let places: Vec<String> =
                (100..length).step_by(100).map(|place| place.to_string()).collect();
            places.join(",")
        }
        other => other.to_owned(),
    }
}

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
