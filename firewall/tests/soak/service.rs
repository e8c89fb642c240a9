//! The daemon: started, killed, reloaded and replaced.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use firewall::{events::filter::Filter, store::reader::Reader};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::load::{DENIED, NAMES, OPEN, TCP, TRACKER, UDP};
use crate::{
    harness::{Cgroup, Net, Resolver, wait_until},
    support::FIREWALL,
};

/// No step takes longer, in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The daemon with its places. Dropped, nothing of it is left.
pub struct Service<'a> {
    net: &'a Net,
    resolver: &'a Resolver,
    cgroup: PathBuf,
    folder: PathBuf,
    pin: PathBuf,
    binary: PathBuf,
    child: Option<Child>,
    ready: UnixDatagram,
    numbers: Numbers,
    /// How long the last whole start took.
    pub start_time: Duration,
}

impl<'a> Service<'a> {
    pub fn new(
        net: &'a Net,
        resolver: &'a Resolver,
        cgroup: &Cgroup,
        folder: &Path,
        seed: u64,
    ) -> Self {
        let ready = UnixDatagram::bind(folder.join("notify")).expect("a socket");
        ready.set_nonblocking(true).expect("a socket that does not block");
        fs::create_dir(folder.join("policies")).expect("a folder");
        fs::write(folder.join("firewall.toml"), "").expect("the settings");
        let service = Self {
            net,
            resolver,
            cgroup: cgroup.path().to_owned(),
            folder: folder.to_owned(),
            pin: PathBuf::from(format!("/sys/fs/bpf/fw-soak-{}", std::process::id())),
            binary: FIREWALL.into(),
            child: None,
            ready,
            numbers: Numbers(seed | 1),
            start_time: LIMIT,
        };
        fs::write(folder.join("policies/base.toml"), base()).expect("a policy");
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.numbers.below(below)
    }

    fn some_of(&mut self, time: Duration) -> Duration {
        Duration::from_micros(self.random(time.as_micros() as u64 + 1))
    }

