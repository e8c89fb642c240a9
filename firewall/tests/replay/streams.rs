//! TCP: segments in any order, each byte once, and the name in what a client sends first.

use super::{Place, build::*, hello::client_hello, judge};

const FROM: (&str, u16) = (CLIENT, 51_000);
const TO: (&str, u16) = (SERVER, 443);
const HIDDEN: &str = "deny tracker tls tracker.example tls";

fn hello() -> Vec<u8> {
    client_hello("plain", "tracker.example")
}

#[test]
fn a_hello_in_pieces_of_any_size() {
    let hello = hello();
    for size in [1, 2, 7, 50, hello.len()] {
        let pieces: Vec<&[u8]> = hello.chunks(size).collect();
        let judged = judge(&connection(FROM, TO, &pieces));
        assert_eq!(judged.brief(), [HIDDEN], "{size}");
        let line = judged.only();
        assert_eq!(line["bytes_out"], hello.len(), "{size}");
        assert_eq!(line["host"]["confidence"], "confirmed");
        assert_eq!(line["evidence"][0], "domain:tracker.example");
    }
}

#[test]
fn segments_out_of_order_sent_again_and_overlapping_count_once() {
    let hello = hello();
    let at = |from: usize, to: usize| tcp(FROM, TO, 1000 + from as u32, ACK, &hello[from..to]);
    let begin = connection(FROM, TO, &[]);
    for order in [
        vec![at(60, hello.len()), at(20, 60), at(0, 20)],
        vec![at(0, 20), at(60, hello.len()), at(10, 70)],
        vec![at(0, 40), at(0, 40), at(20, 60), at(30, hello.len()), at(0, hello.len())],
        vec![at(100, 120), at(60, 80), at(50, 130), at(0, 60), at(120, hello.len())],
    ] {
        let judged = judge(&[&begin[..], &order].concat());
        assert_eq!(judged.brief(), [HIDDEN]);
        assert_eq!(judged.only()["bytes_out"], hello.len());
        assert!(!judged.err.contains("note"), "{}", judged.err);
    }
}

/// As for the kernel programs.
#[test]
fn of_bytes_that_are_sent_twice_the_first_count() {
    let [first, second] =
        ["tracker.example", "nothing.example"].map(|name| client_hello("plain", name));
    let begin = connection(FROM, TO, &[&first[..40]]);
    let twice = tcp(FROM, TO, 1000, ACK, &second);
    let rest = tcp(FROM, TO, 1040, ACK, &first[40..]);
    let judged = judge(&[&begin[..], &[rest, twice]].concat());
    assert_eq!(judged.brief(), [HIDDEN]);
}

#[test]
fn sequence_numbers_go_round() {
    let hello = hello();
    let seq = u32::MAX - 30;
    let mut packets = vec![tcp(FROM, TO, seq.wrapping_sub(1), SYN, &[])];
    for (place, piece) in hello.chunks(20).enumerate() {
        packets.push(tcp(FROM, TO, seq.wrapping_add(place as u32 * 20), ACK, piece));
    }
    packets[1..].reverse();
    let judged = judge(&packets);
    assert_eq!(judged.brief(), [HIDDEN]);
    assert_eq!(judged.only()["bytes_out"], hello.len());
}

#[test]
fn a_hole_is_told_and_nothing_is_read_behind_it() {
    let hello = hello();
    let begin = connection(FROM, TO, &[&hello[..20]]);
    let rest = tcp(FROM, TO, 1040, ACK, &hello[40..]);
    let judged = judge(&[&begin[..], &[rest]].concat());
    assert_eq!(judged.brief(), ["allow default connect - -"]);
    assert_eq!(judged.only()["bytes_out"], hello.len() - 20);
    judged.says("1 streams whose beginning is not all there");
}

#[test]
fn what_is_kept_behind_a_hole_is_bounded() {
    let mut packets = connection(FROM, TO, &[]);
    let piece = [7; 1000];
    // The first byte never comes.
    packets.extend((0..100).map(|at| tcp(FROM, TO, 1001 + at * 1000, ACK, &piece)));
    let judged = judge(&packets);
    assert_eq!(judged.only()["bytes_out"], 100_000);
    judged.says("1 streams with more out of order than is kept");
}

#[test]
fn http_shows_its_host() {
    let to = (SERVER, 80);
    let request = b"GET /x HTTP/1.1\r\nHost: Tracker.Example\r\n\r\n";
    let judged = judge(&connection(FROM, to, &[&request[..9], &request[9..]]));
    assert_eq!(judged.brief(), ["deny tracker http tracker.example http"]);
    // Servers read two hosts in different ways.
    let two = b"GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n";
    assert_eq!(judge(&connection(FROM, to, &[two])).brief(), ["deny parse-error http - -"]);
    // Where no verdict depends on a name, nothing is lost with that.
    let place = Place::new(
        "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\nto = { networks = [\"203.0.113.0/24\"] }\n",
        "",
    );
    let judged = place.judge(&pcap(RAW, &connection(FROM, to, &[two])));
    assert_eq!(judged.brief(), ["allow default connect - -"]);
}

