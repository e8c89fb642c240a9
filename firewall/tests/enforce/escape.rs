//! Ways out of the command's place: other processes, other namespaces, other sockets.

use std::{net::SocketAddr, os::fd::AsRawFd as _, os::unix::process::CommandExt as _};

use libc::{EBADF, ECONNREFUSED};

use crate::{
    harness::{CLIENT_V6, Net, Packet, require_kernel, skip},
    support::{ALIDNS, AMAZON, BAIDU, FREE, Run, mptcp, namespace_path},
};

const CN: [&str; 2] = ["--policy", "cn-jurisdiction"];

#[test]
fn sockets_that_change_hands() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let capture = net.capture();
    let mut script = String::new();
    for (port, ip) in [(2001, BAIDU), (2002, FREE)] {
        script += &format!("inherit {ip}:{port}\npass {ip}:{port}\n");
        // Before the command has ended, which ends what is left.
        script += &format!("daemon 200 {ip}:{port}\nsleep 800\n");
    }
    script += &format!("inherit [{ALIDNS}]:2003\npass [{AMAZON}]:2004");
    let outcome = Run::new(&net, &CN).client(&script);
    outcome.assert_status(0);
    let parent = outcome.steps.last().expect("a step").pid;
    let count = |line: &str, errno: i32| {
        let fits = |step: &&crate::support::client::Step| {
            step.line.starts_with("fd-sendto") == line.starts_with("fd-sendto")
                && step.line.ends_with(line.trim_start_matches("fd-sendto "))
                && step.errno == errno
                && step.pid != parent
        };
        outcome.steps.iter().filter(fits).count()
    };
    assert_eq!(count("fd-sendto 110.242.68.66:2001", ECONNREFUSED), 2, "{:#?}", outcome.steps);
    assert_eq!(count("fd-sendto 212.27.48.10:2002", 0), 2, "{:#?}", outcome.steps);
    assert_eq!(count("fd-sendto [2400:3200::1]:2003", ECONNREFUSED), 1);
    assert_eq!(count("fd-sendto [2600:9000::10]:2004", 0), 1);
    // The daemon's own two.
    assert_eq!(count("udp-sendto 110.242.68.66:2001", ECONNREFUSED), 1, "{:#?}", outcome.steps);
    assert_eq!(count("udp-sendto 212.27.48.10:2002", 0), 1, "{:#?}", outcome.steps);
    capture.assert_nothing_to(BAIDU);
    capture.assert_nothing_to(ALIDNS);
    assert!(capture.to(FREE).len() >= 3 && !capture.to(AMAZON).is_empty());
    let pids: std::collections::HashSet<_> =
        outcome.on(BAIDU).iter().map(|event| event["app"]["pid"].as_u64()).collect();
    assert!(pids.len() >= 3, "each is charged with its own: {pids:?}");
    outcome.assert_explained();
}

#[test]
fn io_uring_asks_too() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let mut script = "uring-available\n".to_owned();
    for ip in [BAIDU, FREE, "[2400:3200::1]", "[2600:9000::10]"] {
        script += &format!("uring-connect {ip}:80\nuring-sendmsg {ip}:81\n");
    }
    let outcome = Run::new(&net, &CN).client(&script);
    if outcome.errno("uring-available") != 0 {
        skip("io_uring is not available");
        return;
    }
    for ip in [BAIDU, ALIDNS] {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        assert_eq!(outcome.errno(&format!("uring-connect {host}:80")), ECONNREFUSED);
        assert_eq!(outcome.errno(&format!("uring-sendmsg {host}:81")), ECONNREFUSED);
        assert_eq!(outcome.denied(ip, 80, "tcp")["hook"], "connect");
        assert_eq!(outcome.denied(ip, 81, "udp")["hook"], "sendmsg");
        capture.assert_nothing_to(ip);
    }
    for (ip, host) in [(FREE, FREE), (AMAZON, "[2600:9000::10]")] {
        assert_eq!(outcome.errno(&format!("uring-connect {host}:80")), 0);
        assert_eq!(outcome.errno(&format!("uring-sendmsg {host}:81")), 0);
        assert!(capture.to(ip).iter().any(|packet| packet.protocol == 17));
    }
    outcome.assert_explained();
}

#[test]
fn another_network_namespace_changes_nothing() {
    if !require_kernel() {
        return;
    }
    let (net, other) = (Net::new(&[FREE]), Net::new(&[BAIDU, FREE, ALIDNS]));
    let capture = other.capture();
    let _web = other.listen_tcp(&["[::]:80"]);
    let script = format!(
        "setns {}\ntcp {BAIDU}:80\nudp-sendto {BAIDU}:81\ntcp [{ALIDNS}]:80\nping {BAIDU}:0\n\
         tcp {FREE}:80\nudp-sendto {FREE}:81\ntcp-source-route {BAIDU}:82 {FREE}:82",
        namespace_path(&other.client).display()
    );
    let outcome = Run::new(&net, &CN).client(&script);
    assert_eq!(outcome.steps[0].errno, 0, "setns");
    assert_eq!(outcome.errno(&format!("tcp {BAIDU}:80")), ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("udp-sendto {BAIDU}:81")), ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("tcp [{ALIDNS}]:80")), ECONNREFUSED);
    assert_eq!(outcome.errno(&format!("ping {BAIDU}:0")), libc::EPERM);
    assert_eq!(outcome.errno(&format!("tcp {FREE}:80")), 0);
    assert_eq!(outcome.errno(&format!("udp-sendto {FREE}:81")), 0);
    // Denied as a packet only: the socket is destroyed where it is.
    let step = outcome.step(&format!("tcp-source-route {BAIDU}:82 {FREE}:82"));
    assert!(step.errno != 0 && step.took < super::ways::AT_ONCE, "{step:?}");
    capture.assert_nothing_to(BAIDU);
    capture.assert_nothing_to(ALIDNS);
    assert!(capture.to(FREE).iter().any(|packet| packet.protocol == 6));
    outcome.assert_explained();
}

