//! One run inside of another: each is asked, and what passes has passed both.

use std::{path::Path, time::Duration};

use crate::{
    harness::{require_kernel, require_names, wait_until},
    support::{self, AMAZON, FIREWALL, FREE, Outcome, Run, client, own_program, quic_client},
    world::{
        DENIED, DROPPED, ELSEWHERE, SINGAPORE, TORN, World, assert_fails, assert_learned,
        assert_passes, assert_rule, denied,
    },
};

/// What the two said of one script: the steps are the same.
struct Nested {
    outer: Outcome,
    inner: Outcome,
}

impl Nested {
    /// Runs a script to its end.
    #[track_caller]
    fn script(world: &World, outer: &[&str], inner: &[&str], lines: &[&str]) -> Self {
        let log = world.file("inner.log", "");
        let mut run = world.start(outer);
        let steps = run.directory().join("steps");
        client::prepare(&mut run.command, &lines.join("\n"), &steps);
        let own = own_program();
        let command = ["--log", &log, "--", &own, "--exact", client::TEST];
        let outer = run.program(&[&[FIREWALL, "run"], inner, &command].concat());
        outer.assert_status(0);
        let inner = outer.with_events(&std::fs::read_to_string(&log).expect("the inner log"));
        for event in outer.events.iter().chain(&inner.events) {
            support::assert_keys(event);
        }
        Self { outer, inner }
    }

    /// The summaries: the inner one ends first.
    fn summaries(&self) -> Vec<&str> {
        let lines = self.outer.stderr.lines().filter_map(|line| line.strip_prefix("firewall: "));
        lines.filter(|line| line.contains(" denied, ")).collect()
    }
}

/// How many verdicts of a kind there are, repeats counted.
fn count(outcome: &Outcome, verdict: &str) -> u64 {
    let of = outcome.events.iter().filter(|event| event["verdict"] == verdict);
    of.filter_map(|event| event["count"].as_u64()).sum()
}

/// Names in questions, answers, hellos and requests: each denies its own and notes its own.
#[test]
fn names_pass_if_both_let_them_pass() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["hm.baidu.com"], "");
    let outer = ["--policy", &policy, "--deny", "domain:shop.example"];
    let inner = ["--deny", "domain:evilbaidu.com"];
    let lines = [
        "dns 10.200.0.1:53 hm.baidu.com A",
        "dns 10.200.0.1:53 evilbaidu.com A",
        "dns-tcp 10.200.0.1:53 shop.example A whole",
        "dns 10.200.0.1:53 good.example A",
        "dns-tcp 10.200.0.1:53 good.example A whole",
        &format!("tls {ELSEWHERE}:443 plain hm.baidu.com whole"),
        &format!("tls {ELSEWHERE}:443 plain evilbaidu.com 100"),
        &format!("tls {ELSEWHERE}:443 plain good.example 100"),
        &format!("http {FREE}:80 evilbaidu.com whole"),
        &format!("http {FREE}:80 good.example whole"),
        &format!("tcp {FREE}:80"),
    ];
    let said = Nested::script(&world, &outer, &inner, &lines);
    assert_fails(&said.outer, lines[0], &DROPPED);
    assert_fails(&said.outer, lines[1], &DROPPED);
    assert_fails(&said.outer, lines[2], &TORN);
    for line in [lines[5], lines[6], lines[8]] {
        assert_fails(&said.outer, line, &TORN);
    }
    for line in [lines[3], lines[4], lines[7], lines[9], lines[10]] {
        assert_passes(&said.outer, line);
    }
    assert_rule(denied(&said.outer, "dns", "hm.baidu.com"), "hm.baidu.com");
    denied(&said.outer, "dns", "shop.example");
    denied(&said.outer, "tls", "hm.baidu.com");
    denied(&said.inner, "dns", "evilbaidu.com");
    denied(&said.inner, "tls", "evilbaidu.com");
    denied(&said.inner, "http", "evilbaidu.com");
    let of_the_other = |outcome: &Outcome, name: &str| {
        outcome.events.iter().any(|e| e["verdict"] == "deny" && e["host"]["name"] == name)
    };
    assert!(!of_the_other(&said.outer, "evilbaidu.com"), "{:#?}", said.outer.events);
    assert!(!of_the_other(&said.inner, "hm.baidu.com"), "{:#?}", said.inner.events);
    for name in ["hm.baidu.com", "evilbaidu.com", "shop.example"] {
        world.assert_never_asked(name);
    }
    let summaries = said.summaries();
    assert_eq!(summaries.len(), 2, "{}", said.outer.stderr);
    for (summary, outcome) in summaries.iter().zip([&said.inner, &said.outer]) {
        let denied = count(outcome, "deny");
        assert!(summary.starts_with(&format!("{denied} denied, ")), "{summary}: {denied}");
    }
}

