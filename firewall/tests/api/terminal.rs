//! `firewall watch` on a terminal.

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    harness::wait_until,
    world::{Daemon, LIMIT, event},
};

/// A terminal, and what was written on it.
struct Terminal {
    user: File,
    end: OwnedFd,
    text: Arc<Mutex<String>>,
}

impl Terminal {
    fn new(columns: u16) -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let path = ptsname(&user, Vec::new()).unwrap();
        let end = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let terminal = Self { user: user.into(), end: end.into(), text: Arc::default() };
        terminal.resize(columns);
        let (mut from, text) = (terminal.user.try_clone().unwrap(), Arc::clone(&terminal.text));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It fails when nobody has the other end open any more.
            while let Ok(number @ 1..) = from.read(&mut buffer) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..number]));
            }
        });
        terminal
    }

    fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.user, size).unwrap();
    }

    fn watch(&self, daemon: &Daemon, variables: &[(&str, &str)]) -> Child {
        let mut command = daemon.command(&["watch"]);
        command.env_remove("NO_COLOR").env("TZ", "UTC").envs(variables.iter().copied());
        command.stdin(self.end.try_clone().unwrap()).stdout(self.end.try_clone().unwrap());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        assert!(wait_until(LIMIT, || daemon.verdicts.receiver_count() == 1), "it watches");
        child
    }

    fn shows(&self, text: &str) {
        let found = || self.text.lock().unwrap().contains(text);
        assert!(wait_until(LIMIT, found), "{text:?} in {:?}", self.text.lock().unwrap());
    }
}

#[test]
fn a_table_above_its_sums() {
    let daemon = Daemon::new();
    let terminal = Terminal::new(80);
    let modes = format!("{:?}", tcgetattr(&terminal.end).unwrap());
    let mut watch = terminal.watch(&daemon, &[]);
    let send = |line: &str| drop(daemon.verdicts.send(line.into()));
    send(&event(1, "deny", "b.example\u{1b}[2J\n", "ada"));
    terminal.shows(
        "       1 01:25:01 \u{1b}[1;31mdeny \u{1b}[0m curl        b.example?[2J?          HK web/ads\r\n",
    );
    terminal.shows("deny 1  audit 0  allow 0  ");
    send(r#"{"schema":1,"kind":"lost","count":7}"#);
    send("no event");
    terminal.shows("lost 7  not understood 1");
    terminal.resize(200);
    send(&event(2, "allow", "c.example", "ada"));
    terminal.shows("WHERE");
    terminal.shows(" HK baidu ");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(watch.id().cast_signed()),
        nix::sys::signal::SIGINT,
    )
    .unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(130));
    terminal.shows("\r\u{1b}[Jdeny 1  audit 0  allow 1  ");
    assert!(wait_until(LIMIT, || terminal.text.lock().unwrap().ends_with("\r\n")));
    assert_eq!(format!("{:?}", tcgetattr(&terminal.end).unwrap()), modes);
    // Nothing that the name says is obeyed.
    assert!(!terminal.text.lock().unwrap().contains("\u{1b}[2J"));
}

#[test]
fn without_colour_and_until_the_daemon_stops() {
    let daemon = Daemon::new();
    let terminal = Terminal::new(80);
    let mut watch = terminal.watch(&daemon, &[("NO_COLOR", "1")]);
    daemon.verdicts.send(event(1, "deny", "b.example", "ada").as_str().into()).unwrap();
    terminal.shows(" deny  curl ");
    drop(daemon);
    let mut err = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(
        (watch.wait().unwrap().code(), err.as_str()),
        (Some(0), "note: the daemon has stopped\n")
    );
    terminal.shows("\r\u{1b}[Jdeny 1  audit 0  allow 0  ");
    let text = terminal.text.lock().unwrap().clone();
    assert!(text.matches('\u{1b}').count() == text.matches("\u{1b}[J").count(), "{text:?}");
}
