//! A host with a daemon of its own: policies, state, socket, cgroup and pins are this test's alone.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use firewall::{events::filter::Filter, store::reader::Reader};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{Cgroup, Net, Resolver, wait_until},
    support::{ALIDNS, AMAZON, BAIDU, FIREWALL, FREE, LIMIT, client, own_program, wait},
};

/// What [`CHINA`] drops, and what passes: IPv4 and IPv6 of each.
pub const DENIED: [&str; 2] = [BAIDU, ALIDNS];
/// See [`DENIED`].
pub const ALLOWED: [&str; 2] = [FREE, AMAZON];

/// A policy that drops [`DENIED`].
pub const CHINA: &str = r#"
[policy]
name = "china"
[[rule]]
name = "registered"
action = "drop"
to = { jurisdictions = ["CN"] }
"#;

/// A policy that cannot be compiled.
pub const BROKEN: &str = "[policy]\nname = \"broken\"\nmode = \"perhaps\"\n";

const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "firewall-test-";

/// The host, and the server behind it. Dropped, it leaves nothing in force and no process.
pub struct Host {
    pub net: Net,
    pub cgroup: Cgroup,
    pub pin: PathBuf,
    pub api: PathBuf,
    resolver: Resolver,
    directory: TempDir,
    child: Option<Child>,
}

impl Host {
    /// Without policies, without a daemon; the server has [`DENIED`] and [`ALLOWED`].
    pub fn new() -> Self {
        Self::of(Net::new(&[DENIED, ALLOWED].concat()))
    }

