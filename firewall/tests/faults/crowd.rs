//! An app that makes very many of something when it is told.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    harness::{CLIENT_V4, CLIENT_V6, Cgroup},
    host::Host,
    support::{
        client::{addr, check, sockaddr},
        dns, hello, own_program, quic,
    },
};

const ROLE: &str = "FIREWALL_FAULTS_CROWD";
/// What begins a line that is an answer, among those of the test runner.
const ANSWER: &str = "answer:";

/// Ended when it is dropped.
pub struct Crowd {
    child: Child,
    stdin: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Crowd {
    pub fn new(host: &Host, cgroup: &Cgroup) -> Self {
        let mut command = host.net.client_command(&own_program());
        cgroup.enter(&mut command);
        // So that nothing of it outlives a test that is killed.
        // SAFETY: between fork and exec it makes one system call.
        unsafe {
            command
                .pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map(drop));
        }
        command
            .args(["--exact", "crowd::crowd_of_a_fault", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("this test");
        let stdin = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdin, answers }
    }

    /// Has it begin with something.
    pub fn begin(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the crowd");
    }

    /// What came of it: two counts, of those that went well first.
    #[track_caller]
    pub fn end(&mut self) -> (u64, u64) {
        let mut line = String::new();
        while !line.starts_with(ANSWER) {
            line.clear();
            assert!(self.answers.read_line(&mut line).expect("the crowd") > 0, "it has ended");
        }
        let mut counts =
            line[ANSWER.len()..].split_whitespace().map(|word| word.parse().expect("a number"));
        (counts.next().expect("a count"), counts.next().expect("a count"))
    }

    /// Both.
    #[track_caller]
    pub fn does(&mut self, line: &str) -> (u64, u64) {
        self.begin(line);
        self.end()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn crowd_of_a_fault() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as much as may be");
    let mut crowd = Members::default();
    for line in io::stdin().lines() {
        let line = line.expect("a line");
        let (well, badly) = crowd.act(&line.split(' ').collect::<Vec<_>>());
        println!("\n{ANSWER} {well} {badly}");
    }
}

#[derive(Default)]
struct Members {
    sockets: Vec<UdpSocket>,
    listeners: Vec<TcpListener>,
    accepted: Vec<TcpStream>,
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a number")
}

/// How many of these went well, and how many did not.
fn count(done: impl Iterator<Item = bool>) -> (u64, u64) {
    done.fold((0, 0), |(well, badly), one| (well + u64::from(one), badly + u64::from(!one)))
}

impl Members {
    fn act(&mut self, words: &[&str]) -> (u64, u64) {
        match words {
            ["questions", many, to] => questions(number(many), addr(to)),
            ["initials", many, to, name] => initials(number(many), addr(to), name),
            ["listen", many, from] => self.listen(number(many), number(from)),
            ["accept", many] => self.accept(number(many)),
            ["greet"] => count(self.accepted.iter_mut().map(|one| one.write_all(b"hello").is_ok())),
            ["connect", many, from, first, second] => {
                self.connect(number(many), number(from), [addr(first), addr(second)])
            }
            ["say"] => count(self.sockets.iter().map(|one| one.send(b"x").is_ok())),
            ["sendto", many, to] => send_to(number(many), addr(to)),
            ["cgroups", many, folder, to] => count((0..number(many)).map(|number: u32| {
                in_cgroup(&Path::new(folder).join(number.to_string()), addr(to))
            })),
            ["execs", many, folder, to] => execs(number(many), Path::new(folder), addr(to)),
            other => panic!("nothing that a crowd does: {other:?}"),
        }
    }

    /// Listens at as many ports.
    fn listen(&mut self, many: u16, from: u16) -> (u64, u64) {
        let at = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        self.listeners = (from..from + many).map(|port| at(port).expect("a port")).collect();
        (self.listeners.len() as u64, 0)
    }

    /// Takes a connection at each listener that has one.
    fn accept(&mut self, many: usize) -> (u64, u64) {
        for listener in self.listeners.iter().take(many) {
            listener.set_nonblocking(true).expect("our own");
            self.accepted.extend(listener.accept().ok().map(|(stream, _)| stream));
        }
        (self.accepted.len() as u64, 0)
    }

    /// As many connected sockets, in turn to one and the other, with a datagram of each.
    fn connect(&mut self, many: u32, from: u16, to: [SocketAddr; 2]) -> (u64, u64) {
        count((0..many).map(|number| {
            let to = to[number as usize % 2];
            // The kernel would look long for the last ones.
            let port = from + (number / 2) as u16;
            let own: IpAddr = if to.is_ipv4() { CLIENT_V4.into() } else { CLIENT_V6.into() };
            let socket = UdpSocket::bind((own, port)).expect("a port");
            let sent = socket.connect(to).and_then(|()| socket.send(b"x"));
            self.sockets.push(socket);
            sent.is_ok()
        }))
    }
}

/// Questions of different names, each in a datagram of its own. Nobody waits for an answer.
fn questions(many: u32, to: SocketAddr) -> (u64, u64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    count((0..many).map(|number| {
        let question = dns::question(number as u16, &format!("x{number}.example"), "A");
        socket.send_to(&question, to).is_ok()
    }))
}

/// Initials of QUIC, each from a socket of its own.
fn initials(many: u32, to: SocketAddr, name: &str) -> (u64, u64) {
    let hello = &hello::client_hello("plain", name)[5..];
    count((0..many).map(|number| {
        let id = [&[0xab; 4][..], &number.to_be_bytes()].concat();
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(&quic::hello(quic::V1, &id, hello), to).is_ok()
    }))
}

/// From a fresh socket each.
fn send_to(many: u32, to: SocketAddr) -> (u64, u64) {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    count((0..many).map(|_| UdpSocket::bind(any).expect("a socket").send_to(b"x", to).is_ok()))
}

/// Of `linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A process that begins in a cgroup, sends a datagram and ends: whether it could.
fn in_cgroup(folder: &Path, to: SocketAddr) -> bool {
    fs::create_dir(folder).expect("a cgroup");
    let cgroup: OwnedFd = File::open(folder).expect("our own cgroup").into();
    // SAFETY: a plain structure of integers, for which zeros are valid.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = CLONE_INTO_CGROUP;
    how.exit_signal = libc::SIGCHLD as u64;
    how.cgroup = cgroup.as_raw_fd() as u64;
    let (address, length) = sockaddr(to);
    // SAFETY: as fork(2); the child makes system calls alone.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw mut how, size_of_val(&how)) };
    if child == 0 {
        // SAFETY: the address is valid for its length.
        unsafe {
            let socket = libc::socket(i32::from(address.ss_family), libc::SOCK_DGRAM, 0);
            let data = c"x".as_ptr().cast();
            let sent = libc::sendto(socket, data, 1, 0, (&raw const address).cast(), length);
            libc::_exit(i32::from(sent != 1));
        }
    }
    let child = check(child as i32).expect("a process in a cgroup");
    let mut status = 0;
    // SAFETY: the pointer is to an integer of our own.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) }).expect("our child");
    status == 0
}

/// Programs of that folder, each by another name, that send a datagram: with the number in its name even, or odd
/// to the next port.
fn execs(many: u32, folder: &Path, to: SocketAddr) -> (u64, u64) {
    let one = |number: u32| {
        let (name, port) = match number % 2 {
            0 => (format!("good-{number}"), to.port()),
            _ => (format!("bad-{number}"), crate::world::NOWHERE),
        };
        let program = folder.join(name);
        fs::hard_link(folder.join("shell"), &program).expect("a program");
        let reach = format!("echo x >/dev/udp/{}/{port}", to.ip());
        let mut command = Command::new(&program);
        let status = command.args(["-c", &reach]).stderr(Stdio::null()).status();
        fs::remove_file(&program).expect("our own file");
        // As it should be: an even one passes.
        status.expect("a shell").success() == number.is_multiple_of(2)
    };
    thread::scope(|scope| {
        let two = [0, 1].map(|half| {
            scope.spawn(move || count((0..many / 2).map(|number| one(half * (many / 2) + number))))
        });
        two.into_iter()
            .map(|one| one.join().expect("a thread"))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}
