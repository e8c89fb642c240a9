//! What the firewall takes in user space: until policies are in the kernel, until a started daemon denies,
//! and memory. A part of `cargo xtask bench`.
#![allow(clippy::print_stderr, reason = "a tool for people")]
#![allow(clippy::expect_used, reason = "the harness panics, too")]

mod common;
#[path = "common/daemon.rs"]
mod daemon;
#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "common/world.rs"]
mod world;

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use common::{
    milliseconds,
    report::{Goal, Row, tell_machine},
    timed,
};
use daemon::Daemon;
use firewall::{
    datapath::{OBJECT, apply, load::load},
    intel::Intel,
    policy::compile::Settings,
};
use harness::{Cgroup, Net};

const PART: &str = "space";

/// Milliseconds for verification and load of all programs.
const PROGRAMS: f64 = 250.0;
/// Milliseconds until a million names and the world are in the kernel.
const COLD: f64 = 1_000.0;
/// Milliseconds for a reload that does not change them.
const RELOAD: f64 = 100.0;
/// Megabytes that the daemon has, with the shipped policies.
const MEMORY: f64 = 30.0;
/// The same with a million names.
const MEMORY_NAMES: f64 = 80.0;

/// Registered in CN: denied by a shipped policy, and by [`DENY`].
const DENIED: [u8; 4] = [110, 242, 68, 66];
/// A policy beside the names and the world, which allow.
const DENY: &str = "[policy]\nname = \"deny\"\npriority = 1\n[[rule]]\nname = \"one\"\naction = \"drop\"\n\
     to = { networks = [\"110.242.68.66/32\"] }\n";
/// One that says nothing about the names and the world.
const ANOTHER: &str = "[policy]\nname = \"another\"\n[[rule]]\nname = \"one\"\naction = \"drop\"\n\
     to = { networks = [\"192.0.2.0/24\"] }\n";

/// How long a daemon may take until it denies.
const LIMIT: Duration = Duration::from_secs(60);
/// How long memory may settle after the last thing that was asked.
const SETTLED: Duration = Duration::from_secs(2);

/// What the firewall takes in user space
#[derive(Parser)]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many names are loaded
    #[arg(long, default_value_t = 1_000_000)]
    names: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is where it was started by itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    /// Says when it begins to try, and ends when it is denied.
    UntilDenied,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.role.is_some() {
        return until_denied();
    }
    ensure!(harness::require_kernel(), "user space cannot be measured here");
    tell_machine()?;
    let intel = common::tables()?;
    let list = world::list(arguments.names);
    steps(&list, &arguments)?;

    let host = Host { net: Net::new::<&str>(&[]), cgroup: Cgroup::new() };
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let mut daemon = Daemon::new("")?;
        daemon.enable_shipped()?;
        starts.push(milliseconds(host.until_denied(&mut daemon)?));
        memory.push(megabytes(&mut daemon)?);
    }
    let with = "shipped policies";
    Row::values(PART, "start of the daemon until it denies", with, (starts, "ms"), None).tell()?;
    let goal = Some(Goal::Most(MEMORY));
    Row::values(PART, "daemon's resident memory", with, (memory, "MB"), goal).tell()?;
    many(&host, &intel, &list, &arguments)
}

/// The same with many names and the world, and how long a reload takes.
fn many(host: &Host, intel: &Intel, list: &str, arguments: &Arguments) -> Result<()> {
    let mut daemon = Daemon::new("")?;
    let file = daemon.file("names.txt");
    fs::write(&file, list)?;
    daemon.set_policy("deny", DENY)?;
    daemon.set_policy("world", &countries(intel)?)?;
    daemon.set_policy("owners", &owners(intel)?)?;
    let names = format!(
        "[policy]\nname = \"names\"\n[[rule]]\nname = \"listed\"\naction = \"drop\"\n\
         to = {{ lists = [\"names\"] }}\n[list.names]\nfile = {:?}\nformat = \"domains\"\n",
        file.display().to_string()
    );
    daemon.set_policy("names", &names)?;
    let start = milliseconds(host.until_denied(&mut daemon)?);
    let with = format!("{} names and the world", arguments.names);
    Row::values(PART, "start of the daemon until it denies", &*with, ([start], "ms"), None)
        .tell()?;
    let memory_started = megabytes(&mut daemon)?;
    let mut reloads = Vec::new();
    for round in 0..arguments.rounds {
        // Another generation each time, in which names and world stay as they are.
        daemon.set_policy("another", &ANOTHER.replace("2.0/24", &format!("2.{round}/32")))?;
        let (time, answer) = timed(|| daemon.ask(&["reload"]));
        answer?;
        reloads.push(milliseconds(time));
    }
    let goal = Some(Goal::Most(RELOAD));
    Row::values(PART, "reload of another policy", &*with, (reloads, "ms"), goal).tell()?;
    let goal = Some(Goal::Most(MEMORY_NAMES));
    for (what, memory) in [
        ("daemon's resident memory", memory_started),
        ("daemon's resident memory, after reloads", megabytes(&mut daemon)?),
    ] {
        Row::values(PART, what, &*with, ([memory], "MB"), goal).tell()?;
    }
    Ok(())
}

