//! Questions, and what their answers tell of addresses.

use serde_json::json;

use super::{POLICY, Place, build::*, hello::client_hello, judge};

const FROM: (&str, u16) = (CLIENT, 51_000);
const OPAQUE: &[u8] = b"SSH-2.0-x\r\n";

#[test]
fn a_question_is_judged_and_told_with_its_resolver() {
    let judged = judge(&asks(1, "A.Tracker.Example", &[], SERVER));
    assert_eq!(judged.brief(), ["deny tracker dns a.tracker.example dns"]);
    let line = judged.only();
    assert_eq!(line["dst"], json!({"ip": RESOLVER, "port": 53}));
    assert_eq!(line["host"]["confidence"], "confirmed");
    assert!(line["geo"].is_null());
    assert_eq!(line["bytes_out"], question(1, "a.tracker.example").len());
    assert_eq!(line["bytes_in"], answer(1, "a.tracker.example", &[], SERVER, 1).len());
}

#[test]
fn the_same_question_again_is_counted() {
    let (client, server) = ((CLIENT, 4000), (RESOLVER, 53));
    let ask = |id, name| udp(client, server, &question(id, name));
    let judged = judge(&[ask(1, "a.example"), ask(2, "tracker.example"), ask(3, "a.example")]);
    assert_eq!(
        judged.brief(),
        ["allow default dns a.example dns", "deny tracker dns tracker.example dns"]
    );
    assert_eq!((&judged.lines[0]["count"], &judged.lines[1]["count"]), (&2.into(), &1.into()));
    // Bytes are those of the flow, told once.
    assert_eq!(judged.lines[1]["bytes_out"], 0);
}

#[test]
fn an_answer_names_the_connection_that_follows() {
    let mut packets = asks(1, "www.shop.example", &["cdn.example", "tracker.example"], SERVER);
    packets.extend(connection(FROM, (SERVER, 22), &[OPAQUE]));
    let judged = judge(&packets);
    assert_eq!(
        judged.brief(),
        ["allow default dns www.shop.example dns", "deny tracker connect www.shop.example dns"]
    );
    let host = &judged.lines[1]["host"];
    assert_eq!(host["chain"], json!(["cdn.example", "tracker.example"]));
    assert_eq!(host["confidence"], "unique");
}

#[test]
fn a_denied_question_that_was_answered_names_its_connection() {
    let mut packets = asks(1, "tracker.example", &[], SERVER);
    packets.extend(connection(FROM, (SERVER, 22), &[OPAQUE]));
    let judged = judge(&packets);
    assert_eq!(judged.brief()[1], "deny tracker connect tracker.example dns");
    // But what would have been known stands before it.
    packets.splice(0..0, asks(2, "shop.example", &[], SERVER));
    assert_eq!(judge(&packets).brief()[2], "allow default connect shop.example dns");
}

#[test]
fn names_that_differ_leave_it_to_the_payload() {
    // The alias alone is denied, so that both questions pass.
    let mut known = asks(1, "shop.example", &[], SERVER);
    known.extend(asks(2, "www.example", &["tracker.example"], SERVER));
    let judged = |said: &[&[u8]], settings: &str| {
        let packets = [&known[..], &connection(FROM, (SERVER, 443), said)].concat();
        let judged = Place::new(POLICY, settings).judge(&pcap(RAW, &packets));
        let last = judged.brief().pop().unwrap();
        (last, judged.lines.last().unwrap()["host"]["confidence"].clone())
    };
    let shop = client_hello("plain", "shop.example");
    assert_eq!(
        judged(&[&shop], ""),
        ("allow default tls shop.example tls".to_owned(), "confirmed".into())
    );
    let other = client_hello("plain", "www.example");
    assert_eq!(judged(&[&other], "").0, "deny tracker tls www.example tls");
    assert_eq!(
        judged(&[OPAQUE], ""),
        ("deny tracker packet www.example dns".to_owned(), "ambiguous".into())
    );
    let (allowed, _) = judged(&[OPAQUE], "ambiguous = \"allow\"\n");
    assert_eq!(allowed, "audit tracker packet www.example dns");
    // Nothing was sent.
    assert_eq!(judged(&[], "").0, "allow tracker packet www.example dns");
}

