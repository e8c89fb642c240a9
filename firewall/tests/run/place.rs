//! Where and as whom it runs, and beside and inside of what.

use std::process::Command;

use crate::{
    harness::{Net, require_kernel},
    support::{AMAZON, BAIDU, FIREWALL, FREE, Run, client, left_behind, own_program},
};

const CN: [&str; 2] = ["--policy", "cn-jurisdiction"];

fn curl(ip: &str) -> String {
    format!("curl -s --max-time 5 --noproxy '*' http://{ip}/")
}

#[test]
fn under_ip_netns_exec() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let web = net.serve_http(&["[::]:80"]);
    let capture = net.capture();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net.client.name(), FIREWALL]);
    let script = format!(
        "grep -q cgroup2 /proc/self/mountinfo && echo visible; {} >/dev/null && {}",
        curl(FREE),
        curl(BAIDU)
    );
    let outcome = Run::of(command, &CN).program(&["sh", "-c", &script]);
    outcome.assert_status(7);
    assert_eq!(outcome.stdout, "", "this is about a place where no cgroup2 is visible");
    let event = outcome.denied(BAIDU, 80, "tcp");
    assert_eq!(event["app"]["name"], "curl");
    assert!(event["app"]["cgroup"].as_str().is_some_and(|path| path.contains("firewall-run-")));
    capture.assert_nothing_to(BAIDU);
    assert_eq!(web.contacts().len(), 1);
    assert_eq!(left_behind(outcome.pid), Vec::<std::path::PathBuf>::new());
    outcome.assert_explained();
}

#[test]
fn killed_under_ip_netns_exec() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let capture = net.capture();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net.client.name(), FIREWALL]);
    let script = format!(
        "udp-sendto {FREE}:2001\nuntil 600 udp-sendto {BAIDU}:2001\nudp-sendto {FREE}:2002"
    );
    let mut run = Run::of(command, &CN).start_client(&script);
    run.wait_for_step("udp-sendto");
    // `ip netns exec` becomes what it runs.
    run.child.kill().expect("killing our own child");
    run.child.wait().expect("waiting for it");
    run.wait_for_step(&format!("udp-sendto {FREE}:2002"));
    let outcome = run.end();
    let line = format!("until 600 udp-sendto {BAIDU}:2001");
    assert_eq!(outcome.errno(&line), libc::ECONNREFUSED);
    capture.assert_nothing_to(BAIDU);
    let cleared = crate::harness::wait_until(std::time::Duration::from_secs(20), || {
        Run::new(&net, &CN).program(&["true"]).assert_status(0);
        left_behind(outcome.pid).is_empty()
    });
    assert!(cleared, "{:?}", left_behind(outcome.pid));
}

#[test]
fn as_another_user() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.serve_http(&["[::]:80"]);
    let capture = net.capture();
    let script =
        format!("echo $(id -un) $(id -u) $(id -gn) $HOME $USER; {} && {}", curl(FREE), curl(BAIDU));
    for (options, sudo_user) in [(&["--user", "nobody"][..], None), (&["--as-me"], Some("nobody"))]
    {
        let mut run = Run::new(&net, &[&CN[..], options].concat());
        run.command.env_remove("SUDO_USER");
        if let Some(user) = sudo_user {
            run.command.env("SUDO_USER", user);
        }
        let outcome = run.start(&["sh", "-c", &script]).end();
        outcome.assert_status(7);
        let expected = "nobody 65534 nogroup /nonexistent nobody\n";
        assert!(outcome.stdout.starts_with(expected), "{}", outcome.stdout);
        assert!(outcome.stdout.contains(" answers "), "{}", outcome.stdout);
        let event = outcome.denied(BAIDU, 80, "tcp");
        assert_eq!(event["app"]["uid"], 65534, "{event}");
        assert_eq!(event["app"]["user"], "nobody", "{event}");
        capture.assert_nothing_to(BAIDU);
    }
    let mut run = Run::new(&net, &["--policy", "baidu", "--as-me"]);
    run.command.env_remove("SUDO_USER");
    let outcome = run.program(&["true"]);
    outcome.assert_status(125);
    assert!(outcome.stderr.contains("SUDO_USER is not set"), "{}", outcome.stderr);
}

#[test]
fn two_at_once_do_not_mix() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let script = format!(
        "sleep 300\ntcp {BAIDU}:80\ntcp {FREE}:80\nudp-sendto {BAIDU}:81\nudp-sendto {FREE}:81"
    );
    let one = Run::new(&net, &["--deny", "country:CN"]).start_client(&script);
    let two = Run::new(&net, &["--deny", "country:FR"]).start_client(&script);
    let (one, two) = (one.end(), two.end());
    for (outcome, denied, allowed) in [(&one, BAIDU, FREE), (&two, FREE, BAIDU)] {
        assert_eq!(outcome.errno(&format!("tcp {denied}:80")), libc::ECONNREFUSED);
        assert_eq!(outcome.errno(&format!("udp-sendto {denied}:81")), libc::ECONNREFUSED);
        assert_eq!(outcome.errno(&format!("tcp {allowed}:80")), 0);
        assert_eq!(outcome.errno(&format!("udp-sendto {allowed}:81")), 0);
        let pid = outcome.steps[0].pid;
        assert!(outcome.events.iter().all(|event| event["app"]["pid"] == pid), "each has its own");
        outcome.assert_explained();
    }
}

#[test]
fn one_inside_another_passes_what_both_let_pass() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE, AMAZON]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let script = format!(
        "tcp {BAIDU}:80\ntcp {FREE}:80\ntcp [{AMAZON}]:80\nping {BAIDU}:0\nping {FREE}:0\n\
         ping [{AMAZON}]:0"
    );
    let mut run = Run::new(&net, &CN);
    let steps = run.directory().join("steps");
    let inner_log = run.directory().join("inner");
    client::prepare(&mut run.command, &script, &steps);
    let inner = inner_log.to_str().expect("UTF-8");
    let own = own_program();
    let words = [FIREWALL, "run", "--deny", "country:FR", "--log", inner, "--", &own, "--exact"];
    let run = run.start(&[&words[..], &[client::TEST]].concat());
    run.wait_for_step(&format!("ping [{AMAZON}]"));
    let outcome = run.end();
    outcome.assert_status(0);
    for ip in [BAIDU, FREE] {
        assert_eq!(outcome.errno(&format!("tcp {ip}:80")), libc::ECONNREFUSED);
        assert_eq!(outcome.errno(&format!("ping {ip}:0")), libc::EPERM);
        capture.assert_nothing_to(ip);
    }
    assert_eq!(outcome.errno(&format!("tcp [{AMAZON}]:80")), 0);
    assert!(!capture.to(AMAZON).is_empty());
    assert_eq!(outcome.denied(BAIDU, 80, "tcp")["rule"], "home-jurisdiction");
    assert!(outcome.find("deny", FREE, 80, "tcp").is_none(), "that was the inner one");
}