/// What both processes of a daemon have, what they share counted once.
fn megabytes(daemon: &mut Daemon) -> Result<f64> {
    daemon.wait()?;
    std::thread::sleep(SETTLED);
    let status: serde_json::Value = serde_json::from_str(&daemon.ask(&["status", "--json"])?)?;
    let bytes = status["memory_bytes"].as_f64().context("`status` does not say the memory")?;
    Ok(bytes / 1e6)
}

/// Where a daemon denies.
struct Host {
    net: Net,
    cgroup: Cgroup,
}

impl Host {
    /// Starts a daemon, and says how long it took until an app was denied.
    fn until_denied(&self, daemon: &mut Daemon) -> Result<Duration> {
        let mut command = self.net.client.command(std::env::current_exe()?);
        self.cgroup.enter(&mut command);
        let mut app = App(command.arg("until-denied").stdout(Stdio::piped()).spawn()?);
        let mut out = BufReader::new(app.0.stdout.take().context("no pipe")?);
        ensure!(out.read_line(&mut String::new())? > 0, "the app does not try");
        let start = Instant::now();
        daemon.start(&self.net.client, &self.cgroup)?;
        // Ends with the app.
        out.read_line(&mut String::new())?;
        let took = start.elapsed();
        ensure!(app.0.wait()?.success(), "nothing is denied: {}", daemon.said());
        Ok(took)
    }
}

/// Ended when it is dropped.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_denied() -> Result<()> {
    #[allow(clippy::print_stdout, reason = "to who started it")]
    {
        println!("trying");
    }
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        match socket.connect(SocketAddr::from((DENIED, 443))) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            Err(error) => return Err(error).context("not denied, but without a way"),
        }
    }
    bail!("not denied")
}

/// From nothing to a generation in the kernel, in this process.
fn steps(list: &str, arguments: &Arguments) -> Result<()> {
    let [mut all, mut programs] = [Vec::new(), Vec::new()];
    let mut steps: [(&str, Vec<f64>); 4] = [
        ("country and AS tables read", Vec::new()),
        ("names parsed", Vec::new()),
        ("both compiled", Vec::new()),
        ("both written into the kernel and read back", Vec::new()),
    ];
    for _ in 0..arguments.rounds {
        let (read, intel) = timed(common::tables);
        let intel = intel?;
        let mut policies = world::world(&intel)?;
        let (parse, names) = timed(|| world::names(list));
        policies.extend(names?);
        let (compile, generation) =
            timed(|| common::compile(policies, &intel, Settings::default()));
        let generation = generation?;
        let loaded = load(OBJECT, 0)?;
        let (write, applied) = timed(|| apply::apply(&loaded.maps()?, &generation));
        applied?;
        programs.push(milliseconds(loaded.maps_time + loaded.programs_time));
        all.push(milliseconds(read + parse + compile + write));
        for ((_, times), time) in steps.iter_mut().zip([read, parse, compile, write]) {
            times.push(milliseconds(time));
        }
    }
    let goal = Some(Goal::Most(PROGRAMS));
    Row::values(PART, "kernel programs verified and loaded", "", (programs, "ms"), goal).tell()?;
    let with = format!("{} names and the world", arguments.names);
    for (what, times) in steps {
        Row::values(PART, what, &*with, (times, "ms"), None).tell()?;
    }
    let goal = Some(Goal::Most(COLD));
    Row::values(PART, "read, compiled and in the kernel, cold", with, (all, "ms"), goal).tell()
}

/// A policy with a rule for each country.
fn countries(intel: &Intel) -> Result<String> {
    policy_text("world", &world::world(intel)?[1])
}

/// A policy with a rule for each organisation, and some for all other AS numbers.
fn owners(intel: &Intel) -> Result<String> {
    policy_text("owners", &world::world(intel)?[0])
}

/// The text of a policy whose rules are of countries, organisations and AS numbers.
fn policy_text(name: &str, policy: &firewall::policy::Policy) -> Result<String> {
    let mut text = format!("[policy]\nname = \"{name}\"\npriority = {}\n", policy.priority);
    if policy.mode == firewall::policy::Mode::Observe {
        text += "mode = \"observe\"\n";
    }
    for rule in &policy.rules {
        let to = rule.to.as_ref().context("a rule for everything")?;
        let list = |values: Vec<String>| format!("[{}]", values.join(","));
        let countries = to.jurisdictions.iter().map(|one| format!("{:?}", one.code())).collect();
        let organisations = to.organisations.iter().map(|one| format!("{one:?}")).collect();
        let asns = to.asns.iter().map(|asn| format!("\"AS{asn}\"")).collect();
        write!(
            text,
            "[[rule]]\nname = {:?}\naction = \"allow\"\nto = {{ ",
            rule.name.to_lowercase()
        )?;
        for (key, values) in
            [("jurisdictions", countries), ("organisations", organisations), ("asns", asns)]
        {
            let values: Vec<String> = values;
            if !values.is_empty() {
                write!(text, "{key} = {}", list(values))?;
            }
        }
        text += " }\n";
    }
    Ok(text)
}
