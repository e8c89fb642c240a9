//! Where events go beside the log: a file of JSON lines, the journal, a real Prometheus.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{no_program, require, require_kernel, wait_until},
    host::{CHINA, Host, Server},
    support::{BAIDU, FIREWALL, LIMIT, own_program},
};

/// A name that would be something else wherever it is not escaped.
const ODD: &str = "a\"} 1\nfirewall_generation 99\n\\\u{1b}[31m";

/// The daemon with these settings, and [`CHINA`].
fn host_with(settings: &str) -> Host {
    let host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", settings);
    host
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What became of the events of a sink.
#[track_caller]
pub fn sink(host: &Host, name: &str) -> Value {
    let status = host.status();
    let sinks = status["sinks"].as_array().unwrap();
    sinks.iter().find(|sink| sink["name"] == name).unwrap_or_else(|| panic!("{sinks:#?}")).clone()
}

#[test]
fn a_file_of_json_lines_is_begun_anew() {
    if !require_kernel() {
        return;
    }
    // Neither of the folders that the worker may write to anyway.
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("logs/below");
    let mut host = host_with(&format!(
        "[log]\njson = \"{}\"\njson_size = \"64 KiB\"\njson_files = 3\n",
        folder.join("events.jsonl").display()
    ));
    host.start();
    let mut app = host.app();
    let flood = 200;
    assert_eq!(app.step(&format!("flood {flood} {BAIDU}:0")), libc::ECONNREFUSED);
    let path = folder.join("events.jsonl");
    let older = |number: u32| path.with_added_extension(number.to_string());
    let all = || -> Vec<Value> {
        [older(3), older(2), older(1), path.clone()]
            .iter()
            .flat_map(|path| json_lines(path))
            .collect()
    };
    assert!(wait_until(LIMIT, || all().len() >= flood), "{} lines: {}", all().len(), host.said());
    assert_eq!(all(), host.events(), "the same as the log, in its order");
    assert!(older(1).exists(), "{:?}", fs::read_dir(&folder).unwrap().collect::<Vec<_>>());
    for path in [older(1), path.clone()] {
        let size = fs::metadata(&path).unwrap().len();
        assert!(size < (64 + 4) << 10, "{}: {size}", path.display());
    }
    assert_eq!(sink(&host, "json")["failed"], 0);
    // Nothing is left behind at a clean stop.
    assert_eq!(app.step(&format!("tcp {BAIDU}:4242")), libc::ECONNREFUSED);
    host.signal(host.keeper(), libc::SIGTERM);
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(all().last().unwrap()["dst"]["port"], 4242);
}

#[test]
fn a_file_that_cannot_be_written_is_counted_and_nothing_waits_for_it() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let pipe = host.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", &format!("[log]\njson = \"{}\"\n", pipe.display()));
    host.start();
    let server = Server::of(&host);
    let mut app = host.app();
    app.assert_enforced();
    host.event(|event| event["verdict"] == "deny");
    host.wait_said("pipe: it is no regular file");
    assert!(sink(&host, "json")["failed"].as_u64().unwrap() > 0);
    assert_eq!(sink(&host, "log")["failed"], 0);
    let shown = host.done(&["status"]);
    assert!(shown.contains("events to the sink `json`"), "{shown}");

    fs::remove_file(&pipe).unwrap();
    assert_eq!(app.step(&format!("tcp {BAIDU}:4242")), libc::ECONNREFUSED);
    let is_there = || json_lines(&pipe).iter().any(|event| event["dst"]["port"] == 4242);
    assert!(wait_until(LIMIT, is_there), "{}", host.said());
    host.wait_said("can be written to again; events that are missing:");
    server.assert_untouched();
}

/// The daemon's command where the journal is in a folder of this test.
fn with_journal(host: &Host, folder: &Path) -> Command {
    let mut command = host.net.client_command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(
        "mount -t tmpfs firewall-test /run && mkdir -p /run/systemd/journal && \
         mount --bind \"$0\" /run/systemd/journal && exec \"$@\"",
    );
    command.arg(folder).arg(FIREWALL);
    host.command_by(command, "daemon")
}

