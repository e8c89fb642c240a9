//! Skipping, never silently.

use std::io::Write as _;
use std::path::Path;

/// Whether this machine can run a test with namespaces, cgroups and kernel programs. Where it
/// cannot, says why, or panics if `FIREWALL_REQUIRE_KERNEL` is 1, as `cargo xtask test
/// --require-kernel` sets it.
///
/// ```ignore
/// if !harness::require_kernel() {
///     return;
/// }
/// ```
#[track_caller]
#[must_use]
pub fn require_kernel() -> bool {
    require(missing())
}

/// As [`require_kernel`], and whether the name servers and TLS are there too.
#[track_caller]
#[must_use]
pub fn require_names() -> bool {
    let programs = ["dnsmasq", "unbound", "openssl", "getent"];
    let resolv_conf = || {
        let there = Path::new("/etc/resolv.conf").exists();
        (!there).then(|| "there is no /etc/resolv.conf that another could cover".to_owned())
    };
    let no_programs = || programs.iter().find_map(|program| no_program(program));
    require(missing().or_else(no_programs).or_else(resolv_conf))
}

/// The same for a test that needs other things: what is missing, if anything is.
#[track_caller]
#[must_use]
pub fn require(missing: Option<String>) -> bool {
    let Some(reason) = missing else { return true };
    assert!(
        std::env::var_os("FIREWALL_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
        "this test may not be skipped (FIREWALL_REQUIRE_KERNEL=1), but {reason}"
    );
    skip(&reason);
    false
}

/// Says that the current test, or a named part of it, is skipped, and why.
#[allow(clippy::print_stderr, reason = "a test that passes without having run says so")]
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("a test"));
    eprintln!("skipped: {line}");
    // Test runners hide the line above; `cargo xtask test` reads this one.
    if let Some(path) = std::env::var_os("FIREWALL_SKIP_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path)
    {
        // One write, so that lines of tests side by side do not mix.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this is not root".to_owned());
    }
    if super::cgroup::mount().is_none() {
        return Some("no cgroup2 is mounted".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)".to_owned());
    }
    if let Some(reason) = ["ip", "curl"].iter().find_map(|program| no_program(program)) {
        return Some(reason);
    }
    // In a container even root may lack the capability.
    let namespace = std::thread::spawn(|| {
        // SAFETY: a new network namespace for this thread alone, which ends at once; no memory or
        // descriptor is unshared.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
    });
    match namespace.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Some(format!("network namespaces cannot be made: {error}")),
        Err(_) => return Some("network namespaces cannot be made".to_owned()),
    }
    can_use_bpf().err().map(|error| format!("bpf(2) does not work: {error}"))
}

/// Why a program cannot be run, if it is not there.
pub fn no_program(program: &str) -> Option<String> {
    let found = super::program::find(program).is_some();
    (!found).then(|| format!("there is no `{program}`: run `cargo xtask setup`"))
}

/// Makes a map of one entry, and closes it.
fn can_use_bpf() -> std::io::Result<()> {
    /// `BPF_MAP_CREATE` and `BPF_MAP_TYPE_ARRAY` of `linux/bpf.h`.
    const MAP_CREATE: libc::c_int = 0;
    const MAP_TYPE_ARRAY: u32 = 2;
    // The first members of `union bpf_attr`: type, size of keys, size of values, entries.
    let attributes = [MAP_TYPE_ARRAY, 4, 4, 1];
    // SAFETY: the kernel reads as many bytes as it is told, which is the size of the array.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes))
    };
    let Ok(fd) = i32::try_from(fd) else { return Err(std::io::Error::other("no descriptor")) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else has it.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    Ok(())
}
