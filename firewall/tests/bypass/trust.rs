//! Probes that would have a policy allow more: where all is dropped but one name, and where names differ.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use crate::{
    harness::Kind,
    probe::{Charged, PROBE, Trial, denied_to},
    support::{BAIDU_HK, FREE, dns, dns::hex, elsewhere::program_in, hello::client_hello},
    world::{DNS, ELSEWHERE, World, zone},
};

/// The only one that is allowed, at [`FREE`].
const GOOD: &str = "good.example";
const FORGER: &str = "198.51.100.53";
/// A resolver that nobody trusts, in reach: whatever it is asked for is at [`BAIDU_HK`].
const LIAR: &str = "198.51.100.54";
/// The server's own address, which a rule denies before the name is allowed.
const PRIVATE: &str = "10.200.0.1";

struct Probe {
    what: &'static str,
    /// What is to be reached, and is not.
    ip: &'static str,
    policy: Policy,
    steps: Vec<String>,
    /// What is reached by the same app under the same policy.
    control: (&'static str, Vec<String>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    OnlyGood,
    Private,
    Ambiguous,
}

fn probes() -> Vec<Probe> {
    let tcp = |ip: &str| format!("tcp {ip}:80");
    let ask = |name: &str| format!("dns {DNS} {name} A");
    let good = || (FREE, vec![ask(GOOD), tcp(FREE)]);
    let only =
        |what, ip, steps| Probe { what, ip, policy: Policy::OnlyGood, steps, control: good() };
    let sslv2 =
        "802e0100020015000000100100800700c0030080060040020080000102030405060708090a0b0c0d0e0f10";
    let shared = vec![ask(GOOD), ask("bad.example")];
    let ambiguous = |what, steps: Vec<String>, control| Probe {
        what,
        ip: FREE,
        policy: Policy::Ambiguous,
        steps: [shared.clone(), steps].concat(),
        control: (ELSEWHERE, control),
    };
    vec![
        only(
            "answer of a resolver nobody trusts",
            BAIDU_HK,
            vec![format!("dns {LIAR}:53 {GOOD} A"), tcp(BAIDU_HK)],
        ),
        only(
            "answer from a namespace of its own",
            BAIDU_HK,
            vec![format!("own-answer {DNS} {GOOD} {BAIDU_HK}"), tcp(BAIDU_HK)],
        ),
        only(
            "answers that nobody asked for",
            BAIDU_HK,
            vec![format!("dns-listen 5355 {DNS} {GOOD} 600 1"), tcp(BAIDU_HK)],
        ),
        only(
            "hint in another's HTTPS record",
            BAIDU_HK,
            vec![format!("dns {DNS} evil.example HTTPS"), tcp(BAIDU_HK)],
        ),
        only(
            "an allowed name in TLS, at another address",
            ELSEWHERE,
            vec![format!("bytes {ELSEWHERE}:443 {}", hex(&client_hello("plain", GOOD)))],
        ),
        only(
            "an allowed name in HTTP, at another address",
            ELSEWHERE,
            vec![format!("http {ELSEWHERE}:80 {GOOD} whole")],
        ),
        Probe {
            what: "rebinding: an allowed name at a denied address",
            ip: PRIVATE,
            policy: Policy::Private,
            steps: vec![ask("rebound.example"), tcp(PRIVATE)],
            control: (ELSEWHERE, vec![ask("rebound.example"), tcp(ELSEWHERE)]),
        },
        ambiguous(
            "at an address of two names: SSLv2 hello",
            vec![format!("bytes {FREE}:2222 {sslv2}")],
            vec![format!("bytes {ELSEWHERE}:2222 {sslv2}")],
        ),
        ambiguous(
            "at an address of two names: SSH",
            vec![format!("opaque {FREE}:2222")],
            vec![format!("opaque {ELSEWHERE}:2222")],
        ),
        ambiguous(
            "at an address of two names: TLS without a name",
            vec![format!("tls {FREE}:2222 plain - whole")],
            vec![format!("tls {ELSEWHERE}:2222 plain - whole")],
        ),
    ]
}

/// All of them, one after the other: what one run has learned, no other knows.
pub fn trials() -> Vec<Trial> {
    let zone = zone()
        .https("evil.example", GOOD, &[BAIDU_HK])
        .host("rebound.example", &[PRIVATE, ELSEWHERE]);
    let world = World::with(Kind::Dnsmasq, &[PRIVATE], "", &zone);
    let _echo = world.net.echo_tcp(&["[::]:2222"]);
    let folder = tempfile::tempdir().expect("a directory");
    crate::support::open_to_all(folder.path());
    let program = program_in(folder.path(), PROBE);
    let program = program.to_str().expect("UTF-8");
    let forger = Forger::start(&world);
    world.net.server.ip(&[format!("address add {LIAR}/32 dev lo")]);
    let _liar = world.net.answer_udp(&[&format!("{LIAR}:53")], |question, _| {
        let id = u16::from_be_bytes([question[0], question[1]]);
        Some(dns::forged(id, GOOD, BAIDU_HK.parse().expect("an address")))
    });
    let run = |policy: Policy, steps: &[String], ip: &str| {
        world.capture.clear();
        let options = options(&world, policy);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let outcome = world.start(&options).client_of(program, &steps.join("\n"));
        outcome.assert_status(0);
        (arrived(&world, policy, ip), outcome.events)
    };
    let trials = probes().into_iter().map(|probe| {
        let (seen, events) = run(probe.policy, &probe.steps, probe.ip);
        let (control, _) = run(probe.policy, &probe.control.1, probe.control.0);
        let ip: IpAddr = probe.ip.parse().expect("an address");
        let at_address: Vec<_> =
            events.into_iter().filter(|event| event["hook"] != "dns").collect();
        Trial {
            what: probe.what.to_owned(),
            family: "v4",
            policy: match probe.policy {
                Policy::OnlyGood => "one-name",
                Policy::Private => "private",
                Policy::Ambiguous => "ambiguous",
            },
            by: "run",
            seen,
            control,
            skip: None,
            event: denied_to(&at_address, ip),
            charged: Charged::Probe,
            user: "root",
            known: None,
        }
    });
    let trials = trials.collect();
    drop(forger);
    trials
}

fn options(world: &World, policy: Policy) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match policy {
        Policy::OnlyGood => words(&[
            "--default",
            "drop",
            "--allow",
            "domain:good.example",
            "--allow",
            &format!("net:{LIAR}"),
            "--allow",
            "net:127.0.0.0/8",
            "--allow",
            "net:10.200.0.1",
        ]),
        Policy::Private => {
            let text = "[policy]\nname = \"private\"\ndefault = \"drop\"\n\
                        [[rule]]\nname = \"private\"\naction = \"drop\"\nports = [\"tcp/80\"]\n\
                        to = { networks = [\"10.0.0.0/8\"] }\n\
                        [[rule]]\nname = \"it\"\naction = \"allow\"\nto = { domains = [\"rebound.example\"] }\n";
            vec!["--policy".to_owned(), world.file("private.toml", text)]
        }
        Policy::Ambiguous => {
            let policy = world.deny(&["bad.example"], "ports = [\"tcp/1-65535\"]");
            vec!["--policy".to_owned(), policy]
        }
    }
}

