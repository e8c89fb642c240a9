//! What can be in the way of a connection, each put between a client and a server of its own.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use firewall::intel::{country::Country, geo::Geo};
use tempfile::TempDir;

use crate::{
    client::{Done, Task},
    daemon::Daemon,
    harness::{Cgroup, Net, SERVER_V4, program, wait_until},
    server,
};

/// Registered in FR.
pub const ALLOWED: IpAddr = IpAddr::V4(Ipv4Addr::new(212, 27, 48, 10));
/// Registered in CN.
const DENIED: IpAddr = IpAddr::V4(Ipv4Addr::new(110, 242, 68, 66));

/// Columns of the kernel's `nfqnl_seq_show`: packets that wait, and the number of the last one.
const WAITING: usize = 2;
const LAST: usize = 7;

/// After each turn, for what happens in user space with no queue to look at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long until something is in force.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    None,
    /// This one, as a daemon with every shipped policy that goes by countries and names.
    Firewall,
    /// The same, and at the interfaces.
    Backstop,
    /// Sets with the networks of a country, asked for each packet.
    Nftables,
    /// With one rule, that allows all, and no window.
    OpenSnitch,
}

/// A client behind a variant, and a server.
pub struct Host {
    pub variant: Variant,
    client: Peer,
    guard: Guard,
    // After what runs in them.
    _server: Peer,
    _cgroup: Cgroup,
    net: Net,
}

/// What has to end with the host.
enum Guard {
    /// Ends with the namespace.
    Nothing,
    Daemon(Daemon),
    Program(Running),
}

impl Variant {
    pub const ALL: [Self; 5] =
        [Self::None, Self::Firewall, Self::Backstop, Self::Nftables, Self::OpenSnitch];

    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "no firewall",
            Self::Firewall => "firewall",
            Self::Backstop => "firewall, backstop",
            Self::Nftables => "nftables",
            Self::OpenSnitch => "OpenSnitch",
        }
    }

    /// What has to be installed, if it is not.
    pub fn missing(self) -> Option<String> {
        let needed: &[(&str, &str)] = match self {
            Self::None | Self::Firewall | Self::Backstop => &[],
            Self::Nftables => &[("nft", "nftables")],
            // The package does not depend on what it puts its rules in place with.
            Self::OpenSnitch => &[("opensnitchd", "opensnitch"), ("iptables", "iptables")],
        };
        let missing: Vec<&str> = needed
            .iter()
            .filter(|(name, _)| program(name).is_none())
            .map(|(_, package)| *package)
            .collect();
        (!missing.is_empty())
            .then(|| format!("not installed: apt-get install {}", missing.join(" ")))
    }

    fn put_in_place(self, net: &Net, cgroup: &Cgroup) -> Result<Guard> {
        match self {
            Self::None => Ok(Guard::Nothing),
            Self::Firewall => firewall(net, cgroup, "").map(Guard::Daemon),
            Self::Backstop => firewall(net, cgroup, "backstop = \"on\"\n").map(Guard::Daemon),
            Self::Nftables => nftables(net).map(|()| Guard::Nothing),
            Self::OpenSnitch => opensnitch(net).map(Guard::Program),
        }
    }
}

impl Host {
    pub fn new(variant: Variant, [client, server]: [usize; 2]) -> Result<Self> {
        let net = Net::new(&[ALLOWED, DENIED].map(|ip| ip.to_string()));
        let cgroup = Cgroup::new();
        let own = std::env::current_exe()?;
        let mut command = net.server.command(&own);
        let mut server = Peer::start(command.arg("server").arg(server.to_string()))?;
        ensure!(server.line()? == "ready", "the server does not serve");
        let mut command = net.client.command(&own);
        cgroup.enter(&mut command);
        let client = Peer::start(command.arg("client").arg(client.to_string()))?;
        let guard = variant.put_in_place(&net, &cgroup)?;
        let mut host = Self { variant, client, guard, _server: server, _cgroup: cgroup, net };
        let mut last = Ok(());
        wait_until(LIMIT, || {
            last = host.assert_in_force();
            last.is_ok()
        });
        last.map(|()| host)
    }

    /// Has the client do something, which takes as long as it takes.
    pub fn ask(&mut self, task: &Task) -> Result<Done> {
        let done = self.client.ask(task);
        done.with_context(|| format!("{}{}", self.variant.name(), self.guard.said()))
    }

    /// What is measured gets through, and what the variant has to stop does not.
    pub fn assert_in_force(&mut self) -> Result<()> {
        let seen = self.queues(LAST)?;
        let mut errno = |ip| {
            let to = SocketAddr::new(ip, server::DATAGRAMS);
            match self.client.ask(&Task::Try { to })? {
                Done::Errno(errno) => Ok(errno),
                done => bail!("the client did something else: {done:?}"),
            }
        };
        let (allowed, denied) = (errno(ALLOWED)?, errno(DENIED)?);
        let expected = match self.variant {
            Variant::None | Variant::OpenSnitch => 0,
            Variant::Firewall | Variant::Backstop => libc::ECONNREFUSED,
            Variant::Nftables => libc::EPERM,
        };
        let name = self.variant.name();
        ensure!(allowed == 0, "{name}: what is measured fails with errno {allowed}");
        ensure!(
            denied == expected,
            "{name} is not in force: a send to China gives errno {denied}, not {expected}{}",
            self.guard.said()
        );
        ensure!(
            self.variant != Variant::OpenSnitch || self.queues(LAST)? >= seen + 2,
            "{name} is not in force: it is not asked about packets{}",
            self.guard.said()
        );
        Ok(())
    }