#[test]
fn names_hold_for_their_time_and_for_who_asked() {
    let asked = asks(1, "www.example", &["tracker.example"], SERVER);
    let to = |client: &str| connection((client, 51_000), (SERVER, 22), &[OPAQUE]);
    // A minute, and five at least: a packet each second.
    let waits = |seconds: usize| vec![udp((CLIENT, 9), (SERVER, 9), b"x"); seconds];
    for (seconds, verdict) in
        [(290, "deny tracker connect www.example dns"), (310, "allow default connect - -")]
    {
        let packets = [&asked[..], &waits(seconds), &to(CLIENT)].concat();
        assert_eq!(judge(&packets).brief().last().unwrap(), verdict, "{seconds}");
    }
    let other = judge(&[&asked[..], &to("10.0.0.3")].concat());
    assert_eq!(other.brief()[1], "deny tracker connect www.example dns");
    assert_eq!(other.lines[1]["host"]["confidence"], "ambiguous", "another one asked");
}

#[test]
fn an_answer_that_nobody_waits_for_tells_nothing() {
    let (client, server) = ((CLIENT, 4000), (RESOLVER, 53));
    let told = answer(1, "www.example", &["tracker.example"], SERVER, 60);
    let ask = udp(client, server, &question(1, "www.example"));
    let mut changed = told.clone();
    changed[1] = 9;
    for (what, before, packet) in [
        ("no question", false, udp(server, client, &told)),
        ("another transaction", true, udp(server, client, &changed)),
        ("another port", true, udp(server, (CLIENT, 4001), &told)),
        ("another server", true, udp(("10.0.0.9", 53), client, &told)),
    ] {
        let mut packets = if before { vec![ask.clone()] } else { Vec::new() };
        packets.push(packet);
        packets.extend(connection(FROM, (SERVER, 22), &[OPAQUE]));
        let judged = judge(&packets);
        assert_eq!(judged.brief().last().unwrap(), "allow default connect - -", "{what}");
        judged.says("1 DNS answers without their question");
    }
}