#[test]
fn a_copied_and_renamed_program_is_named_as_what_it_is() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.serve_http(&["[::]:80"]);
    let capture = net.capture();
    let run = Run::new(&net, &CN);
    let place = run.directory().join("innocent");
    let script = format!(
        "cp $(command -v curl) {0}; {0} -sS --max-time 5 --noproxy '*' http://{FREE}/ && \
         {0} -sS --max-time 5 --noproxy '*' http://{BAIDU}/; status=$?; rm {0}; exit $status",
        place.display()
    );
    let outcome = run.program(&["sh", "-c", &script]);
    outcome.assert_status(7);
    let event = outcome.denied(BAIDU, 80, "tcp");
    assert_eq!(event["app"]["name"], "innocent", "{event}");
    assert_eq!(event["app"]["exe"], place.to_str().expect("UTF-8"), "though it is gone");
    capture.assert_nothing_to(BAIDU);
    assert!(!capture.to(FREE).is_empty());
}

#[test]
fn a_socket_opened_outside_is_closed_to_the_command() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let capture = net.capture();
    for (ip, own) in [(BAIDU, "0.0.0.0:0"), (BAIDU, "[::]:0")] {
        let socket = net.in_client(|| std::net::UdpSocket::bind(own)).expect("a socket");
        let fd = socket.as_raw_fd();
        let mut run = Run::new(&net, &CN);
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe {
            run.command
                .pre_exec(move || crate::support::client::check(libc::dup2(fd, 199)).map(|_| ()))
        };
        let line = format!("fd-sendto 199 {ip}:2001");
        let outcome = run.client(&line);
        assert_eq!(outcome.errno(&line), EBADF);
        let said = outcome.stderr.lines().find(|line| line.contains("closed to the command: "));
        assert!(said.expect(&outcome.stderr).contains("199"), "{}", outcome.stderr);
    }
    capture.assert_nothing_to(BAIDU);
}

/// The server offers a further address, and the client's kernel joins it to the connection.
#[test]
fn a_joined_subflow_of_mptcp_does_not_get_out() {
    if !require_kernel() {
        return;
    }
    if !std::path::Path::new("/proc/sys/net/mptcp").exists() {
        skip("the kernel has no MPTCP");
        return;
    }
    let joins = |offered: &str| {
        let net = Net::new(&[BAIDU, FREE, "212.27.48.11"]);
        if !mptcp::offer(&net, offered) {
            return None;
        }
        let _server = net.in_server(mptcp::serve);
        let capture = net.capture();
        let line = format!("mptcp-wait {FREE}:8080 800");
        let outcome = Run::new(&net, &CN).client(&line);
        assert_eq!(outcome.errno(&line), 0, "{}", outcome.stderr);
        Some((capture.to(offered), outcome))
    };
    let Some((packets, _)) = joins("212.27.48.11") else {
        skip("ip has no mptcp");
        return;
    };
    assert!(!packets.is_empty(), "an allowed address is joined");
    let (packets, outcome) = joins(BAIDU).expect("as before");
    assert_eq!(packets, Vec::<Packet>::new());
    let event = outcome.denied(BAIDU, 8080, "tcp");
    assert_eq!(event["rule"], "home-jurisdiction");
    assert_eq!(event["app"]["pid"], outcome.steps[0].pid, "charged to whose connection it is");
    outcome.assert_explained();
}

/// What leaves as an answer is judged where an app can choose who gets it.
#[test]
fn answers_cannot_be_sent_elsewhere() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[ALIDNS]);
    let capture = net.capture();
    let step = |what: &str, port: u16| {
        format!("{what} [{ALIDNS}]:1 {}", SocketAddr::new(CLIENT_V6.into(), port))
    };
    let [accepted, own] = [step("routed-accepted", 8101), step("routed-own", 8102)];
    let freebind = step("freebind", 8103);
    let script = [&accepted, &own, &freebind].map(String::as_str).join("\n");
    let outcome = Run::new(&net, &["--policy", "cn-jurisdiction"]).client(&script);
    // The first two are accepted by their sockets, and dropped on their way out.
    assert_eq!(outcome.errno(&freebind), libc::EPERM);
    capture.assert_nothing_to(ALIDNS);
    for event in outcome.on(ALIDNS) {
        assert_eq!(event["verdict"], "deny", "{event}");
    }

    // Without a policy they all reach it, so the wire is not what stopped them.
    let outcome = Run::new(&net, &["--policy", "watch-everything"]).client(&script);
    assert_eq!((outcome.errno(&accepted), outcome.errno(&own)), (0, 0));
    assert!(!capture.to(ALIDNS).is_empty());
}
