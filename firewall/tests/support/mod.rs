//! Running the real binary in a [`Net`] and reading what it logged.
#![allow(dead_code, unused_imports, reason = "each test includes this and uses a part")]

pub mod around;
pub mod client;
pub mod dns;
pub mod elsewhere;
pub mod evasion;
pub mod hello;
pub mod mmdb;
pub mod mptcp;
mod packet;
mod payload;
pub mod quic;
pub mod quic_client;
mod roundabout;
pub mod uring;

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub use packet::send_fd;

use crate::harness::{Cgroup, Namespace, Net};

pub const FIREWALL: &str = env!("CARGO_BIN_EXE_firewall");

/// Registered in CN.
pub const BAIDU: &str = "110.242.68.66";
/// Registered in CN.
pub const ALIDNS: &str = "2400:3200::1";
/// Registered in HK, owned by Baidu.
pub const BAIDU_HK: &str = "103.235.46.191";
/// Registered in FR.
pub const FREE: &str = "212.27.48.10";
/// Registered in US.
pub const AMAZON: &str = "2600:9000::10";

/// How long anything may take that is expected to end by itself.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A run of the firewall that is to be started.
pub struct Run {
    pub command: Command,
    policies: Vec<String>,
    log: PathBuf,
    directory: TempDir,
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// The verdicts in the log, a value a line.
    pub events: Vec<Value>,
    /// What the log says of bytes alone.
    pub moved: Vec<Value>,
    /// What the client said of each of its steps.
    pub steps: Vec<client::Step>,
    pub took: Duration,
    pub pid: u32,
    policies: Vec<String>,
}

impl Run {
    /// `firewall run` with these options, in the client's namespace.
    pub fn new(net: &Net, policies: &[&str]) -> Self {
        Self::of(net.client_command(FIREWALL), policies)
    }

    /// `firewall run` by a command that says where, without arguments.
    pub fn of(mut command: Command, policies: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The command may run as another user.
        open_to_all(directory.path());
        command.arg("run").args(policies);
        let policies = policies.iter().map(|&text| text.to_owned()).collect();
        Self { command, policies, log: directory.path().join("log"), directory }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Logs to another place, which is not read.
    pub fn log(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.log);
        self
    }

    /// Runs a program to its end.
    pub fn program(self, words: &[&str]) -> Outcome {
        self.start(words).end()
    }

    /// Runs this test binary as a client, one step a line: see [`client`].
    pub fn client(self, script: &str) -> Outcome {
        self.start_client(script).end()
    }

    /// The same by another path of it.
    pub fn client_of(self, program: &str, script: &str) -> Outcome {
        self.start_client_of(program, script).end()
    }

    pub fn start_client(self, script: &str) -> Running {
        self.start_client_of(&own_program(), script)
    }

    pub fn start_client_of(mut self, program: &str, script: &str) -> Running {
        client::prepare(&mut self.command, script, &self.directory.path().join("steps"));
        self.start(&[program, "--exact", client::TEST])
    }

    pub fn start(mut self, words: &[&str]) -> Running {
        self.command.arg("--log").arg(&self.log).arg("--").args(words);
        let file = |name| File::create(self.directory.path().join(name)).expect("a file");
        self.command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let started = Instant::now();
        let child = self.command.spawn().expect("the firewall");
        Running { child, started, run: self }
    }
}

