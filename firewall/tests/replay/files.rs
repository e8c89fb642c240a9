//! Files: cut, broken, none; usage, output and exit status.

use super::{POLICY, Place, build::*, hello::client_hello};

fn capture() -> Vec<u8> {
    let mut packets = asks(1, "www.example", &["tracker.example"], SERVER);
    packets.extend(connection((CLIENT, 51_000), (SERVER, 22), &[b"SSH-2.0-x\r\n"]));
    pcap(RAW, &packets)
}

#[test]
fn a_file_that_is_cut_is_judged_up_to_there() {
    let whole = capture();
    let place = Place::new(POLICY, "");
    let mut ends = vec![24];
    while *ends.last().unwrap() < whole.len() {
        let at = *ends.last().unwrap();
        let len = u32::from_le_bytes(whole[at + 8..at + 12].try_into().unwrap()) as usize;
        ends.push(at + 16 + len);
    }
    for len in [24, 25, ends[2] - 1, ends[2], ends[2] + 15, whole.len() - 1, whole.len()] {
        let judged = place.judge(&whole[..len]);
        let packets = ends.iter().filter(|end| **end <= len).count() - 1;
        judged.says(&format!("{packets} packets: "));
        if ends.contains(&len) {
            assert!(!judged.err.contains("warning"), "{len}: {}", judged.err);
        } else {
            judged.says(&format!(
                "warning: the file ends in the middle of a block at byte {}, behind packet {packets}",
                ends[packets]
            ));
        }
        assert_eq!(judged.lines.len(), usize::from(packets > 0) + usize::from(packets > 2));
    }
}

#[test]
fn a_block_that_is_broken_ends_the_reading_and_is_told() {
    let order = Order::Little;
    let packet = tcp((CLIENT, 51_000), ("203.0.113.9", 443), 1, SYN, &[]);
    let begin = [section(order), interface(order, RAW, 0, None), enhanced(order, 0, 0, &packet)];
    let begin = begin.concat();
    let place = Place::new(POLICY, "");
    for (what, bad) in [
        ("a length of less than a block", [order.u32(6), order.u32(3)].concat()),
        ("a length that the end contradicts", {
            let mut bad = enhanced(order, 0, 0, &packet);
            let at = bad.len() - 4;
            bad[at] ^= 4;
            bad
        }),
        ("more data than the block", {
            let mut bad = enhanced(order, 0, 0, &packet);
            bad[20..24].copy_from_slice(&order.u32(4000));
            bad
        }),
    ] {
        let judged = place.judge(&[&begin[..], &bad, &[0; 64]].concat());
        judged.only();
        judged.says(&format!("at byte {}, behind packet 1", begin.len()));
        assert!(judged.err.contains("warning"), "{what}");
    }
    // A length that no block has.
    let mut long = pcap(RAW, &[packet]);
    let end = long.len();
    long.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f]);
    long.extend(vec![0; 20 << 20]);
    let judged = place.judge(&long);
    judged.only();
    judged.says(&format!("a block of more than 16 MiB at byte {end}, behind packet 1"));
}

