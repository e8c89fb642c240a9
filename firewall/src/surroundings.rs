//! What else on a machine has to do with what the firewall sees and does. Reads files, and asks only the
//! daemon and nft; says what is there, and judges nothing.

use std::{
    collections::BTreeSet,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    datapath::probe::{Feature, State},
    encrypted_dns::{Machine, Unreadable},
    remote::Attempts,
};

/// Programs that decide about connections too, by the names of their processes.
const FIREWALLS: [(&str, &str); 6] = [
    ("opensnitchd", "OpenSnitch"),
    ("portmaster-core", "Portmaster"),
    ("portmaster-star", "Portmaster"),
    ("littlesnitch", "Little Snitch"),
    ("firewalld", "firewalld"),
    ("mullvad-daemon", "Mullvad"),
];

/// Programs that look names up for others.
const NAME_SERVICES: [&str; 2] = ["nscd", "sssd"];

/// Where the kernel tells the tables of iptables.
const TABLES: [(&str, &str); 2] =
    [("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")];

/// Where something is that is asked or read.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Where the daemon answers.
    pub socket: &'a Path,
    /// Its state folder.
    pub state: &'a Path,
    /// The program that knows the tables of nftables.
    pub nft: &'a Path,
}

/// Everything.
pub fn all(machine: &Machine, places: Places<'_>) -> Vec<Feature> {
    let Places { socket, state, nft } = places;
    let running = running(machine);
    let mut all = vec![lockdown(machine), old_cgroups(machine), systemd(machine)];
    all.extend(firewalls(machine, &running, nft));
    all.push(resolver(machine));
    all.extend(name_services(&running));
    all.push(lists(machine, state));
    all.push(daemon(socket));
    all
}

fn row(name: &'static str, state: State, detail: impl Into<String>) -> Feature {
    Feature { name, state, detail: detail.into(), required: false }
}

fn unknown(name: &'static str, unreadable: &Unreadable) -> Feature {
    row(name, State::Unknown, unreadable.to_string())
}

/// The mode in brackets is the one that holds (kernel_lockdown(7)).
fn lockdown(machine: &Machine) -> Feature {
    const NAME: &str = "kernel lets programs read (lockdown)";
    match machine.read(Path::new("/sys/kernel/security/lockdown")) {
        Ok(Some(text)) if text.contains("[confidentiality]") => row(
            NAME,
            State::Missing,
            "lockdown is `confidentiality`, which forbids it: start with `lockdown=integrity`",
        ),
        Ok(Some(text)) => {
            let mode = text.split(['[', ']']).nth(1).unwrap_or("not set").to_owned();
            row(NAME, State::Present, format!("lockdown is `{mode}`"))
        }
        Ok(None) => row(NAME, State::Unknown, "nothing tells: securityfs is not mounted"),
        Err(unreadable) => unknown(NAME, &unreadable),
    }
}

fn old_cgroups(machine: &Machine) -> Feature {
    const NAME: &str = "processes are in cgroup2";
    match machine.read(Path::new("/proc/self/mountinfo")) {
        Ok(text) => {
            let text = text.unwrap_or_default();
            let has = |kind: &str| text.lines().any(|line| line.contains(&format!(" - {kind} ")));
            match (has("cgroup2"), has("cgroup")) {
                (true, false) => row(NAME, State::Present, ""),
                (true, true) => row(NAME, State::Present, "beside cgroup v1"),
                (false, true) => row(
                    NAME,
                    State::Missing,
                    "only cgroup v1 is mounted, so units and cgroups are not told apart: start with \
                     `systemd.unified_cgroup_hierarchy=1`",
                ),
                (false, false) => row(NAME, State::Missing, "no cgroups are mounted here"),
            }
        }
        Err(unreadable) => unknown(NAME, &unreadable),
    }
}

fn systemd(machine: &Machine) -> Feature {
    // As sd_booted(3) finds out.
    match machine.has(Path::new("/run/systemd/system")) {
        true => row("systemd", State::Present, ""),
        false => {
            row("systemd", State::Missing, "`firewall daemon` is to be started by something else")
        }
    }
}

/// Names of the processes that run.
fn running(machine: &Machine) -> Result<BTreeSet<String>, Unreadable> {
    let all = machine.entries(Path::new("/proc"))?.into_iter().filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    });
    // One that cannot be read has just ended.
    let names = all.filter_map(|path| machine.read(&path.join("comm")).ok().flatten());
    Ok(names.map(|name| name.trim_end().to_owned()).collect())
}