    /// The same with a server that has other addresses.
    pub fn of(net: Net) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static STALE: Once = Once::new();
        STALE.call_once(remove_stale);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pin = Path::new(BPFFS).join(format!("{PREFIX}{}-{number}", std::process::id()));
        let directory = tempfile::tempdir().unwrap();
        let host = Self {
            net,
            cgroup: Cgroup::new(),
            pin,
            api: directory.path().join("api.sock"),
            resolver: Resolver::new(&["10.200.0.1"], ""),
            directory,
            child: None,
        };
        fs::create_dir(host.file("policies.d")).unwrap();
        host.set("firewall.toml", "");
        host
    }

    /// With [`CHINA`], and a daemon that has it in force.
    pub fn with_china() -> Self {
        let mut host = Self::new();
        host.set("policies.d/china.toml", CHINA);
        host.start();
        host
    }

    /// A path in the folder of this host.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of this host: `firewall.toml`, or below `policies.d`.
    pub fn set(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// Removes a file of this host.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    /// `firewall daemon` or `firewall boot` of this host.
    pub fn command(&self, word: &str) -> Command {
        self.command_by(self.net.client_command(FIREWALL), word)
    }

    /// The same by a command that starts the binary in its own way.
    pub fn command_by(&self, mut command: Command, word: &str) -> Command {
        self.resolver.enter(&mut command);
        command.arg(word).stdin(Stdio::null());
        for (name, place) in self.places() {
            if name != "--socket" || word == "daemon" {
                command.arg(name).arg(place);
            }
        }
        command
    }

    /// Starts the daemon with a disk of its own for its state, as only it and what looks through `/proc`
    /// see it. Returns where that is.
    #[track_caller]
    pub fn start_on_disk(&mut self, size: &str) -> PathBuf {
        let state = self.file("state");
        fs::create_dir(&state).unwrap();
        let mut command = self.net.client_command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("mount -t tmpfs -o size={size} firewall-test \"$0\" && exec \"$@\""));
        command.arg(&state).arg(FIREWALL);
        let command = self.command_by(command, "daemon");
        self.start_by(command);
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper()));
        root.join(state.strip_prefix("/").unwrap())
    }

    /// What a daemon is given, by its options.
    pub fn places(&self) -> [(&'static str, PathBuf); 6] {
        [
            ("--config", self.file("firewall.toml")),
            ("--policies", self.file("policies.d")),
            ("--state", self.file("state")),
            ("--cgroup", self.cgroup.path().to_owned()),
            ("--pin", self.pin.clone()),
            ("--socket", self.api.clone()),
        ]
    }

    /// Starts the daemon, and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        let command = self.command("daemon");
        self.start_by(command);
    }

    /// The same by a command of [`Self::command_by`].
    #[track_caller]
    pub fn start_by(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "one runs");
        let log = File::options().create(true).append(true).open(self.file("said")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut ended = None;
        let answers = wait_until(LIMIT, || {
            ended = child.try_wait().unwrap();
            ended.is_some() || self.ask(&["status"]).status.success()
        });
        self.child = Some(child);
        assert!(answers && ended.is_none(), "no daemon ({ended:?}): {}", self.said());
    }

    /// Runs a command of [`Self::command`] that is to end by itself: its status, and what it said.
    #[track_caller]
    pub fn ends(&self, mut command: Command) -> (Option<i32>, String) {
        let path = self.file("ended");
        let mut child =
            command.stdout(Stdio::null()).stderr(File::create(&path).unwrap()).spawn().unwrap();
        let status = wait(&mut child, LIMIT);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let said = fs::read_to_string(path).unwrap();
        (status.unwrap_or_else(|| panic!("it does not end: {said}")).code(), said)
    }

    /// All that the daemons of this host have said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.file("said")).unwrap_or_default()
    }

    /// Waits until a daemon of this host has said this.
    #[track_caller]
    pub fn wait_said(&self, what: &str) {
        assert!(wait_until(LIMIT, || self.said().contains(what)), "no `{what}`: {}", self.said());
    }

    /// Runs a command that asks the daemon.
    pub fn ask(&self, words: &[&str]) -> Output {
        Command::new(FIREWALL).args(words).arg("--socket").arg(&self.api).output().unwrap()
    }

    /// The same, which has to succeed. Returns what it printed.
    #[track_caller]
    pub fn done(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{words:?}: {out}{err}{}", self.said());
        out.into_owned()
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["status", "--json"])).unwrap()
    }

    /// Number and origin of the generation.
    #[track_caller]
    pub fn generation(&self) -> (u64, String) {
        let generation = &self.status()["generation"];
        (generation["number"].as_u64().unwrap(), generation["origin"].as_str().unwrap().to_owned())
    }

    /// `firewall off` where no daemon runs. Returns what it printed.
    #[track_caller]
    pub fn off(&self) -> String {
        self.done(&["off", "--pin", self.pin.to_str().unwrap()])
    }

    /// The keeper.
    pub fn keeper(&self) -> u32 {
        self.child.as_ref().expect("a daemon").id()
    }

    /// The worker, which is the one that answers.
    #[track_caller]
    pub fn worker(&self) -> u32 {
        u32::try_from(self.status()["pid"].as_u64().unwrap()).unwrap()
    }

    /// Kills the keeper or the worker, and waits until both are gone.
    #[track_caller]
    pub fn kill(&mut self, worker: bool) -> ExitStatus {
        let pid = self.worker();
        self.signal(if worker { pid } else { self.keeper() }, libc::SIGKILL);
        let status = self.ended();
        let gone = wait_until(LIMIT, || !Path::new(&format!("/proc/{pid}")).exists());
        assert!(gone, "the worker lives on");
        status
    }

    pub fn signal(&self, pid: u32, signal: i32) {
        // SAFETY: takes integers alone.
        let sent = unsafe { libc::kill(pid.cast_signed(), signal) };
        assert_eq!(sent, 0, "signal {signal} was not sent to {pid}");
    }

    /// Waits until the daemon has ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a daemon");
        let status = wait(&mut child, LIMIT);
        if status.is_none() {
            self.child = Some(child);
        }
        status.unwrap_or_else(|| panic!("it does not end: {}", self.said()))
    }

    /// What is pinned, without the folders.
    pub fn pinned(&self) -> Vec<PathBuf> {
        fn below(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => below(&entry.path(), found),
                    false => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        below(&self.pin, &mut found);
        found
    }

    /// What is stored.
    pub fn events(&self) -> Vec<Value> {
        events_in(&self.file("state"))
    }

    /// Waits for an event that fits.
    #[track_caller]
    pub fn event(&self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let mut found = None;
        wait_until(LIMIT, || {
            found = self.events().into_iter().find(&mut fits);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no such event: {:#?}\n{}", self.events(), self.said()))
    }

    /// An app that the daemon filters.
    pub fn app(&self) -> App {
        self.app_in(&self.cgroup)
    }

    /// An app in another cgroup.
    pub fn app_in(&self, cgroup: &Cgroup) -> App {
        self.app_of(cgroup, &own_program())
    }

    /// An app whose executable is a copy of this program's own.
    pub fn app_of(&self, cgroup: &Cgroup, program: &str) -> App {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let steps = self.file(&format!("steps-{number}"));
        let mut command = self.net.client_command(program);
        client::prepare(&mut command, "follow", &steps);
        cgroup.enter(&mut command);
        command.args(["--exact", client::TEST]).stdout(Stdio::null()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        App { child, stdin, steps, made: 0 }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The worker goes with it. Fails if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        clear(&self.pin);
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "why a test failed")]
            {
                eprintln!("the daemon said:\n{}", self.said());
            }
        }
    }
}

/// Takes away what is pinned below a folder, and the folder.
fn clear(pin: &Path) {
    // Where the removing itself is broken, the cgroup's end takes the programs away.
    let nobody = pin.join("socket");
    let words = [Path::new("off"), Path::new("--socket"), &nobody, Path::new("--pin"), pin];
    let _ = Command::new(FIREWALL).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = fs::remove_dir_all(pin);
}

/// Removes what killed tests have left.
fn remove_stale() {
    for entry in fs::read_dir(BPFFS).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            clear(&entry.path());
        }
    }
}

