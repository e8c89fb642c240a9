//! A host with a daemon, an app that goes on all the time, and what arrives of it.

use std::{collections::BTreeMap, fmt, fs, net::IpAddr, path::PathBuf};

use firewall::{
    datapath::{maps::Maps, pins, sys},
    events::reader::Counters,
};
use firewall_common::layout::Counter;
use tempfile::TempDir;

use crate::{
    harness::{Capture, Cgroup, Kind, Listener, NameServer, Net, Resolver, Zone, wait_until},
    host::{App, Host},
    load::{DENIED, Load, NAMED, NAMES, OPEN, OTHER, TCP, TRACKER, UDP},
    support::LIMIT,
};

/// Allowed by its name alone, and by that name.
pub const NAMED_APP: [&str; 2] = ["1.0.0.1", "2606:4700:4700::1001"];
/// Allowed by address, denied by the name that the app knows it by.
pub const NAMED_BAD: [&str; 2] = ["8.8.8.8", "2001:4860:4860::8888"];
/// What single apps try to reach, by rules of each fault.
pub const PLACE: [&str; 2] = ["5.9.10.11", "2a01:4f8::11"];
/// The names of [`NAMED_APP`] and [`NAMED_BAD`], and one that may not be asked for.
pub const STEP_NAMES: [&str; 3] = ["app.example", "bad.example", "secret.example"];

/// Where only what is denied could arrive, whatever the address.
pub const NOWHERE: u16 = 7666;
/// Where nobody listens and nobody answers.
pub const SINK: u16 = 7003;

/// What was tried, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdicts {
    pub denied: u64,
    pub arrived: u64,
    pub allowed: u64,
    pub lost: u64,
}

impl Verdicts {
    pub fn add(&mut self, other: &Self) {
        let Self { denied, arrived, allowed, lost } = other;
        self.denied += denied;
        self.arrived += arrived;
        self.allowed += allowed;
        self.lost += lost;
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { denied, arrived, allowed, lost } = self;
        write!(
            f,
            "{denied} denied, {arrived} of them arrived; {allowed} allowed, {lost} of them lost"
        )
    }
}

/// A fault that changed no verdict.
pub struct Held {
    /// What was done.
    pub did: String,
    pub verdicts: Verdicts,
    /// What showed it, with its value.
    pub shown: String,
}

impl Held {
    pub fn line(&self, name: &str) -> String {
        format!("{name}: {}; {}; shown by {}", self.did, self.verdicts, self.shown)
    }
}

/// How the load's destinations are judged: see [`crate::load`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Some by name.
    Names,
    /// All by address: what names are known changes nothing.
    Addresses,
}

/// Dropped, it leaves nothing.
pub struct World {
    load: Option<Load>,
    capture: Capture,
    tcp: Listener,
    _udp: Listener,
    _names: NameServer,
    resolver: Resolver,
    folder: TempDir,
    steps: Verdicts,
    /// Packets by the port that they came to.
    came: BTreeMap<u16, u64>,
    forbidden: Vec<IpAddr>,
    pub host: Host,
}

impl World {
    /// With a daemon and the load, and a policy of these rules before those of the load.
    pub fn new(by: By, rules: &str) -> Self {
        let mut world = Self::without_daemon(by, rules);
        world.host.start();
        world.begin();
        world
    }

    /// Nothing runs yet.
    pub fn without_daemon(by: By, rules: &str) -> Self {
        let addresses = [DENIED, TRACKER, OPEN, NAMED, OTHER, NAMED_APP, NAMED_BAD, PLACE].concat();
        let host = Host::of(Net::new(&addresses));
        let zone = Zone::default()
            .host(NAMES[0], &TRACKER)
            .host(NAMES[1], &NAMED)
            .host(STEP_NAMES[0], &NAMED_APP)
            .host(STEP_NAMES[1], &NAMED_BAD)
            .host(STEP_NAMES[2], &NAMED_BAD);
        let names = host.net.serve_names(Kind::Dnsmasq, &zone, &["10.200.0.1:53"]);
        let tcp = host.net.echo_tcp(&[&format!("[::]:{TCP}")]);
        let udp = host.net.listen_udp(&[&format!("[::]:{UDP}")]);
        host.set("policies.d/base.toml", &policy(by, rules));
        let forbidden = [DENIED, TRACKER, OTHER].concat();
        Self {
            load: None,
            capture: host.net.capture(),
            tcp,
            _udp: udp,
            _names: names,
            resolver: Resolver::new(&["10.200.0.1"], ""),
            folder: tempfile::tempdir().unwrap(),
            steps: Verdicts::default(),
            came: BTreeMap::new(),
            forbidden: forbidden.iter().map(|ip| ip.parse().unwrap()).collect(),
            host,
        }
    }