/// Bytes of TCP that arrived at an address.
fn payload(world: &World, ip: &str) -> usize {
    world.capture.to(ip).iter().map(|packet| tcp_payload(&packet.bytes)).sum()
}

fn tcp_payload(bytes: &[u8]) -> usize {
    let header = usize::from(bytes[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let of_tcp = bytes.get(header + 12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    length.saturating_sub(header + of_tcp)
}

/// Where names differ the connection is made, and what is said on it does not arrive.
fn arrived(world: &World, policy: Policy, ip: &str) -> bool {
    let tcp = |packet: &crate::harness::Packet| {
        packet.protocol == 6 && packet.ports.is_some_and(|ports| ports.1 != 53)
    };
    match policy {
        Policy::Ambiguous => payload(world, ip) > 0,
        _ => world.capture.to(ip).iter().any(tcp),
    }
}

/// Sends answers to the client's port 5355 that nobody asked for.
struct Forger {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Forger {
    fn start(world: &World) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        world.net.server.ip(&[format!("address add {FORGER}/32 dev lo")]);
        let from = world.net.in_server(|| UdpSocket::bind((FORGER, 53))).expect("a socket");
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let until = std::sync::Arc::clone(&stop);
        let ip: Ipv4Addr = BAIDU_HK.parse().expect("an address");
        let thread = std::thread::spawn(move || {
            let mut id = 0_u16;
            while !until.load(Ordering::Acquire) {
                // The client's own transactions begin at 1000.
                for _ in 0..20 {
                    id = id.wrapping_add(1) % 1100;
                    let _ = from.send_to(&dns::forged(id, GOOD, ip), "10.200.0.2:5355");
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
