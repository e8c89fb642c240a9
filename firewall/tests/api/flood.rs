//! Clients that would disturb others.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Instant,
};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    harness::wait_until,
    world::{Daemon, LIMIT},
};

/// Whether the server answers others.
fn serves(daemon: &Daemon) -> bool {
    daemon.get("/v1/status").status == 200
}

/// Whether the other side has closed a connection, once it was asked.
fn is_closed(mut stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut rest = [0; 4096];
    match stream.read(&mut rest) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// As many connections as one may have, up to 10,000.
fn many() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let open = limit.maximum.map_or(10_000, |most| most.saturating_sub(500).min(10_000));
    usize::try_from(open).unwrap()
}

#[test]
fn ten_thousand_connections() {
    let daemon = Daemon::new();
    let wanted = many();
    let mut open = Vec::new();
    for number in 0..wanted {
        open.push(daemon.connect());
        if number % 1000 == 999 {
            assert!(serves(&daemon), "after {number}");
        }
    }
    assert!(serves(&daemon));
    let closed = || open.iter().filter(|stream| is_closed(stream)).count();
    let most = firewall::api::server::MOST;
    assert!(wait_until(LIMIT, || closed() >= wanted - most), "{} of {wanted}", closed());
    assert!(serves(&daemon));
}

#[test]
fn ten_thousand_requests_whose_answers_nobody_reads() {
    let daemon = Daemon::new();
    let mut open = Vec::new();
    for number in 0..many() {
        let mut stream = daemon.connect();
        // The server may have closed it already.
        let _ = stream.write_all(b"GET /v1/verdicts?follow=true HTTP/1.1\r\nhost: x\r\n\r\n");
        open.push(stream);
        if number % 1000 == 999 {
            assert!(serves(&daemon), "after {number}");
        }
    }
    assert!(serves(&daemon));
}

#[test]
fn rubbish() {
    let daemon = Daemon::new();
    let long = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let mut random = vec![0; 100_000];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
    let many = b"GET / HTTP/1.1\r\n".iter().copied().chain(b"a: b\r\n".repeat(10_000)).collect();
    for bytes in [b"\0\0\0\0".to_vec(), b"\x16\x03\x01\x02\x00\x01".to_vec(), long, random, many] {
        let mut stream = daemon.connect();
        // It may be closed before all is sent.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert!(serves(&daemon));
    }
}

#[test]
fn half_a_request() {
    let daemon = Daemon::new();
    let start = Instant::now();
    let halves = [
        "",
        "GET",
        "GET /v1/status HTTP/1.1\r\nhost: x\r\n",
        "POST /v1/explain HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        "POST /v1/explain HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    ];
    let open: Vec<UnixStream> = halves
        .iter()
        .map(|half| {
            let mut stream = daemon.connect();
            stream.write_all(half.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(serves(&daemon));
    for (half, mut stream) in halves.iter().zip(open) {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{half:?}: {error}"));
        let answer = String::from_utf8(answer).unwrap();
        let late = answer.is_empty() || answer.starts_with("HTTP/1.1 408");
        assert!(late, "{half:?}: {answer}");
    }
    assert!(start.elapsed() >= firewall::api::server::PATIENCE, "they had their time");
}

#[test]
fn one_process_cannot_take_the_places_of_others() {
    if !crate::rights::is_root() {
        return;
    }
    let daemon = Daemon::new();
    // Another process, with a stream that it was given before.
    let mut watch = daemon.command(&["watch", "--json"]).spawn().unwrap();
    assert!(wait_until(LIMIT, || daemon.verdicts.receiver_count() == 1), "it watches");
    let mut open = Vec::new();
    for _ in 0..1000 {
        let mut stream = daemon.connect();
        let _ = stream.write_all(b"GET /v1/verdicts?follow=true HTTP/1.1\r\nhost: x\r\n\r\n");
        open.push(stream);
    }
    assert!(serves(&daemon));
    daemon.verdicts.send("{\"schema\":1,\"kind\":\"lost\",\"count\":7}".into()).unwrap();
    let mut said = [0; 36];
    watch.stdout.take().unwrap().read_exact(&mut said).expect("a line");
    assert!(said.ends_with(b"\"count\":7}"), "{}", String::from_utf8_lossy(&said));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