    /// Starts it, and does not wait.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut told = [0; 256];
        while self.ready.recv(&mut told).is_ok() {}
        let said = OpenOptions::new().create(true).append(true).open(self.path("said"));
        let mut command = self.net.client_command(&self.binary.to_string_lossy());
        self.resolver.enter(&mut command);
        command
            .arg("daemon")
            .args(["--config".as_ref(), self.path("firewall.toml").as_os_str()])
            .args(["--policies".as_ref(), self.path("policies").as_os_str()])
            .args(["--state".as_ref(), self.path("state").as_os_str()])
            .args(["--socket".as_ref(), self.path("api.sock").as_os_str()])
            .args(["--cgroup".as_ref(), self.cgroup.as_os_str()])
            .args(["--pin".as_ref(), self.pin.as_os_str()])
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.expect("a file"));
        self.child = Some(command.spawn().expect("the daemon"));
    }

    /// Starts it.
    pub fn start(&mut self) {
        let begun = Instant::now();
        self.begin();
        let mut told = [0; 256];
        let mut ended = None;
        let is_ready = wait_until(LIMIT, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            let said = self.ready.recv(&mut told).map(|length| told[..length].to_vec());
            ended.is_some() || said.is_ok_and(|said| said.windows(7).any(|word| word == b"READY=1"))
        });
        assert!(is_ready && ended.is_none(), "it does not start ({ended:?}): {}", self.said());
        self.start_time = begun.elapsed();
    }

    pub fn start_if_down(&mut self) {
        if self.child.is_none() {
            self.start();
        }
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(self.path("said")).unwrap_or_default();
        text.lines()
            .rev()
            .take(30)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("our own child");
    }

    /// Kills it, wherever it is.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Starts it, and kills it at any moment of that or shortly after.
    pub fn kill_at_start(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        let whole = self.start_time + self.start_time / 4;
        self.begin();
        std::thread::sleep(self.some_of(whole));
        self.kill();
    }

    /// Has it read other policies, and kills it at any moment of that.
    pub fn kill_at_reload(&mut self) {
        self.start_if_down();
        self.change();
        self.signal(Signal::SIGHUP);
        std::thread::sleep(self.some_of(self.start_time));
        self.kill();
    }

    /// Has it stop.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut child = self.child.take().expect("it runs");
        let status = end_of(&mut child);
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.said());
    }

    /// Another set of rules, by which what the load does is judged as before.
    pub fn change(&mut self) {
        let rules = 1 + self.random(40);
        // Before the rules that decide about the load, or behind them.
        let priority = 50 + self.random(2) * 100;
        let mode = ["enforce", "observe"][self.random(2) as usize];
        let mut text =
            format!("[policy]\nname = \"other\"\npriority = {priority}\nmode = \"{mode}\"\n");
        for rule in 0..rules {
            let action = ["drop", "log", "allow"][self.random(3) as usize];
            let [a, b] = [self.random(200), self.random(250)];
            text += &format!(
                "[[rule]]\nname = \"rule-{rule}\"\naction = \"{action}\"\n\
                 to = {{ networks = [\"198.18.{a}.{b}/32\", \"2001:db8:{a:x}:{b:x}::/64\"], \
                 domains = [\"x{a}.y{b}.test\"] }}\n"
            );
        }
        fs::write(self.path("policies/other.toml"), text).expect("a policy");
    }

    /// A command of the command line that asks it.
    pub fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--socket").arg(self.path("api.sock"));
        command.output().expect("the firewall")
    }

    #[track_caller]
    pub fn must(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {out}{err}\n{}", self.said());
        out
    }

    pub fn reload(&mut self) {
        self.start_if_down();
        self.change();
        self.must(&["reload"]);
    }

    pub fn roll_back(&mut self) {
        self.start_if_down();
        self.must(&["rollback"]);
    }

    /// Goes on with another file of the program.
    pub fn replace(&mut self) {
        let place = if self.binary.ends_with("one") { "other" } else { "one" };
        let new = self.path(place);
        // Nobody runs it any more.
        let _ = fs::remove_file(&new);
        fs::copy(FIREWALL, &new).expect("a copy of the program");
        let mut file = OpenOptions::new().append(true).open(&new).expect("our own file");
        file.write_all(&self.numbers.below(u64::MAX).to_ne_bytes()).expect("our own file");
        drop(file);
        if self.child.is_some() {
            self.stop();
        }
        self.binary = new;
        self.start();
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.must(&["status", "--json"])).expect("JSON")
    }

    /// Losses as they stand in the log.
    pub fn losses_told(&self) -> Vec<u64> {
        let Ok(Some(mut reader)) = Reader::open(&self.path("state")) else { return Vec::new() };
        let end = reader.end().expect("a store");
        let found = reader.next(&mut Filter::default(), end, usize::MAX).expect("a store");
        let events = found.iter().filter(|found| found.contains("\"lost\""));
        let events = events.filter_map(|found| serde_json::from_str::<Value>(found).ok());
        events
            .filter(|event| event["kind"] == "lost")
            .filter_map(|event| event["count"].as_u64())
            .collect()
    }

    /// What the kernel's maps take that it has open, in bytes.
    pub fn maps_bytes(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("descriptors").flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let field = |name: &str| -> Option<u64> {
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
                maps.insert(id, bytes);
            }
        }
        maps.values().sum()
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let mut off = Command::new(FIREWALL);
        off.args(["off", "--socket"]).arg(self.path("none")).arg("--pin").arg(&self.pin);
        let _ = off.output();
        let _ = fs::remove_dir(&self.pin);
    }
}

fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(LIMIT, || {
        status = child.try_wait().expect("our own child");
        status.is_some()
    });
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    status
}

/// The policy of which what it denies and allows never changes.
fn base() -> String {
    let [tracker, good] = NAMES;
    format!(
        "[policy]\nname = \"base\"\ndefault = \"drop\"\n\
         [[rule]]\nname = \"denied\"\naction = \"drop\"\nto = {{ networks = {DENIED:?} }}\n\
         [[rule]]\nname = \"tracker\"\naction = \"drop\"\nto = {{ domains = [\"{tracker}\"] }}\n\
         ports = [\"tcp/{TCP}\", \"udp/{UDP}\"]\n\
         [[rule]]\nname = \"open\"\naction = \"allow\"\nto = {{ networks = [{:?}, {:?}, {:?}, {:?}] }}\n\
         [[rule]]\nname = \"good\"\naction = \"allow\"\nto = {{ domains = [\"{good}\"] }}\n",
        OPEN[0], OPEN[1], TRACKER[0], TRACKER[1]
    )
}

/// Numbers that are the same for the same seed.
struct Numbers(u64);

impl Numbers {
    /// Marsaglia, "Xorshift RNGs" (2003).
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
