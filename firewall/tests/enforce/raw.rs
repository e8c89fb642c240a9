//! Sockets that write their own headers, and addresses that carry others inside.

use libc::{ECONNREFUSED, EPERM};

use super::ways::{AT_ONCE, check, check_event, way};
use crate::{
    harness::{Net, require_kernel, skip},
    support::{AMAZON, BAIDU, FREE, Run},
};

#[test]
fn raw_and_ping_sockets_are_refused() {
    if !require_kernel() {
        return;
    }
    check(&[
        way("ping TO", "icmp", "packet", EPERM).v4_only(),
        // The kernel drops the packet and keeps that to itself: `ping_v6_sendmsg` of Linux 6.18
        // does not look at what sending gave.
        way("ping TO", "icmpv6", "packet", 0).v6_only(),
        way("raw-icmp TO", "icmp", "packet", EPERM).v4_only(),
        way("raw-icmp TO", "icmpv6", "packet", EPERM).v6_only(),
        way("raw 17 TO", "udp", "packet", EPERM),
        way("raw 6 TO", "tcp", "packet", EPERM),
        way("raw 132 TO", "sctp", "packet", EPERM),
    ]);
}

#[test]
fn a_connected_ping_socket_is_refused() {
    if !require_kernel() {
        return;
    }
    check(&[
        way("ping-connect TO", "icmp", "connect", ECONNREFUSED).v4_only(),
        way("ping-connect TO", "icmpv6", "connect", ECONNREFUSED).v6_only(),
    ]);
}

#[test]
fn packets_with_headers_of_their_own_are_judged_by_those() {
    if !require_kernel() {
        return;
    }
    check(&[
        way("hdrincl plain TO TO", "udp", "packet", EPERM),
        // What `sendto` is told is not where the packet goes.
        way("hdrincl plain FREE TO", "udp", "packet", EPERM),
        way("hdrincl sctp TO TO", "sctp", "packet", EPERM),
        way("hdrincl first-fragment TO TO", "udp", "packet", EPERM),
        way("hdrincl later-fragment TO TO", "udp", "packet", EPERM),
        way("hdrincl extensions TO TO", "udp", "packet", EPERM).v6_only(),
        way("hdrincl options TO TO", "udp", "packet", EPERM).v4_only(),
    ]);
}

/// A route that names further destinations is refused, wherever the first of them is.
#[test]
fn source_routes_are_refused() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, AMAZON]);
    let capture = net.capture();
    let raw4 = format!("hdrincl source-route {FREE}:2001 {FREE}:2001");
    let raw6 = format!("hdrincl routing-header [{AMAZON}]:2002 [{AMAZON}]:2002");
    let through = format!("source-route {BAIDU}:2003 {FREE}:2003");
    let to = format!("source-route {FREE}:2004 {BAIDU}:2004");
    // The connection is to an allowed address, by way of a denied one. Only its packets show it.
    let stream = format!("tcp-source-route {BAIDU}:2005 {FREE}:2005");
    let script = [&raw4, &raw6, &through, &to].map(String::as_str).join("\n");
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&script);
    for (line, ip, proto) in
        [(&raw4, FREE, "udp"), (&raw6, AMAZON, "udp"), (&through, BAIDU, "udp")]
    {
        assert_eq!(outcome.errno(line), EPERM, "{line}");
        let event = outcome.denied(ip, 0, proto);
        check_event(event, "packet", outcome.step(line).pid);
        assert_eq!(event["reason"], "parse-error", "{event}");
        assert!(event["rule"].is_null() && event["policy"].is_null(), "{event}");
    }
    assert_eq!(outcome.errno(&to), ECONNREFUSED);
    let connecting = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&stream);
    let step = connecting.step(&stream);
    assert!(step.errno != 0 && step.took < AT_ONCE, "{step:?}\n{}", connecting.stderr);
    assert_eq!(connecting.denied(BAIDU, 0, "tcp")["reason"], "parse-error");
    for ip in [BAIDU, FREE, AMAZON] {
        capture.assert_nothing_to(ip);
    }

    // Without the firewall they go out, so the wire is not what stopped them.
    let outcome = Run::new(&net, &["--observe", "--config", "/dev/null"]).client(&script);
    assert_eq!(outcome.errno(&raw4), 0, "observing stops nothing");
    let config = outcome_config(&net, &script);
    assert_eq!(config, [0, 0, 0, 0]);
    assert!(!capture.to(FREE).is_empty() && !capture.to(AMAZON).is_empty());
}