    /// Waits until what the variant does in user space is done, which the next turn is not to pay for.
    pub fn settle(&self) -> Result<()> {
        let mut waiting = Ok(1);
        wait_until(LIMIT, || {
            waiting = self.queues(WAITING);
            !matches!(waiting, Ok(1..))
        });
        ensure!(waiting? == 0, "{}: packets wait for a verdict", self.variant.name());
        thread::sleep(PAUSE);
        Ok(())
    }

    /// A column of the queues to user space, over all of them.
    fn queues(&self, column: usize) -> Result<u64> {
        let path = "/proc/thread-self/net/netfilter/nfnetlink_queue";
        if self.variant != Variant::OpenSnitch {
            return Ok(0);
        }
        let queues = self.net.in_client(|| fs::read_to_string(path)).context(path)?;
        let number = |queue: &str| queue.split_whitespace().nth(column)?.parse::<u64>().ok();
        queues.lines().map(|queue| number(queue).with_context(|| format!("{path}: {queue}"))).sum()
    }
}

impl Guard {
    fn said(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Daemon(daemon) => format!(":\n{}", daemon.said()),
            Self::Program(running) => format!(":\n{}", running.said()),
        }
    }
}

fn firewall(net: &Net, cgroup: &Cgroup, settings: &str) -> Result<Daemon> {
    let resolver = format!("resolvers = [\"{SERVER_V4}\"]\nupstreams = [\"{SERVER_V4}\"]\n");
    let mut daemon = Daemon::new(&(resolver + settings))?;
    daemon.enable_shipped()?;
    daemon.start(&net.client, cgroup)?;
    daemon.wait()?;
    Ok(daemon)
}

/// As a country is blocked with nftables: one look-up in a set for each packet.
fn nftables(net: &Net) -> Result<()> {
    let (geo, china) = (Geo::embedded()?, Country::from_code("CN").context("no such country")?);
    let mut v4 = String::new();
    let mut v6 = String::new();
    for (range, _) in geo.ranges_v4().filter(|(_, country)| *country == china) {
        let [first, last] = [*range.start(), *range.end()].map(Ipv4Addr::from);
        write!(v4, "{first}-{last},")?;
    }
    for (range, _) in geo.ranges_v6().filter(|(_, country)| *country == china) {
        let [first, last] = [*range.start(), *range.end()].map(Ipv6Addr::from);
        write!(v6, "{first}-{last},")?;
    }
    let rules = format!(
        "table inet country {{
            set v4 {{ type ipv4_addr; flags interval; elements = {{ {v4} }} }}
            set v6 {{ type ipv6_addr; flags interval; elements = {{ {v6} }} }}
            chain output {{
                type filter hook output priority filter; policy accept;
                ip daddr @v4 drop
                ip6 daddr @v6 drop
            }}
        }}"
    );
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(rules.as_bytes())?;
    let nft = program("nft").context("no nft")?;
    let output = net.client.command(nft).arg("-f").arg(file.path()).output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// In the client's namespace alone: there are its rules, and there it is asked.
fn opensnitch(net: &Net) -> Result<Running> {
    let directory = tempfile::tempdir()?;
    let rules = directory.path().join("rules");
    fs::create_dir(&rules)?;
    let operator = serde_json::json!({
        "type": "simple", "operand": "true", "sensitive": false, "data": "", "list": [],
    });
    let rule = serde_json::json!({
        "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "name": "allow-all",
        "enabled": true, "precedence": false, "action": "allow", "duration": "always",
        "operator": operator,
    });
    fs::write(rules.join("allow-all.json"), rule.to_string())?;
    let log = directory.path().join("said");
    let said = File::create(&log)?;
    let mut command = net.client.command(program("opensnitchd").context("no opensnitchd")?);
    command
        .arg("-rules-path")
        .arg(&rules)
        .arg("-log-file")
        .arg(&log)
        .arg("-ui-socket")
        .arg(format!("unix://{}", directory.path().join("nobody").display()))
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said);
    Ok(Running { child: command.spawn()?, directory })
}

/// A program that says things. Ended when it is dropped.
struct Running {
    child: Child,
    directory: TempDir,
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(self.directory.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program in another role. Ended when it is dropped.
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = BufReader::new(stdout.context("no pipe")?);
        Ok(Self { child, stdin: stdin.context("no pipe")?, stdout })
    }

    fn ask(&mut self, task: &Task) -> Result<Done> {
        writeln!(self.stdin, "{}", serde_json::to_string(task)?)?;
        let line = self.line().with_context(|| format!("the client cannot: {task:?}"))?;
        Ok(serde_json::from_str(&line)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "it has ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
