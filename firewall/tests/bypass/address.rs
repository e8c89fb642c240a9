//! Probes that a policy stops by address: each has an address of its own, so that what arrives there, by
//! whatever protocol, and what is recorded of it, is its.

use std::{
    cell::Cell,
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{CLIENT_V6, Capture, Cgroup, Listener, Net},
    outside::Outside,
    probe::{Control, Families, Form, PROBE, Probe, Trial, denied_to},
    support::{
        AMAZON, FREE, LIMIT, Run,
        client::{self, Step},
        elsewhere::program_in,
        wait,
    },
};

/// Networks that the server answers for: of CN, of FR, of CN, of US, and what carries IPv4 addresses.
const NETWORKS: [&str; 7] = [
    "110.242.0.0/16",
    "212.27.32.0/19",
    "2400:3200::/32",
    "2600:9000::/28",
    "64:ff9b::/96",
    "2002::/16",
    "2001::/32",
];

/// Two hosts, and who else is on the client's.
pub struct Place<'a> {
    pub net: &'a Net,
    pub capture: Capture,
    pub program: PathBuf,
    outside: Outside,
    other: Cgroup,
    /// No address is used twice: something may still be on its way.
    next: Cell<u16>,
    folder: TempDir,
    _tcp: Listener,
    _udp: Listener,
}

impl<'a> Place<'a> {
    pub fn of(net: &'a Net) -> Self {
        net.server.ip(&NETWORKS.map(|network| format!("route add local {network} dev lo")));
        let folder = tempfile::tempdir().expect("a directory");
        crate::support::open_to_all(folder.path());
        let place = Self {
            capture: net.capture(),
            program: program_in(folder.path(), PROBE),
            outside: Outside::new(net, folder.path()),
            other: Cgroup::new(),
            next: Cell::new(1),
            _tcp: net.listen_tcp(&["[::]:2001", "[::]:80"]),
            // Where a first datagram goes: without a listener its answer is an error for the second.
            _udp: net.listen_udp(&["[::]:1999"]),
            net,
            folder,
        };
        for name in ["script", "script-copy"] {
            std::fs::write(place.file(name), "echo x >/dev/udp/$1/2001\n").expect("a script");
        }
        build_library(&place.file("sends.so"));
        place
    }

    /// The number of an address that was not used yet.
    pub fn number(&self) -> u16 {
        self.next.replace(self.next.get() + 1)
    }

    /// A file beside the program.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stands_for(&self, target: Target, word: &str) -> String {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        match word {
            "TO" => target.place(2001).to_string(),
            "VIA" => target.via().to_string(),
            "OWN" => SocketAddr::new(CLIENT_V6.into(), 8000 + target.number).to_string(),
            "LOCAL" if target.ip.is_ipv4() => format!("0.0.0.0:{}", 20_000 + target.number),
            "LOCAL" => format!("[::]:{}", 20_000 + target.number),
            "SOCKET" => text(&self.outside.path),
            "SERVICE" => self.outside.name.clone(),
            "PID" => std::process::id().to_string(),
            "FD" => self.outside.fd.to_string(),
            "ELSEWHERE" => text(self.other.path()),
            "SCRIPT" => text(&self.file("script")),
            "SCRIPTCOPY" => text(&self.file("script-copy")),
            "IP" => target.ip.to_string(),
            "ONLY" => format!("{}/{}", target.ip, if target.ip.is_ipv4() { 32 } else { 128 }),
            "GATEWAY" if target.ip.is_ipv4() => "10.200.0.1".to_owned(),
            "GATEWAY" => "fd00:f1e3::1".to_owned(),
            other => other.to_owned(),
        }
    }

    /// Runs steps without a firewall.
    pub fn openly(&self, script: &str) -> Vec<Step> {
        self.runs(&mut self.net.client.command(&self.program), script)
    }

    /// Runs steps in a cgroup.
    pub fn within(&self, cgroup: &Cgroup, script: &str) -> Vec<Step> {
        self.runs(cgroup.enter(&mut self.net.client.command(&self.program)), script)
    }

    fn runs(&self, command: &mut Command, script: &str) -> Vec<Step> {
        let steps = self.file("steps-without");
        client::prepare(command, script, &steps);
        let mut child = command
            .args(["--exact", client::TEST])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Shells say what was refused.
            .stderr(std::fs::File::create(self.file("said")).expect("a file"))
            .spawn()
            .expect("the program");
        assert!(wait(&mut child, LIMIT).is_some(), "it does not end");
        let text = std::fs::read_to_string(&steps).unwrap_or_default();
        let _ = std::fs::remove_file(steps);
        let made = client::read(&text);
        let last = script.lines().last();
        let done = last.is_none_or(|last| made.iter().any(|step| step.line == last));
        assert!(done, "{}", std::fs::read_to_string(self.file("said")).unwrap_or_default());
        made
    }

    /// Runs steps under `firewall run`: steps and verdicts.
    pub fn run(&self, options: &[&str], script: &str) -> (Vec<Step>, Vec<Value>) {
        let run = Run::new(self.net, options);
        let outcome = run.client_of(self.program.to_str().expect("UTF-8"), script);
        outcome.assert_status(0);
        (outcome.steps, outcome.events)
    }

    /// The addresses that something has arrived at.
    fn reached(&self) -> HashSet<IpAddr> {
        let reached = self.capture.packets().into_iter().map(|packet| packet.to).collect();
        assert_eq!(self.capture.lost(), 0, "packets were lost, so nobody knows what arrived");
        reached
    }
}

