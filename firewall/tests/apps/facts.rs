//! What events say of an app beside what decides.

use std::process::Command;

use serde_json::Value;

use crate::{
    harness::require_kernel,
    support::{FIREWALL, FREE, Run},
    world::{World, reach},
};

#[test]
fn an_event_says_what_is_known_and_apps_finds_it() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let text = |port| format!("#!/bin/bash -e\n{}\nsleep 0.5\n", reach(port));
    let tool = world.file("tool.sh", &text(1001));
    world.file("other.sh", &text(1002));
    let log = world.path("log");
    let (tool, place) = (tool.display(), world.path(""));
    let script = format!(
        "{tool} & cd {place} && setpriv --regid daemon --clear-groups /bin/bash ./x/../other.sh & wait",
        place = place.display()
    );
    world.file("x/made", "");
    let outcome = Run::new(&world.net, &["--policy", "watch-everything"]).log(&log).program(&[
        "/bin/bash",
        "-c",
        &script,
    ]);
    outcome.assert_status(0);
    let text = std::fs::read_to_string(&log).expect("the log");
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let app = |port: u16| {
        let event = events.iter().find(|event| event["dst"]["port"] == port);
        &event.unwrap_or_else(|| panic!("no event of {port}: {events:#?}"))["app"]
    };
    let bash = std::fs::canonicalize("/bin/bash").expect("a path");
    let bash = bash.to_str().expect("a path");
    let one = app(1001);
    assert_eq!(one["exe"], bash, "{one}");
    assert_eq!(one["script"], tool.to_string(), "{one}");
    assert_eq!(one["gid"], 0, "{one}");
    assert_eq!(one["parents"][0], bash, "{one}");
    assert!(one["parents"][1].as_str().is_some_and(|path| path.ends_with("/firewall")), "{one}");
    assert!(one["cgroup"].as_str().is_some_and(|path| path.contains("/firewall-run-")), "{one}");
    let other = app(1002);
    assert_eq!(other["script"], world.path("other.sh").display().to_string(), "{other}");
    let daemon = nix::unistd::Group::from_name("daemon").expect("groups").expect("daemon");
    assert_eq!(other["gid"], daemon.gid.as_raw(), "{other}");
    if let Ok(output) = Command::new("dpkg-query").args(["-W", "-f=${Version}", "bash"]).output()
        && output.status.success()
    {
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(one["package"], serde_json::json!({"name": "bash", "version": version}));
    }

    let selector = format!("script:{tool}");
    let output =
        Command::new(FIREWALL).args(["apps", "--json", "--app", &selector]).arg(&log).output();
    let output = output.expect("firewall apps");
    let found: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(found.len(), 1, "{output:?}");
    assert_eq!(found[0]["destinations"][0]["host"], FREE);
    assert_eq!(found[0]["flows"]["audit"], 1);
}