/// The same with `unparsable = "allow"` and no rules: what each step gives.
fn outcome_config(net: &Net, script: &str) -> Vec<i32> {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("firewall.toml");
    std::fs::write(&config, "unparsable = \"allow\"\n").expect("a file");
    let config = config.to_str().expect("UTF-8");
    let outcome = Run::new(net, &["--policy", "watch-everything", "--config", config]);
    let outcome = outcome.client(script);
    let unread = outcome.events.iter().filter(|event| event["reason"] == "parse-error");
    assert!(unread.clone().count() > 0 && unread.clone().all(|event| event["verdict"] == "audit"));
    outcome.steps.iter().map(|step| step.errno).collect()
}

/// NAT64 (RFC 6052), 6to4 (RFC 3056) and Teredo (RFC 4380) forms of 110.242.68.66.
const DENIED: [&str; 3] =
    ["64:ff9b::6ef2:4442", "2002:6ef2:4442::1", "2001:0:1234:5678:9abc:def0:910d:bbbd"];
/// Those of 212.27.48.10.
const ALLOWED: [&str; 3] =
    ["64:ff9b::d41b:300a", "2002:d41b:300a::1", "2001:0:1234:5678:9abc:def0:2be4:cff5"];

#[test]
fn addresses_inside_others_are_found() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let capture = net.capture();
    let ways = |ip: &str| {
        [
            (format!("tcp [{ip}]:2001"), 2001, "tcp", "connect", ECONNREFUSED),
            (format!("udp-sendto [{ip}]:2002"), 2002, "udp", "sendmsg", ECONNREFUSED),
            (format!("raw 17 [{ip}]:2003"), 2003, "udp", "packet", EPERM),
            (format!("raw-icmp [{ip}]:0"), 0, "icmpv6", "packet", EPERM),
        ]
    };
    let denied = DENIED.iter().flat_map(|ip| ways(ip)).map(|way| way.0);
    // Nobody answers TCP there.
    let allowed = ALLOWED.iter().flat_map(|ip| ways(ip)).skip(1).map(|way| way.0);
    let allowed = allowed.filter(|line| !line.starts_with("tcp"));
    let script = denied.chain(allowed).collect::<Vec<_>>().join("\n");
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&script);
    for ip in DENIED {
        for (line, port, proto, hook, errno) in ways(ip) {
            assert_eq!(outcome.errno(&line), errno, "{line}");
            let canonical: std::net::Ipv6Addr = ip.parse().expect("v6");
            let event = outcome.denied(&canonical.to_string(), port, proto);
            check_event(event, hook, outcome.step(&line).pid);
            assert_eq!(event["rule"], "home-jurisdiction");
            assert_eq!(event["geo"]["country"], "CN", "{event}");
        }
        capture.assert_nothing_to(ip);
    }
    for ip in ALLOWED {
        for (line, ..) in ways(ip).iter().skip(1) {
            assert_eq!(outcome.errno(line), 0, "{line}");
        }
        assert_eq!(capture.to(ip).len(), 3, "{ip}");
    }
    outcome.assert_explained();
}

#[test]
fn sctp_sockets_are_refused() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU]);
    let capture = net.capture();
    let line = format!("sctp {BAIDU}:2001");
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&line);
    capture.assert_nothing_to(BAIDU);
    match outcome.errno(&line) {
        libc::EPROTONOSUPPORT => skip("the kernel has no SCTP (raw packets of it are tested)"),
        errno => {
            assert_ne!(errno, 0);
            assert_eq!(outcome.denied(BAIDU, 2001, "sctp")["rule"], "home-jurisdiction");
        }
    }
}