/// What decides beside this one. A packet passes only if all let it.
fn firewalls(
    machine: &Machine,
    running: &Result<BTreeSet<String>, Unreadable>,
    nft: &Path,
) -> Vec<Feature> {
    const NAME: &str = "other firewalls";
    let beside = "what they drop does not leave, whatever is said here";
    let mut found: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    match running {
        Ok(running) => {
            let known = FIREWALLS.iter().filter(|(name, _)| running.contains(*name));
            found.extend(known.map(|(_, name)| format!("{name} runs")));
        }
        Err(unreadable) => rows.push(unknown(NAME, unreadable)),
    }
    match machine.read(Path::new("/etc/ufw/ufw.conf")) {
        Ok(text) => {
            let on = |line: &str| line.trim().eq_ignore_ascii_case("enabled=yes");
            if text.unwrap_or_default().lines().any(on) {
                found.push("ufw is enabled".to_owned());
            }
        }
        Err(unreadable) => rows.push(unknown(NAME, &unreadable)),
    }
    for (path, program) in TABLES {
        match machine.read(Path::new(path)) {
            Ok(text) => {
                let text = text.unwrap_or_default();
                let tables: Vec<&str> = text.split_whitespace().collect();
                if !tables.is_empty() {
                    found.push(format!("tables of {program}: {}", tables.join(", ")));
                }
            }
            Err(unreadable) => rows.push(unknown(NAME, &unreadable)),
        }
    }
    match nftables(nft) {
        Ok(tables) if tables.is_empty() => {}
        Ok(tables) => found.push(format!("tables of nftables: {}", tables.join(", "))),
        Err(why) => rows.push(row(NAME, State::Unknown, format!("tables of nftables: {why}"))),
    }
    rows.push(match found.is_empty() {
        true => row(NAME, State::Missing, "none was found"),
        false => row(NAME, State::Present, format!("{}: {beside}", found.join("; "))),
    });
    rows
}

/// The tables that nft(8) lists.
fn nftables(nft: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(nft).args(["list", "tables"]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", nft.display()))?;
    match output.status.success() {
        true => Ok(tables(&String::from_utf8_lossy(&output.stdout))),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(why.lines().next().unwrap_or("nft failed").to_owned())
        }
    }
}

fn tables(listed: &str) -> Vec<String> {
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("table "));
    names.map(str::to_owned).collect()
}

/// Where names are asked for, by resolv.conf(5) and nsswitch.conf(5).
fn resolver(machine: &Machine) -> Feature {
    const NAME: &str = "apps ask for names themselves";
    let read = |path: &str| machine.read(Path::new(path)).map(Option::unwrap_or_default);
    let (hosts, servers) = match (read("/etc/nsswitch.conf"), read("/etc/resolv.conf")) {
        (Ok(hosts), Ok(servers)) => (hosts, servers),
        (Err(unreadable), _) | (_, Err(unreadable)) => return unknown(NAME, &unreadable),
    };
    let hosts = hosts.lines().find_map(|line| line.trim().strip_prefix("hosts:"));
    let sources: Vec<&str> = hosts.unwrap_or("files dns").split_whitespace().collect();
    if sources.contains(&"resolve") {
        return row(
            NAME,
            State::Missing,
            "systemd-resolved is asked over D-Bus (`resolve` in /etc/nsswitch.conf), so which app asks is \
             not seen; names in payloads are. `hosts: files dns` makes apps ask by DNS",
        );
    }
    let mut words = servers.lines().map(str::split_whitespace);
    let stub = words.any(|mut words| {
        words.next() == Some("nameserver")
            && matches!(words.next(), Some("127.0.0.53" | "127.0.0.54"))
    });
    row(
        NAME,
        State::Present,
        match stub {
            true => {
                "of systemd-resolved's stub, where questions are seen, even if it encrypts its own"
            }
            false => "of the servers of /etc/resolv.conf",
        },
    )
}

fn name_services(running: &Result<BTreeSet<String>, Unreadable>) -> Option<Feature> {
    let running = running.as_ref().ok()?;
    let found: Vec<&str> =
        NAME_SERVICES.into_iter().filter(|name| running.contains(*name)).collect();
    let what = "looks names up for others, so which app asks is not seen; names in payloads are";
    (!found.is_empty())
        .then(|| row("name services", State::Present, format!("{}: {what}", found.join(", "))))
}

/// When lists by URL were last found to be current.
fn lists(machine: &Machine, state: &Path) -> Feature {
    const NAME: &str = "lists by URL";
    let entries = match machine.entries(&state.join("lists")) {
        Ok(entries) => entries,
        Err(unreadable) => return unknown(NAME, &unreadable),
    };
    let records = entries.iter().filter(|path| path.extension().is_some_and(|end| end == "json"));
    let read = |path: &PathBuf| {
        let text = machine.read(path).ok()??;
        serde_json::from_str::<Attempts>(&text).ok()
    };
    let all: Vec<Option<Attempts>> = records.map(read).collect();
    if all.is_empty() {
        return row(NAME, State::Missing, "none was ever fetched");
    }
    let sound = all.iter().flatten();
    let failing = sound.clone().filter(|attempts| attempts.failures > 0).count();
    let never = sound.clone().filter(|attempts| attempts.current.is_none()).count();
    let mut detail = match sound.filter_map(|attempts| attempts.current).min() {
        Some(oldest) => format!("{}, the oldest as it was {oldest:.0}", all.len()),
        None => format!("{}, none of them ever fetched", all.len()),
    };
    let damaged = all.iter().filter(|one| one.is_none()).count();
    for (count, what) in
        [(failing, "failed last"), (never, "never fetched"), (damaged, "with a damaged record")]
    {
        if count > 0 {
            detail += &format!("; {what}: {count}");
        }
    }
    row(NAME, State::Present, detail)
}

