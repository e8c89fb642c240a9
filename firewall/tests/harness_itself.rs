//! The tests' own tools: what they promise, the other tests rely on.

mod harness;

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::process::{Output, Stdio};
use std::time::Duration;

use harness::{Capture, Cgroup, Net, require_kernel};

const BAIDU: &str = "110.242.68.66";
const FREE: &str = "212.27.48.10";
const ALIDNS: &str = "2400:3200::1";
const AMAZON: &str = "2600:9000::10";

fn curl(net: &Net, url: &str) -> Output {
    net.client_command("curl")
        .args(["--silent", "--show-error", "--max-time", "2", "--noproxy", "*", url])
        .output()
        .expect("curl (package curl)")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn curl_reaches_every_address_of_the_server_and_no_other() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let web = net.serve_http(&["[::]:80"]);
    for host in [BAIDU, FREE, &format!("[{ALIDNS}]"), &format!("[{AMAZON}]")] {
        let output = curl(&net, &format!("http://{host}/"));
        assert!(output.status.success(), "{host}: {}", text(&output));
        assert!(text(&output).starts_with(&format!("{host}:80 answers ")), "{}", text(&output));
    }
    assert_eq!(web.contacts().len(), 4);
    assert_eq!(web.contacts()[0].to.to_string(), "110.242.68.66:80");
    assert_eq!(web.contacts()[3].from.ip(), harness::CLIENT_V6);

    // The packets get to the server, which leads nowhere: status 28 is a time-out.
    let output = curl(&net, "http://1.1.1.1/");
    assert_eq!(output.status.code(), Some(28), "{}", text(&output));
}

#[test]
fn a_capture_sees_what_reaches_an_address_and_nothing_else() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, ALIDNS]);
    let capture: Capture = net.capture();
    let udp = net.listen_udp(&["[::]:53"]);
    let answer = net.in_client(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("binding");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        socket.send_to(b"question", (BAIDU, 53)).expect("sending");
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
        (buffer[..length].to_vec(), from.to_string())
    });
    assert_eq!(answer, (b"question".to_vec(), format!("{BAIDU}:53")));
    assert!(udp.wait_for(Duration::from_secs(1), |contact| contact.data == b"question"));

    let seen = capture.to(BAIDU);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].protocol, seen[0].ports.map(|ports| ports.1)), (17, Some(53)));
    assert_eq!(&seen[0].bytes[28..], b"question");
    capture.assert_nothing_to(FREE);
    capture.assert_nothing_to(ALIDNS);

    capture.clear();
    let ping = net.client_command("ping").args(["-c1", "-W2", ALIDNS]).output();
    if let Ok(output) = ping {
        assert!(output.status.success(), "{}", text(&output));
        assert!(capture.to(ALIDNS).iter().any(|packet| packet.protocol == 58));
    } else {
        harness::skip("ping is not installed");
    }
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        net.in_client(|| {
            // Nobody listens there, and still it counts as reached.
            UdpSocket::bind("0.0.0.0:0").expect("binding").send_to(b"x", (FREE, 9)).expect("sent")
        });
        capture.assert_nothing_to(FREE);
    }));
    assert!(panic.is_err(), "a packet to {FREE} was not noticed");
}

#[test]
fn a_tcp_listener_records_who_came_and_what_it_said() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let listener = net.listen_tcp(&["212.27.48.10:8080"]);
    net.in_client(|| {
        TcpStream::connect((FREE, 8080)).expect("connecting").write_all(b"hello").expect("sending");
    });
    assert!(listener.wait_for(Duration::from_secs(5), |contact| contact.data == b"hello"));
    assert_eq!(listener.contacts().len(), 1);
}

#[test]
fn nothing_is_left_behind_even_after_a_panic() {
    if !require_kernel() {
        return;
    }
    let (mut name, mut directory, mut child) = (String::new(), Default::default(), None);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let net = Net::new(&[FREE]);
        let cgroup = Cgroup::new();
        let _web = net.serve_http(&["[::]:80"]);
        let _capture = net.capture();
        name = net.client.name().to_owned();
        directory = cgroup.path().to_owned();
        let mut command = net.client_command("sleep");
        let sleeper = cgroup.enter(&mut command).arg("600").stdin(Stdio::null()).spawn();
        let sleeper = child.insert(sleeper.expect("sleep"));
        assert_eq!(cgroup.processes(), [sleeper.id()]);
        assert_eq!(net.client.processes(), [sleeper.id()]);
        assert!(net.client.path().exists() && cgroup.path().exists() && cgroup.id() > 1);
        panic!("on purpose");
    }));
    assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"on purpose"));
    assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name} is left");
    assert!(!directory.exists(), "{} is left", directory.display());
    let status = child.expect("it was started").wait().expect("waiting");
    assert!(!status.success(), "the process in the namespace was not ended");
}

#[test]
fn two_at_a_time_do_not_meet() {
    if !require_kernel() {
        return;
    }
    let [first, second] = [Net::new(&[FREE]), Net::new(&[FREE])];
    let (one, two) = (first.serve_http(&["[::]:80"]), second.serve_http(&["[::]:80"]));
    std::thread::scope(|scope| {
        for net in [&first, &second] {
            scope.spawn(move || assert!(curl(net, "http://212.27.48.10/").status.success()));
        }
    });
    assert_eq!((one.contacts().len(), two.contacts().len()), (1, 1));
    drop(first);
    assert!(curl(&second, "http://212.27.48.10/").status.success());
}

#[test]
fn what_a_killed_process_left_is_removed() {
    if !require_kernel() {
        return;
    }
    // The highest process number there can be, plus one.
    let stale = "fw-4194305-0-client";
    // Through a fresh process, because each looks for leftovers once, when it begins.
    if std::env::var_os("FIREWALL_TEST_STALE").is_none() {
        let _leftover = harness::Namespace::new(stale);
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "what_a_killed_process_left_is_removed"])
            .env("FIREWALL_TEST_STALE", "1")
            .output()
            .expect("this test again");
        assert!(output.status.success(), "{}", text(&output));
    } else {
        let _net = Net::new(&[FREE]);
        assert!(!std::path::Path::new("/run/netns").join(stale).exists());
    }
}