#[test]
fn an_outer_name_is_flagged() {
    let hello = client_hello("ech", "log.example");
    let judged = judge(&connection(FROM, TO, &[&hello]));
    assert_eq!(judged.brief(), ["allow default tls log.example tls"], "the client's own word");
    assert_eq!(judged.only()["host"]["encrypted_hello"], true);
    let mut packets = asks(1, "log.example", &[], SERVER);
    packets.extend(connection(FROM, TO, &[&hello]));
    let judged = judge(&packets);
    assert_eq!(judged.brief()[1], "audit log tls log.example tls");
    assert_eq!(judged.lines[1]["host"]["encrypted_hello"], true);
    assert_eq!(judged.lines[1]["action"], "log");
}

#[test]
fn urgent_data_makes_a_stream_unreadable() {
    let mut packets = connection(FROM, TO, &[]);
    packets.push(tcp(FROM, TO, 1000, URGENT, &hello()));
    let judged = judge(&packets);
    assert_eq!(judged.brief()[0][..18], *"deny parse-error p");
}

/// What would not have been sent is told all the same, without a say.
#[test]
fn a_connection_that_is_denied_by_address_has_its_name() {
    let judged = judge(&connection(FROM, ("203.0.113.9", 443), &[&hello()]));
    assert_eq!(judged.brief(), ["deny net connect tracker.example tls"]);
    assert_eq!(judged.only()["evidence"], serde_json::json!(["net:203.0.113.0/24"]));
}

#[test]
fn who_began_a_connection() {
    let (client, server) = ((CLIENT, 51_000), ("203.0.113.9", 443));
    let high = ("203.0.113.9", 8443);
    for (what, packets, src) in [
        ("a SYN", vec![tcp(client, server, 1, SYN, &[])], CLIENT),
        ("to a high port", vec![tcp(high, (CLIENT, 80), 1, SYN, &[])], "203.0.113.9"),
        ("an answer first", vec![tcp(server, client, 1, SYN_ACK, &[])], CLIENT),
        ("from a well-known port", vec![tcp(server, client, 1, ACK, b"x")], CLIENT),
        ("to one", vec![tcp(client, server, 1, ACK, b"x")], CLIENT),
        ("of neither", vec![tcp(high, client, 1, ACK, b"x")], "203.0.113.9"),
        ("a datagram from 53", vec![udp(("203.0.113.9", 53), client, b"x")], CLIENT),
        ("a datagram", vec![udp(high, client, b"x")], "203.0.113.9"),
    ] {
        assert_eq!(judge(&packets).only()["src"]["ip"], src, "{what}");
    }
}

#[test]
fn a_hello_is_read_where_the_capture_begins_behind_the_syn() {
    let packet = tcp(FROM, TO, 1000, ACK, &hello());
    assert_eq!(judge(&[packet]).brief(), [HIDDEN]);
    // What comes in the middle may look like anything.
    let request = b"GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n";
    let judged = judge(&[tcp(FROM, (SERVER, 80), 1000, ACK, request)]);
    assert_eq!(judged.brief(), ["allow default connect - -"]);
}

#[test]
fn the_same_ports_again_are_another_connection() {
    let mut packets = connection(FROM, TO, &[&hello()]);
    packets.push(tcp(FROM, TO, 999, SYN, &[]));
    assert_eq!(judge(&packets).brief(), [HIDDEN], "a SYN sent again");
    packets.push(tcp(FROM, TO, 70_000, SYN, &[]));
    packets.push(tcp(FROM, TO, 70_001, ACK, &client_hello("plain", "other.example")));
    assert_eq!(judge(&packets).brief(), [HIDDEN, "allow default tls other.example tls"]);
}

#[test]
fn both_ways_are_counted_without_what_is_sent_again() {
    let mut packets = connection(FROM, TO, &[b"SSH-2.0-x\r\n"]);
    let answer = tcp(TO, FROM, 5000, ACK, &[1; 30]);
    packets.extend([answer.clone(), answer, tcp(TO, FROM, 5020, ACK, &[1; 30])]);
    // Probes whether the other end is alive.
    packets.push(tcp(FROM, TO, 1010, ACK, b"\0"));
    let judged = judge(&packets);
    let line = judged.only();
    assert_eq!((&line["bytes_out"], &line["bytes_in"]), (&11.into(), &50.into()));
    assert_eq!((&line["time"], &line["count"]), (&"2026-11-22T12:00:00.123456Z".into(), &1.into()));
}