/// What an answer told holds in both, also where only one of them denies by it.
#[test]
fn addresses_are_known_by_their_names_in_both() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["bad.example"], "ports = [\"tcp/80\"]");
    let inner = world.file(
        "inner.toml",
        "[policy]\nname = \"inner\"\n[[rule]]\nname = \"far\"\naction = \"drop\"\n\
         to = { domains = [\"far.example\"] }\nports = [\"tcp/80\"]\n",
    );
    let lines = [
        "dns 10.200.0.1:53 bad.example A",
        "dns 10.200.0.1:53 far.example AAAA",
        &format!("tcp {FREE}:80"),
        &format!("tcp [{AMAZON}]:80"),
        &format!("tcp {ELSEWHERE}:80"),
    ];
    let said = Nested::script(&world, &["--policy", &policy], &["--policy", &inner], &lines);
    for line in [lines[0], lines[1], lines[4]] {
        assert_passes(&said.outer, line);
    }
    for line in [lines[2], lines[3]] {
        assert_fails(&said.outer, line, &DENIED);
    }
    for (outcome, ip, name) in
        [(&said.outer, FREE, "bad.example"), (&said.inner, AMAZON, "far.example")]
    {
        let event = outcome.denied(ip, 80, "tcp");
        assert_eq!(event["host"]["name"], name, "{event}");
        assert_learned(event, "dns", "unique");
        world.capture.assert_nothing_to(ip);
    }
    assert!(said.outer.find("deny", AMAZON, 80, "tcp").is_none());
    assert!(said.inner.find("deny", FREE, 80, "tcp").is_none());
}

#[test]
fn nobody_inside_allows_what_the_outside_denies() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let only_good = ["--default", "drop", "--allow", "domain:good.example"];
    let all = ["--default", "allow", "--allow", "net:0.0.0.0/0", "--allow", "net:::/0"];
    let lines = [
        "dns 10.200.0.1:53 bad.example A",
        "dns 10.200.0.1:53 good.example A",
        &format!("tcp {FREE}:80"),
        &format!("tcp {ELSEWHERE}:80"),
        &format!("udp-sendto {ELSEWHERE}:2001"),
        &format!("ping {ELSEWHERE}:0"),
    ];
    for (outer, inner) in [(&only_good[..], &all[..]), (&all, &only_good)] {
        let said = Nested::script(&world, outer, inner, &lines);
        assert_fails(&said.outer, lines[0], &DROPPED);
        assert_passes(&said.outer, lines[1]);
        assert_passes(&said.outer, lines[2]);
        assert_fails(&said.outer, lines[3], &DENIED);
        assert_fails(&said.outer, lines[4], &DENIED);
        assert_fails(&said.outer, lines[5], &DROPPED);
        let (strict, open) = if outer == only_good {
            (&said.outer, &said.inner)
        } else {
            (&said.inner, &said.outer)
        };
        assert_eq!(strict.denied(ELSEWHERE, 80, "tcp")["reason"], "default");
        assert_eq!(count(open, "deny"), 0, "{:#?}", open.events);
        world.capture.assert_nothing_to(ELSEWHERE);
        world.assert_never_asked("bad.example");
    }
}

/// Each holds the first packet of a connection back until it has read it.
#[test]
fn names_in_quic_pass_if_both_let_them_pass() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let server = world.net.answer_udp(&["[::]:443"], |datagram, _| quic_client::answer(datagram));
    let policy = world.deny(&["hm.baidu.com"], "");
    let mut lines = Vec::new();
    for version in ["v1", "v2"] {
        for shape in ["whole", "crumbs", "connected"] {
            for (ip, name) in
                [(ELSEWHERE, "hm.baidu.com"), (SINGAPORE, "evilbaidu.com"), (FREE, "good.example")]
            {
                lines.push(format!("quic {ip}:443 {version} {shape} {name}"));
            }
        }
    }
    let steps: Vec<&str> = lines.iter().map(String::as_str).collect();
    let inner = ["--deny", "domain:evilbaidu.com"];
    let said = Nested::script(&world, &["--policy", &policy], &inner, &steps);
    for line in steps {
        let errno = said.outer.errno(line);
        match line.ends_with("good.example") {
            true => assert_eq!(errno, 0, "{line}: {:#?}", said.outer.events),
            // Where the other one holds a packet back, a deny of it is silent too.
            false => assert!([libc::EPERM, libc::ETIMEDOUT].contains(&errno), "{line}: {errno}"),
        }
    }
    assert_rule(denied(&said.outer, "quic", "hm.baidu.com"), "hm.baidu.com");
    denied(&said.inner, "quic", "evilbaidu.com");
    let arrived: Vec<String> =
        server.contacts().iter().map(|contact| contact.to.ip().to_string()).collect();
    assert!(arrived.iter().all(|ip| ip == FREE), "{arrived:?}");
}

/// What is left inside is ended, the inner run with its cgroup and pins too.
#[test]
fn what_is_left_of_an_inner_run_is_cleared_up() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let pid_file = world.file("pid", "");
    let started = world.file("started", "");
    let script = format!(
        "{FIREWALL} run --quiet --policy baidu -- sh -c 'echo yes > {started}; sleep 300' & \
         echo $! > {pid_file}; until [ -s {started} ]; do sleep 0.05; done"
    );
    let outcome = world.start(&["--policy", "baidu"]).program(&["sh", "-c", &script]);
    outcome.assert_status(0);
    assert!(outcome.stderr.contains("ended what the command left running: "), "{}", outcome.stderr);
    let inner = std::fs::read_to_string(Path::new(&pid_file)).expect("the number");
    let inner: u32 = inner.trim().parse().expect("a number");
    let left = || [support::left_behind(outcome.pid), support::left_behind(inner)].concat();
    // The inner one was killed: the next run finds what it left.
    let cleared = wait_until(Duration::from_secs(20), || {
        Run::new(&world.net, &["--policy", "baidu"]).program(&["true"]).assert_status(0);
        left().is_empty()
    });
    assert!(cleared, "{:?}", left());
}