    /// Has other rules stand before those of the load; a reload is still to come.
    pub fn set_rules(&self, by: By, rules: &str) {
        self.host.set("policies.d/base.toml", &policy(by, rules));
    }

    /// Starts the load.
    pub fn begin(&mut self) {
        let Self { host, resolver, folder, .. } = self;
        self.load = Some(Load::start(&host.net, &host.cgroup, resolver, folder.path()));
    }

    /// Goes on until so many denied and so many allowed attempts more were made.
    #[track_caller]
    pub fn during(&mut self, attempts: u64) {
        let before = self.made();
        let made = wait_until(LIMIT, || {
            self.look();
            let now = self.made();
            now.denied >= before.denied + attempts && now.allowed >= before.allowed + attempts
        });
        assert!(made, "the load makes no attempts: {:?}, {:?}", before, self.made());
        self.assert_held();
    }

    /// Makes a step that is to be denied at once.
    #[track_caller]
    pub fn denied(&mut self, app: &mut App, line: &str) {
        let errno = app.step(line);
        assert!([libc::ECONNREFUSED, libc::EPERM].contains(&errno), "{line}: {errno}");
        self.steps.denied += 1;
    }

    /// Makes a step that has to succeed: it says so only when the other side has answered.
    #[track_caller]
    pub fn allowed(&mut self, app: &mut App, line: &str) {
        assert_eq!(app.step(line), 0, "{line}: {}", self.host.said());
        self.steps.allowed += 1;
    }

    /// What others have tried: attempts denied, and allowed ones of which so many arrived.
    pub fn tried(&mut self, denied: u64, allowed: u64, arrived: u64) {
        self.steps.denied += denied;
        self.steps.allowed += allowed;
        self.steps.lost += allowed - arrived.min(allowed);
    }

    /// How many packets of a protocol have arrived at a port since this was last asked.
    pub fn arrived(&mut self, port: u16) -> u64 {
        self.look();
        self.came.remove(&port).unwrap_or_default()
    }

    /// How many bytes were received over TCP at these addresses.
    pub fn told(&self, ips: &[&str]) -> usize {
        let contacts = self.tcp.contacts().into_iter();
        contacts
            .filter(|one| ips.contains(&&*one.to.ip().to_string()))
            .map(|one| one.data.len())
            .sum()
    }

    /// Stops the load. Nothing that is denied has arrived, and all that is allowed has.
    #[track_caller]
    pub fn end(mut self, did: String, shown: String) -> Held {
        let load = self.load.take().unwrap();
        let mut verdicts = sum(&load.stop());
        self.look();
        verdicts.add(&self.steps);
        assert_eq!(self.capture.lost(), 0, "packets nobody looked at");
        assert!(verdicts.denied > 0 && verdicts.allowed > 0, "{verdicts}");
        assert_eq!((verdicts.arrived, verdicts.lost), (0, 0), "{verdicts}: {}", self.host.said());
        Held { did, verdicts, shown }
    }

