//! What leaves by an interface without having been at the egress of a cgroup.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
};

use serde_json::Value;

use crate::{
    harness::{Capture, require_kernel, skip, wait_until},
    host::{ALLOWED, App, CHINA, DENIED, Host},
    support::{BAIDU, FREE, LIMIT, client::check, elsewhere::open_tunnel},
};

const ON: &str = "backstop = \"on\"\n";

/// A daemon with [`CHINA`] that stands at the interfaces.
fn host() -> Host {
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", ON);
    host.start();
    host
}

/// An interface of a type whose frames nobody reads: as long as the file is open.
fn strange(name: &str) -> File {
    /// `linux/if_tun.h`
    const TUNSETLINK: libc::c_ulong = 0x4004_54cd;
    let tunnel = open_tunnel(name).unwrap();
    let kind = libc::c_int::from(libc::ARPHRD_IEEE80211_RADIOTAP);
    // SAFETY: takes integers alone.
    check(unsafe { libc::ioctl(tunnel.as_raw_fd(), TUNSETLINK, kind) }).unwrap();
    tunnel
}

/// What a status says of the program at an interface.
fn at(status: &Value, interface: &str) -> Option<bool> {
    let name = format!("backstop {interface}");
    let hooks = status["hooks"].as_array().unwrap();
    hooks.iter().find(|hook| hook["program"] == name)?["attached"].as_bool()
}

/// Makes a step towards an address: its errno, and whether anything arrived there.
fn send(app: &mut App, capture: &Capture, step: &str, ip: &str) -> (i32, bool) {
    capture.clear();
    let to = if ip.contains(':') { format!("[{ip}]:443") } else { format!("{ip}:443") };
    let errno = app.step(&format!("{step} {to}"));
    (errno, !capture.to(ip).is_empty())
}

#[test]
fn frames_are_judged_where_it_is_on() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let capture = host.net.capture();
    let mut app = host.app();
    for ip in DENIED {
        assert_eq!(send(&mut app, &capture, "frame", ip), (0, true), "nobody stands there");
    }
    host.set("firewall.toml", ON);
    host.done(&["reload"]);
    assert_eq!(at(&host.status(), "wire0"), Some(true), "{}", host.said());
    assert_eq!(at(&host.status(), "lo"), None);
    for ip in DENIED {
        assert_eq!(send(&mut app, &capture, "frame", ip), (libc::ENOBUFS, false), "{ip}");
        let event = host.event(|event| event["dst"]["ip"] == ip);
        assert_eq!(event["verdict"], "deny");
        assert_eq!(event["hook"], "packet");
        assert_eq!(event["rule"], "registered");
        // By who sent it, as a socket of IP is.
        let own = fs::canonicalize(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(event["app"]["exe"], own.to_str().unwrap());
        assert_eq!(event["app"]["uid"], 0);
    }
    for ip in ALLOWED {
        assert_eq!(send(&mut app, &capture, "frame", ip), (0, true), "{ip}");
    }
    host.set("firewall.toml", "");
    host.done(&["reload"]);
    assert_eq!(at(&host.status(), "wire0"), None);
    assert_eq!(send(&mut app, &capture, "frame", BAIDU), (0, true), "it is taken away");
    host.done(&["rollback"]);
    assert_eq!(send(&mut app, &capture, "frame", BAIDU), (libc::ENOBUFS, false));
}

#[test]
fn packets_are_found_behind_other_headers() {
    if !require_kernel() {
        return;
    }
    let host = host();
    let capture = host.net.capture();
    let mut app = host.app();
    for form in ["tagged", "twice-tagged", "pppoe"] {
        let step = format!("framed {form}");
        for ip in DENIED {
            assert_eq!(send(&mut app, &capture, &step, ip), (libc::ENOBUFS, false), "{form} {ip}");
        }
        for ip in ALLOWED {
            assert_eq!(send(&mut app, &capture, &step, ip).0, 0, "{form} {ip}");
        }
    }
    assert_eq!(app.step(&format!("framed cut {FREE}:443")), libc::ENOBUFS, "it cannot be read");
    host.event(|event| event["reason"] == "parse-error" && event["verdict"] == "deny");
    let unread = || host.status()["counters"]["unread-frames"].as_u64().unwrap();
    let before = unread();
    // Nobody knows what it is, so nobody can say where it leads.
    app.does(&format!("framed other {BAIDU}:443"));
    assert!(unread() > before);
}

#[test]
fn no_socket_sends_past_it() {
    if !require_kernel() {
        return;
    }
    let host = host();
    let capture = host.net.capture();
    let mut app = host.app();
    for ip in [BAIDU, FREE] {
        assert_eq!(send(&mut app, &capture, "framed past", ip), (libc::EPERM, false), "{ip}");
    }
    let by_xdp = app.step("frames-by-xdp");
    host.set("firewall.toml", "");
    host.done(&["reload"]);
    assert_eq!(send(&mut app, &capture, "framed past", BAIDU), (0, true));
    if by_xdp == libc::EAFNOSUPPORT {
        skip("this kernel has no AF_XDP");
    } else {
        assert_eq!((by_xdp, app.step("frames-by-xdp")), (libc::EPERM, 0));
    }
}