/// The fields of a datagram: each `NAME=value`, or the name, the length and the value.
fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')) {
        let (name, rest) = bytes.split_at(end);
        let (length, rest) = match rest.split_at(1) {
            (b"=", rest) => (rest.iter().position(|byte| *byte == b'\n').unwrap(), rest),
            (_, rest) => {
                let (length, rest) = rest.split_first_chunk().unwrap();
                (u64::from_le_bytes(*length) as usize, rest)
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.insert(text(name), text(&rest[..length]));
        bytes = &rest[length + 1..];
    }
    fields
}

#[test]
fn the_journal_gets_fields_and_one_that_hangs_is_not_waited_for() {
    if !require_kernel() {
        return;
    }
    let mut host = host_with("[log]\njournal = \"on\"\n");
    let server = Server::of(&host);
    let folder = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    journal.set_read_timeout(Some(LIMIT)).unwrap();
    let command = with_journal(&host, folder.path());
    host.start_by(command);

    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join(ODD);
    fs::copy(own_program(), &program).unwrap();
    let mut app = host.app_of(&host.cgroup, program.to_str().unwrap());
    assert_eq!(app.step(&format!("tcp {BAIDU}:1001")), libc::ECONNREFUSED);
    let mut bytes = vec![0; 1 << 16];
    let told = loop {
        let length = journal.recv(&mut bytes).expect("an entry");
        let told = fields(&bytes[..length]);
        if told["FIREWALL_DST_PORT"] == "1001" {
            break told;
        }
    };
    for (name, value) in [
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "firewall"),
        ("FIREWALL_VERDICT", "deny"),
        ("FIREWALL_POLICY", "china"),
        ("FIREWALL_RULE", "registered"),
        ("FIREWALL_APP", ODD),
        ("FIREWALL_EXE", program.to_str().unwrap()),
        ("FIREWALL_DST_IP", BAIDU),
        ("FIREWALL_COUNTRY", "CN"),
    ] {
        assert_eq!(told[name], value, "{name}: {told:#?}");
    }
    assert!(!told["MESSAGE"].contains(['\n', '\u{1b}']), "{told:#?}");

    // It takes some, and then nothing more: by default 10, and more than 512 in no system.
    let flood = 2000;
    assert_eq!(app.step(&format!("flood {flood} {BAIDU}:0")), libc::ECONNREFUSED);
    let logged = || host.events().len();
    assert!(wait_until(LIMIT, || logged() > flood), "{} in the log: {}", logged(), host.said());
    assert!(sink(&host, "journal")["queued"].as_u64().unwrap() > 0);
    assert_eq!(sink(&host, "log")["queued"], 0);
    app.assert_enforced();
    host.signal(host.keeper(), libc::SIGTERM);
    assert_eq!(host.ended().code(), Some(0));
    host.wait_said("the sink `journal` does not go on: ");
    server.assert_untouched();
}

/// A Prometheus that scrapes a port of the client's own, ended when it is dropped.
struct Prometheus<'h> {
    host: &'h Host,
    child: Child,
}

impl<'h> Prometheus<'h> {
    fn new(host: &'h Host, target: &str) -> Self {
        let config = host.file("prometheus.yml");
        let scrape = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: firewall\n  \
             static_configs:\n  - targets: [\"{target}\"]\n"
        );
        fs::write(&config, scrape).unwrap();
        let log = fs::File::create(host.file("prometheus.log")).unwrap();
        let child = host
            .net
            .client_command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", host.file("prometheus").display()))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { host, child }
    }