/// A process that makes steps when it is told. Ended when it is dropped.
pub struct App {
    child: Child,
    stdin: ChildStdin,
    steps: PathBuf,
    made: usize,
}

impl App {
    /// Makes a step. Returns its errno, 0 for none.
    #[track_caller]
    pub fn step(&mut self, line: &str) -> i32 {
        writeln!(self.stdin, "{line}").unwrap();
        self.made += 1;
        let mut steps = Vec::new();
        let made = wait_until(LIMIT, || {
            let text = fs::read_to_string(&self.steps).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            steps = client::read(whole);
            steps.len() >= self.made
        });
        assert!(made, "`{line}` does not end: {steps:#?}");
        assert_eq!(steps[self.made - 1].line, line);
        steps[self.made - 1].errno
    }

    /// Makes a step that has to succeed.
    #[track_caller]
    pub fn does(&mut self, line: &str) {
        assert_eq!(self.step(line), 0, "{line}");
    }

    /// What is denied is denied, TCP and UDP, IPv4 and IPv6; what is allowed passes.
    #[track_caller]
    pub fn assert_enforced(&mut self) {
        for line in each(&DENIED) {
            assert_eq!(self.step(&line), libc::ECONNREFUSED, "{line}");
        }
        self.assert_open(&ALLOWED);
    }

    /// These can be reached.
    #[track_caller]
    pub fn assert_open(&mut self, addresses: &[&str]) {
        for line in each(addresses) {
            self.does(&line);
        }
    }
}

fn each(addresses: &[&str]) -> Vec<String> {
    let places = addresses
        .iter()
        .map(|ip| if ip.contains(':') { format!("[{ip}]") } else { (*ip).to_owned() });
    places.flat_map(|ip| [format!("tcp {ip}:80"), format!("udp-sendto {ip}:81")]).collect()
}

impl Drop for App {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server has: TCP at port 80, UDP at port 81.
pub struct Server {
    tcp: crate::harness::Listener,
    udp: crate::harness::Listener,
    capture: crate::harness::Capture,
}

impl Server {
    pub fn of(host: &Host) -> Self {
        Self {
            tcp: host.net.listen_tcp(&["[::]:80"]),
            udp: host.net.listen_udp(&["[::]:81"]),
            capture: host.net.capture(),
        }
    }

    /// Bytes that the first connection has brought to an address.
    pub fn bytes(&self, ip: &str) -> usize {
        let contacts = self.tcp.contacts();
        contacts.iter().find(|one| one.to.ip().to_string() == ip).map_or(0, |one| one.data.len())
    }

    /// Datagrams that have arrived at an address.
    pub fn datagrams(&self, ip: &str) -> usize {
        self.udp.contacts().iter().filter(|one| one.to.ip().to_string() == ip).count()
    }

    /// Nothing at all has arrived at what is denied.
    #[track_caller]
    pub fn assert_untouched(&self) {
        for ip in DENIED {
            self.capture.assert_nothing_to(ip);
        }
    }
}

/// Connections that an app keeps open to what is allowed.
pub struct Kept {
    said: usize,
}

impl Kept {
    #[track_caller]
    pub fn open(app: &mut App) -> Self {
        app.does(&format!("open kept4 tcp {FREE}:80"));
        app.does(&format!("open kept6 tcp [{AMAZON}]:80"));
        Self { said: 0 }
    }

    /// They still carry what is said.
    #[track_caller]
    pub fn assert_alive(&mut self, app: &mut App, server: &Server) {
        app.does("say kept4");
        app.does("say kept6");
        self.said += "hello".len();
        for ip in ALLOWED {
            let arrived = wait_until(LIMIT, || server.bytes(ip) == self.said);
            assert!(arrived, "{ip}: {} of {} bytes", server.bytes(ip), self.said);
        }
    }
}

/// How long nothing has to happen that should not.
pub const QUIET: Duration = Duration::from_millis(700);

/// What is stored in a state folder.
pub fn events_in(state: &Path) -> Vec<Value> {
    // It is just being made, for example.
    let Ok(Some(mut reader)) = Reader::open(state) else { return Vec::new() };
    let end = reader.end().unwrap_or_default();
    let found = reader.next(&mut Filter::default(), end, usize::MAX).unwrap_or_default();
    found.iter().map(|found| serde_json::from_str(found).unwrap()).collect()
}
