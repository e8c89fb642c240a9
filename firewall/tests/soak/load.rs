//! The load: one app that goes on all the time, denied and allowed, and counts what it sees of it.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use crate::{
    harness::{Cgroup, Net, Resolver, wait_until},
    support::own_program,
};

/// Denied by address.
pub const DENIED: [&str; 2] = ["110.242.68.66", "2400:3200::1"];
/// Allowed by address, but denied by the name that the app knows them by.
pub const TRACKER: [&str; 2] = ["212.27.48.10", "2600:9000::10"];
/// Allowed by address.
pub const OPEN: [&str; 2] = ["43.109.38.198", "2001:df1:801::1"];
/// Allowed by name alone.
pub const NAMED: [&str; 2] = ["103.235.46.191", "2606:4700:4700::1111"];
/// Of which nothing speaks.
pub const OTHER: [&str; 2] = ["3.173.21.63", "2a00:1450:4001::5"];

/// The name of [`TRACKER`], and of [`NAMED`].
pub const NAMES: [&str; 2] = ["tracker.example", "good.example"];

/// Where the server echoes.
pub const TCP: u16 = 7000;
pub const UDP: u16 = 7001;

/// What an echo may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two sends of a thread.
const PAUSE: Duration = Duration::from_millis(5);

const FOLDER: &str = "FIREWALL_SOAK_LOAD";

/// The app, until it is dropped.
pub struct Load {
    child: Child,
    folder: PathBuf,
}