fn daemon(socket: &Path) -> Feature {
    const NAME: &str = "daemon";
    let shown = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => row(NAME, State::Present, format!("answers at {shown}")),
        Err(error) => row(NAME, State::Missing, format!("{shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let machine = Machine::at(root.path());
        (root, machine)
    }

    fn told(machine: &Machine, socket: &Path) -> String {
        let nft = Path::new("/nonexistent/nft");
        let all = all(machine, Places { socket, state: Path::new("/var/lib/firewall"), nft });
        all.iter()
            .map(|Feature { name, state, detail, required }| {
                assert!(!required);
                format!("{:<7} {name}: {detail}", state.word()).trim_end().to_owned() + "\n"
            })
            .collect()
    }

    #[test]
    fn a_machine_with_much_on_it() {
        let (root, machine) = machine(&[
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("proc/self/mountinfo", "1 2 0:1 / /x rw - cgroup cgroup rw\n"),
            ("proc/12/comm", "opensnitchd\n"),
            ("proc/13/comm", "nscd\n"),
            ("proc/net/ip_tables_names", "filter\nnat\n"),
            ("etc/ufw/ufw.conf", "# x\nENABLED=yes\n"),
            ("etc/nsswitch.conf", "hosts: files resolve [!UNAVAIL=return] dns\n"),
            (
                "var/lib/firewall/lists/a.json",
                r#"{"schema":1,"url":"u","current":"2026-11-20T01:02:03.5Z","failures":2}"#,
            ),
            ("var/lib/firewall/lists/b.json", "{"),
            ("run/systemd/system/x", ""),
        ]);
        let socket = root.path().join("api.sock");
        let _listens = UnixListener::bind(&socket).unwrap();
        let told = told(&machine, &socket).replace(root.path().to_str().unwrap(), "ROOT");
        insta::assert_snapshot!(told, @r"
        yes     kernel lets programs read (lockdown): lockdown is `integrity`
        no      processes are in cgroup2: only cgroup v1 is mounted, so units and cgroups are not told apart: start with `systemd.unified_cgroup_hierarchy=1`
        yes     systemd:
        unknown other firewalls: tables of nftables: /nonexistent/nft: No such file or directory (os error 2)
        yes     other firewalls: OpenSnitch runs; ufw is enabled; tables of iptables: filter, nat: what they drop does not leave, whatever is said here
        no      apps ask for names themselves: systemd-resolved is asked over D-Bus (`resolve` in /etc/nsswitch.conf), so which app asks is not seen; names in payloads are. `hosts: files dns` makes apps ask by DNS
        yes     name services: nscd: looks names up for others, so which app asks is not seen; names in payloads are
        yes     lists by URL: 2, the oldest as it was 2026-11-20T01:02:03Z; failed last: 1; with a damaged record: 1
        yes     daemon: answers at ROOT/api.sock
        ");
    }

    #[test]
    fn tables_of_nftables() {
        assert_eq!(tables("table ip nat\ntable inet firewalld\n"), ["ip nat", "inet firewalld"]);
        assert_eq!(nftables(Path::new("/bin/true")), Ok(vec![]));
        assert_eq!(nftables(Path::new("/bin/false")), Err("nft failed".to_owned()));
    }

    #[test]
    fn a_machine_with_nothing_on_it() {
        let (_root, machine) = machine(&[
            ("sys/kernel/security/lockdown", "none integrity [confidentiality]\n"),
            ("proc/self/mountinfo", "1 2 0:1 / /x rw - cgroup2 cgroup2 rw\n"),
            ("etc/ufw/ufw.conf", "ENABLED=no\n"),
            ("etc/resolv.conf", "nameserver 127.0.0.53\n"),
        ]);
        insta::assert_snapshot!(told(&machine, Path::new("/nonexistent/s")), @r"
        no      kernel lets programs read (lockdown): lockdown is `confidentiality`, which forbids it: start with `lockdown=integrity`
        yes     processes are in cgroup2:
        no      systemd: `firewall daemon` is to be started by something else
        unknown other firewalls: tables of nftables: /nonexistent/nft: No such file or directory (os error 2)
        no      other firewalls: none was found
        yes     apps ask for names themselves: of systemd-resolved's stub, where questions are seen, even if it encrypts its own
        no      lists by URL: none was ever fetched
        no      daemon: /nonexistent/s: No such file or directory (os error 2)
        ");
    }
}
