//! How it ends: statuses, signals, and what is left.

use std::{
    os::{fd::FromRawFd as _, unix::process::CommandExt as _},
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::{
    harness::{Net, require_kernel, wait_until},
    support::{BAIDU, FIREWALL, FREE, LIMIT, Run, left_behind},
};

const CN: [&str; 2] = ["--policy", "cn-jurisdiction"];

fn firewall(words: &[&str]) -> Output {
    Command::new(FIREWALL).args(words).output().expect("the firewall")
}

#[test]
fn the_exit_status_is_that_of_the_command_or_says_whose_fault_it_was() {
    if !require_kernel() {
        return;
    }
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for (words, status, says) in [
        (&["sh", "-c", "exit 0"][..], 0, "0 denied"),
        (&["sh", "-c", "exit 7"], 7, "0 denied"),
        (&["sh", "-c", "exit 255"], 255, "0 denied"),
        (&["sh", "-c", "kill -KILL $$"], 137, "0 denied"),
        (&["sh", "-c", "kill -TERM $$"], 143, "0 denied"),
        (&["/nonexistent/program"], 127, "cannot run `/nonexistent/program`"),
        (&["no-such-program-anywhere"], 127, "cannot run `no-such-program-anywhere`"),
        (&["/etc/passwd"], 126, "cannot run `/etc/passwd`"),
        (&["/tmp"], 126, "cannot run `/tmp`"),
    ] {
        let output = firewall(&[&["run", "--policy", "baidu", "--"], words].concat());
        assert_eq!(output.status.code(), Some(status), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(says), "{words:?}: {}", said(&output));
    }
    for words in [
        &["run"][..],
        &["run", "--policy", "baidu"],
        &["run", "--no-such-option", "--", "true"],
        &["run", "--policy", "no-such-policy", "--", "true"],
        &["run", "--deny", "country:XX", "--", "true"],
        &["run", "--default", "maybe", "--", "true"],
        &["run", "--user", "no-such-user", "--", "true"],
        &["run", "--config", "/nonexistent.toml", "--", "true"],
        &["run", "--log", "/nonexistent/log", "--", "true"],
        &["run", "--geo", "/nonexistent.mmdb", "--deny", "country:CN", "--", "true"],
    ] {
        let output = firewall(words);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {}", said(&output));
        assert!(said(&output).contains("error: "), "{words:?}: {}", said(&output));
    }
}

#[test]
fn signals_are_passed_on() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let waits = "for s in TERM INT USR1 HUP; do trap \"echo got $s; exit 3\" $s; done; \
                 echo ready; while :; do sleep 0.02; done";
    for (signal, name) in [
        (libc::SIGTERM, "TERM"),
        (libc::SIGINT, "INT"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGHUP, "HUP"),
    ] {
        let run = Run::new(&net, &CN).start(&["sh", "-c", waits]);
        assert!(wait_until(LIMIT, || run.text("stdout") == "ready\n"), "{}", run.text("stderr"));
        run.signal(signal);
        let outcome = run.end();
        assert_eq!(outcome.stdout, format!("ready\ngot {name}\n"));
        outcome.assert_status(3);
        assert_eq!(left_behind(outcome.pid), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn what_is_left_running_is_ended_and_said() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let script = "sleep 611 & setsid sh -c 'sleep 612 & exec sleep 613' & sleep 0.3; exit 5";
    let outcome = Run::new(&net, &CN).program(&["sh", "-c", script]);
    outcome.assert_status(5);
    let line = outcome.stderr.lines().find(|line| line.contains("left running: "));
    assert_eq!(line.expect(&outcome.stderr).matches("sleep (").count(), 3, "{}", outcome.stderr);
    assert_eq!(left_behind(outcome.pid), Vec::<std::path::PathBuf>::new());
    assert_eq!(net.client.processes(), Vec::<u32>::new());
}

#[test]
fn nothing_is_left_after_an_interrupt() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let run = Run::new(&net, &CN).start(&["sh", "-c", "sleep 614 & echo ready; exec sleep 615"]);
    assert!(wait_until(LIMIT, || run.text("stdout") == "ready\n"), "{}", run.text("stderr"));
    assert_eq!(left_behind(run.pid()).len(), 2, "it is there while it runs");
    run.signal(libc::SIGINT);
    let outcome = run.end();
    outcome.assert_status(128 + libc::SIGINT);
    assert_eq!(left_behind(outcome.pid), Vec::<std::path::PathBuf>::new());
    assert_eq!(net.client.processes(), Vec::<u32>::new());
}

/// A terminal sends ctrl-C to the whole process group: the command must not get it twice.
#[test]
fn ctrl_c_at_a_terminal_arrives_once() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let (mut master, mut slave) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: writes two descriptors; the name and the settings are left out.
    let result =
        unsafe { libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast()) };
    assert_eq!(result, 0, "a terminal");
    // SAFETY: just made, and nobody else has them.
    let (mut master, slave) =
        unsafe { (std::fs::File::from_raw_fd(master), std::fs::File::from_raw_fd(slave)) };
    let mut run = Run::new(&net, &CN);
    let terminal = std::os::fd::AsRawFd::as_raw_fd(&slave);
    // SAFETY: between fork and exec the closure makes two system calls.
    unsafe {
        run.command.pre_exec(move || {
            crate::support::client::check(libc::setsid())?;
            crate::support::client::check(libc::ioctl(terminal, libc::TIOCSCTTY, 0)).map(|_| ())
        });
    }
    let counts = "n=0; trap 'n=$((n+1))' INT; echo ready; \
                  i=0; while [ $i -lt 40 ]; do sleep 0.02; i=$((i+1)); done; echo n=$n";
    let run = run.start(&["sh", "-c", counts]);
    assert!(wait_until(LIMIT, || run.text("stdout") == "ready\n"), "{}", run.text("stderr"));
    std::io::Write::write_all(&mut master, b"\x03").expect("ctrl-C");
    let outcome = run.end();
    assert_eq!(outcome.stdout, "ready\nn=1\n");
    outcome.assert_status(0);
}

