//! The maps of the kernel programs, filled from outside; and which fault is whose.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    thread,
};

use aya::maps::MapData;
use firewall::datapath::{OBJECT, sys};
use rustix::{
    rand::{GetRandomFlags, getrandom},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{FAULTS, world::World};

/// Where each map is filled. One that is not here makes a test fail.
const MAPS: &[(&str, Full)] = &[
    ("ACTIVE", Full::Never),
    ("ANSWERED", Full::By("no_memory_for_sockets")),
    ("ANSWERS", Full::By("maps_of_names_full")),
    ("ASKED", Full::By("no_memory_for_sockets")),
    ("AYA_LOGS", Full::Never),
    ("BLOCKS", Full::Never),
    ("BUDGETS", Full::By("initials_unread")),
    ("CGROUPS", Full::By("maps_of_apps_full")),
    ("CONNECTIONS", Full::By("connections_of_quic_full")),
    ("COUNTERS", Full::Never),
    ("EVENTS", Full::By("ring_buffer_full")),
    ("EXECUTABLES", Full::By("maps_of_apps_full")),
    ("FORMER", Full::By("maps_of_names_full")),
    ("HEADERS", Full::Never),
    ("HELD", Full::By("initials_unread")),
    ("JUMPS", Full::Never),
    ("KNOWN", Full::By("maps_of_names_full")),
    ("LISTENERS", Full::By("listeners_full")),
    ("NAMES", Full::By("maps_of_names_full")),
    ("OWN", Full::Never),
    ("PAYLOADS", Full::By("no_memory_for_sockets")),
    ("PROCESSES", Full::By("maps_of_apps_full")),
    ("QUESTIONS", Full::By("questions_without_answers")),
    ("READER", Full::Never),
    ("ROOT", Full::Never),
    ("SCRATCH", Full::By("no_memory_to_read_in")),
    ("SCRIPTS", Full::By("maps_of_apps_full")),
    ("SOCKETS", Full::By("no_memory_for_sockets")),
    ("UNOWNED", Full::Never),
    ("WOKEN", Full::Never),
];

enum Full {
    /// One of [`FAULTS`].
    By(&'static str),
    /// Each entry has its own place, or no verdict asks for it.
    Never,
}

#[test]
fn every_map_that_can_be_full_has_its_fault() {
    let object = aya_obj::Object::parse(OBJECT).expect("the object");
    let mut names: Vec<&str> =
        object.maps.keys().map(String::as_str).filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    let listed: Vec<&str> = MAPS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "a new map needs a fault in which it is full, or a reason for none");
    for (map, full) in MAPS {
        if let Full::By(name) = full {
            assert!(FAULTS.iter().any(|fault| fault.name == *name), "{map}: there is no {name}");
        }
    }
}

/// A map, and what goes in.
struct Room {
    data: MapData,
    key: usize,
    value: usize,
    most: u32,
}

impl Room {
    fn at(path: &Path) -> Self {
        let data = MapData::from_pin(path).expect("a map that is pinned");
        let info = data.info().expect("a map");
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        Self { key, value, most: info.max_entries(), data }
    }

    /// Writes what nobody asks for, on one processor.
    fn fill_on(&self, processor: usize, times: u64) {
        const AT_ONCE: usize = 4096;
        let mut here = CpuSet::new();
        here.set(processor);
        sched_setaffinity(None, &here).expect("a processor of this machine");
        let values = vec![0; AT_ONCE * self.value];
        let mut keys = vec![0; AT_ONCE * self.key];
        for _ in 0..times * u64::from(self.most).div_ceil(AT_ONCE as u64) {
            let mut at = 0;
            while at < keys.len() {
                at += getrandom(&mut keys[at..], GetRandomFlags::empty()).expect("numbers");
            }
            // Written again, it counts as used: what was never used makes room before all else.
            self.write(&keys, &values);
            self.write(&keys, &values);
        }
    }

    /// The keys that are there.
    fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while keys.len() < self.most as usize {
            let mut next = vec![0; self.key];
            let from = keys.last().map_or(0, |key| key.as_ptr() as u64);
            if !self.ask(NEXT_KEY, from, next.as_mut_ptr() as u64) {
                break;
            }
            keys.push(next);
        }
        keys
    }

    fn remove(&self, key: &[u8]) {
        // It can be gone already.
        self.ask(DELETE, key.as_ptr() as u64, 0);
    }

    /// Whether a command on one element has succeeded.
    fn ask(&self, command: libc::c_int, key: u64, value: u64) -> bool {
        let map = self.data.fd().as_fd().as_raw_fd().cast_unsigned();
        let mut attributes = Element { map, _pad: 0, key, value, flags: 0 };
        // SAFETY: the callers' key and value are as long as those of the map, and live until the call returns.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Element>())
        };
        done == 0
    }

    /// Writes entries.
    fn write(&self, keys: &[u8], values: &[u8]) {
        let mut attributes = Batch {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: (keys.len() / self.key) as u32,
            map: self.data.fd().as_fd().as_raw_fd().cast_unsigned(),
            ..Batch::default()
        };
        // SAFETY: both have `count` elements of the map, and live until the call returns.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut attributes, size_of::<Batch>())
        };
        assert_eq!(done, 0, "filling a map: {}", io::Error::last_os_error());
    }
}