impl Load {
    /// Starts it, and waits until its flows are established.
    pub fn start(net: &Net, cgroup: &Cgroup, resolver: &Resolver, folder: &Path) -> Self {
        let mut command = Command::new(own_program());
        command
            .args(["--exact", "load::load_of_a_soak", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        net.client.enter(&mut command);
        cgroup.enter(&mut command);
        resolver.enter(&mut command);
        let child = command.spawn().expect("this test");
        let load = Self { child, folder: folder.to_owned() };
        let up = wait_until(Duration::from_secs(20), || load.folder.join("up").exists());
        assert!(up, "the flows that are allowed are not established");
        load
    }

    /// Sends what is denied as fast as it can, or no more.
    pub fn flood(&self, on: bool) {
        let file = self.folder.join("flood");
        let done = if on { fs::write(file, "") } else { fs::remove_file(file) };
        done.expect("the file `flood`");
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let text = fs::read_to_string(self.folder.join("counts")).expect("what was counted");
        let line = |line: &str| {
            let (name, count) = line.split_once('=').expect("a count");
            (name.to_owned(), count.parse().expect("a number"))
        };
        text.lines().map(line).collect()
    }

    /// Stops it, and returns what it counted.
    pub fn stop(mut self) -> Vec<(String, u64)> {
        fs::write(self.folder.join("stop"), "").expect("the file `stop`");
        let limit = PATIENCE + Duration::from_secs(10);
        let ended = wait_until(limit, || self.child.try_wait().is_ok_and(|end| end.is_some()));
        assert!(ended, "the load does not end");
        self.counts()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is counted.
#[derive(Default)]
struct Counts {
    denied: AtomicU64,
    passed: AtomicU64,
    flooded: AtomicU64,
    connects: AtomicU64,
    refused: AtomicU64,
    echoes: AtomicU64,
    broken: AtomicU64,
    datagrams: AtomicU64,
    lost: AtomicU64,
    resolved: AtomicU64,
    unresolved: AtomicU64,
    /// Flows that are established.
    up: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    /// Into a file that is always whole.
    fn write(&self, folder: &Path) {
        let text: String = [
            ("denied attempts", &self.denied),
            ("denied packets of the flood", &self.flooded),
            ("denied attempts that did not fail", &self.passed),
            ("allowed connections and datagrams of fresh sockets", &self.connects),
            ("of them refused", &self.refused),
            ("echoes on established TCP connections", &self.echoes),
            ("established TCP connections broken", &self.broken),
            ("datagrams on connected UDP sockets", &self.datagrams),
            ("of them lost", &self.lost),
            ("names looked up", &self.resolved),
            ("names not found", &self.unresolved),
        ]
        .iter()
        .map(|(name, count)| format!("{name}={}\n", count.load(Relaxed)))
        .collect();
        fs::write(folder.join("counts.new"), text).expect("a file");
        fs::rename(folder.join("counts.new"), folder.join("counts")).expect("our own files");
    }
}

/// What [`Load::start`] starts.
#[test]
fn load_of_a_soak() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let counts = &Counts::default();
    // Now and then the resolver is asked, so that names are learned while generations change.
    look_up(counts);
    thread::scope(|scope| {
        for ip in [OPEN, NAMED].concat() {
            scope.spawn(move || stream(counts, to(ip, TCP)));
            scope.spawn(move || datagrams(counts, to(ip, UDP)));
        }
        scope.spawn(|| fresh(counts));
        scope.spawn(|| denied(counts));
        scope.spawn(|| flood(counts, &folder));
        scope.spawn(|| {
            while counts.goes_on() {
                look_up(counts);
                sleep(20 * PAUSE);
            }
        });
        while !folder.join("stop").exists() {
            counts.write(&folder);
            if counts.up.load(Relaxed) == 2 * (OPEN.len() + NAMED.len()) as u64 {
                fs::write(folder.join("up"), "").expect("a file");
            }
            sleep(10 * PAUSE);
        }
        counts.stop.store(true, Relaxed);
    });
    counts.write(&folder);
}

fn to(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn count(result: io::Result<()>, well: &AtomicU64, badly: &AtomicU64, what: &str) -> bool {
    match &result {
        Ok(()) => well.fetch_add(1, Relaxed),
        Err(error) => {
            eprintln!("{what}: {error}");
            badly.fetch_add(1, Relaxed)
        }
    };
    result.is_ok()
}

/// Looks both names up, as any program does.
fn look_up(counts: &Counts) {
    for name in NAMES {
        let found = (name, TCP).to_socket_addrs().map(drop);
        count(found, &counts.resolved, &counts.unresolved, name);
    }
}

/// One connection that is kept for all the time.
fn stream(counts: &Counts, to: SocketAddr) {
    let mut number = 0_u64;
    while counts.goes_on() {
        let mut stream = match connect(to) {
            Ok(stream) => stream,
            Err(error) => {
                count(Err(error), &counts.echoes, &counts.broken, &format!("connect {to}"));
                sleep(PAUSE);
                continue;
            }
        };
        let mut first = true;
        while counts.goes_on() {
            number += 1;
            let echoed = echo(&mut stream, number);
            if !count(echoed, &counts.echoes, &counts.broken, &format!("stream {to}")) {
                break;
            }
            if std::mem::take(&mut first) {
                counts.up.fetch_add(1, Relaxed);
            }
            sleep(PAUSE);
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a number, which begins with zeros: so it is neither TLS, HTTP nor QUIC.
fn echo(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let mut back = [0; 8];
    stream.write_all(&number.to_be_bytes())?;
    stream.read_exact(&mut back)?;
    match u64::from_be_bytes(back) == number {
        true => Ok(()),
        false => Err(io::Error::other("another number came back")),
    }
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// One connected socket for all the time, with a number in each datagram.
fn datagrams(counts: &Counts, to: SocketAddr) {
    let socket = socket(to).expect("a socket");
    socket.connect(to).expect("a destination that is allowed");
    counts.up.fetch_add(1, Relaxed);
    let mut number = 0_u64;
    while counts.goes_on() {
        number += 1;
        let back = socket.send(&number.to_be_bytes()).and_then(|_| answer(&socket, number));
        count(back, &counts.datagrams, &counts.lost, &format!("datagram {to}"));
        sleep(PAUSE);
    }
}

/// Waits for a number; what comes before it is too late.
fn answer(socket: &UdpSocket, number: u64) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut back = [0; 8];
    while Instant::now() < end {
        if socket.recv(&mut back)? == 8 && u64::from_be_bytes(back) == number {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// What is allowed, from sockets that nothing is kept with.
fn fresh(counts: &Counts) {
    let mut number = 0;
    while counts.goes_on() {
        for ip in OPEN.iter().chain(&NAMED) {
            number += 1;
            let done = connect(to(ip, TCP)).and_then(|mut stream| echo(&mut stream, number));
            count(done, &counts.connects, &counts.refused, &format!("fresh TCP {ip}"));
            let done = socket(to(ip, UDP)).and_then(|socket| {
                socket.send_to(&u64::to_be_bytes(number), to(ip, UDP))?;
                answer(&socket, number)
            });
            count(done, &counts.connects, &counts.refused, &format!("fresh UDP {ip}"));
            sleep(PAUSE);
        }
    }
}

/// What is denied, in every way.
fn denied(counts: &Counts) {
    // Kept, and used for all destinations in turn.
    let kept = [OPEN[0], OPEN[1]].map(|ip| socket(to(ip, UDP)).expect("a socket"));
    while counts.goes_on() {
        for ip in DENIED.iter().chain(&TRACKER).chain(&OTHER) {
            let (tcp, udp) = (to(ip, TCP), to(ip, UDP));
            let kept = &kept[usize::from(udp.is_ipv6())];
            let fresh = socket(udp).expect("a socket");
            for (way, passed) in [
                ("TCP", TcpStream::connect_timeout(&tcp, PATIENCE).is_ok()),
                ("a fresh UDP socket", fresh.send_to(b"x", udp).is_ok()),
                ("a UDP socket", kept.send_to(b"x", udp).is_ok()),
                ("a connected UDP socket", fresh.connect(udp).is_ok() && fresh.send(b"x").is_ok()),
            ] {
                counts.denied.fetch_add(1, Relaxed);
                if passed {
                    eprintln!("{ip}: {way} was not refused");
                    counts.passed.fetch_add(1, Relaxed);
                }
            }
            sleep(PAUSE);
        }
    }
}

/// Sends what is denied as long as that is asked for, each time from a new socket: so each is an event.
fn flood(counts: &Counts, folder: &Path) {
    while counts.goes_on() {
        if !folder.join("flood").exists() {
            sleep(PAUSE);
            continue;
        }
        for port in 1..1000 {
            for ip in DENIED {
                let to = to(ip, port);
                if socket(to).and_then(|socket| socket.send_to(b"x", to)).is_ok() {
                    counts.passed.fetch_add(1, Relaxed);
                }
                counts.flooded.fetch_add(1, Relaxed);
            }
        }
    }
}
