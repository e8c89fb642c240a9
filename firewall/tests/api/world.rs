//! A server with what answers behind it, and ways to ask it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use firewall::{
    api::{self, Rights, dto},
    daemon::control::{Control, Refusal, Request},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Verdicts that are held for readers of a stream.
pub const HELD: usize = 1024;
/// A group that nobody is in.
pub const READERS: u32 = 54_321;
/// A user that nobody is.
pub const OWN: u32 = 54_322;

/// No test waits for longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What answers.
pub struct Daemon {
    pub folder: TempDir,
    pub verdicts: broadcast::Sender<Arc<str>>,
    fake: Arc<Mutex<Fake>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How it answers.
struct Fake {
    status: dto::Status,
    refusal: Option<Refusal>,
    /// What was asked, in a word each.
    asked: Vec<String>,
    /// Requests are taken and never answered.
    silent: bool,
}

impl Daemon {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Others come in too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let policies = folder.path().join("policies.d");
        fs::create_dir(&policies).unwrap();
        let fake = Arc::new(Mutex::new(Fake {
            status: status(&policies),
            refusal: None,
            asked: Vec::new(),
            silent: false,
        }));
        let (verdicts, _) = broadcast::channel(HELD);
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let (fake, verdicts) = (Arc::clone(&fake), verdicts.clone());
            let (socket, state) = (folder.path().join("api.sock"), folder.path().to_owned());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = api::bind(&socket).unwrap();
                    let (requests, asked) = mpsc::channel(16);
                    let missed = Arc::default();
                    let control = Control { requests, verdicts, state, missed };
                    let rights = Rights { own: OWN, readers: Some(READERS) };
                    ready.send(()).unwrap();
                    tokio::select! {
                        () = api::serve(listener, control, rights) => {}
                        () = answer(asked, fake) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        is_ready.recv_timeout(LIMIT).expect("a server");
        Self { folder, verdicts, fake, stop: Some(stop), thread: Some(thread) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("api.sock")
    }

    /// From now on it says no to all that changes something, and to questions.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.fake.lock().unwrap().refusal = refusal;
    }

    /// From now on it says nothing.
    pub fn be_silent(&self) {
        self.fake.lock().unwrap().silent = true;
    }

    pub fn change(&self, change: impl FnOnce(&mut dto::Status)) {
        change(&mut self.fake.lock().unwrap().status);
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.lock().unwrap().asked)
    }

