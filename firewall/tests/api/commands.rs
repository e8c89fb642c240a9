//! The commands that ask the daemon, by the real binary.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
    process::Command,
};

use firewall::daemon::control::Refusal;
use serde_json::Value;

use crate::{
    harness::wait_until,
    rights::is_root,
    stored,
    world::{Daemon, LIMIT, Said, event},
};

/// Without what differs from run to run.
fn settled(text: &str) -> String {
    let ago = |line: &str| match line.rfind(" ago") {
        Some(end) => {
            let start = line[..end].rfind(['(', ',']).map_or(0, |at| at + 1);
            format!("{}[time]{}", &line[..start], &line[end..])
        }
        None => line.to_owned(),
    };
    text.lines().map(|line| ago(line) + "\n").collect()
}

#[test]
fn status() {
    let daemon = Daemon::new();
    let said = daemon.run(&["status"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    insta::assert_snapshot!(settled(&said.out));
    assert!(said.out.lines().all(|line| line.chars().count() <= 80), "{}", said.out);
    assert!(!said.out.contains('\x1b'), "colour is for terminals");
    daemon.change(|status| {
        status.degraded.clear();
        status.state = firewall::api::dto::State::Enforcing;
        status.last_reload = None;
        status.lists.clear();
        status.losses = firewall::api::dto::Losses::default();
        status.sinks.iter_mut().for_each(|sink| (sink.dropped, sink.failed) = (0, 0));
        status.generation.previous = None;
        status.hooks.retain(|hook| hook.attached);
    });
    let sound = daemon.run(&["status"]);
    let head = sound.out.split("\n\n").next().unwrap();
    insta::assert_snapshot!("status_of_a_sound_one", settled(head));
    let json = daemon.run(&["status", "--json"]);
    let value: Value = serde_json::from_str(&json.out).expect("one object");
    assert_eq!((json.status, json.err.as_str(), &value), (0, "", &daemon.get("/v1/status").json()));
}

#[test]
fn what_changes_something() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::new();
    for command in ["reload", "rollback"] {
        let said = daemon.run(&[command]);
        let out = "generation 7: 2 policies, 1 rule\n";
        assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, out, ""), "{command}");
    }
    let said = daemon.run(&["off"]);
    assert_eq!((said.status, said.out.as_str()), (0, "nothing is enforced any more\n"));
    assert_eq!(daemon.asked(), ["Reload", "Rollback", "Off"]);
    // The daemon's own pins, and those of another.
    let said = daemon.run(&["off", "--pin", "/sys/fs/bpf/firewall"]);
    assert_eq!((said.status, daemon.asked()), (0, vec!["Status".to_owned(), "Off".to_owned()]));
    daemon.run(&["off", "--pin", "/none"]);
    assert_eq!(daemon.asked(), ["Status"]);

    let findings = "error: there is no action `deny`\n  ┌─ office.toml:6:10";
    daemon.refuse(Some(Refusal::invalid(findings)));
    for command in ["reload", "rollback", "off"] {
        let said = daemon.run(&[command]);
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{command}");
        assert_eq!(said.err, format!("{findings}\n"));
    }
    daemon.refuse(Some(Refusal::cannot("the kernel has no room")));
    let said = daemon.run(&["reload"]);
    assert_eq!((said.status, said.err.as_str()), (3, "error: the kernel has no room\n"));
}

#[test]
fn where_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("api.sock");
    // One that a daemon left.
    let left = folder.path().join("left.sock");
    drop(UnixListener::bind(&left).unwrap());
    for socket in [none, left] {
        for command in ["status", "watch", "reload", "rollback"] {
            let mut firewall = Command::new(env!("CARGO_BIN_EXE_firewall"));
            firewall.args([command, "--socket"]).arg(&socket);
            let said = Said::of(firewall);
            assert_eq!((said.status, said.out.as_str()), (3, ""), "{command}: {said:?}");
            let says = format!("error: no daemon answers at {}: ", socket.display());
            assert!(said.err.starts_with(&says) && said.err.contains("\nhint: "), "{}", said.err);
        }
    }
}

#[test]
fn answers_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let no = r#"{"error":{"message":"only root may","hint":"use sudo"}}"#;
    let refused = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{no}", no.len());
    for (number, (answer, says)) in [
        (refused.as_str(), "error: only root may\n\nhint: use sudo\n"),
        ("", "is broken: "),
        ("SSH-2.0-x\r\n", "is broken: "),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", ""),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "is broken: "),
        ("HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}", "is broken: status 404"),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = folder.path().join(number.to_string());
        let listener = UnixListener::bind(&socket).unwrap();
        let mut firewall = Command::new(env!("CARGO_BIN_EXE_firewall"));
        firewall.args(["reload", "--socket"]).arg(&socket);
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                stream.write_all(answer.as_bytes()).unwrap();
            });
            Said::of(firewall)
        });
        assert_eq!((said.status, said.out.as_str()), (3, ""), "{answer}: {said:?}");
        assert!(
            said.err.starts_with("error: ") && said.err.contains(says),
            "{answer}: {}",
            said.err
        );
    }
}

#[test]
fn watch() {
    let daemon = Daemon::new();
    let mut watch = daemon.command(&["watch", "--verdict", "deny"]).spawn().unwrap();
    let mut json = daemon.command(&["watch", "--json"]).spawn().unwrap();
    assert!(wait_until(LIMIT, || daemon.verdicts.receiver_count() == 2), "they watch");
    let events = [event(1, "allow", "a.example", "ada"), event(2, "deny", "b.example", "ada")];
    for event in &events {
        daemon.verdicts.send(event.as_str().into()).unwrap();
    }
    daemon.verdicts.send("{\"schema\":1,\"kind\":\"lost\",\"count\":2}".into()).unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(watch.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let says = "deny curl -> b.example 192.0.2.7:443/tcp (HK, AS55967, baidu) by web/ads\n";
    assert_eq!(line, says);
    let mut all = BufReader::new(json.stdout.take().unwrap());
    for event in &events {
        line.clear();
        all.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{event}\n"));
    }
    drop(daemon);
    for mut child in [watch, json] {
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(err.ends_with("note: the daemon has stopped\n"), "{err}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn watch_refuses_what_nobody_can_want() {
    let daemon = Daemon::new();
    let said = daemon.run(&["watch", "--verdict", "no", "--app", "curl"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.err.contains("there is no verdict `no`"), "{}", said.err);
    assert!(said.err.contains("`curl` is not an app"), "{}", said.err);
}

#[test]
fn apps_of_what_the_daemon_has_recorded() {
    let daemon = Daemon::new();
    let state = daemon.folder.path().to_str().unwrap().to_owned();
    let none = daemon.run(&["apps", "--state", &state]);
    assert_eq!(none.status, 1);
    assert!(none.err.contains("there is no log in") && none.err.contains("hint: "), "{}", none.err);
    stored::store(daemon.folder.path(), (1..=3).map(|seq| event(seq, "deny", "a.example", "ada")));
    for words in [&["apps", "--json"][..], &["apps", "--json", "--state", &state]] {
        let said = daemon.run(words);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}");
        let app: Value = serde_json::from_str(&said.out).expect("one app");
        assert_eq!(app["flows"]["deny"], 3);
    }
    let socket = daemon.path("none.sock");
    let mut firewall = Command::new(env!("CARGO_BIN_EXE_firewall"));
    firewall.args(["apps", "--state", "/none", "--socket"]).arg(socket);
    assert_eq!(Said::of(firewall).status, 1);
}