/// A library that sends a datagram to an address as soon as it is loaded. Where there is no compiler,
/// there is none.
fn build_library(path: &Path) {
    const SOURCE: &str = r#"
        #include <arpa/inet.h>
        #include <stdlib.h>
        #include <sys/socket.h>
        __attribute__((constructor)) static void sends(void) {
            const char *ip = getenv("SENDS_TO");
            struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(2001)};
            struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(2001)};
            if (!ip) return;
            if (inet_pton(AF_INET, ip, &four.sin_addr) == 1)
                sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&four, sizeof four);
            else if (inet_pton(AF_INET6, ip, &six.sin6_addr) == 1)
                sendto(socket(AF_INET6, SOCK_DGRAM, 0), "x", 1, 0, (void *)&six, sizeof six);
        }"#;
    let source = path.with_extension("c");
    std::fs::write(&source, SOURCE).expect("a file");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([path, &source]).status();
    assert!(made.is_err() || path.exists(), "cc does not compile");
}

/// An address for one try.
#[derive(Clone, Copy)]
pub struct Target {
    pub ip: IpAddr,
    number: u16,
}

impl Target {
    pub fn new(number: u16, v6: bool, denied: bool, form: Form) -> Self {
        let [high, low] = [(number / 250) as u8, (number % 250) as u8 + 2];
        let v4 = match denied {
            true => Ipv4Addr::new(110, 242, 100 + high, low),
            false => Ipv4Addr::new(212, 27, 50 + high, low),
        };
        let [a, b, c, d] = v4.octets();
        let [one, two] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let ip = match form {
            Form::Broadcast if denied => Ipv4Addr::new(10, 200, 0, 255).into(),
            Form::Broadcast => Ipv4Addr::BROADCAST.into(),
            Form::Multicast if v6 => {
                Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, u16::from(denied), number).into()
            }
            Form::Multicast => Ipv4Addr::new(239, u8::from(denied), high, low).into(),
            Form::Plain if !v6 => v4.into(),
            Form::Plain => {
                let net = if denied { [0x2400, 0x3200] } else { [0x2600, 0x9000] };
                Ipv6Addr::new(net[0], net[1], 0, 0, 0, 0, 1, number).into()
            }
            // RFC 6052, section 2.1; RFC 3056, section 2; RFC 4380, section 4, where it is inverted.
            Form::Nat64 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, one, two).into(),
            Form::SixToFour => Ipv6Addr::new(0x2002, one, two, 0, 0, 0, 0, 1).into(),
            Form::Teredo => {
                Ipv6Addr::new(0x2001, 0, 0x1234, 0x5678, 0x9abc, 0xdef0, !one, !two).into()
            }
        };
        Self { ip, number }
    }

    pub fn place(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    fn via(&self) -> SocketAddr {
        let via = if self.ip.is_ipv4() { FREE } else { AMAZON };
        SocketAddr::new(via.parse().expect("an address"), 1999)
    }
}

