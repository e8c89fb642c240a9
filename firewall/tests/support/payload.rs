//! The first bytes of a connection, made by hand: TLS, HTTP and what is neither.

use std::{
    io::{self, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::{
    client::addr,
    dns::{read_all, unhex, write_pieces},
    hello::client_hello,
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
