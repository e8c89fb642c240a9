//! Sockets that were open before the programs were attached.

mod harness;
#[path = "support/loaded.rs"]
mod loaded;
mod support;

use std::{
    fs::File,
    io::Read as _,
    net::TcpStream,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use firewall::{
    datapath::{
        OBJECT,
        apply::apply,
        attach::{Attached, attach},
        bytes,
        destroy::Destroyer,
        load::Loaded,
        sockets::{adopt, denied, visit},
    },
    policy::{
        Action, Apps, Destinations, Mode, Policy, Rule,
        compile::{Facts, Generation, Settings, compile},
    },
};
use firewall_common::{
    event::{FlowEvent, OpenSocket, app},
    flow::{Address, TCP, UDP},
    verdict::Verdict,
};
use harness::{CLIENT_V4, Cgroup, Net, require_kernel, wait_until};
use support::{ALIDNS, AMAZON, BAIDU, FREE, LIMIT, client, own_program};
use tempfile::TempDir;

/// An app in a cgroup, and the programs that come later.
struct Stage {
    net: Net,
    cgroup: Cgroup,
    directory: TempDir,
    child: Option<Child>,
}

impl Stage {
    fn new(public: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { net: Net::new(public), cgroup: Cgroup::new(), directory, child: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The step that waits for [`Self::go_on`].
    fn wait(&self) -> String {
        format!("wait-for {}", self.file("go").display())
    }

    fn go_on(&self) {
        File::create(self.file("go")).expect("a file");
    }

    /// Starts the app.
    fn start(&mut self, lines: &[String]) -> u32 {
        let mut command = self.net.client_command(&own_program());
        client::prepare(&mut command, &lines.join("\n"), &self.file("steps"));
        command.args(["--exact", client::TEST]).stdin(Stdio::null()).stdout(Stdio::null());
        let child = self.cgroup.enter(&mut command).spawn().expect("this test");
        self.child.insert(child).id()
    }

    fn steps(&self) -> Vec<client::Step> {
        client::read(&std::fs::read_to_string(self.file("steps")).unwrap_or_default())
    }

    /// Waits until the app has made so many steps.
    #[track_caller]
    fn wait_for(&self, steps: usize) {
        let made = wait_until(LIMIT, || self.steps().len() >= steps);
        assert!(made, "{:#?}", self.steps());
    }

    #[track_caller]
    fn errno(&self, line: &str) -> i32 {
        let steps = self.steps();
        let step = steps.iter().find(|step| step.line == line);
        step.unwrap_or_else(|| panic!("no step `{line}`: {steps:#?}")).errno
    }

    /// The sockets of the app, charged to whoever has them.
    fn adopt(&self, loaded: &mut Loaded) -> Vec<OpenSocket> {
        let pid = self.child.as_ref().expect("started").id();
        let maps = loaded.maps().expect("the maps");
        let open = adopt(&maps, || visit(loaded)).expect("the open sockets");
        open.into_iter().filter(|socket| socket.identity.pid == pid).collect()
    }

    fn attach(&self, loaded: &Loaded) -> Attached {
        let cgroup = File::open(self.cgroup.path()).expect("the cgroup");
        attach(loaded, cgroup.as_fd()).expect("attaching")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What drops these networks.
fn generation(networks: &[&str]) -> Generation {
    let networks = networks.iter().map(|text| text.parse().expect("a network")).collect();
    let to = Destinations { networks, ..Destinations::default() };
    let rule = Rule {
        name: "those".to_owned(),
        action: Action::Drop,
        apps: Apps::default(),
        to: Some(to),
        ports: Vec::new(),
        until: None,
    };
    let policy = Policy {
        name: "test".to_owned(),
        description: String::new(),
        mode: Mode::Enforce,
        priority: 100,
        apps: Apps::default(),
        default: None,
        rules: vec![rule],
    };
    let facts = Facts { countries: None, asns: None, organisation: &|_| vec![] };
    compile(vec![policy], facts, Settings::default()).expect("a generation")
}

/// Allows all and records it.
fn recording() -> Generation {
    let settings = Settings { record_allow: true, ..Settings::default() };
    let facts = Facts { countries: None, asns: None, organisation: &|_| vec![] };
    compile(vec![], facts, settings).expect("a generation")
}

fn events(ring: &mut RingBuf<MapData>) -> Vec<FlowEvent> {
    let mut events = Vec::new();
    while let Some(bytes) = ring.next() {
        events.push(FlowEvent::try_from(&bytes[..]).expect("an event"));
    }
    events
}

fn address(ip: &str) -> Address {
    ip.parse::<std::net::IpAddr>().expect("an address").into()
}

/// The only one that is connected there.
#[track_caller]
fn find<'a>(open: &'a [OpenSocket], ip: &str, port: u16, protocol: u8) -> &'a OpenSocket {
    let fits = |socket: &&OpenSocket| {
        (socket.peer, socket.peer_port, socket.protocol) == (address(ip), port, protocol)
    };
    let mut found = open.iter().filter(fits);
    let (one, other) = (found.next(), found.next());
    assert!(other.is_none(), "{ip}:{port} is there twice");
    one.unwrap_or_else(|| panic!("no {ip}:{port}: {open:#?}"))
}

#[test]
fn they_are_charged_to_who_has_them_and_end_where_they_are_denied() {
    if !require_kernel() {
        return;
    }
    let Some(mut loaded) = loaded::loaded(OBJECT, "sockets that were open") else { return };
    let mut stage = Stage::new(&[BAIDU, FREE, ALIDNS, AMAZON]);
    let _tcp = stage.net.listen_tcp(&["[::]:80"]);
    let _udp = stage.net.listen_udp(&["[::]:81", "[::]:82"]);
    let lines = [
        format!("open a tcp {BAIDU}:80"),
        format!("open b tcp [{ALIDNS}]:80"),
        format!("open c udp {BAIDU}:81"),
        format!("open d udp [{ALIDNS}]:81"),
        format!("open e udp {BAIDU}:82"),
        format!("open f tcp {FREE}:80"),
        format!("open g tcp [{AMAZON}]:80"),
        format!("open h udp {FREE}:81"),
        // It has them too, and a higher number.
        "fork".to_owned(),
        stage.wait(),
        "say-until-ended a".to_owned(),
        "say-until-ended b".to_owned(),
        "say-until-ended c".to_owned(),
        "say-until-ended d".to_owned(),
        "say e".to_owned(),
        "say f".to_owned(),
        "say g".to_owned(),
        "say h".to_owned(),
    ];
    let pid = stage.start(&lines);
    stage.wait_for(9);
    let generation = generation(&["110.242.68.0/24", "2400:3200::/32"]);
    let events_map = loaded.ebpf.take_map("EVENTS").expect("the events");
    let mut ring = RingBuf::try_from(events_map).expect("a ring buffer");
    apply(&loaded.maps().unwrap(), &generation).expect("applying");

    let open = stage.adopt(&mut loaded);
    assert_eq!(open.len(), 8, "{open:#?}");
    let own = std::fs::metadata(own_program()).expect("this test");
    let netns = find(&open, FREE, 80, TCP).netns;
    for socket in &open {
        assert_eq!(socket.identity.kind, app::PROCESS);
        assert_eq!(socket.identity.executable.inode, own.ino());
        assert_eq!(socket.identity.cgroup, stage.cgroup.id());
        assert_eq!((socket.netns, socket.inbound), (netns, 0), "{socket:?}");
        assert_ne!((socket.cookie, socket.netns, socket.local_port), (0, 0, 0));
    }
    let _attached = stage.attach(&loaded);
    assert_eq!(stage.adopt(&mut loaded), open, "nobody is charged anew");

    let doomed = denied(&open, &generation).expect("sound tables");
    let found: Vec<_> = [
        (BAIDU, 80, TCP),
        (ALIDNS, 80, TCP),
        (BAIDU, 81, UDP),
        (ALIDNS, 81, UDP),
        (BAIDU, 82, UDP),
    ]
    .map(|(ip, port, protocol)| find(&open, ip, port, protocol))
    .into();
    assert_eq!(doomed.len(), found.len(), "{doomed:#?}");
    assert!(found.iter().all(|socket| doomed.contains(socket)), "{doomed:#?}");
    let mut destroyer = Destroyer::default();
    for socket in doomed.iter().filter(|socket| socket.peer_port != 82) {
        assert!(destroyer.end(socket.cookie, socket.identity.pid, socket.protocol));
    }
    stage.go_on();
    stage.wait_for(lines.len());
    for name in ["a", "b"] {
        let errno = stage.errno(&format!("say-until-ended {name}"));
        assert!([libc::ECONNABORTED, libc::EPIPE].contains(&errno), "{name}: {errno}");
    }
    for name in ["c", "d"] {
        let errno = stage.errno(&format!("say-until-ended {name}"));
        assert!([libc::ECONNABORTED, libc::EDESTADDRREQ].contains(&errno), "{name}: {errno}");
    }
    // One that was left is denied by its packets, and whose it is is known.
    assert_eq!(stage.errno("say e"), libc::EPERM);
    for name in ["f", "g", "h"] {
        assert_eq!(stage.errno(&format!("say {name}")), 0, "{name}");
    }
    let events = events(&mut ring);
    let event = events
        .iter()
        .find(|event| event.dst_port == 82)
        .unwrap_or_else(|| panic!("no event: {events:#?}"));
    assert_eq!(event.verdict, Verdict::Deny as u8);
    assert_eq!(event.identity.kind, app::PROCESS);
    assert_eq!((event.identity.pid, event.identity.executable.inode), (pid, own.ino()));
    assert_eq!(event.cookie, find(&open, BAIDU, 82, UDP).cookie);
    assert!(events.iter().all(|event| event.identity.pid == pid), "{events:#?}");
}

/// What was sent before anybody looked is charged to nobody; from then on it is charged.
#[test]
fn one_that_sends_before_it_is_found_is_charged_from_then_on() {
    if !require_kernel() {
        return;
    }
    let Some(mut loaded) = loaded::loaded(OBJECT, "sockets of nobody") else { return };
    let mut stage = Stage::new(&[FREE]);
    let _udp = stage.net.listen_udp(&["[::]:81"]);
    let second = stage.file("second");
    let lines = [
        format!("open a udp {FREE}:81"),
        stage.wait(),
        "say a".to_owned(),
        format!("wait-for {}", second.display()),
        "say a".to_owned(),
        // What has been counted as a repeat is told.
        "close a".to_owned(),
    ];
    let pid = stage.start(&lines);
    stage.wait_for(1);
    let events_map = loaded.ebpf.take_map("EVENTS").expect("the events");
    let mut ring = RingBuf::try_from(events_map).expect("a ring buffer");
    apply(&loaded.maps().unwrap(), &generation(&["212.27.48.0/24"])).expect("applying");
    let _attached = stage.attach(&loaded);
    stage.go_on();
    stage.wait_for(3);
    assert_eq!(stage.errno("say a"), libc::EPERM);
    let before = events(&mut ring);
    assert_eq!((before.len(), before[0].identity.kind), (1, 0), "{before:#?}");
    let open = stage.adopt(&mut loaded);
    let found = find(&open, FREE, 81, UDP);
    assert_eq!((found.cookie, found.identity.pid), (before[0].cookie, pid));
    assert_eq!(found.identity.kind, app::PROCESS);
    File::create(second).expect("a file");
    stage.wait_for(lines.len());
    let after = events(&mut ring);
    assert!(!after.is_empty() && after.iter().all(|e| e.identity.pid == pid), "{after:#?}");
}

/// An accepted connection looks like one of the app's own, but for the listener at its port.
#[test]
fn connections_from_outside_are_told_from_own_ones() {
    if !require_kernel() {
        return;
    }
    let Some(mut loaded) = loaded::loaded(OBJECT, "accepted sockets") else { return };
    let mut stage = Stage::new(&[FREE]);
    let _tcp = stage.net.listen_tcp(&["[::]:80"]);
    let lines = [
        // An accepted one gets its descriptor, and so is found before its listener.
        format!("open first tcp {FREE}:80"),
        "listen any [::]:9000".to_owned(),
        format!("listen one {CLIENT_V4}:9001"),
        "listen loopback 127.0.0.1:9002".to_owned(),
        "close first".to_owned(),
        "take in-any any".to_owned(),
        "take in-one one".to_owned(),
        // At the port of a listener, but at another address.
        format!("open-from out tcp {CLIENT_V4}:9002 {FREE}:80"),
        stage.wait(),
        "say in-any".to_owned(),
        "say in-one".to_owned(),
        "say-until-ended out".to_owned(),
    ];
    stage.start(&lines);
    stage.wait_for(4);
    let mut peers = [9000, 9001].map(|port| {
        let peer = stage.net.in_server(|| TcpStream::connect((CLIENT_V4, port)));
        peer.expect("a connection to the app")
    });
    stage.wait_for(8);
    let generation = generation(&["0.0.0.0/0", "::/0"]);
    apply(&loaded.maps().unwrap(), &generation).expect("applying");
    let open = stage.adopt(&mut loaded);
    let _attached = stage.attach(&loaded);
    let accepted = |port| {
        let fits = |one: &&OpenSocket| one.local_port == port && one.peer_port != 0;
        open.iter().find(fits).unwrap_or_else(|| panic!("no {port}: {open:#?}"))
    };
    for (port, inbound) in [(9000, 1), (9001, 1), (9002, 0)] {
        assert_eq!(accepted(port).inbound, inbound, "{port}: {open:#?}");
    }
    assert_eq!(open.len(), 6, "{open:#?}");
    let doomed = denied(&open, &generation).expect("sound tables");
    assert_eq!(doomed, [accepted(9002)], "the connection of the app's own");
    let last = doomed[0];
    assert!(Destroyer::default().end(last.cookie, last.identity.pid, last.protocol));
    stage.go_on();
    stage.wait_for(lines.len());
    for peer in &mut peers {
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        let mut said = [0; 5];
        peer.read_exact(&mut said).expect("what the app replies");
        assert_eq!(&said, b"hello");
    }
    let errno = stage.errno("say-until-ended out");
    assert!([libc::ECONNABORTED, libc::EPIPE].contains(&errno), "{errno}");
}

/// What flows have moved is told while they are open, once, and again at their end.
#[test]
fn what_they_move_is_told() {
    if !require_kernel() {
        return;
    }
    let Some(mut loaded) = loaded::loaded(OBJECT, "bytes of open sockets") else { return };
    let mut stage = Stage::new(&[FREE, AMAZON]);
    let _tcp = stage.net.listen_tcp(&["[::]:80"]);
    let _udp = stage.net.listen_udp(&["[::]:81"]);
    let lines = [
        format!("open before tcp {FREE}:80"),
        "say-bytes before 700".to_owned(),
        stage.wait(),
        "say-bytes before 700".to_owned(),
        format!("open after tcp [{AMAZON}]:80"),
        "say-bytes after 500".to_owned(),
        format!("open packets udp {FREE}:81"),
        "say-bytes packets 30".to_owned(),
        "say-bytes packets 30".to_owned(),
        format!("wait-for {}", stage.file("end").display()),
    ];
    stage.start(&lines);
    stage.wait_for(2);
    let events_map = loaded.ebpf.take_map("EVENTS").expect("the events");
    let mut ring = RingBuf::try_from(events_map).expect("a ring buffer");
    let maps = loaded.maps().expect("the maps");
    apply(&maps, &recording()).expect("applying");
    let _attached = stage.attach(&loaded);
    stage.adopt(&mut loaded);
    stage.go_on();
    stage.wait_for(lines.len() - 1);
    let mut told = |closed| {
        let all = events(&mut ring);
        let moved = all.iter().filter(|event| event.count == 0);
        let mut moved: Vec<_> = moved
            .inspect(|event| assert_eq!((event.closed, event.verdict), (closed, 1), "{event:#?}"))
            .map(|event| (event.dst, event.dst_port, event.bytes_out))
            .collect();
        moved.sort_unstable();
        moved
    };
    let mut want =
        vec![(address(FREE), 80, 1400), (address(AMAZON), 80, 500), (address(FREE), 81, 60)];
    want.sort_unstable();
    bytes::tell(bytes::visit(&mut loaded).expect("a way")).expect("telling");
    assert_eq!(told(0), want);
    bytes::tell(bytes::visit(&mut loaded).expect("a way")).expect("telling");
    assert_eq!(told(0), [], "nothing has moved since");
    File::create(stage.file("end")).expect("a file");
    let mut ended = Vec::new();
    let all = wait_until(LIMIT, || {
        ended.extend(told(1));
        ended.len() >= want.len()
    });
    ended.sort_unstable();
    assert!(all, "{ended:#?}");
    assert_eq!(ended, want);
}