/// Some probes under one policy, by `firewall run` or by a daemon.
pub struct Group {
    pub policy: &'static str,
    pub by: &'static str,
    pub user: &'static str,
    pub probes: Vec<Probe>,
}

/// One probe of one family, its lines and those of its control.
struct Try<'a> {
    probe: &'a Probe,
    target: Target,
    lines: String,
    control: Target,
    control_lines: String,
}

impl Group {
    /// Makes all tries; `act` does so under the policy, and returns what was done and recorded. It is told
    /// the addresses of which there should be a record.
    pub fn trials(
        &self,
        place: &Place<'_>,
        act: impl FnOnce(&str, &[IpAddr]) -> (Vec<Step>, Vec<Value>),
    ) -> Vec<Trial> {
        let tries = self.tries(place);
        let open = |one: &&Try<'_>| one.probe.control == Control::Open;
        let controls = |open_ones: bool| {
            let of = tries.iter().filter(move |one| open(one) == open_ones);
            of.map(|one| one.control_lines.as_str()).collect::<Vec<_>>()
        };
        let script: Vec<&str> =
            tries.iter().map(|one| one.lines.as_str()).chain(controls(false)).collect();
        let recorded = tries.iter().filter(|one| one.probe.is_recorded());
        let targets: Vec<IpAddr> = recorded.map(|one| one.target.ip).collect();
        let (steps, events) = act(&script.join("\n"), &targets);
        let without = place.openly(&controls(true).join("\n"));
        let reached = place.reached();
        let trial = |one: &Try<'_>| {
            let control = reached.contains(&one.control.ip);
            let all = if open(&one) { &without } else { &steps };
            Trial {
                what: one.probe.what.to_owned(),
                family: if one.target.ip.is_ipv4() { "v4" } else { "v6" },
                policy: self.policy,
                by: self.by,
                seen: reached.contains(&one.target.ip),
                control,
                skip: if control { None } else { missing(one, all) },
                event: denied_to(&events, one.target.ip),
                charged: one.probe.charged,
                user: self.user,
                known: one.probe.known,
            }
        };
        tries.iter().map(trial).collect()
    }

    fn tries<'a>(&'a self, place: &Place<'_>) -> Vec<Try<'a>> {
        let mut tries = Vec::new();
        for probe in &self.probes {
            for v6 in [false, true] {
                let wanted = match probe.families {
                    Families::Both => true,
                    Families::V4 => !v6,
                    Families::V6 => v6,
                };
                if !wanted {
                    continue;
                }
                let target = Target::new(place.number(), v6, !probe.elsewhere, probe.form);
                let denied = probe.control != Control::Allowed && !probe.elsewhere;
                let control = Target::new(place.number(), v6, denied, probe.form);
                let control_probe = match probe.control {
                    Control::Step(step) => {
                        Probe { step: crate::probe::Step::Lines(step), ..*probe }
                    }
                    _ => *probe,
                };
                tries.push(Try {
                    probe,
                    target,
                    lines: probe.lines(&|word| place.stands_for(target, word)),
                    control,
                    control_lines: control_probe.lines(&|word| place.stands_for(control, word)),
                });
            }
        }
        tries
    }
}

/// What the control failed with, where that is what the machine does not have.
fn missing(one: &Try<'_>, steps: &[Step]) -> Option<String> {
    const ABSENT: [i32; 8] = [
        libc::EAFNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
        libc::EOPNOTSUPP,
        libc::ENOPROTOOPT,
        libc::ENOSYS,
        libc::ENODEV,
        libc::ENOENT,
    ];
    let needs = one.probe.needs?;
    let last = one.control_lines.lines().last()?;
    let step = steps.iter().find(|step| step.line == last)?;
    ABSENT.contains(&step.errno).then(|| format!("no {needs} here"))
}