#[test]
fn what_is_no_capture_is_an_error() {
    let place = Place::new(POLICY, "");
    for (bytes, says) in [
        (&b""[..], "it is empty"),
        (b"hello, world, this is no capture at all", "it is neither pcap nor pcapng"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "gzip"),
        (b"\xd4\xc3\xb2\xa1", "it is neither pcap nor pcapng"),
    ] {
        let judged = place.run(&["--json"], bytes);
        assert_eq!((judged.status, &judged.out[..]), (1, ""), "{}", judged.err);
        judged.says("error: ").says(says).says("hint: ");
    }
    let judged = place.run(&["--json", "another"], b"");
    assert_eq!(judged.status, 2);
    let judged = place.run(&["--policy", "no-such-policy"], &capture());
    assert_eq!(judged.status, 2);
    let judged = place.run(&["--app", "nobody"], &capture());
    assert_eq!(judged.status, 2);
    std::fs::remove_file(place.file(b"")).unwrap();
    let missing = std::process::Command::new(env!("CARGO_BIN_EXE_firewall"))
        .args(["replay", "--policy", "baidu", "/no/such/file"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file cannot be read"));
}

#[test]
fn people_get_a_line_for_each_flow() {
    let judged = Place::new(POLICY, "").run(&[], &capture());
    assert_eq!(
        judged.out.lines().collect::<Vec<_>>(),
        [
            "2026-11-22T12:00:00+00:00 allow 10.0.0.2:40001 -> www.example (question to \
             10.0.0.1:53/udp) (default) (29 bytes out, 100 in)",
            "2026-11-22T12:00:02+00:00 deny 10.0.0.2:51000 -> www.example 192.0.2.80:22/tcp by \
             p/tracker (11 bytes out, 0 in)",
        ]
    );
    judged.says("5 packets: 1 flows denied, 0 audited, 1 allowed");
}

#[test]
fn rules_for_apps_hold_for_the_app_that_is_named() {
    let policy =
        format!("{POLICY}apps = [\"exe:/usr/bin/curl\"]\n").replace("\"log\"\nto", "\"drop\"\nto");
    let hello = client_hello("plain", "log.example");
    let file = pcap(RAW, &connection((CLIENT, 51_000), (SERVER, 443), &[&hello]));
    let place = Place::new(&policy, "");
    assert_eq!(place.judge(&file).brief(), ["allow default tls log.example tls"]);
    let curl = place.run(&["--json", "--app", "exe:/usr/bin/curl"], &file);
    assert_eq!(curl.brief(), ["deny log tls log.example tls"]);
    assert_eq!(curl.only()["evidence"][1], "app:exe:/usr/bin/curl");
}

#[test]
fn a_policy_that_only_observes_is_told_besides() {
    let more = "[policy]\nname = \"o\"\nmode = \"observe\"\npriority = 5\n[[rule]]\nname = \"all\"\naction = \"drop\"\nto = { networks = [\"0.0.0.0/0\"] }\n";
    let place = Place::new(POLICY, "");
    let file = place.file(&[]).with_file_name("o.toml");
    std::fs::write(&file, more).unwrap();
    let packet = tcp((CLIENT, 51_000), ("203.0.113.9", 443), 1, SYN, &[]);
    let file = file.to_str().unwrap();
    let judged = place.run(&["--json", "--policy", file], &pcap(RAW, &[packet]));
    assert_eq!(judged.brief(), ["deny net connect - -"]);
    let observed = &judged.only()["observed"][0];
    assert_eq!((&observed["policy"], &observed["verdict"]), (&"o".into(), &"audit".into()));
}

#[test]
fn more_flows_than_are_kept_are_told_before_the_end() {
    let begin = tcp((CLIENT, 1), ("203.0.113.9", 443), 1, SYN, &[]);
    let flows = (1 << 16) + 5;
    let packets: Vec<Vec<u8>> = (0..flows)
        .map(|flow: u32| {
            let mut packet = begin.clone();
            packet[20..22].copy_from_slice(&(flow as u16).to_be_bytes());
            packet[19] = (flow >> 16) as u8;
            packet
        })
        .collect();
    let judged = Place::new(POLICY, "").judge(&pcap(RAW, &packets));
    assert_eq!(judged.lines.len(), flows as usize);
    judged.says("5 flows told before the end, to make room (the first: packet 65537)");
}

#[test]
fn what_flows_hold_together_is_bounded() {
    let piece = vec![7; 60_000];
    // Each has a hole in front.
    let packets: Vec<Vec<u8>> = (0..1200)
        .flat_map(|port| {
            let (from, to) = ((CLIENT, 2000 + port), (SERVER, 443));
            [tcp(from, to, 999, SYN, &[]), tcp(from, to, 1001, ACK, &piece)]
        })
        .collect();
    let judged = Place::new(POLICY, "").judge(&pcap(RAW, &packets));
    assert_eq!(judged.lines.len(), 1200);
    let early = 1200 - (64 << 20) / 60_000;
    judged.says(&format!("{early} flows told before the end, to make room"));
}
