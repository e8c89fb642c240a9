//! What leaves by an interface without having been in a cgroup.

use serde_json::Value;

use crate::{
    harness::{require_kernel, wait_until},
    host::{ALLOWED, CHINA, DENIED, Host},
    support::LIMIT,
};

const ON: &str = "backstop = \"on\"\n";

/// What a status says of the program at an interface.
fn at(status: &Value, interface: &str) -> Option<bool> {
    let name = format!("backstop {interface}");
    let hooks = status["hooks"].as_array().unwrap();
    hooks.iter().find(|hook| hook["program"] == name)?["attached"].as_bool()
}

fn target(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:443") } else { format!("{ip}:443") }
}

#[test]
fn frames_are_judged_where_it_is_on() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let capture = host.net.capture();
    let mut app = host.app();
    let mut arrives = |what: &str, ip: &str| {
        capture.clear();
        let errno = app.step(&format!("{what} {}", target(ip)));
        let sent = capture.wait_for(LIMIT / 20, |packet| packet.to.to_string() == ip);
        (errno, sent)
    };
    for ip in DENIED {
        assert_eq!(arrives("frame", ip), (0, true), "nobody stands there");
    }
    host.set("firewall.toml", ON);
    host.done(&["reload"]);
    assert_eq!(at(&host.status(), "wire0"), Some(true), "{}", host.said());
    for ip in DENIED {
        assert_eq!(arrives("frame", ip), (libc::ENOBUFS, false), "{ip}");
    }
    for ip in ALLOWED {
        assert_eq!(arrives("frame", ip), (0, true), "{ip}");
    }
    host.set("firewall.toml", "");
    host.done(&["reload"]);
    assert_eq!(at(&host.status(), "wire0"), None);
    assert_eq!(arrives("frame", DENIED[0]), (0, true), "nobody stands there any more");
}