/// `BPF_MAP_UPDATE_BATCH` of `linux/bpf.h`, and what it reads.
const UPDATE_BATCH: libc::c_int = 26;

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Fills a hash map with what nobody asks for, so many times over, until nothing is there that was there
/// before. Returns how many entries it has then and how many fit.
pub fn fill(world: &World, name: &str, times: u64) -> (u32, u32) {
    let room = Room::at(&world.map(name));
    let before = room.keys();
    // Each processor keeps some of what was written there apart.
    for processor in aya::util::online_cpus().expect("processors") {
        thread::scope(|scope| scope.spawn(|| room.fill_on(processor as usize, times)).join())
            .expect("a thread that fills");
    }
    // What goes first is up to the kernel, roughly: some of what was in use is still there.
    before.iter().for_each(|key| room.remove(key));
    let entries = sys::entries(room.data.fd().as_fd(), room.key, room.most);
    (entries.expect("a hash map"), room.most)
}

/// Sets all bits of an array.
pub fn set_all(world: &World, name: &str) {
    let room = Room::at(&world.map(name));
    let keys: Vec<u8> = (0..room.most).flat_map(u32::to_ne_bytes).collect();
    room.write(&keys, &vec![0xff; room.most as usize * room.value]);
}

/// Fills several, and says how full they are.
pub fn fill_all(world: &World, names: &[&str], times: u64) -> String {
    let full: Vec<String> = names
        .iter()
        .map(|name| {
            let (entries, most) = fill(world, name, times);
            // Who is at work can take the place of some.
            assert!(entries > most / 2, "{name}: {entries} of {most}");
            format!("{name} {entries} of {most}")
        })
        .collect();
    full.join(", ")
}

/// Takes all the memory that programs read in, or gives it back. Nothing may be at work meanwhile: it is
/// written whole.
pub fn take_scratch(world: &World, taken: bool) {
    let room = Room::at(&world.map("SCRATCH"));
    let processors = aya::util::nr_cpus().expect("processors");
    let each = room.value.next_multiple_of(8);
    let mut values = vec![0_u8; each * processors];
    for value in values.chunks_mut(each) {
        // `Scratch::busy` is the first word.
        value[..8].copy_from_slice(&u64::from(taken).to_ne_bytes());
    }
    for key in 0..room.most {
        let key = key.to_ne_bytes();
        let taken = room.ask(UPDATE, key.as_ptr() as u64, values.as_ptr() as u64);
        assert!(taken, "taking memory: {}", io::Error::last_os_error());
    }
}

/// Commands on one element, and what they read.
const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const NEXT_KEY: libc::c_int = 4;

#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}
