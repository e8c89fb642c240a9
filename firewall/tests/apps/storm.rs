//! Very many processes in a short time.

use std::{
    env,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::{
    harness::{require_kernel, wait_until},
    support::{FREE, Run, own_program},
    world::World,
};

/// For how long, unless this says otherwise.
const SECONDS: &str = "FIREWALL_STORM_SECONDS";

/// Where the shells are, told to who starts them.
const PLACE: &str = "FIREWALL_STORM_PLACE";

/// Shells of different names; the port says which it was.
const SHELLS: usize = 8;

/// Executions for each flow.
const EACH: u64 = 8;

/// Memory in KiB that `firewall run` may take more at the end: what it remembers of apps is bounded.
const GROWTH: u64 = 8 << 10;

#[test]
fn a_storm_of_execs_loses_no_identity_and_leaks_no_memory() {
    if !require_kernel() {
        return;
    }
    let seconds: u64 = env::var(SECONDS).map_or(4, |text| text.parse().expect("seconds"));
    let world = World::new();
    let policy = world.policy("allow", &[("all", "log", String::new())]).display().to_string();
    let shells: Vec<String> = (0..SHELLS)
        .map(|number| world.shell(&format!("shell{number}")).display().to_string())
        .collect();
    let mut run = Run::new(&world.net, &["--policy", &policy]);
    run.command.env(PLACE, world.path("")).env(SECONDS, seconds.to_string());
    let run = run.start(&[&own_program(), "--exact", "--nocapture", "storm::storm_of_a_run"]);
    assert!(wait_until(Duration::from_secs(20), || !run.text("log").is_empty()), "no flow");
    let before = resident(run.pid());
    let limit = Duration::from_secs(seconds + 30);
    // The last value of a process that still runs.
    let mut after = before;
    let ended = wait_until(limit, || {
        let now = resident(run.pid());
        after = if now == 0 { after } else { now };
        run.text("stdout").contains("execs=")
    });
    assert!(ended, "{}", run.text("stderr"));
    let outcome = run.end();
    outcome.assert_status(0);
    let execs: u64 = outcome
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("execs=")?.parse::<u64>().ok())
        .sum();
    let mut flows = 0;
    for event in outcome.on(FREE) {
        let number = event["dst"]["port"].as_u64().expect("a port") as usize - 2000;
        assert_eq!(event["app"]["exe"], shells[number], "{event}");
        flows += event["count"].as_u64().expect("a count");
    }
    println!("{execs} execs in {seconds} s, {flows} flows, {before} KiB before, {after} after");
    assert_eq!(flows, execs / EACH, "{}", outcome.stderr);
    assert!(after < before + GROWTH, "{before} KiB at first, {after} at the end");
    assert!(!outcome.events.iter().any(|event| event["kind"] == "lost"), "{}", outcome.stderr);
}

/// What `firewall run` starts for this: starts others, most of which only end.
#[test]
fn storm_of_a_run() {
    let Some(place) = env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    let seconds: u64 = env::var(SECONDS).expect("seconds").parse().expect("seconds");
    // After the first event has come.
    one_flow(place, 0).wait().expect("a shell ends");
    std::thread::sleep(Duration::from_secs(1));
    let end = Instant::now() + Duration::from_secs(seconds);
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    let mut flows = 0;
                    while Instant::now() < end {
                        let mut children: Vec<Child> = (1..EACH)
                            .map(|_| Command::new("/bin/true").spawn().expect("a program"))
                            .collect();
                        children.push(one_flow(place, (thread + 3 * flows) % SHELLS));
                        for mut child in children {
                            child.wait().expect("a child ends");
                        }
                        flows += 1;
                    }
                    flows
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum::<usize>()
    });
    println!("execs={}", (started + 1) * EACH as usize);
}

fn one_flow(place: &Path, number: usize) -> Child {
    let reach = format!("echo x >/dev/udp/{FREE}/{}", 2000 + number);
    Command::new(place.join(format!("shell{number}")))
        .args(["-c", &reach])
        .spawn()
        .expect("a shell")
}

/// Resident memory of a process in KiB; 0 if it is gone.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
