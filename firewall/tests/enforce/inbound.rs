//! Replies to what came from outside, and what IPv6 needs to work at all.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use libc::ECONNREFUSED;

use crate::{
    harness::{CLIENT_V4, CLIENT_V6, Net, require_kernel, wait_until},
    support::{AMAZON, BAIDU, FREE, Run},
};

/// Asks a server in the client's namespace, from one of our public addresses.
fn ask(net: &Net, from: &str, to: IpAddr) -> Option<[u8; 4]> {
    let from: IpAddr = from.parse().expect("an address");
    let mut stream: Option<TcpStream> = None;
    wait_until(Duration::from_secs(20), || {
        stream = net.in_server(|| connect_from(from, SocketAddr::new(to, 8080)));
        stream.is_some()
    });
    let mut stream = stream?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a time-out");
    stream.write_all(b"ping").ok()?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok().map(|()| answer)
}

fn connect_from(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&fd, &SocketAddr::new(from, 0)).expect("binding");
    connect(&fd, &to).ok().map(|()| TcpStream::from(fd))
}

#[test]
fn a_server_answers_and_cannot_call_back() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE, AMAZON]);
    let web = net.serve_http(&["[::]:80"]);
    for (host, own) in [(FREE, IpAddr::V4(CLIENT_V4)), (AMAZON, IpAddr::V6(CLIENT_V6))] {
        let capture = net.capture();
        let call_back = format!("tcp {}", SocketAddr::new(host.parse().expect("an address"), 80));
        let run = Run::new(&net, &["--policy", "local-only"])
            .start_client(&format!("accept 8080\n{call_back}"));
        assert_eq!(ask(&net, host, own).as_ref(), Some(b"pong"), "{}", run.text("stderr"));
        let outcome = run.end();
        assert_eq!(outcome.errno("accept 8080"), 0);
        assert_eq!(outcome.errno(&call_back), ECONNREFUSED);
        let events = outcome.on(host);
        assert_eq!(events.len(), 1, "replies are not recorded: {events:#?}");
        assert_eq!(
            (&events[0]["verdict"], &events[0]["hook"]),
            (&"deny".into(), &"connect".into())
        );
        assert_eq!(events[0]["reason"], "default");
        assert_eq!(events[0]["dst"]["port"], 80);
        let to_web = |packet: &crate::harness::Packet| packet.ports.is_some_and(|p| p.1 == 80);
        assert!(!capture.to(host).is_empty() && !capture.to(host).iter().any(to_web));
        outcome.assert_explained();
    }
    assert!(web.contacts().is_empty());
}

#[test]
fn a_server_that_is_held_to_the_rules_cannot_answer() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("firewall.toml");
    std::fs::write(&config, "inbound = \"enforce\"\n").expect("a file");
    let capture = net.capture();
    let run =
        Run::new(&net, &["--policy", "local-only", "--config", config.to_str().expect("UTF-8")])
            .start_client("accept 8080");
    assert!(wait_until(Duration::from_secs(20), || run.text("steps").is_empty()
        && net.in_server(connect_and_forget)));
    let outcome = run.end();
    // Nobody came, and the listener is still one.
    assert_eq!(outcome.errno("accept 8080"), libc::EAGAIN);
    // Before there was a listener, the kernel of the client refused for nobody.
    let accepts = |packet: &crate::harness::Packet| packet.bytes[20 + 13] == 0x12;
    assert!(!capture.to(FREE).iter().any(accepts));
    assert_eq!(outcome.denied(FREE, 0, "tcp")["hook"], "packet");
}

/// Of an accepted connection nobody knows the group, and 0 would be root's.
#[test]
fn an_unknown_app_is_not_of_the_group_of_root() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let config = file("firewall.toml", "inbound = \"enforce\"\n");
    for (apps, answered) in [("user:root", true), ("group:root", false)] {
        // What the listener itself sends, its process is known of.
        let policy = format!(
            "[policy]\nname = \"test\"\ndefault = \"drop\"\n[[rule]]\nname = \"some\"\n\
             action = \"allow\"\napps = [\"{apps}\"]\n"
        );
        let policy = file("policy.toml", &policy);
        let run =
            Run::new(&net, &["--policy", &policy, "--config", &config]).start_client("accept 8080");
        let answer = ask(&net, FREE, IpAddr::V4(CLIENT_V4));
        assert_eq!(answer.is_some(), answered, "{apps}: {}", run.text("stderr"));
    }
}

/// Begins a connection that nobody answers. Returns whether the first packet was not refused.
fn connect_and_forget() -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let fd = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket");
    let from: IpAddr = FREE.parse().expect("an address");
    bind(&fd, &SocketAddr::new(from, 0)).expect("binding");
    let started = connect(&fd, &SocketAddr::new(CLIENT_V4.into(), 8080));
    std::thread::sleep(Duration::from_millis(300));
    // A reset by a listener that is not there yet is an error of the socket.
    started == Err(rustix::io::Errno::INPROGRESS)
        && rustix::net::sockopt::socket_error(&fd).is_ok_and(|error| error.is_ok())
}

#[test]
fn neighbours_are_found_whatever_the_default() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[AMAZON, BAIDU]);
    let web = net.serve_http(&["[::]:80"]);
    net.client.ip(&["neigh flush dev wire0"]);
    let run = ["--default", "drop", "--allow", "net:2600:9000::/32", "--policy", "baidu"];
    let outcome = Run::new(&net, &run).client(&format!("tcp [{AMAZON}]:80\ntcp {BAIDU}:80"));
    assert_eq!(outcome.errno(&format!("tcp [{AMAZON}]:80")), 0, "{}", outcome.stderr);
    assert_eq!(outcome.errno(&format!("tcp {BAIDU}:80")), ECONNREFUSED);
    assert_eq!(web.contacts().len(), 1);
    let app = |event: &&serde_json::Value| event["app"]["name"] == "unknown";
    assert_eq!(outcome.events.iter().filter(app).count(), 0, "{:#?}", outcome.events);
}
