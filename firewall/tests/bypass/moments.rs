//! Probes that need a moment or a place of their own: what was open before, what is denied later, who is
//! moved, and other network namespaces.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
};

use serde_json::Value;

use crate::{
    address::{Place, Target},
    harness::{CLIENT_V4, CLIENT_V6, Cgroup, Namespace, Net, wait_until},
    host::{CHINA, Host},
    probe::{Charged, Form, Trial, denied_to},
    stages::COUNTRY,
    support::{
        ALIDNS, AMAZON, BAIDU, FREE, LIMIT, Run,
        around::WORDS,
        client::{self, Step},
        mptcp, namespace_path,
    },
};

/// A line of the table, with what came of it: whether it was seen, and its control.
fn trial(what: &str, by: &'static str, ip: IpAddr, came: [bool; 2], events: &[Value]) -> Trial {
    Trial {
        what: what.to_owned(),
        family: if ip.is_ipv4() { "v4" } else { "v6" },
        policy: "country",
        by,
        seen: came[0],
        control: came[1],
        skip: None,
        event: denied_to(events, ip),
        charged: Charged::Probe,
        user: "root",
        known: None,
    }
}

/// A process that makes steps as it is told to.
struct App {
    child: Child,
    input: ChildStdin,
    steps: PathBuf,
    told: usize,
}

