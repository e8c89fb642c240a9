//! TCP and what is TCP on the wire.

use libc::ECONNREFUSED;

use super::ways::{check, way};
use crate::{
    harness::{Net, require_kernel},
    support::{ALIDNS, AMAZON, BAIDU, BAIDU_HK, FREE, Run},
};

#[test]
fn curl_fails_at_once_and_reaches_what_is_allowed() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let web = net.serve_http(&["[::]:80"]);
    let capture = net.capture();
    let curl = |ip: &str| {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        Run::new(&net, &["--policy", "cn-jurisdiction"]).program(&[
            "curl",
            "-gsS",
            "--max-time",
            "5",
            "--noproxy",
            "*",
            "-w",
            "time_total=%{time_total}\n",
            &format!("http://{host}/"),
        ])
    };
    for ip in [BAIDU, ALIDNS] {
        let outcome = curl(ip);
        outcome.assert_status(7);
        let time = outcome.stdout.lines().find_map(|line| line.strip_prefix("time_total="));
        let time: f64 = time.expect("curl's time").parse().expect("a number");
        assert!(time < 0.5, "{}", outcome.stdout);
        let event = outcome.denied(ip, 80, "tcp");
        assert_eq!(event["hook"], "connect");
        assert_eq!(event["policy"], "cn-jurisdiction");
        assert_eq!(event["rule"], "home-jurisdiction");
        assert_eq!(event["geo"]["country"], "CN");
        assert_eq!(event["app"]["name"], "curl");
        assert!(event["app"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/bin/curl")));
        assert!(outcome.stderr.contains("deny curl -> "), "{}", outcome.stderr);
        outcome.assert_explained();
        capture.assert_nothing_to(ip);
    }
    for ip in [FREE, AMAZON] {
        let outcome = curl(ip);
        outcome.assert_status(0);
        assert!(outcome.stdout.contains(" answers "), "{}", outcome.stdout);
        assert!(outcome.events.iter().all(|event| event["verdict"] != "deny"));
        assert!(!capture.to(ip).is_empty());
    }
    assert_eq!(web.contacts().len(), 2);
}

#[test]
fn an_owner_is_denied_whatever_the_country() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU_HK, FREE]);
    let _web = net.serve_http(&["[::]:80"]);
    let capture = net.capture();
    let url = format!("http://{BAIDU_HK}/");
    let curl = ["curl", "-sS", "--max-time", "5", "--noproxy", "*", &url];
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).program(&curl);
    outcome.assert_status(0);
    assert!(!capture.to(BAIDU_HK).is_empty(), "without the rule it is reached");
    capture.clear();

    let outcome = Run::new(&net, &["--deny", "org:baidu"]).program(&curl);
    outcome.assert_status(7);
    let event = outcome.denied(BAIDU_HK, 80, "tcp");
    assert_eq!(event["rule"], "--deny org:baidu");
    assert_eq!(event["policy"], "command-line");
    assert_eq!(event["geo"]["country"], "HK");
    assert_eq!(event["geo"]["organisation"], "baidu");
    outcome.assert_explained();
    capture.assert_nothing_to(BAIDU_HK);
}

#[test]
fn tcp_by_every_call_fails_at_once() {
    if !require_kernel() {
        return;
    }
    check(&[
        way("tcp TO", "tcp", "connect", ECONNREFUSED),
        way("tcp-mapped TO", "tcp", "connect", ECONNREFUSED).v4_only(),
        way("tfo-msg TO", "tcp", "connect", ECONNREFUSED),
        way("tfo-connect TO", "tcp", "connect", ECONNREFUSED),
        way("mptcp TO", "tcp", "connect", ECONNREFUSED),
    ]);
}
