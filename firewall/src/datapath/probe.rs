//! What this kernel and this machine can do, found out by trying.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::thread::{CapabilitySet, capabilities};

use super::{OBJECT, backstop, btf, iterate, load};
use crate::cgroup::{Hierarchy, mounted};

/// What was found of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Present,
    /// It does not.
    Missing,
    /// It could not be tried.
    Unknown,
}

impl State {
    /// The word in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Present => "yes",
            Self::Missing => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that enforcement needs or that limits it.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// What was found.
    pub state: State,
    /// What follows, or why not.
    pub detail: String,
    /// Whether nothing can be enforced without it.
    pub required: bool,
}

/// Tries everything.
pub fn all() -> Vec<Feature> {
    let mut features = vec![kernel(), may_load(), type_information(), cgroups()];
    features.extend(programs());
    features.push(bpf_file_system());
    features.push(protocol("MPTCP", libc::SOCK_STREAM, 262, "subflows are charged to their app"));
    features.push(protocol(
        "SCTP",
        libc::SOCK_STREAM,
        132,
        "judged as packets: a denied send gets EPERM",
    ));
    features.push(protocol("UDP-Lite", libc::SOCK_DGRAM, 136, "judged at sendmsg and as packets"));
    features.extend(limits());
    features
}

fn feature(name: &'static str, required: bool, found: Result<String, String>) -> Feature {
    let (state, detail) = match found {
        Ok(detail) => (State::Present, detail),
        Err(detail) => (State::Missing, detail),
    };
    Feature { name, state, detail, required }
}

fn kernel() -> Feature {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    feature(
        "kernel 6.1 or later",
        false,
        if version >= (6, 1) { Ok(release) } else { Err(format!("{release} was never tried")) },
    )
}

/// What enforcing takes: capabilities by name, and what stands for each.
const NEEDED: [(&str, CapabilitySet); 4] = [
    ("CAP_BPF", CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN)),
    ("CAP_PERFMON", CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN)),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    // Cgroups and pins lie in directories that not even root may write to without it.
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
];

/// `PROC_USER_INIT_INO`: the user namespace that the machine started with.
const FIRST_USER_NAMESPACE: u64 = 0xeffffffd;

/// Whether this process may put programs into the kernel; if not, what it lacks.
///
/// # Errors
/// It may not.
pub fn permission() -> Result<(), String> {
    let namespace = fs::metadata("/proc/self/ns/user");
    if namespace.is_ok_and(|namespace| namespace.ino() != FIRST_USER_NAMESPACE) {
        return Err(
            "it is in a user namespace of its own, where capabilities do not count for that"
                .to_owned(),
        );
    }
    let have = capabilities(None).map_err(|error| format!("its capabilities: {error}"))?.effective;
    let lacks = |(_, any): &&(&str, CapabilitySet)| !have.intersects(*any);
    let missing: Vec<&str> = NEEDED.iter().filter(lacks).map(|(name, _)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("it lacks {}", missing.join(", "))) }
}

fn may_load() -> Feature {
    let found = permission().map(|()| String::new());
    feature(
        "permission",
        true,
        found.map_err(|why| {
            format!("this process may not put programs into the kernel: {why}. Use sudo")
        }),
    )
}

fn type_information() -> Feature {
    let found = btf::kernel_offsets().map(|_| String::new()).map_err(|error| error.to_string());
    feature("type information of the kernel (BTF)", true, found)
}

fn cgroups() -> Feature {
    let found = Hierarchy::find()
        .map(|hierarchy| hierarchy.directory(Path::new("/")).display().to_string())
        .map_err(|error| error.to_string());
    feature("cgroup2", true, found)
}

fn programs() -> Vec<Feature> {
    const NAME: &str = "the kernel programs load";
    const OPEN: &str = "sockets that are open already";
    const BACKSTOP: &str = "backstop at interfaces (tcx)";
    if permission().is_err() {
        let untried = |name, required| Feature {
            name,
            state: State::Unknown,
            detail: "not tried without permission".to_owned(),
            required,
        };
        return vec![untried(NAME, true), untried(OPEN, false), untried(BACKSTOP, false)];
    }
    let mut loaded = match load::load(OBJECT, 0) {
        Ok(loaded) => loaded,
        Err(error) => return vec![feature(NAME, true, Err(error.to_string()))],
    };
    let instructions: u32 = loaded.verified.iter().filter_map(|one| one.instructions).sum();
    let time: std::time::Duration = loaded.verified.iter().map(|one| one.time).sum();
    let detail = format!(
        "{} programs, {instructions} instructions verified in {} ms",
        loaded.verified.len(),
        time.as_millis()
    );
    let backstop = backstop::probe(&mut loaded)
        .map(|()| "what is sent past every cgroup can be judged: `backstop = \"on\"`".to_owned());
    let open = iterate::load(&mut loaded).map(|()| "can be charged to who has them".to_owned());
    vec![
        feature(NAME, true, Ok(detail)),
        feature(OPEN, false, open.map_err(|error| error.to_string())),
        feature(BACKSTOP, false, backstop.map_err(|error| error.to_string())),
    ]
}

fn bpf_file_system() -> Feature {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounted(&mountinfo, "bpf")
        .map(|path| path.display().to_string())
        .ok_or_else(|| "not mounted here; `firewall run` mounts it at /sys/fs/bpf".to_owned());
    feature("bpf file system", false, found)
}

fn protocol(name: &'static str, kind: i32, number: i32, detail: &str) -> Feature {
    // SAFETY: makes a socket and closes it.
    let made = unsafe {
        let fd = libc::socket(libc::AF_INET, kind, number);
        if fd >= 0 {
            libc::close(fd);
        }
        fd >= 0
    };
    let found = if made { Ok(detail.to_owned()) } else { Err("not in this kernel".to_owned()) };
    feature(name, false, found)
}

/// What no policy reaches, whatever the kernel.
fn limits() -> [Feature; 3] {
    let limit = |name, detail: &str| Feature {
        name,
        state: State::Missing,
        detail: detail.to_owned(),
        required: false,
    };
    [
        limit(
            "packet sockets (AF_PACKET)",
            "need CAP_NET_RAW, and pass below the hook: stopped by the backstop alone",
        ),
        limit(
            "forwarded packets, virtual machines",
            "have no local socket: stopped by the backstop alone, as of an app that is not known",
        ),
        limit(
            "encrypted names (DoH, DoT, ECH)",
            "cannot be read: the policy `encrypted-dns` denies known servers of DoH and DoT",
        ),
    ]
}
