//! An executable that was set, and not executed.

use std::{
    env,
    ffi::c_void,
    fs, io,
    net::UdpSocket,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    ptr,
};

use crate::{
    harness::require_kernel,
    support::{FREE, Run, own_program},
    world::{World, apps, exe},
};

/// The executable to set, told to who sets it.
const SET: &str = "FIREWALL_SET_EXECUTABLE";

#[test]
fn an_executable_that_was_set_is_not_believed() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, own) = (world.shell("one"), own_program());
    let selectors = [exe(&one), exe(own.as_ref())];
    for (allowed, set, passes) in [(0, true, false), (1, false, true), (1, true, false)] {
        let policy = world.policy("drop", &[("one", "allow", apps(&selectors[allowed..=allowed]))]);
        let policy = policy.display().to_string();
        let mut run = Run::new(&world.net, &["--policy", &policy]);
        run.command.env(SET, if set { one.as_os_str() } else { "".as_ref() });
        let outcome = run.program(&[&own, "--exact", "--nocapture", "set::set_of_a_run"]);
        let came = if passes { "came=pass" } else { "came=stop" };
        assert!(outcome.stdout.contains(came), "{set} {}{}", outcome.stdout, outcome.stderr);
        if set {
            assert_eq!(outcome.on(FREE)[0]["app"].get("exe"), None, "{:?}", outcome.events);
        }
    }
}

/// What `firewall run` starts for this.
#[test]
fn set_of_a_run() {
    let Some(path) = env::var_os(SET) else { return };
    if !path.is_empty() {
        let file = fs::File::open(path).expect("the executable");
        leave_file();
        set(&file);
        let now = fs::metadata("/proc/self/exe").expect("our executable");
        assert_eq!(now.ino(), file.metadata().expect("the executable").ino(), "it was not set");
    }
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let sent = socket.connect((FREE, 1001)).and_then(|()| socket.send(b"x"));
    println!("came={}", if sent.is_ok() { "pass" } else { "stop" });
}

/// `struct prctl_mm_map`
#[repr(C)]
struct Map {
    /// From `start_code` to `env_end`.
    places: [u64; 11],
    auxv: u64,
    auxv_size: u32,
    file: u32,
}

/// Has the executable set by a child that shares our memory: in a user namespace of its own it may.
fn set(file: &fs::File) {
    let stat = fs::read_to_string("/proc/self/stat").expect("our numbers");
    let (_, words) = stat.rsplit_once(") ").expect("a name");
    // proc_pid_stat(5) counts from 1, and this begins with the third.
    let words: Vec<u64> = words.split(' ').map(|word| word.trim().parse().unwrap_or(0)).collect();
    let of = |number: usize| words[number - 3];
    // SAFETY: asks where it is.
    let end = unsafe { libc::sbrk(0) } as u64;
    let (code, data, stack) = ([of(26), of(27)], [of(45), of(46)], of(28));
    let places =
        [code[0], code[1], data[0], data[1], of(47), end, stack, of(48), of(49), of(50), of(51)];
    let mut map = Map { places, auxv: 0, auxv_size: 0, file: file.as_raw_fd().cast_unsigned() };
    let mut stack = vec![0_u8; 64 << 10];
    // SAFETY: the child only calls the kernel, on a stack of its own, and we wait for it.
    unsafe {
        let top = stack.as_mut_ptr_range().end.cast();
        let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::SIGCHLD;
        let child = libc::clone(set_by_child, top, flags, (&raw mut map).cast());
        assert!(child > 0, "{}", io::Error::last_os_error());
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(status, 0, "{:?}", io::Error::from_raw_os_error(status >> 8));
    }
}

extern "C" fn set_by_child(map: *mut c_void) -> i32 {
    // SAFETY: the map is that of our caller, who waits.
    unsafe {
        let size = size_of::<Map>();
        match libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, map, size, 0) {
            0 => 0,
            _ => *libc::__errno_location(),
        }
    }
}

/// Puts memory in the place of the executable's file: the kernel sets no other while it is mapped.
fn leave_file() {
    let own = env::current_exe().expect("a path").display().to_string();
    for line in fs::read_to_string("/proc/self/maps").expect("our maps").lines() {
        if !line.ends_with(&own) {
            continue;
        }
        let mut words = line.split(' ');
        let (from, to) = words.next().and_then(|range| range.split_once('-')).expect("a range");
        let modes = words.next().expect("modes");
        let number = |text| usize::from_str_radix(text, 16).expect("a number");
        let (from, to) = (number(from), number(to));
        let bits = [('r', libc::PROT_READ), ('w', libc::PROT_WRITE), ('x', libc::PROT_EXEC)];
        let access: i32 =
            bits.iter().filter(|(mode, _)| modes.contains(*mode)).map(|(_, bit)| bit).sum();
        // SAFETY: a copy takes the place of what is there in one step.
        unsafe {
            let copy = libc::mmap(
                ptr::null_mut(),
                to - from,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(copy, libc::MAP_FAILED);
            if access & libc::PROT_READ != 0 {
                ptr::copy_nonoverlapping(from as *const u8, copy.cast(), to - from);
            }
            assert_eq!(libc::mprotect(copy, to - from, access), 0);
            let moved = libc::mremap(
                copy,
                to - from,
                to - from,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                from as *mut c_void,
            );
            assert_eq!(moved, from as *mut c_void);
        }
    }
}