impl App {
    fn start(place: &Place<'_>, cgroup: &Cgroup) -> Self {
        let steps = place.file("steps-of-app");
        let mut command = place.net.client.command(&place.program);
        client::prepare(&mut command, "follow", &steps);
        cgroup.enter(&mut command);
        command.args(["--exact", client::TEST]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("the program");
        let input = child.stdin.take().expect("a pipe");
        Self { child, input, steps, told: 0 }
    }

    /// Has it make steps, and waits until they are made.
    fn does(&mut self, lines: &[String]) -> Vec<Step> {
        for line in lines {
            writeln!(self.input, "{line}").expect("it reads");
        }
        self.told += lines.len();
        let mut made = Vec::new();
        let done = wait_until(LIMIT, || {
            let text = std::fs::read_to_string(&self.steps).unwrap_or_default();
            made = client::read(text.rfind('\n').map_or("", |end| &text[..end]));
            made.len() >= self.told
        });
        assert!(done, "{lines:?}: {made:#?}");
        made.split_off(self.told - lines.len())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon of a host that others look at meanwhile.
struct Daemon(Child);

impl Daemon {
    fn start(host: &Host) -> Self {
        let said = std::fs::File::create(host.file("said")).expect("a file");
        let mut command = host.command("daemon");
        let daemon = Self(command.stdout(Stdio::null()).stderr(said).spawn().expect("the daemon"));
        let answers = wait_until(LIMIT, || host.ask(&["status"]).status.success());
        assert!(answers, "no daemon: {}", host.said());
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By what socket, and by what call.
const WAYS: [(&str, &str); 9] = [
    ("tcp", "send"),
    ("tcp", "zero-copy"),
    ("tcp", "sendfile"),
    ("tcp", "splice"),
    ("tcp", "vmsplice"),
    ("tcp", "urgent"),
    ("mptcp", "send"),
    ("udp", "send"),
    ("udp", "splice"),
];

/// Sockets that were connected when nothing was denied.
struct Connections(Vec<(&'static str, &'static str, [Target; 2])>);

impl Connections {
    fn open(place: &Place<'_>, app: &mut App) -> Self {
        let mut all = Vec::new();
        for (kind, way) in WAYS {
            for v6 in [false, true] {
                let of = |denied| Target::new(place.number(), v6, denied, Form::Plain);
                all.push((kind, way, [of(true), of(false)]));
            }
        }
        let open = |(kind, _, targets): &(&str, &str, [Target; 2])| {
            targets.map(|target| format!("open {0} {kind} {0}", target.place(2001)))
        };
        for step in app.does(&all.iter().flat_map(open).collect::<Vec<_>>()) {
            assert_eq!(step.errno, 0, "{step:?}");
        }
        Self(all)
    }

    /// Has all of them say something.
    fn say(self, before: bool, place: &Place<'_>, app: &mut App, host: &Host) -> Vec<Trial> {
        let what = if before { "open before the start" } else { "denied later" };
        let say = |(_, way, targets): &(&str, &str, [Target; 2])| {
            targets.map(|target| format!("say-by {way} {}", target.place(2001)))
        };
        app.does(&self.0.iter().flat_map(say).collect::<Vec<_>>());
        let recorded_ones = self.0.iter().filter(|(kind, ..)| !before || *kind != "udp");
        let denied: Vec<IpAddr> = recorded_ones.map(|(.., [denied, _])| denied.ip).collect();
        let events = recorded(host, &denied);
        let packets = place.capture.packets();
        let arrived = |ip: IpAddr| {
            packets.iter().any(|packet| {
                packet.to == ip && packet.bytes.windows(WORDS.len()).any(|bytes| bytes == WORDS)
            })
        };
        let all = self.0.iter().map(|(kind, way, [denied, allowed])| {
            let what = format!("{what}: {}, {way}", kind.to_uppercase());
            let came = [denied.ip, allowed.ip].map(arrived);
            let trial = trial(&what, "daemon", denied.ip, came, &events);
            // Ended before it sent anything.
            let silent = before && *kind == "udp";
            if silent { Trial { charged: Charged::Nobody, ..trial } } else { trial }
        });
        all.collect()
    }
}

/// What a daemon has recorded, once there is a verdict on each address, or after a while.
pub fn recorded(host: &Host, denied: &[IpAddr]) -> Vec<Value> {
    let mut events = Vec::new();
    // What is not there after so long is missing, and is told as that.
    wait_until(std::time::Duration::from_secs(10), || {
        events = host.events();
        denied.iter().all(|ip| denied_to(&events, *ip).is_some())
    });
    events
}

/// Connections that were there before the daemon, and before a reload that denies them.
pub fn later() -> Vec<Trial> {
    const POLICY: &str = "policies.d/china.toml";
    let host = Host::new();
    let place = Place::of(&host.net);
    let mut app = App::start(&place, &host.cgroup);
    let connections = Connections::open(&place, &mut app);
    host.set(POLICY, CHINA);
    let _daemon = Daemon::start(&host);
    let mut trials = connections.say(true, &place, &mut app, &host);

    host.remove(POLICY);
    host.done(&["reload"]);
    let connections = Connections::open(&place, &mut app);
    host.set(POLICY, CHINA);
    host.done(&["reload"]);
    trials.extend(connections.say(false, &place, &mut app, &host));
    trials
}

/// A process comes into the cgroup with sockets that it has.
pub fn moved() -> Vec<Trial> {
    let host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    let _daemon = Daemon::start(&host);
    let place = Place::of(&host.net);
    let outside = Cgroup::new();
    let mut app = App::start(&place, &outside);
    let mut trials = Vec::new();
    for v6 in [false, true] {
        let of = |denied| Target::new(place.number(), v6, denied, Form::Plain);
        let [old, fresh, control] = [of(true), of(true), of(false)];
        app.does(&[format!("open {0} udp {0}", old.place(2001))]);
        host.cgroup.add(app.child.id());
        app.does(&[
            format!("say-by send {}", old.place(2001)),
            format!("udp-sendto {}", fresh.place(2001)),
            format!("udp-sendto {}", control.place(2001)),
        ]);
        outside.add(app.child.id());
        let events = recorded(&host, &[fresh.ip]);
        let arrived = |target: Target| !place.capture.to(&target.ip.to_string()).is_empty();
        let control = arrived(control);
        let line = |what, target: Target| {
            trial(what, "daemon", target.ip, [arrived(target), control], &events)
        };
        trials.push(line("moved into the cgroup: a new socket", fresh));
        trials.push(Trial {
            known: Some("Sockets handed over"),
            ..line("moved into the cgroup: a socket it had", old)
        });
    }
    trials
}

/// Network namespaces beside the one that the run began in.
pub fn namespaces() -> Vec<Trial> {
    let net = Net::new(&[FREE]);
    let other = Net::new(&[BAIDU, FREE, AMAZON]);
    let place = Place::of(&other);
    // A container's: a pair of interfaces, and a host that forwards.
    let inner = Namespace::new(&format!("{}-inner", other.client.name()));
    other.client.ip(&[
        format!("link add inner0 type veth peer name wire0 netns {}", inner.name()),
        "addr add 10.201.0.1/24 dev inner0".to_owned(),
        "addr add fd00:f1e4::1/64 dev inner0 nodad".to_owned(),
        "link set inner0 up".to_owned(),
    ]);
    inner.ip(&[
        "addr add 10.201.0.2/24 dev wire0",
        "addr add fd00:f1e4::2/64 dev wire0 nodad",
        "link set wire0 up",
        "route add 0.0.0.0/0 via 10.201.0.1",
        "route add ::/0 via fd00:f1e4::1",
    ]);
    other.client.sysctl(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/inner0/rp_filter", "0"),
    ]);
    let mut trials = Vec::new();
    for (what, namespace) in [
        ("another network namespace", &other.client),
        ("a network namespace behind a veth", &inner),
    ] {
        let mut script = vec![format!("setns {}", namespace_path(namespace).display())];
        let mut tries = Vec::new();
        for step in ["tcp", "udp-sendto", "raw-icmp"] {
            for v6 in [false, true] {
                let of = |denied| Target::new(place.number(), v6, denied, Form::Plain);
                let targets = [of(true), of(false)];
                script.extend(targets.map(|target| format!("{step} {}", target.place(2001))));
                tries.push((format!("{what}: {step}"), targets));
            }
        }
        let program = place.program.to_str().expect("UTF-8");
        let outcome = Run::new(&net, &COUNTRY).client_of(program, &script.join("\n"));
        outcome.assert_status(0);
        for (what, targets) in tries {
            let came = targets.map(|target| !place.capture.to(&target.ip.to_string()).is_empty());
            trials.push(trial(&what, "run", targets[0].ip, came, &outcome.events));
        }
    }
    trials
}

/// A server whose answers are judged.
pub fn inbound() -> Vec<Trial> {
    let net = Net::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let place = Place::of(&net);
    let config = place.file("firewall.toml");
    std::fs::write(&config, "inbound = \"enforce\"\n").expect("a file");
    let options = [&COUNTRY[..], &["--config", config.to_str().expect("UTF-8")]].concat();
    let mut trials = Vec::new();
    for (denied, allowed, own) in
        [(BAIDU, FREE, IpAddr::from(CLIENT_V4)), (ALIDNS, AMAZON, IpAddr::from(CLIENT_V6))]
    {
        let own = SocketAddr::new(own, 8080);
        let script = format!("listen server {own}\ntake client server\nsay client");
        let run = Run::new(&net, &options)
            .start_client_of(place.program.to_str().expect("UTF-8"), &script);
        run.wait_for_step("listen");
        let [denied, allowed] = [denied, allowed].map(|ip| ip.parse().expect("an address"));
        let _ = net.in_server(|| ask(denied, own));
        let served = net.in_server(|| ask(allowed, own)).is_ok();
        let outcome = run.end();
        let seen = !place.capture.to(&denied.to_string()).is_empty();
        trials.push(Trial {
            policy: "inbound",
            ..trial("TCP: accepts, and answers", "run", denied, [seen, served], &outcome.events)
        });
    }
    trials
}

/// Asks a server from an address of ours.
fn ask(from: IpAddr, to: SocketAddr) -> std::io::Result<()> {
    use rustix::net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt,
    };
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let patience = Some(std::time::Duration::from_millis(400));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, patience)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    connect(&socket, &to)?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(patience)?;
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])
}

/// A subflow that the kernel joins by itself, as the server offers an address.
pub fn joined() -> Vec<Trial> {
    let what = "TCP: an MPTCP subflow that joins";
    let ip = BAIDU.parse().expect("an address");
    let offers = |offered: &str| {
        let net = Net::new(&[BAIDU, FREE, "212.27.48.11"]);
        let place = Place::of(&net);
        if !mptcp::offer(&net, offered) {
            return None;
        }
        let _server = net.in_server(mptcp::serve);
        let (_, events) = place.run(&COUNTRY, &format!("mptcp-wait {FREE}:8080 800"));
        Some((!place.capture.to(offered).is_empty(), events))
    };
    let Some(((seen, events), (control, _))) = offers(BAIDU).zip(offers("212.27.48.11")) else {
        let skip = Some("no MPTCP here, or ip cannot".to_owned());
        return vec![Trial { skip, ..trial(what, "run", ip, [false; 2], &[]) }];
    };
    vec![trial(what, "run", ip, [seen, control], &events)]
}