/// A run that has been started; ended when it is dropped.
pub struct Running {
    pub child: Child,
    started: Instant,
    run: Run,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to our own child, which has not been waited for.
        let sent = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        assert_eq!(sent, 0, "signal {signal} was not sent");
    }

    /// What was written until now: `log`, `stdout`, `stderr` or `steps`.
    pub fn text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.run.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the client has made a step.
    #[track_caller]
    pub fn wait_for_step(&self, name: &str) {
        let seen = crate::harness::wait_until(LIMIT, || {
            client::read(&self.text("steps")).iter().any(|step| step.line.starts_with(name))
        });
        assert!(seen, "no step `{name}`: {}{}", self.text("steps"), self.text("stderr"));
    }

    #[track_caller]
    pub fn end(mut self) -> Outcome {
        let status = wait(&mut self.child, LIMIT);
        let took = self.started.elapsed();
        let Some(status) = status else {
            panic!("it does not end:\n{}{}", self.text("steps"), self.text("stderr"));
        };
        let log = self.text("log");
        let (events, moved) = verdicts(&log);
        Outcome {
            status,
            stdout: self.text("stdout"),
            stderr: self.text("stderr"),
            events,
            moved,
            steps: client::read(&self.text("steps")),
            took,
            pid: self.child.id(),
            policies: std::mem::take(&mut self.run.policies),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // SAFETY: our own child, not waited for; it ends what it started.
            unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
            if wait(&mut self.child, Duration::from_secs(3)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// This test binary.
pub fn own_program() -> String {
    let own = std::env::current_exe().expect("this test");
    own.into_os_string().into_string().expect("a path in UTF-8")
}

/// What a run of this process number has left: its cgroup and its pins.
pub fn left_behind(pid: u32) -> Vec<PathBuf> {
    let beside = Cgroup::new();
    let cgroups = beside.path().ancestors().skip(1).map(Path::to_owned);
    let runs = std::fs::read_dir("/sys/fs/bpf/firewall").into_iter().flatten().flatten();
    cgroups
        .chain(runs.map(|entry| entry.path()))
        .flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.strip_prefix("firewall-run-").unwrap_or(name);
            name.strip_prefix(&pid.to_string()).is_some_and(|rest| rest.starts_with('-'))
        })
        .collect()
}

/// Waits for a child, but no longer than that.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    crate::harness::wait_until(limit, || {
        status = child.try_wait().expect("waiting for a child");
        status.is_some()
    });
    status
}

#[track_caller]
fn number(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap_or_else(|| panic!("no number: {event}"))
}

#[track_caller]
fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The verdicts in a log, and what says of bytes alone.
#[track_caller]
fn verdicts(log: &str) -> (Vec<Value>, Vec<Value>) {
    log.lines().map(|line| parse(line)).partition(|event| event["count"] != 0)
}

pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("our directory");
}

impl Outcome {
    /// The same run with what another client of it said.
    #[must_use]
    pub fn with_steps(&self, steps: Vec<client::Step>) -> Self {
        Self { steps, ..self.clone() }
    }

    /// The same run with what another one of it logged.
    #[must_use]
    pub fn with_events(&self, log: &str) -> Self {
        let (events, moved) = verdicts(log);
        Self { events, moved, ..self.clone() }
    }

    /// The only step that begins with this.
    #[track_caller]
    pub fn step(&self, line: &str) -> &client::Step {
        self.steps
            .iter()
            .find(|step| step.line == line)
            .unwrap_or_else(|| panic!("no step `{line}`: {:#?}\n{}", self.steps, self.stderr))
    }

    /// The errors of a step, 0 for none.
    #[track_caller]
    pub fn errno(&self, line: &str) -> i32 {
        self.step(line).errno
    }

    /// The verdicts on an address.
    pub fn on(&self, ip: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["dst"]["ip"] == ip).collect()
    }

    /// The denied flow to an address by a protocol, and to a port unless it is 0.
    #[track_caller]
    pub fn denied(&self, ip: &str, port: u16, proto: &str) -> &Value {
        self.find("deny", ip, port, proto).unwrap_or_else(|| {
            panic!("no deny of {ip} {port}/{proto}: {:#?}\n{}", self.events, self.stderr)
        })
    }

    pub fn find(&self, verdict: &str, ip: &str, port: u16, proto: &str) -> Option<&Value> {
        self.events.iter().find(|event| {
            event["verdict"] == verdict
                && event["dst"]["ip"] == ip
                && event["proto"] == proto
                && (port == 0 || event["dst"]["port"] == port)
        })
    }

    /// What ran exited with this.
    #[track_caller]
    pub fn assert_status(&self, status: i32) {
        assert_eq!(
            self.status.code(),
            Some(status),
            "{}{}{:#?}",
            self.stdout,
            self.stderr,
            self.steps
        );
    }

    /// Every verdict has the keys of the contract, and `firewall explain` gives the same one for
    /// the same destination, on the same evidence.
    #[track_caller]
    pub fn assert_explained(&self) {
        let mut seen = HashSet::new();
        let all = self.events.iter().chain(&self.moved);
        let mut numbers: Vec<_> = all.inspect(|event| assert_keys(event)).map(number).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
        for event in &self.events {
            let ip = event["dst"]["ip"].as_str().expect("an address");
            let proto = event["proto"].as_str().expect("a protocol");
            if event["reason"] == "parse-error" || !seen.insert((ip, proto)) {
                continue;
            }
            let dest = match event["dst"]["port"].as_u64() {
                Some(port) if ip.contains(':') => format!("[{ip}]:{port}/{proto}"),
                Some(port) => format!("{ip}:{port}/{proto}"),
                None => format!("{ip}/{proto}"),
            };
            let output = Command::new(FIREWALL)
                .arg("explain")
                .args(&self.policies)
                .args(["--json", &dest])
                .output()
                .expect("the firewall");
            let text = String::from_utf8_lossy(&output.stdout);
            let explained: Value = parse(text.trim_end());
            // What observing policies would have done comes before what happened.
            let observed = explained["observed"].as_array();
            let wanted: Vec<&Value> = observed.into_iter().flatten().chain([&explained]).collect();
            let found: Vec<&Value> = self
                .events
                .iter()
                .filter(|other| other["dst"] == event["dst"] && other["proto"] == event["proto"])
                .take(wanted.len())
                .collect();
            assert_eq!(found.len(), wanted.len(), "{dest}: {found:#?} {explained}");
            for (wanted, found) in wanted.iter().zip(&found) {
                for key in
                    ["verdict", "mode", "reason", "action", "policy", "rule", "evidence", "data"]
                {
                    assert_eq!(wanted[key], found[key], "{key} of {dest}\n{found}\n{explained}");
                }
                assert_eq!(explained["geo"], found["geo"], "{dest}");
            }
            assert_eq!(explained["dst"], event["dst"], "{dest}");
            assert_eq!(explained["proto"], event["proto"], "{dest}");
        }
    }
}

