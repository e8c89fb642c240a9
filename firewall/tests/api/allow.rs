//! `firewall allow`: a rule for a flow that was stopped.

use std::{fs, path::PathBuf, process::Command};

use firewall::daemon::control::Refusal;
use serde_json::{Value, json};

use crate::{
    stored,
    world::{Daemon, Said, event},
};

const POLICY: &str = r#"[policy]
name = "web"

[[rule]]
name   = "ads"
action = "drop"
to     = { domains = ["ads.example"] }

[[rule]]
name   = "net"
action = "drop"
to     = { networks = ["192.0.2.0/24"] }
"#;

/// A folder with a policy and a store of these events, which are numbered from 1.
struct World {
    daemon: Daemon,
}

impl World {
    fn new(changes: &[Value]) -> Self {
        let daemon = Daemon::new();
        fs::write(daemon.path("policies.d/web.toml"), POLICY).unwrap();
        let events = (1..).zip(changes).map(|(seq, change)| {
            let mut event: Value =
                serde_json::from_str(&event(seq, "deny", "ads.example", "ada")).unwrap();
            for (key, value) in change.as_object().unwrap() {
                event[key] = value.clone();
            }
            event.to_string()
        });
        stored::store(daemon.folder.path(), events);
        Self { daemon }
    }

    fn local(&self) -> PathBuf {
        self.daemon.path("policies.d/50-local.toml")
    }

    fn allow(&self, words: &[&str]) -> Said {
        let daemon = &self.daemon;
        let (folder, state) = (daemon.path("policies.d"), daemon.folder.path());
        let mut command = daemon.command(&["allow", "--config", "/dev/null"]);
        command.arg("--policies").arg(folder).arg("--state").arg(state).args(words);
        let mut said = Said::of(command);
        let place = state.to_str().unwrap();
        said.out = said.out.replace(place, "DIR");
        said.err = said.err.replace(place, "DIR");
        said
    }

