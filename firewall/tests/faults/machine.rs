//! The machine: its disk, its memory, its clock.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use firewall::policy::source::{Disk, Files as _};

use crate::{
    harness::{skip, wait_until},
    load::TCP,
    reader::flood,
    support::{FIREWALL, LIMIT},
    world::{By, Held, PLACE, World, each},
};

pub fn disk_full(size: u64) -> Option<Held> {
    let mut world = World::without_daemon(By::Names, "");
    let state = world.host.start_on_disk("8m");
    world.begin();
    let filler = state.join("filler");
    let full = fs::write(&filler, vec![b'x'; 16 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    flood(&mut world, size.max(200));
    world.during(size);
    let unwritten = |world: &World| world.host.status()["losses"]["unwritten"].as_u64().unwrap();
    assert!(wait_until(LIMIT, || unwritten(&world) > 0), "{}", world.host.said());
    world.host.wait_said("cannot write the audit store");
    world.host.done(&["reload"]);
    world.during(size);
    let unwritten = unwritten(&world);
    fs::remove_file(filler).unwrap();
    world.host.wait_said("can be written again");
    world.during(200);
    Some(world.end(
        "disk of the state full, and a reload".to_owned(),
        format!("losses.unwritten {unwritten}"),
    ))
}

/// A cgroup of the memory controller, of whichever version it is.
struct Memory {
    path: PathBuf,
    limit: &'static str,
    used: &'static str,
    kills: &'static str,
}

impl Memory {
    fn new() -> Option<Self> {
        let name = format!("fw-{}-memory", std::process::id());
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let first = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|one| one == "memory").then(|| path.trim_start_matches('/'))
        });
        let (parent, limit, used, kills) = match first {
            Some(own) => (
                Path::new("/sys/fs/cgroup/memory").join(own),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "memory.oom_control",
            ),
            None => ("/sys/fs/cgroup".into(), "memory.max", "memory.current", "memory.events"),
        };
        let path = parent.join(name);
        fs::create_dir(&path).ok()?;
        let memory = Self { path, limit, used, kills };
        memory.path.join(limit).exists().then_some(memory)
    }

    fn enter(&self, command: &mut Command) {
        let procs = fs::File::options().write(true).open(self.path.join("cgroup.procs")).unwrap();
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
    }

    fn number(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim().parse().unwrap()
    }

    fn kills(&self) -> u64 {
        self.number(self.kills, "oom_kill ")
    }

    /// Leaves as little more as this than is in use.
    fn limit(&self, more: u64) {
        let used = self.number(self.used, "");
        fs::write(self.path.join(self.limit), (used + more).to_string()).unwrap();
    }

    fn unlimited(&self) {
        let none = if self.limit == "memory.max" { "max" } else { "-1" };
        fs::write(self.path.join(self.limit), none).unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What was in it has ended with the world.
        wait_until(LIMIT, || fs::remove_dir(&self.path).is_ok() || !self.path.exists());
    }
}

pub fn out_of_memory(size: u64) -> Option<Held> {
    let Some(memory) = Memory::new() else {
        skip("no memory controller of cgroups is mounted where this process could use it");
        return None;
    };
    let mut world = World::without_daemon(By::Names, "");
    let command = || {
        let mut command = world.host.command("daemon");
        memory.enter(&mut command);
        command
    };
    let first = command();
    world.host.start_by(first);
    world.begin();
    // What a reload of it takes is more than there is.
    let names: String = (0..400_000).map(|number| format!("name{number}.example.org\n")).collect();
    world.host.set("many.txt", &names);
    let large = "[policy]\nname = \"large\"\n[[rule]]\nname = \"many\"\naction = \"drop\"\n\
                 to = { lists = [\"many\"] }\n[list.many]\nfile = \"../many.txt\"\n";
    let mut number = world.host.generation().0;
    for round in 0..size {
        world.host.set("policies.d/large.toml", large);
        memory.limit(8 << 20);
        let asked = world.host.ask(&["reload"]);
        assert!(!asked.status.success(), "{asked:?}");
        let status = world.host.ended();
        assert_eq!(memory.kills(), round + 1, "{status}: {}", world.host.said());
        world.during(200);
        memory.unlimited();
        world.host.remove("policies.d/large.toml");
        let mut next = world.host.command("daemon");
        memory.enter(&mut next);
        world.host.start_by(next);
        assert_eq!(world.host.generation(), (number, "adopted".to_owned()));
        number = world.host.generation().0;
        world.during(200);
    }
    let kills = memory.kills();
    let did = format!("{size} times the daemon killed for want of memory");
    let held = world.end(did, format!("oom_kill {kills}; generation {number} adopted"));
    Some(held)
}

/// As the worker and the keeper see it, the machine was suspended, and for less long afterwards: the clock that
/// counts that time jumps for who starts in a time namespace. The kernel's programs see the machine's own.
pub fn clock(size: u64) -> Option<Held> {
    if !Path::new("/proc/self/ns/time").exists() {
        skip("this kernel has no time namespaces");
        return None;
    }
    let now = Disk.moment().unwrap();
    let rules = format!(
        "[[rule]]\nname = \"a-while\"\naction = \"allow\"\nto = {{ networks = {PLACE:?} }}\n\
         until = \"{}+{}s\"\n",
        now.boot,
        now.second + 7200
    );
    let mut world = World::new(By::Names, &rules);
    let mut app = world.host.app();
    let mut shown = String::new();
    for _ in 0..size {
        each(PLACE, TCP).iter().for_each(|to| world.allowed(&mut app, &format!("tcp {to}")));
        let rules = count_rules(&world);
        world.host.kill(false);
        world.during(200);
        let mut command = world.host.net.client_command("unshare");
        // A suspend for ten days.
        command.args(["--time", "--boottime", "864000", "--", FIREWALL]);
        let command = world.host.command_by(command, "daemon");
        world.host.start_by(command);
        each(PLACE, TCP).iter().for_each(|to| world.denied(&mut app, &format!("tcp {to}")));
        world.during(200);
        assert_eq!(count_rules(&world), rules - 1, "a rule that is over");
        shown = format!("a rule for two hours is over: {} of {rules} rules", rules - 1);
        world.host.kill(false);
        world.during(200);
        world.host.start();
    }
    Some(
        world.end(
            format!("{size} times CLOCK_BOOTTIME of the daemon 10 days ahead, and back"),
            shown,
        ),
    )
}

fn count_rules(world: &World) -> usize {
    let status = world.host.status();
    let policies = status["policies"].as_array().unwrap().iter();
    policies.map(|policy| policy["rules"].as_array().unwrap().len()).sum()
}