#[test]
fn interfaces_come_and_go() {
    if !require_kernel() {
        return;
    }
    let mut host = host();
    let pins = |host: &Host| {
        let names = host.pinned().into_iter();
        names.filter(|path| path.to_string_lossy().contains("/backstop-")).count()
    };
    assert_eq!(pins(&host), 1);
    let come = ["link add more0 type veth peer name more1", "link set more0 up"];
    host.net.client.ip(&come);
    for name in ["more0", "more1"] {
        let attached = wait_until(LIMIT, || at(&host.status(), name) == Some(true));
        assert!(attached, "{name}: {}", host.said());
    }
    assert_eq!(host.status()["state"], "enforcing");
    host.net.client.ip(&["link set more1 name other1", "link del more0"]);
    assert!(wait_until(LIMIT, || pins(&host) == 1), "{:?}", host.pinned());
    // One that comes while no daemon is there.
    host.kill(false);
    host.net.client.ip(&come);
    host.start();
    assert_eq!(at(&host.status(), "more0"), Some(true), "{}", host.said());
    assert_eq!(pins(&host), 3);
    host.done(&["off"]);
    host.ended();
    assert_eq!(pins(&host), 0);
}

#[test]
fn many_interfaces_that_cannot_have_it_are_told_of_in_short() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", ON);
    let _open: Vec<File> = host
        .net
        .client
        .run(|| (0..20).map(|number| strange(&format!("strange{number}"))).collect());
    host.start();
    assert_eq!(host.said().matches("its frames are neither").count(), 8, "{}", host.said());
    host.wait_said("no backstop at 12 further interfaces");
    assert_eq!(host.status()["state"], "degraded");
}

#[test]
fn without_a_daemon_it_stays() {
    if !require_kernel() {
        return;
    }
    let mut host = host();
    let capture = host.net.capture();
    let mut app = host.app();
    host.kill(false);
    assert_eq!(send(&mut app, &capture, "frame", BAIDU), (libc::ENOBUFS, false));
    assert_eq!(send(&mut app, &capture, "frame", FREE), (0, true));
    host.start();
    assert_eq!(send(&mut app, &capture, "frame", BAIDU), (libc::ENOBUFS, false));
    assert_eq!(at(&host.status(), "wire0"), Some(true));
}

#[test]
fn what_is_forwarded_is_of_nobody_that_is_known() {
    if !require_kernel() {
        return;
    }
    let host = host();
    let capture = host.net.capture();
    let mut app = host.app();
    for (denied, allowed) in DENIED.into_iter().zip(ALLOWED) {
        assert_eq!(send(&mut app, &capture, "tunnel", denied), (0, false), "{denied}");
        let event = host.event(|event| event["dst"]["ip"] == denied);
        assert_eq!(event["app"]["name"], "unknown");
        assert_eq!(event["app"]["uid"], u32::MAX, "no user, and not root");
        assert_eq!(send(&mut app, &capture, "tunnel", allowed), (0, true), "{allowed}");
    }
    // What a policy says of one app it says not of this.
    let of_root = CHINA.replace("[[rule]]", "apps = [\"user:0\"]\n[[rule]]");
    host.set("policies.d/china.toml", &of_root);
    host.done(&["reload"]);
    assert_eq!(send(&mut app, &capture, "tunnel", BAIDU), (0, true));
    assert_eq!(send(&mut app, &capture, "frame", BAIDU), (libc::ENOBUFS, false));
}

#[test]
fn what_was_judged_in_a_cgroup_passes() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    // But for what the test's own program is allowed, nothing may leave.
    let own = fs::canonicalize(std::env::current_exe().unwrap()).unwrap();
    host.set(
        "policies.d/own.toml",
        &format!(
            "[policy]\nname = \"own\"\napps = [\"exe:{}\"]\ndefault = \"allow\"\n",
            own.to_str().unwrap()
        ),
    );
    host.set("firewall.toml", &format!("{ON}default = \"drop\"\n"));
    host.start();
    let capture = host.net.capture();
    let mut app = host.app();
    let _listening = crate::host::Server::of(&host);
    app.assert_open(&ALLOWED);
    // By IPv6 the other end is asked for its address again, by the kernel.
    host.net.client.ip(&["neigh flush all"]);
    app.assert_open(&ALLOWED);
    for ip in ALLOWED {
        assert_eq!(send(&mut app, &capture, "frame", ip), (0, true), "{ip}");
        assert_eq!(send(&mut app, &capture, "tunnel", ip), (0, false), "{ip}");
    }
    assert_eq!(host.status()["counters"]["parse-error"], 0);
}

#[test]
fn the_outer_packets_of_a_tunnel_are_judged() {
    if !require_kernel() {
        return;
    }
    let host = host();
    let capture = host.net.capture();
    let mut app = host.app();
    for (remote, inside, arrives) in [(BAIDU, "192.0.2", false), (FREE, "198.51.100", true)] {
        let name = if arrives { "vx1" } else { "vx0" };
        host.net.client.ip(&[
            format!("link add {name} type vxlan id 7 remote {remote} dstport 4789 dev wire0"),
            format!("addr add {inside}.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("neigh add {inside}.9 lladdr 02:00:00:00:00:09 dev {name}"),
        ]);
        capture.clear();
        // Nobody answers inside; that a packet is sent there is enough.
        app.step(&format!("tcp {inside}.9:443"));
        let came = capture.to(remote);
        assert_eq!(!came.is_empty(), arrives, "{remote}: {came:#?}");
        host.net.client.ip(&[format!("link del {name}")]);
    }
    let event = host.event(|event| event["dst"]["ip"] == BAIDU);
    assert_eq!(event["dst"]["port"], 4789);
    assert_eq!(event["app"]["name"], "kernel");
}
