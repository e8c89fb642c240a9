//! What real clients sent: see `tests/captures/README.md`.

use std::{fs, path::Path};

use firewall::quic::Inspector;

use super::{Said, take};

/// The datagrams of a client, in order.
fn recorded(client: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let datagram = |number: u32| fs::read(folder.join(format!("{client}-{number}"))).ok();
    let datagrams: Vec<Vec<u8>> = (1..).map_while(datagram).collect();
    assert!(!datagrams.is_empty(), "no files {client}-N in {}", folder.display());
    datagrams
}

fn said(datagrams: &[Vec<u8>]) -> Vec<Said> {
    super::all(datagrams)
}

/// A hello with a post-quantum key share, in two datagrams of mixed frames, and all of it again.
#[test]
fn chromium() {
    let name = Said::name("hm.baidu.com");
    let datagrams = recorded("chromium");
    assert_eq!(said(&datagrams), [Said::More, name.clone(), Said::Same, Said::Same]);
    // The second try alone is enough, and so is each in the other order.
    assert_eq!(said(&datagrams[2..]), [Said::More, name.clone()]);
    let mut reversed = datagrams;
    reversed.reverse();
    assert_eq!(said(&reversed), [Said::More, name, Said::Same, Said::Same]);
}

#[test]
fn version_2() {
    assert_eq!(said(&recorded("aioquic-v2")), [Said::name("hm.baidu.com")]);
}

/// The client began in version 1, and goes on in version 2 with the server's connection id and the
/// keys of its own; then come Handshake packets alone.
#[test]
fn a_version_that_the_server_chose() {
    let datagrams = recorded("aioquic-compatible");
    assert_eq!(said(&datagrams), [Said::name("hm.baidu.com"), Said::Same, Said::NoHello]);
    assert_eq!(said(&datagrams[1..]), [Said::Malformed, Said::NoHello], "without the first");
    // Of another flow nothing is known.
    let mut inspector = Inspector::default();
    take(&mut inspector, 0, &datagrams[0]);
    assert_eq!(take(&mut inspector, 1, &datagrams[1]), Said::Malformed);
}

/// The server asked for a token first: the client begins again with an id of the server.
#[test]
fn a_retry() {
    let name = Said::name("hm.baidu.com");
    let want = [name.clone(), name, Said::Same, Said::NoHello];
    assert_eq!(said(&recorded("aioquic-retry")), want);
}

/// The server asked for another key share: a second hello comes to the server's connection id.
#[test]
fn a_second_hello() {
    let name = Said::name("hm.baidu.com");
    let datagrams = recorded("quinn-second");
    assert_eq!(said(&datagrams), [name.clone(), name, Said::Same]);
}
