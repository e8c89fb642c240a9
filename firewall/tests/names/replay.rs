//! A capture of a real run, judged again by `firewall replay`: the same verdicts.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::{
    harness::{receive_from, require_names},
    support::{self, AMAZON, FIREWALL, FREE, Outcome},
};

use super::world::{SINGAPORE, World, curl};

/// Everything that comes and goes in the client's network namespace, written as a file of pcap.
struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u8>>,
}

impl Tap {
    fn new(world: &World) -> Self {
        let socket = world.net.in_client(open).expect("a packet socket (needs root)");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut file = Vec::new();
                // Microseconds, raw IP.
                for number in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 262_144, 101] {
                    file.write_all(&number.to_le_bytes()).expect("memory");
                }
                while !stop.load(Ordering::Acquire) {
                    receive(&socket, &mut file);
                }
                file
            }
        });
        Self { stop, thread }
    }

    fn end(self) -> Vec<u8> {
        // What is under way: the last packets of a connection.
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the tap")
    }
}

fn open() -> io::Result<OwnedFd> {
    let every = i32::from((libc::ETH_P_ALL as u16).to_be());
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers alone.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, every) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let pause = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
    let size = size_of::<libc::timeval>() as u32;
    // SAFETY: the pointer is to an initialised value of that length; the descriptor was just made.
    unsafe {
        libc::setsockopt(fd, level, option, (&raw const pause).cast(), size);
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn receive(socket: &OwnedFd, file: &mut Vec<u8>) {
    let mut buffer = vec![0; 256 << 10];
    let Some((received, address)) = receive_from(socket, &mut buffer) else { return };
    let ip = [0x0800, 0x86dd].contains(&u16::from_be(address.sll_protocol));
    // The loopback has everything twice.
    let again = address.sll_ifindex == 1 && address.sll_pkttype == libc::PACKET_OUTGOING;
    if !ip || again {
        return;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let size = received as u32;
    for number in [now.as_secs() as u32, now.subsec_micros(), size, size] {
        file.extend(number.to_le_bytes());
    }
    file.extend(&buffer[..received]);
}

/// What a flow or a question is told by.
type Key = (String, String, String);

fn key(event: &Value) -> Key {
    let text = |value: &Value| value.to_string();
    match event["hook"] == "dns" {
        true => (text(&event["proto"]), text(&event["dst"]["ip"]), text(&event["host"]["name"])),
        false => (text(&event["proto"]), text(&event["dst"]["ip"]), text(&event["dst"]["port"])),
    }
}

/// What has to be the same.
fn verdict(event: &Value) -> String {
    let hook = match event["hook"].as_str().unwrap_or_default() {
        // What the socket did is not in a capture.
        "sendmsg" | "packet" => "connect",
        other => other,
    };
    let parts =
        ["verdict", "mode", "reason", "action", "policy", "rule", "evidence", "host", "geo"];
    let parts = parts.map(|part| format!("{part}={}", event[part]));
    format!("{hook} {}", parts.join(" "))
}

const POLICY: &str = r#"[policy]
name = "mixed"
[[rule]]
name = "tracker"
action = "drop"
to = { domains = ["tracker.example", "hm.e.shifen.com"] }
[[rule]]
name = "shop"
action = "log"
to = { domains = ["shop.example"] }
[[rule]]
name = "singapore"
action = "drop"
to = { networks = ["43.109.38.0/24"] }
"#;

fn lines() -> [String; 7] {
    [
        curl("https://shop.example/"),
        curl("http://tracker.example/"),
        curl(&format!("--connect-to ::{AMAZON}:443 https://tracker.example/")),
        curl("http://far.example/"),
        curl(&format!("http://{SINGAPORE}/")),
        curl("-4 http://hm.baidu.com/"),
        "dns-tcp 10.200.0.1:53 good.example A 1,2,9".to_owned(),
    ]
}

fn run(world: &World, policy: &str, more: &[&str]) -> (Outcome, Vec<Value>) {
    let tap = Tap::new(world);
    let options = [&["--policy", policy], more].concat();
    let lines = lines();
    let outcome = world.script(&options, &lines.each_ref().map(String::as_str));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, tap.end()).expect("writing");
    let output = Command::new(FIREWALL)
        .args(["replay", "--json"])
        .args(&options)
        .arg(file.path())
        .output()
        .expect("the firewall");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(!err.contains("not understood"), "{err}");
    let replayed = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (outcome, replayed)
}

/// Of each flow the last event.
fn last(events: &[Value]) -> BTreeMap<Key, &Value> {
    events.iter().map(|event| (key(event), event)).collect()
}

fn assert_same(outcome: &Outcome, replayed: &[Value], least: usize) {
    let (verdicts, ends) = (last(&outcome.events), last(&outcome.moved));
    let (mut same, mut ended) = (0, 0);
    for line in replayed {
        let Some(event) = verdicts.get(&key(line)) else {
            panic!("only in the capture: {line}\n{:#?}", outcome.events);
        };
        assert_eq!(verdict(line), verdict(event), "\n{line}\n{event}");
        if let Some(end) = ends.get(&key(line)).filter(|end| end["hook"] == "close") {
            for bytes in ["bytes_out", "bytes_in"] {
                assert_eq!(line[bytes], end[bytes], "{bytes}\n{line}\n{end}");
            }
            ended += 1;
        }
        same += 1;
    }
    assert!(same >= least && ended > 0, "only {same}, {ended} of them ended: {replayed:#?}");
}

#[test]
fn a_capture_gets_the_verdicts_of_the_run() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.file("mixed.toml", POLICY);
    // Nothing is stopped, so that all of it is on the wire.
    let (outcome, replayed) = run(&world, &policy, &["--observe"]);
    assert_same(&outcome, &replayed, 10);
    let seen = |verdict: &str, rule: &str| {
        replayed.iter().any(|line| line["verdict"] == verdict && line["rule"] == rule)
    };
    for rule in ["tracker", "shop", "singapore"] {
        assert!(seen("audit", rule), "{rule}: {replayed:#?}");
    }
    assert!(replayed.iter().any(|line| line["verdict"] == "allow"), "{replayed:#?}");
    assert!(replayed.iter().any(|line| line["dst"]["ip"] == FREE), "{replayed:#?}");
    // What is stopped is not there, and what is there was let through.
    let (outcome, replayed) = run(&world, &policy, &[]);
    assert_same(&outcome, &replayed, 4);
    support::assert_keys(&outcome.events[0]);
    assert!(replayed.iter().all(|line| line["rule"] != "singapore"), "{replayed:#?}");
}
