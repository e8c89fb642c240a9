//! Rules for a time: how long they count, whatever else happens.

use std::{fs, process::Command, thread::sleep, time::Duration};

use firewall::policy::source::{Disk, Files as _};

use crate::{
    harness::{require_kernel, wait_until},
    host::{BROKEN, Host, Kept, Server},
    support::{BAIDU, FIREWALL, LIMIT},
};

/// The port of [`BAIDU`] where somebody listens, so that only the firewall refuses.
const ALLOWED: &str = "80";

/// A policy whose rule is over so many seconds from now.
fn timed(seconds: u64) -> String {
    let now = Disk.moment().unwrap();
    until(&format!("{}+{}s", now.boot, now.second + seconds))
}

fn until(moment: &str) -> String {
    format!(
        "[policy]\nname = \"local\"\npriority = 1\n[[rule]]\nname = \"a-while\"\n\
         action = \"allow\"\nto = {{ networks = [\"{BAIDU}\"] }}\nports = [\"tcp/{ALLOWED}\"]\n\
         until = \"{moment}\"\n"
    )
}

/// Whether the event of a denied flow lets it pass for so long, with `firewall allow`.
fn allow(host: &Host, seq: u64, time: &str) -> (bool, String) {
    let mut command = Command::new(FIREWALL);
    command.args(["allow", &seq.to_string(), "--for", time, "--apply"]);
    for (name, place) in host.places() {
        if !["--cgroup", "--pin"].contains(&name) {
            command.arg(name).arg(place);
        }
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn what_is_allowed_for_a_time_is_denied_again_and_nothing_else_changes() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let _listening = Server::of(&host);
    let mut app = host.app();
    let connect = format!("tcp {BAIDU}:{ALLOWED}");
    assert_eq!(app.step(&connect), libc::ECONNREFUSED);
    let event = host.event(|event| event["verdict"] == "deny");
    let (done, said) = allow(&host, event["seq"].as_u64().unwrap(), "20s");
    assert!(done, "{said}");
    assert!(said.contains("note: it is over at about "), "{said}");
    assert_eq!(app.step(&connect), 0, "{said}");
    let rule = &host.status()["policies"][0]["rules"][0];
    assert!(rule["until"].is_string(), "{rule}");
    assert!(host.done(&["status"]).contains("until "));
    // What is wrong on the disk by then keeps nobody from taking it out.
    host.set("policies.d/broken.toml", BROKEN);
    let denied = wait_until(LIMIT, || app.step(&connect) == libc::ECONNREFUSED);
    assert!(denied, "{}", host.said());
    assert_eq!(host.generation().1, "time");
    // Nor does it come back with the generation before.
    host.done(&["rollback"]);
    assert_eq!(host.generation().1, "rollback");
    assert_eq!(app.step(&connect), libc::ECONNREFUSED);
}

#[test]
fn it_is_over_when_the_daemon_starts_after_its_time() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let _listening = Server::of(&host);
    let mut app = host.app();
    let connect = format!("tcp {BAIDU}:{ALLOWED}");
    host.set("policies.d/local.toml", &timed(10));
    host.done(&["reload"]);
    assert_eq!(app.step(&connect), 0);
    host.kill(false);
    host.set("policies.d/broken.toml", BROKEN);
    sleep(Duration::from_secs(11));
    host.start();
    assert_eq!(app.step(&connect), libc::ECONNREFUSED, "{}", host.said());
    assert_eq!(host.generation().1, "last");
    fs::remove_file(host.file("policies.d/broken.toml")).unwrap();
    let said = host.done(&["reload"]);
    assert!(said.contains("2 policies, 1 rule"), "{said}");
}

/// What was recorded is put in force without it where nothing is yet.
#[test]
fn it_is_over_when_what_ran_last_comes_back() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let _listening = Server::of(&host);
    let connect = format!("tcp {BAIDU}:{ALLOWED}");
    host.set("policies.d/local.toml", &timed(10));
    host.done(&["reload"]);
    assert_eq!(host.app().step(&connect), 0);
    host.kill(false);
    host.off();
    sleep(Duration::from_secs(11));
    let (status, said) = host.ends(host.command("boot"));
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(host.app().step(&connect), libc::ECONNREFUSED, "{said}");
    // The rest of it did.
    host.app().assert_enforced();
}

#[test]
fn another_start_of_the_machine_ends_it() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let _listening = Server::of(&host);
    let mut app = host.app();
    let boot = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    host.set("policies.d/local.toml", &until(&format!("{boot}+99999999999s")));
    let output = host.ask(&["reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("rule `a-while` is over"), "{said}");
    assert_eq!(app.step(&format!("tcp {BAIDU}:{ALLOWED}")), libc::ECONNREFUSED);
}

#[test]
fn what_it_let_pass_is_ended_with_it() {
    if !require_kernel() {
        return;
    }
    let host = Host::with_china();
    let server = Server::of(&host);
    let mut app = host.app();
    let mut local = timed(15);
    local = local.replace(&format!("\"{BAIDU}\""), "\"0.0.0.0/0\", \"::/0\"");
    local = local.replace(&format!("ports = [\"tcp/{ALLOWED}\"]\n"), "");
    host.set("policies.d/local.toml", &local);
    let deny = "[policy]\nname = \"all\"\ndefault = \"drop\"\n";
    host.set("policies.d/all.toml", deny);
    host.done(&["reload"]);
    let mut kept = Kept::open(&mut app);
    kept.assert_alive(&mut app, &server);
    assert!(wait_until(LIMIT, || host.generation().1 == "time"), "{}", host.said());
    for name in ["kept4", "kept6"] {
        let errno = app.step(&format!("say-until-ended {name}"));
        assert!([libc::ECONNABORTED, libc::EPIPE, libc::EPERM].contains(&errno), "{name}: {errno}");
    }
}