    /// The samples that it has for a query, by their labels.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let url = "http://127.0.0.1:9090/api/v1/query";
        let mut curl = self.host.net.client_command("curl");
        curl.args(["--silent", "--max-time", "5", "--get", url, "--data-urlencode"]);
        let output = curl.arg(format!("query={query}")).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let samples = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let sample = |sample: Value| {
            let value = sample["value"][1].as_str().unwrap().parse().unwrap();
            (sample["metric"].clone(), value)
        };
        samples.into_iter().map(sample).collect()
    }

    /// Waits until a query has an answer that fits.
    #[track_caller]
    fn wait(&self, query: &str, fits: impl Fn(&Value, f64) -> bool) {
        let mut last = Vec::new();
        let found = wait_until(LIMIT, || {
            last = self.query(query);
            std::thread::sleep(Duration::from_millis(200));
            last.iter().any(|(labels, value)| fits(labels, *value))
        });
        let log = fs::read_to_string(self.host.file("prometheus.log")).unwrap_or_default();
        assert!(found, "{query}: {last:#?}\n{log}\n{}", self.host.said());
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_reads_the_metrics() {
    if !require_kernel() || !require(no_program("prometheus")) {
        return;
    }
    let mut host = host_with("[metrics]\nlisten = \"127.0.0.1:9477\"\n");
    let _server = Server::of(&host);
    host.start();
    let prometheus = Prometheus::new(&host, "127.0.0.1:9477");
    prometheus.wait("up", |_, value| value == 1.0);

    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join(ODD);
    fs::copy(own_program(), &program).unwrap();
    let mut app = host.app_of(&host.cgroup, program.to_str().unwrap());
    for port in [1001, 1002, 1003] {
        assert_eq!(app.step(&format!("tcp {BAIDU}:{port}")), libc::ECONNREFUSED);
    }
    prometheus.wait("firewall_app_verdicts_total", |labels, value| {
        labels["app"] == ODD && labels["verdict"] == "deny" && value == 3.0
    });
    prometheus
        .wait("firewall_policy_verdicts_total{policy=\"china\",verdict=\"deny\"}", |_, value| {
            value == 3.0
        });
    prometheus.wait("firewall_country_verdicts_total{country=\"CN\"}", |_, value| value == 3.0);
    prometheus.wait("firewall_record_delay_seconds_count", |_, value| value >= 3.0);
    prometheus.wait("firewall_record_delay_seconds_bucket{le=\"+Inf\"}", |_, value| value >= 3.0);
    prometheus.wait("firewall_kernel_total{counter=\"deny\"}", |_, value| value >= 3.0);
    prometheus.wait("firewall_generation", |_, value| value == 1.0);
    prometheus.wait("firewall_generation_age_seconds", |_, value| value > 0.0);
    prometheus.wait("firewall_lost_events_total{cause=\"events\"}", |_, value| value == 0.0);
    prometheus.wait("firewall_sink_queued_entries{sink=\"log\"}", |_, value| value >= 0.0);
    for cause in ["dropped", "failed"] {
        let query = format!("firewall_sink_lost_entries_total{{sink=\"log\",cause=\"{cause}\"}}");
        prometheus.wait(&query, |_, value| value == 0.0);
    }
    prometheus.wait("firewall_map_entries{map=\"PROCESSES\"}", |_, value| value >= 0.0);
    prometheus.wait("firewall_map_max_entries{map=\"PROCESSES\"}", |_, value| value == 16384.0);
    host.done(&["reload"]);
    prometheus.wait("firewall_generation", |_, value| value == 2.0);
}

#[test]
fn sinks_are_as_they_were_at_the_start() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let socket = host.file("metrics.sock");
    host.set("policies.d/china.toml", CHINA);
    host.start();
    let names = |host: &Host| -> Vec<String> {
        let status = host.status();
        let sinks = status["sinks"].as_array().unwrap();
        sinks.iter().map(|sink| sink["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&host), ["log"]);
    let settings = format!("[metrics]\nlisten = \"{}\"\n", socket.display());
    host.set("firewall.toml", &settings);
    let output = host.ask(&["reload"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("restart the daemon"), "{said}");
    let status = host.status();
    assert_eq!(status["state"], "degraded");
    assert!(status["degraded"][0].as_str().unwrap().contains("restart the daemon"), "{status}");
    assert!(!socket.exists());

    host.signal(host.keeper(), libc::SIGTERM);
    host.ended();
    host.start();
    assert_eq!(
        (names(&host), host.status()["state"].as_str()),
        (vec!["log".to_owned(), "metrics".to_owned()], Some("enforcing"))
    );
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--unix-socket"]).arg(&socket).arg("http://firewall/metrics");
    let told = String::from_utf8(curl.output().unwrap().stdout).unwrap();
    assert!(told.contains("\nfirewall_generation ") && told.ends_with("# EOF\n"), "{told}");

    // Killed, it leaves the socket, which the next one replaces.
    host.kill(false);
    assert!(socket.exists());
    host.start();
    assert_eq!(host.status()["state"], "enforcing");
    host.kill(false);
    fs::remove_file(&socket).unwrap();
    // What is in the way is of value to somebody.
    fs::write(&socket, "precious").unwrap();
    host.start();
    let status = host.status();
    assert!(status["degraded"][0].as_str().unwrap().contains("no metrics can be read"), "{status}");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
}