    /// What `firewall explain` says of a flow.
    fn explain(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firewall"));
        command.args(["explain", "--config", "/dev/null", "--json", "--policy"]);
        command.arg(self.daemon.path("policies.d")).args(words);
        let said = Said::of(command);
        let value: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        value["verdict"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_rule_is_proposed_and_nothing_is_changed() {
    let world = World::new(&[json!({})]);
    let said = world.allow(&["1"]);
    insta::assert_snapshot!(format!("{}\n{}\n{}", said.status, said.out, said.err), @r#"
    0
    --- /dev/null
    +++ DIR/policies.d/50-local.toml
    @@ -0,0 +1,11 @@
    +[policy]
    +name        = "local"
    +description = "What `firewall allow` lets pass on this machine"
    +priority    = 1
    +
    +[[rule]]
    +name   = "event-1"
    +action = "allow"
    +apps   = ["exe:/usr/bin/curl"]
    +to     = { domains = ["=ads.example"] }
    +ports  = ["tcp/443"]

    note: with this rule it passes; `--apply` writes it
    "#);
    assert!(!world.local().exists());
    assert_eq!(world.daemon.asked(), [""; 0]);
}

#[test]
fn what_is_written_lets_pass_that_flow_and_no_other() {
    let curl = ["--app", "exe:/usr/bin/curl"];
    let named = ["192.0.2.7:443", "--name", "ads.example"];
    let question = json!({
        "hook": "dns", "proto": "udp", "dst": {"ip": "192.0.2.53", "port": 53},
    });
    let payload = json!({"host": {"name": "ads.example", "via": "tls"}});
    let world = World::new(&[json!({}), question, payload]);
    let explain = |words: &[&str]| world.explain(&[words, &curl].concat());
    let apply = |seq: &str| {
        let said = world.allow(&[seq, "--apply"]);
        assert_eq!(said.status, 0, "{said:?}");
        assert!(said.err.contains("in force: generation 7"), "{said:?}");
        assert_eq!(world.daemon.asked(), ["Status", "Reload"]);
        assert!(world.allow(&[seq]).err.contains("let it pass"), "once is enough");
    };
    assert_eq!(explain(&named), "deny");
    apply("1");
    assert_eq!(explain(&named), "allow");
    assert_eq!(world.explain(&named), "deny", "another app");
    assert_eq!(explain(&["192.0.2.7:80", "--name", "ads.example"]), "deny", "another port");
    assert_eq!(explain(&["192.0.2.7:443", "--name", "x.ads.example"]), "deny", "another name");
    assert_eq!(explain(&["192.0.2.7:443"]), "deny", "no name");
    fs::remove_file(world.local()).unwrap();
    assert_eq!(explain(&["ads.example"]), "deny");
    apply("2");
    assert_eq!(explain(&["ads.example"]), "allow");
    assert_eq!(explain(&["x.ads.example"]), "deny");
    fs::remove_file(world.local()).unwrap();
    apply("3");
    assert_eq!(explain(&["192.0.2.7:443"]), "allow");
    assert_eq!(explain(&["192.0.2.8:443"]), "deny", "another address");
}

#[test]
fn a_file_that_is_there_keeps_what_it_has() {
    let world = World::new(&[json!({})]);
    let own = "# mine\n[policy]\nname = \"mine\"\npriority = 3\n\n[[rule]]\nname = \"event-1\"\n\
               action = \"allow\"\nports = [\"tcp/1\"]";
    fs::write(world.local(), own).unwrap();
    assert_eq!(world.allow(&["1", "--apply"]).status, 0);
    let text = fs::read_to_string(world.local()).unwrap();
    let rest = text.strip_prefix(own).expect("what was there");
    assert!(rest.starts_with("\n\n[[rule]]\nname   = \"event-1-2\"\n"), "{text}");
}

#[test]
fn a_rule_that_would_not_help_is_not_written() {
    let world = World::new(&[json!({})]);
    let policy = POLICY.replace("\"web\"", "\"web\"\npriority = 0");
    fs::write(world.daemon.path("policies.d/web.toml"), policy).unwrap();
    let said = world.allow(&["1", "--apply"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("+name   = \"event-1\"\n"), "it is shown: {said:?}");
    assert!(said.err.contains("all the same: rule `ads` of policy `web`"), "{}", said.err);
    assert!(!world.local().exists());
}

#[test]
fn what_the_daemon_does_not_take_is_put_back() {
    let world = World::new(&[json!({})]);
    let no = Refusal::cannot("the kernel has no room");
    world.daemon.refuse(Some(no));
    for there in [None, Some("[policy]\nname = \"mine\"\npriority = 3\ndefault = \"allow\"\n")] {
        if let Some(there) = there {
            fs::write(world.local(), there).unwrap();
        }
        let said = world.allow(&["1", "--apply"]);
        assert_eq!(said.status, 3, "{said:?}");
        assert!(said.err.contains("no room") && said.err.contains("as it was"), "{}", said.err);
        assert_eq!(fs::read_to_string(world.local()).ok().as_deref(), there);
    }
}

#[test]
fn what_no_rule_is_for() {
    let world = World::new(&[
        json!({"verdict": "allow", "action": "allow"}),
        json!({"reason": "parse-error"}),
        json!({"dst": {"ip": "198.51.100.1", "port": 443}, "host": {"name": "x.example"}}),
        json!({"verdict": "audit", "mode": "observe"}),
    ]);
    for (seq, says) in [
        ("1", "error: event 1 passed"),
        ("2", "error: no rule lets event 2 pass: it could not be read. The setting `unparsable`"),
        ("3", "error: the policies have changed, and let it pass: no rule decides"),
        ("9", "error: there is no event 9 in the log"),
    ] {
        let said = world.allow(&[seq, "--apply"]);
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
        assert!(said.err.starts_with(says), "{}", said.err);
    }
    // Observed, it passed, and would not if the policy were enforced.
    let observes = POLICY.replace("\"web\"", "\"web\"\nmode = \"observe\"");
    fs::write(world.daemon.path("policies.d/web.toml"), observes).unwrap();
    let said = world.allow(&["4"]);
    assert_eq!(said.status, 0, "{said:?}");
    fs::write(world.daemon.path("policies.d/web.toml"), "[policy]\nname = \"no\"\n").unwrap();
    let said = world.allow(&["4"]);
    assert!(said.status == 1 && said.err.contains("are not valid"), "{said:?}");
    assert!(!world.local().exists());
}

/// It can be read, and shows nothing that a terminal obeys.
#[test]
fn an_app_with_a_name_that_does_something() {
    let exe = "/opt/\u{1b}[2J\"{*}\\\u{9b}\n#";
    let world = World::new(&[json!({"app": {"name": "x", "exe": exe, "uid": 0}})]);
    let said = world.allow(&["1", "--apply"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(
        said.out.contains(r#"exe:/opt/\U0000001B[[]2J\"[{][*][}]\\\U0000009B\U0000000A#"#),
        "{}",
        said.out
    );
    assert!(!said.out.contains(['\u{1b}', '\u{9b}']));
}