    /// A map that is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        pins::links(&self.host.pin).with_file_name("maps").join(name)
    }

    /// A counter of the kernel programs, whether or not a daemon can be asked.
    pub fn counter(&self, counter: Counter) -> u64 {
        let fd = sys::get(&self.map("COUNTERS")).unwrap();
        let maps = Maps::handed([("COUNTERS".to_owned(), fd)]);
        Counters::new(&maps).unwrap().sum(counter).unwrap()
    }

    fn made(&self) -> Verdicts {
        let mut made = sum(&self.load.as_ref().unwrap().counts());
        made.add(&self.steps);
        made
    }

    #[track_caller]
    fn assert_held(&self) {
        let made = self.made();
        assert_eq!((made.arrived, made.lost), (0, 0), "{made}: {}", self.host.said());
    }

    /// Takes what has arrived.
    fn look(&mut self) {
        for packet in self.capture.take() {
            let port = packet.ports.map(|(_, to)| to);
            if self.forbidden.contains(&packet.to) || port == Some(NOWHERE) {
                eprintln!("arrived: {packet:?}");
                self.steps.arrived += 1;
            } else if let Some(port) = port {
                *self.came.entry(port).or_default() += 1;
            }
        }
    }
}

/// What the load has counted.
fn sum(counts: &[(String, u64)]) -> Verdicts {
    let of = |name: &str| {
        counts.iter().find(|(found, _)| found == name).map(|(_, count)| *count).unwrap()
    };
    let [refused, broken, lost] =
        ["of them refused", "established TCP connections broken", "of them lost"].map(of);
    Verdicts {
        denied: of("denied attempts"),
        arrived: of("denied attempts that did not fail"),
        allowed: of("allowed connections and datagrams of fresh sockets")
            + of("echoes on established TCP connections")
            + of("datagrams on connected UDP sockets")
            + refused
            + broken
            + lost,
        lost: refused + broken + lost,
    }
}

fn policy(by: By, rules: &str) -> String {
    let [tracker, good] = match by {
        By::Names => NAMES.map(|name| format!("domains = [{name:?}]")),
        By::Addresses => [TRACKER, NAMED].map(|ips| format!("networks = {ips:?}")),
    };
    let open = [OPEN, TRACKER, NAMED_BAD].concat();
    format!(
        "[policy]\nname = \"base\"\ndefault = \"drop\"\n{rules}\n\
         [[rule]]\nname = \"denied\"\naction = \"drop\"\nto = {{ networks = {DENIED:?} }}\n\
         [[rule]]\nname = \"tracker\"\naction = \"drop\"\nto = {{ {tracker} }}\n\
         ports = [\"tcp/{TCP}\", \"udp/{UDP}\"]\n\
         [[rule]]\nname = \"bad\"\naction = \"drop\"\nto = {{ domains = [{:?}] }}\n\
         ports = [\"tcp/{TCP}\", \"udp/{UDP}\", \"udp/443\"]\n\
         [[rule]]\nname = \"secret\"\naction = \"drop\"\nto = {{ domains = [{:?}] }}\n\
         [[rule]]\nname = \"app\"\naction = \"allow\"\nto = {{ domains = [{:?}] }}\n\
         [[rule]]\nname = \"nowhere\"\naction = \"drop\"\nports = [\"tcp/{NOWHERE}\", \"udp/{NOWHERE}\"]\n\
         [[rule]]\nname = \"open\"\naction = \"allow\"\nto = {{ networks = {open:?} }}\n\
         [[rule]]\nname = \"good\"\naction = \"allow\"\nto = {{ {good} }}\n",
        STEP_NAMES[1], STEP_NAMES[2], STEP_NAMES[0],
    )
}

/// `IP:PORT` of each.
pub fn each(addresses: [&str; 2], port: u16) -> [String; 2] {
    addresses.map(|ip| match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    })
}

/// What guards of this process have left.
pub fn left_behind() -> Vec<String> {
    let own = std::process::id();
    let beside = Cgroup::new();
    let parent = beside.path().parent().unwrap();
    let names = ["/run/netns".as_ref(), "/sys/fs/bpf".as_ref(), parent].map(|folder| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    names
        .into_iter()
        .flatten()
        .filter(|path| path != beside.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&format!("fw-{own}-"))
                || name.starts_with(&format!("firewall-test-{own}-"))
        })
        .map(|path| path.display().to_string())
        .collect()
}