/// With `resolvers` in the settings, nobody else supports an allow.
#[test]
fn who_is_trusted_supports_an_allow() {
    let policy = "[policy]\nname = \"p\"\ndefault = \"drop\"\n[[rule]]\nname = \"shop\"\naction = \"allow\"\nto = { domains = [\"shop.example\"] }\n";
    let hello = client_hello("plain", "shop.example");
    let mut packets = asks(1, "shop.example", &[], SERVER);
    packets.extend(connection(FROM, (SERVER, 443), &[&hello]));
    let judged = |settings: &str| Place::new(policy, settings).judge(&pcap(RAW, &packets)).brief();
    let both =
        ["allow shop dns shop.example dns", "allow shop tls shop.example tls"].map(str::to_owned);
    assert_eq!(judged(""), both);
    assert_eq!(judged("resolvers = [\"10.0.0.1\"]\n"), both);
    let neither = judged("resolvers = [\"10.0.0.9\"]\n");
    assert_eq!(neither[0], "deny default connect - -", "the server itself");
    assert!(neither[1].starts_with("deny default"), "{neither:?}");
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

#[test]
fn dns_over_tcp_with_the_length_split() {
    let (client, server) = (FROM, (RESOLVER, 53));
    let asked =
        [framed(&question(1, "www.example")), framed(&question(2, "tracker.example"))].concat();
    let told = framed(&answer(1, "www.example", &["tracker.example"], SERVER, 60));
    for size in [1, 3, 20, 400] {
        let mut packets = connection(client, server, &asked.chunks(size).collect::<Vec<_>>());
        for (place, piece) in told.chunks(size).enumerate() {
            packets.push(tcp(server, client, 5000 + (place * size) as u32, ACK, piece));
        }
        packets.extend(connection((CLIENT, 51_001), (SERVER, 22), &[OPAQUE]));
        let judged = Place::new(POLICY, "").judge(&at_once(pcap(RAW, &packets)));
        assert_eq!(
            judged.brief(),
            [
                "allow default dns www.example dns",
                "deny tracker dns tracker.example dns",
                "deny tracker connect www.example dns",
            ],
            "{size}: {}",
            judged.err
        );
        assert_eq!(judged.lines[0]["bytes_out"], asked.len());
        assert_eq!(judged.lines[0]["bytes_in"], told.len());
    }
}

#[test]
fn what_cannot_be_read_is_a_parse_error() {
    let (client, server) = ((CLIENT, 4000), (RESOLVER, 53));
    let mut looped = question(1, "x.example");
    looped.splice(12.., [0xc0, 12, 0, 1, 0, 1]);
    let mut forward = question(1, "x.example");
    forward.splice(12.., [0xc0, 40, 0, 1, 0, 1]);
    let cut = question(1, "x.example")[..20].to_vec();
    let mut many = question(1, "x.example");
    many[5] = 9;
    for message in [looped, forward, cut, many, vec![1; 5], Vec::new()] {
        let judged = judge(&[udp(client, server, &message)]);
        assert_eq!(judged.brief(), ["deny parse-error dns - -"], "{message:?}");
        judged.says("1 DNS messages that cannot be read");
    }
    // Over TCP: a length that no question has, in the middle of a stream as well.
    for behind in [&[0, 3, 1, 2, 3][..], &[8, 1]] {
        let stream = [&framed(&question(1, "x.example"))[..], behind].concat();
        let judged = judge(&connection(FROM, server, &[&stream]));
        assert_eq!(judged.brief(), ["allow default dns x.example dns", "deny parse-error dns - -"]);
    }
}

#[test]
fn an_answer_with_a_loop_says_what_comes_before_it() {
    let mut told = answer(1, "www.example", &["tracker.example"], SERVER, 60);
    told[7] = 3;
    let at = told.len() as u8;
    told.extend([0xc0, at, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3]);
    let (client, server) = ((CLIENT, 4000), (RESOLVER, 53));
    let mut packets =
        vec![udp(client, server, &question(1, "www.example")), udp(server, client, &told)];
    packets.extend(connection(FROM, (SERVER, 22), &[OPAQUE]));
    let judged = judge(&packets);
    assert_eq!(judged.brief()[1], "deny tracker connect www.example dns");
    judged.says("1 DNS messages that cannot be read");
}

#[test]
fn multicast_questions_are_judged_only_where_a_rule_speaks_of_the_name() {
    let to = ("224.0.0.251", 5353);
    let ask = |name| udp((CLIENT, 5353), to, &question(0, name));
    let judged = judge(&[ask("printer.local")]);
    assert_eq!(judged.brief(), ["allow default connect - -"]);
    let judged = judge(&[ask("printer.local"), ask("tracker.example")]);
    assert_eq!(judged.brief(), ["deny tracker dns tracker.example dns"]);
}

#[test]
fn names_with_terminal_escapes_are_shown_harmlessly() {
    let name = "a\x1b[2Jb.tracker.example";
    let ask = udp((CLIENT, 4000), (RESOLVER, 53), &question(1, name));
    let file = pcap(RAW, &[ask]);
    let place = Place::new(POLICY, "");
    for words in [&["--json"][..], &[], &["--names"], &["--names", "--json"]] {
        let judged = place.run(words, &file);
        assert!(judged.out.contains("tracker.example"), "{}", judged.out);
        assert!(!judged.out.contains('\x1b'), "{words:?}: {:?}", judged.out);
    }
}

#[test]
fn every_name_is_listed_with_its_source() {
    let mut packets = asks(1, "www.shop.example", &["cdn.example"], SERVER);
    packets.extend(asks(2, "www.shop.example", &["cdn.example"], "192.0.2.81"));
    packets.extend(connection(FROM, (SERVER, 443), &[&client_hello("ech", "tracker.example")]));
    packets.extend(connection(FROM, (SERVER, 80), &[b"GET / HTTP/1.0\r\nHost: h.example\r\n\r\n"]));
    let place = Place::new(POLICY, "");
    let file = pcap(RAW, &packets);
    let text = place.run(&["--names"], &file).out;
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "cdn.example dns-alias (2 times) 192.0.2.80 192.0.2.81",
            "h.example http 192.0.2.80",
            "tracker.example tls (outer name) 192.0.2.80",
            "www.shop.example dns-question (2 times)",
            "www.shop.example dns-answer (2 times) 192.0.2.80 192.0.2.81",
        ]
    );
    let judged = place.run(&["--names", "--json"], &file);
    assert_eq!(
        judged.lines[2],
        json!({
            "schema": 1, "kind": "name", "name": "tracker.example", "source": "tls", "count": 1,
            "time": "2026-11-22T12:00:06.123456Z", "addresses": [SERVER], "encrypted_hello": true
        })
    );
}
