//! What /proc says of a process that is still there.

use std::{fs, path::PathBuf, sync::LazyLock};

/// Parents that are told of a process.
const MAX_PARENTS: usize = 16;

/// What is read of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name of the process.
    pub name: String,
    /// The number of its parent.
    pub parent: u32,
    /// The number of the leader of its session.
    pub session: u32,
    /// In clock ticks of the boot-time clock.
    pub started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    /// Reads the text of the file.
    pub fn parse(text: &str) -> Option<Self> {
        // A name can have anything in it.
        let (before, behind) = text.rsplit_once(')')?;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        // The third field is the first behind the name.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            parent: number(4)?.try_into().ok()?,
            session: number(6)?.try_into().ok()?,
            started: number(22)?,
        })
    }
}

/// Clock ticks of a reading of the boot-time clock in nanoseconds.
fn ticks(nanoseconds: u64) -> u64 {
    static LENGTH: LazyLock<u64> = LazyLock::new(|| {
        // SAFETY: has no preconditions.
        let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        u64::try_from(a_second)
            .ok()
            .and_then(|ticks| 1_000_000_000u64.checked_div(ticks))
            .unwrap_or(1)
    });
    nanoseconds / *LENGTH
}

/// Whether a process is there that started at this reading of the boot-time clock.
pub fn is_there(pid: u32, started: u64) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.started == ticks(started))
}

/// What a process was started from: its parent first, and so on up to the leader of its session. Each
/// is the path of the executable or, where that may not be read, the process's name. Nothing if the
/// process is gone.
pub fn parents(pid: u32, started: u64) -> Vec<String> {
    let mut parents = Vec::new();
    let Some(mut child) = Stat::of(pid).filter(|stat| stat.started == ticks(started)) else {
        return parents;
    };
    let (mut pid, session) = (pid, child.session);
    while pid != session && child.parent != 0 && parents.len() < MAX_PARENTS {
        pid = child.parent;
        // In this order: if what has the number now was there before its child, it was there when
        // the link was read.
        let exe: Option<PathBuf> = fs::read_link(format!("/proc/{pid}/exe")).ok();
        let Some(parent) = Stat::of(pid) else { break };
        if parent.started > child.started || parent.session != session {
            break;
        }
        parents.push(match exe {
            Some(exe) => exe.to_string_lossy().into_owned(),
            None => parent.name.clone(),
        });
        child = parent;
    }
    parents
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::unistd::{Pid, getppid, getsid};

    use super::*;

    fn started(pid: u32) -> u64 {
        Stat::of(pid).unwrap().started * 1_000_000_000 / ticks(1_000_000_000)
    }

    struct Reaped(Child);

    impl Drop for Reaped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn cat() -> Reaped {
        let cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        Reaped(cat.unwrap())
    }

    #[test]
    fn a_name_can_have_anything_in_it() {
        let rest = "1 2 3 0 -1 4 5 6 7 8 9 10 11 12 13 14 15 16 1234 18 19";
        let stat = Stat::parse(&format!("7 (a) S (b\n) ) R {rest}")).unwrap();
        let name = "a) S (b\n) ".to_owned();
        assert_eq!(stat, Stat { name, parent: 1, session: 3, started: 1234 });
        for bad in ["", "7 (a) R", "7 (a) R x 2 3", "7 a R 1 2 3"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_real_process_has_real_parents() {
        let child = cat();
        let pid = child.0.id();
        let found = parents(pid, started(pid));
        let own = fs::read_link("/proc/self/exe").unwrap().to_string_lossy().into_owned();
        assert_eq!(found[0], own);
        assert!(found.len() <= MAX_PARENTS);
        // The chain ends with the leader of the session, if it is still there.
        let leader = getsid(None).unwrap();
        if getppid() == leader {
            assert_eq!(found.len(), 2);
        }
        if leader == Pid::this() {
            assert_eq!(found.len(), 1);
        }
        assert!(is_there(pid, started(pid)));
    }

    #[test]
    fn another_process_with_the_number_is_not_it() {
        let child = cat();
        let pid = child.0.id();
        let other = started(pid) - 1_000_000_000;
        assert_eq!(parents(pid, other), [""; 0]);
        assert!(!is_there(pid, other));
        let started = started(pid);
        drop(child);
        assert_eq!(parents(pid, started), [""; 0]);
        assert!(!is_there(pid, started));
    }

    #[test]
    fn the_leader_of_a_session_has_none() {
        let leader = getsid(None).unwrap().as_raw().cast_unsigned();
        if leader != 0 && Stat::of(leader).is_some() {
            assert_eq!(parents(leader, started(leader)), [""; 0]);
        }
    }
}