#[test]
fn after_a_kill_the_command_stays_under_its_policy() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let _web = net.listen_tcp(&["[::]:80"]);
    let capture = net.capture();
    let script = format!(
        "udp-sendto {FREE}:2001\nuntil 6000 udp-sendto {BAIDU}:2001\ntcp {BAIDU}:80\n\
         ping {BAIDU}:0\ntcp {FREE}:80"
    );
    let mut run = Run::new(&net, &CN).start_client(&script);
    run.wait_for_step("udp-sendto");
    run.child.kill().expect("killing our own child");
    run.child.wait().expect("waiting for it");
    let pid = run.pid();
    assert_eq!(left_behind(pid).len(), 2, "what holds the command");
    let other = firewall(&["run", "--policy", "baidu", "--", "true"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("still hold what they started"));
    assert_eq!(left_behind(pid).len(), 2, "another run leaves it alone");

    run.wait_for_step(&format!("tcp {FREE}:80"));
    let outcome = run.end();
    for line in [format!("until 6000 udp-sendto {BAIDU}:2001"), format!("tcp {BAIDU}:80")] {
        assert_eq!(outcome.errno(&line), libc::ECONNREFUSED, "{line}");
    }
    assert_eq!(outcome.errno(&format!("ping {BAIDU}:0")), libc::EPERM);
    assert_eq!(outcome.errno(&format!("tcp {FREE}:80")), 0, "it does not cut off everything");
    capture.assert_nothing_to(BAIDU);

    let cleared = wait_until(Duration::from_secs(10), || {
        let status = firewall(&["run", "--policy", "baidu", "--", "true"]).status;
        status.success() && left_behind(pid).is_empty()
    });
    assert!(cleared, "{:?}", left_behind(pid));
}

#[test]
fn a_denied_command_does_not_wait() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU]);
    let started = Instant::now();
    Run::new(&net, &CN).program(&["true"]).assert_status(0);
    let bare = started.elapsed();
    let url = format!("http://{BAIDU}/");
    let outcome = Run::new(&net, &CN).program(&["curl", "-s", "--noproxy", "*", &url]);
    outcome.assert_status(7);
    assert!(outcome.took < bare + Duration::from_secs(1), "{:?}, {bare:?} bare", outcome.took);
}