/// The keys of a verdict, as the contract has them.
#[track_caller]
pub fn assert_keys(event: &Value) {
    assert_eq!(event["schema"], 1, "{event}");
    let word = |key: &str, words: &[&str]| {
        let value = event[key].as_str().unwrap_or_default();
        assert!(words.contains(&value), "{key}: {event}");
    };
    word("verdict", &["allow", "audit", "deny"]);
    word("mode", &["enforce", "observe"]);
    let reasons =
        ["rule", "default", "parse-error", "no-policy", "ambiguous", "quic", "unattended"];
    word("reason", &reasons);
    word("hook", &["connect", "sendmsg", "packet", "dns", "tls", "http", "quic", "close"]);
    let time = event["time"].as_str().expect("a time");
    assert!(time.len() == 27 && time.ends_with('Z') && time.starts_with("20"), "{event}");
    assert!(event["app"]["name"].is_string() && event["app"]["uid"].is_u64(), "{event}");
    assert!(event["dst"]["ip"].is_string() && event["proto"].is_string(), "{event}");
    let told = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key}: {event}"));
    let moved = told("bytes_out") + told("bytes_in");
    // Bytes are told apart from verdicts.
    assert!(told("count") == 0 || (event["hook"] != "close" && moved == 0), "{event}");
    assert!(event["bytes_out"].is_u64() && event["bytes_in"].is_u64(), "{event}");
    if event["host"].is_object() {
        let host = |key: &str| event["host"][key].as_str().unwrap_or_default();
        assert!(!host("name").is_empty(), "{event}");
        assert!(["dns", "tls", "http", "quic", "ahead"].contains(&host("via")), "{event}");
        assert!(["confirmed", "unique", "ambiguous"].contains(&host("confidence")), "{event}");
    }
    let asks = event["hook"] == "dns" && event["count"] != 0;
    assert!(!asks || event["geo"].is_null(), "{event}");
    if event["reason"] == "rule" {
        assert!(event["policy"].is_string() && event["rule"].is_string(), "{event}");
        assert!(event["evidence"].as_array().is_some_and(|list| !list.is_empty()), "{event}");
    }
    let facts = event["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let facts: Vec<&str> = facts.collect();
    let rests = |on: &[&str]| facts.iter().any(|fact| on.iter().any(|kind| fact.starts_with(kind)));
    let tables = [&event["data"]["country"], &event["data"]["asn"]].map(|table| {
        assert!(table.is_null() || table["date"].as_str().is_some_and(|date| date.len() == 10));
        !table.is_null()
    });
    assert_eq!(tables, [rests(&["country:"]), rests(&["as:", "org:"])], "{event}");
}

/// The client's end of a second wire, for a process that changes its network namespace.
pub fn namespace_path(namespace: &Namespace) -> PathBuf {
    namespace.path()
}