    /// A connection that gives up after [`LIMIT`].
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Asks, and reads the answer to its end.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// A stream of which the head was read.
    pub fn stream(&self, path: &str) -> BufReader<UnixStream> {
        let mut stream = self.connect();
        // HTTP/1.0: the body is not in chunks, and ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "a head");
        }
        stream
    }

    /// Runs `firewall`, which asks this server.
    pub fn run(&self, words: &[&str]) -> Said {
        Said::of(self.command(words))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
        command.args(words).arg("--socket").arg(self.socket());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no panic");
        }
    }
}

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(mut stream: UnixStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer that ends");
        Self::of(&bytes)
    }

    pub fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { dechunk(body) } else { body.to_owned() };
        Self { status: status.expect("a status"), head: head.to_lowercase(), body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn dechunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        if size == 0 {
            return body;
        }
        body += &rest[..size];
        text = &rest[size + 2..];
    }
    panic!("the answer was cut off: {body}");
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(mut command: Command) -> Self {
        let output = command.output().expect("the firewall");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            status: output.status.code().expect("no signal"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

async fn answer(mut requests: mpsc::Receiver<Request>, fake: Arc<Mutex<Fake>>) {
    let mut unanswered = Vec::new();
    while let Some(request) = requests.recv().await {
        let mut fake = fake.lock().unwrap();
        let name = format!("{request:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default().to_owned();
        fake.asked.push(name);
        if fake.silent {
            unanswered.push(request);
            continue;
        }
        let no = || fake.refusal.clone();
        // Whoever asked may be gone.
        match request {
            Request::Status(to) => drop(to.send(Ok(fake.status.clone()))),
            Request::Lists(to) => drop(to.send(Ok(fake.status.lists.clone()))),
            Request::Reload(to) | Request::Rollback(to) => {
                drop(to.send(no().map_or_else(|| Ok(change(&fake.status)), Err)));
            }
            Request::Off(to) => drop(to.send(no().map_or(Ok(()), Err))),
            Request::UpdateLists(to) => {
                drop(to.send(no().map_or_else(|| Ok(fetched()), Err)));
            }
            Request::Explain(question, to) => drop(to.send(no().map_or_else(
                || Ok(serde_json::json!({"verdict": "deny", "asked": question})),
                Err,
            ))),
        }
    }
}

fn change(status: &dto::Status) -> dto::Change {
    dto::Change {
        schema: 1,
        generation: status.generation.clone(),
        policies: 2,
        rules: 1,
        warnings: String::new(),
    }
}

fn fetched() -> Vec<dto::Fetched> {
    vec![dto::Fetched {
        list: "easyprivacy".to_owned(),
        policy: "web".to_owned(),
        url: "https://lists.example/easyprivacy.txt".to_owned(),
        result: "failed".to_owned(),
        reason: Some("connection".to_owned()),
        message: Some("nobody is there".to_owned()),
        entries: None,
    }]
}

/// A daemon with something of everything.
fn status(folder: &Path) -> dto::Status {
    let time = |text: &str| text.parse().unwrap();
    let rule = |name: &str, action: &str, hits| dto::Rule {
        name: name.to_owned(),
        action: action.to_owned(),
        hits,
        until: None,
    };
    let hook = |program: &str, attached| dto::Hook { program: program.to_owned(), attached };
    dto::Status {
        schema: 1,
        version: "0.1.0".to_owned(),
        abi: 7,
        pid: 4242,
        started: time("2026-11-20T08:00:00Z"),
        state: dto::State::Degraded,
        degraded: vec!["list `easyprivacy` of policy `web` was never fetched".to_owned()],
        generation: dto::Generation {
            number: 7.try_into().unwrap(),
            since: time("2026-11-22T16:14:08Z"),
            origin: dto::Origin::Policies,
            previous: Some(6.try_into().unwrap()),
        },
        last_reload: Some(dto::Reload {
            time: time("2026-11-22T17:00:00Z"),
            done: false,
            message: "error: there is no action `deny`\n  ┌─ office.toml:6:10".to_owned(),
        }),
        cgroup: "/sys/fs/cgroup".to_owned(),
        pins: "/sys/fs/bpf/firewall/v9".to_owned(),
        folder: folder.display().to_string(),
        policies: vec![
            dto::Policy {
                name: "cn-jurisdiction".to_owned(),
                mode: "enforce".to_owned(),
                source: "/etc/firewall/policies.d/cn-jurisdiction.toml".to_owned(),
                priority: 100,
                rules: vec![rule("local", "allow", 0), rule("home-jurisdiction", "drop", 12)],
                default: None,
                hits_default: 0,
            },
            dto::Policy {
                name: format!("a-policy-with-a-name-that-is-too-{}", "long-".repeat(9)),
                mode: "observe".to_owned(),
                source: "shipped".to_owned(),
                priority: 200,
                rules: Vec::new(),
                default: Some("drop".to_owned()),
                hits_default: 3,
            },
        ],
        hits_default: 12_345_678,
        hooks: vec![hook("connect4", true), hook("egress", false)],
        counters: [("deny".to_owned(), 12)].into(),
        losses: dto::Losses { events: 5, ..dto::Losses::default() },
        sinks: vec![
            dto::Sink { name: "log".to_owned(), queued: 2, dropped: 0, failed: 0 },
            dto::Sink { name: "journal".to_owned(), queued: 9, dropped: 7, failed: 1 },
        ],
        lists: vec![dto::List {
            name: "easyprivacy".to_owned(),
            policy: "web".to_owned(),
            url: "https://lists.example/easyprivacy.txt".to_owned(),
            entries: 0,
            fetched: None,
            due: Some(time("2026-11-22T18:00:00Z")),
            failure: Some("nobody is there".to_owned()),
        }],
        memory_bytes: 25 << 20,
    }
}

/// An event as the log has it.
pub fn event(seq: u64, verdict: &str, host: &str, user: &str) -> String {
    serde_json::json!({
        "schema": 1, "seq": seq, "time": format!("2026-11-22T01:25:{:02}.000001Z", seq % 60),
        "verdict": verdict, "mode": "enforce", "reason": "rule", "action": "drop",
        "policy": "web", "rule": "ads", "evidence": ["domain:example"], "hook": "connect",
        "app": {"name": "curl", "exe": "/usr/bin/curl", "pid": 7, "uid": 4_000_000_001_u32,
                "user": user},
        "proto": "tcp", "dst": {"ip": "192.0.2.7", "port": 443},
        "host": {"name": host, "via": "dns", "confidence": "unique"},
        "geo": {"country": "HK", "asn": 55967, "organisation": "baidu"},
        "count": 1, "bytes_out": 0, "bytes_in": 0,
    })
    .to_string()
}
