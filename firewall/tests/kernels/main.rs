//! The firewall on other kernels: each boots in qemu from an initramfs that has the binary, this test and
//! what it runs; the checks of `guest.rs` run there, a line each on the serial console.
//!
//! Emulated, without KVM: it takes no rights and no hardware, and is everywhere the same.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../daemon/host.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the checks of a guest are few; tests panic")]
mod host;
#[path = "../support/mod.rs"]
mod support;

mod guest;
mod image;
mod machine;

use std::path::{Path, PathBuf};

use harness::require;

/// What `guest.rs` runs of Debian's, beside the binary and this test.
const PROGRAMS: [&str; 3] = ["busybox", "dnsmasq", "ip"];

#[test]
fn debian_6_1() {
    check("6.1");
}

#[test]
fn debian_6_12() {
    check("6.12");
}

/// Boots a kernel; every check passes there.
#[track_caller]
fn check(series: &str) {
    let kernel = kernels().join(series);
    if !require(missing(&kernel)) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let image = image::build(folder.path(), &kernel);
    let said = machine::boot(&image::linux(&kernel), &image, folder.path());
    let checks = guest::checks();
    assert!(!checks.is_empty());
    let failed: Vec<&String> = checks
        .iter()
        .filter(|check| !said.lines().any(|line| line.trim_end() == format!("test {check} ... ok")))
        .collect();
    assert!(failed.is_empty(), "on Linux {series} these did not pass: {failed:#?}\n{said}");
}

/// Where `cargo xtask setup` puts them.
fn kernels() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder in target");
    target.join("kernels")
}

fn missing(kernel: &Path) -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("other kernels are booted on x86-64 only".to_owned());
    }
    if !kernel.is_dir() {
        return Some(format!("there is no {}: run `cargo xtask setup`", kernel.display()));
    }
    let tools = ["cpio", "ldd", "strip", "xz", machine::QEMU];
    tools.iter().chain(&PROGRAMS).find_map(|program| harness::no_program(program))
}
