//! `cargo xtask setup`: makes a machine able to build and test the workspace.
//!
//! There are two ways to a compiler for the kernel programs: rustup's component `rust-src`, or
//! Debian's `rustc-web` with its sources where rustup has none to give. Either needs a bpf-linker
//! with the LLVM of that compiler. What is there already is left alone, so that a second run does
//! nothing.

use anyhow::{Context as _, Result, bail};

use crate::command::{command, is_root, run as run_command, succeeds};
use crate::kernels;
use crate::toolchain::{self, Misfits, Toolchain};

/// Its crate ships a lock file, so that one version is always built from the same sources.
const BPF_LINKER: &str = "0.13.0";
/// The LLVM versions that this bpf-linker has a feature for.
const BPF_LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Debian's packages of a recent Rust, among them the sources of `core`.
const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
/// Programs that tests run, and the packages they are in.
const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("curl", "curl"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("ping", "iputils-ping"),
    ("prometheus", PROMETHEUS),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("unbound", UNBOUND),
    ("xz", "xz-utils"),
];
const UNBOUND: &str = "unbound";
const PROMETHEUS: &str = "prometheus";
/// Services that these packages would start at once: unbound even as the resolver of the whole machine.
const SERVICES: [(&str, &[&str]); 2] = [
    (UNBOUND, &["unbound.service", "unbound-resolvconf.service"]),
    (PROMETHEUS, &["prometheus.service"]),
];

/// Installs what is missing, and says what was found and done.
pub fn run() -> Result<()> {
    let mut apt = Apt::default();
    test_programs(&mut apt);
    other_kernels();
    rust_components();
    let found = match toolchain::find() {
        Ok(found) => found,
        Err(misfits) => provide_toolchain(&mut apt, misfits)?,
    };
    ebpf_clippy(&mut apt, &found);
    say(&format!("kernel programs: {} with LLVM {}", found.version, found.llvm));
    say("ready: `cargo build` works");
    Ok(())
}

fn provide_toolchain(apt: &mut Apt, misfits: Misfits) -> Result<Toolchain> {
    for misfit in &misfits {
        say(misfit);
    }
    type Way = fn(&mut Apt) -> Result<()>;
    let ways: [(&str, Way); 2] = [("rustup's rust-src", by_rustup), ("Debian's Rust", by_debian)];
    let mut failures = Vec::new();
    for (name, way) in ways {
        say(&format!("trying {name}"));
        let failure = match way(apt) {
            Ok(()) => match toolchain::find() {
                Ok(found) => return Ok(found),
                Err(misfits) => misfits.join("; "),
            },
            Err(error) => format!("{error:#}"),
        };
        say(&format!("{name}: {failure}"));
        failures.push(format!("  {name}: {failure}"));
    }
    bail!(
        "the kernel programs cannot be built on this machine yet\n{}\n\n\
         hint: install these two by hand, then run `cargo xtask setup` again:\n  \
         1. a toolchain with sources: rustup toolchain install nightly --component rust-src\n  \
         2. a bpf-linker with the LLVM of that toolchain (`rustc +nightly -vV` names it): \
         cargo binstall bpf-linker, or a release from \
         https://github.com/aya-rs/bpf-linker/releases",
        failures.join("\n")
    )
}

/// Adds the sources to a toolchain that is there, or installs a nightly with them.
fn by_rustup(apt: &mut Apt) -> Result<()> {
    if !succeeds(rustup().arg("--version")) {
        bail!("rustup is not installed");
    }
    let mut ignored = Misfits::new();
    // Sources that are there are better than new ones: all they lack is a linker.
    let mut candidates = toolchain::with_sources(&mut ignored);
    if candidates.is_empty() {
        candidates = toolchain::installed()
            .into_iter()
            .filter_map(|(name, _)| toolchain::inspect(Some(&name?)).ok())
            // A toolchain that was linked has no components.
            .filter(|candidate| {
                candidate.name.as_deref().is_some_and(|name| name.contains("-linux-"))
            })
            .collect();
        candidates.sort_by_key(|candidate| !candidate.nightly);
    }
    for candidate in candidates {
        let name = candidate.name.as_deref().unwrap_or_default();
        // A nightly's LLVM is often newer than any that a distribution has.
        if !linker_obtainable(apt, candidate.llvm) {
            say(&format!("{name}: found no bpf-linker for its LLVM {}", candidate.llvm));
            continue;
        }
        if toolchain::with_sources(&mut ignored).iter().all(|other| other.name != candidate.name) {
            run_command(rustup().args(["component", "add", "rust-src", "--toolchain", name]))?;
        }
        return provide_linker(apt, candidate.llvm);
    }
    run_command(rustup().args([
        "toolchain",
        "install",
        "nightly",
        "--profile=minimal",
        "--component=rust-src,clippy",
        "--no-self-update",
    ]))?;
    match toolchain::inspect(Some("nightly")) {
        Ok(nightly) => provide_linker(apt, nightly.llvm),
        Err(misfit) => bail!(misfit),
    }
}

/// Debian's compiler, its sources and its LLVM, made known to rustup as `debian`.
fn by_debian(apt: &mut Apt) -> Result<()> {
    if !apt.usable() {
        bail!("needs Debian's apt-get, as root: sudo apt-get install {}", DEBIAN_RUST.join(" "));
    }
    apt.install(DEBIAN_RUST)?;
    let has_rustup = succeeds(rustup().arg("--version"));
    if has_rustup && debian_toolchain().is_none() {
        run_command(rustup().args(["toolchain", "link", "debian", "/usr"]))?;
    }
    let name = debian_toolchain().context("Debian's compiler is not among the toolchains")?;
    match toolchain::inspect(name.as_deref()) {
        Ok(debian) => provide_linker(apt, debian.llvm),
        Err(misfit) => bail!(misfit),
    }
}

/// The toolchain whose files are Debian's packages: its name for rustup, or none without rustup.
fn debian_toolchain() -> Option<Option<String>> {
    toolchain::installed()
        .into_iter()
        .find(|(_, sysroot)| sysroot.as_os_str() == "/usr")
        .map(|(name, _)| name)
}

fn linker_obtainable(apt: &mut Apt, llvm: u32) -> bool {
    toolchain::linker_llvm().is_ok_and(|linker| linker >= llvm)
        || toolchain::which("cargo-binstall").is_some()
        || BPF_LINKER_LLVM.contains(&llvm)
            && (llvm_prefix(llvm).is_dir() || apt.usable() && apt.has(&llvm_package(llvm)))
}

/// Builds bpf-linker against the LLVM of the compiler, or fetches a release that has its own.
fn provide_linker(apt: &mut Apt, llvm: u32) -> Result<()> {
    if toolchain::linker_llvm().is_ok_and(|linker| linker >= llvm) {
        return Ok(());
    }
    if BPF_LINKER_LLVM.contains(&llvm) {
        if !llvm_prefix(llvm).is_dir() && apt.usable() && apt.has(&llvm_package(llvm)) {
            apt.install(&[&llvm_package(llvm)])?;
        }
        if llvm_prefix(llvm).is_dir() {
            return run_command(
                command("cargo")
                    .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
                    .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
                    .env("LLVM_PREFIX", llvm_prefix(llvm)),
            );
        }
    }
    if toolchain::which("cargo-binstall").is_some() {
        return run_command(
            command("cargo")
                .args(["binstall", "--no-confirm", "--force"])
                .arg(format!("bpf-linker@{BPF_LINKER}")),
        );
    }
    bail!(
        "no bpf-linker for LLVM {llvm}: neither {} nor cargo-binstall is there",
        llvm_package(llvm)
    )
}

fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// Where Debian and apt.llvm.org put an LLVM; its headers come with the `-dev` package.
fn llvm_prefix(llvm: u32) -> std::path::PathBuf {
    let prefix = format!("/usr/lib/llvm-{llvm}");
    // Without the development package there are the libraries alone.
    let complete = std::path::Path::new(&prefix).join("include/llvm").exists();
    if complete { prefix.into() } else { "/nonexistent".into() }
}

/// `rustfmt` and `clippy` of the workspace's toolchain; `lint` says so where they stay missing.
fn rust_components() {
    for component in ["rustfmt", "clippy"] {
        let program = if component == "rustfmt" { "fmt" } else { component };
        if !succeeds(command("cargo").args([program, "--version"]))
            && run_command(rustup().args(["component", "add", component])).is_err()
        {
            say(&format!("{component} is missing and rustup cannot add it"));
        }
    }
}

/// Clippy of the toolchain for the kernel programs: no other has a `core` for their target.
fn ebpf_clippy(apt: &mut Apt, found: &Toolchain) {
    if crate::lint::has_ebpf_clippy(found) {
        return;
    }
    let result = if debian_toolchain().as_ref() == Some(&found.name) && apt.usable() {
        apt.install(&["rust-web-clippy"])
    } else if let Some(name) = &found.name {
        run_command(rustup().args(["component", "add", "clippy", "--toolchain", name]))
    } else {
        Ok(())
    };
    if let Err(error) = result {
        say(&format!("no clippy for the kernel programs: {error:#}"));
    }
}

/// Installs the packages of programs that are not here.
pub fn programs(needed: &[(&str, &str)]) -> Result<()> {
    let missing = missing(needed);
    let mut apt = Apt::default();
    if missing.is_empty() {
        Ok(())
    } else if apt.usable() {
        apt.install(&missing)
    } else {
        bail!("these are missing, which only root can install with apt-get: {}", missing.join(" "))
    }
}

/// The packages of those programs that are not here.
fn missing<'p>(needed: &[(&str, &'p str)]) -> Vec<&'p str> {
    needed
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, package)| *package)
        .collect()
}

fn test_programs(apt: &mut Apt) {
    let missing = missing(TEST_PROGRAMS);
    if missing.is_empty() {
        return;
    }
    let packages = missing.join(" ");
    if !apt.usable() {
        say(&format!("tests need these, which only root can install with apt-get: {packages}"));
        return;
    }
    let systemd = std::path::Path::new("/run/systemd/system").exists();
    let starts = |(package, _): &&(&str, _)| systemd && missing.contains(package);
    for (package, units) in SERVICES.iter().filter(starts) {
        say(&format!(
            "the service of {package} stays off: tests start their own (systemctl unmask undoes it)"
        ));
        if let Err(error) = run_command(command("systemctl").arg("mask").args(*units)) {
            say(&format!("{package} is not installed, as its service would start: {error:#}"));
            return;
        }
    }
    if let Err(error) = apt.install(&missing) {
        say(&format!("tests need {packages}: {error:#}"));
    }
}

/// Kernels that tests boot.
fn other_kernels() {
    // Emulated too, programs of another processor would have to be built first.
    if !cfg!(target_arch = "x86_64") {
        return say("the firewall is tested on other kernels on x86-64 only");
    }
    match kernels::provide() {
        Ok(new) if new.is_empty() => {}
        Ok(new) => say(&format!("unpacked Debian's kernels {} to test on", new.join(", "))),
        Err(error) => say(&format!("no other kernels to test on: {error:#}")),
    }
}

/// Servers are not on the path of every user.
fn is_installed(program: &str) -> bool {
    toolchain::which(program).is_some()
        || ["/usr/sbin", "/sbin"]
            .iter()
            .any(|directory| std::path::Path::new(directory).join(program).is_file())
}

/// Debian's packages. The lists are brought up to date once, before the first use.
#[derive(Default)]
struct Apt {
    updated: bool,
}

impl Apt {
    fn usable(&self) -> bool {
        is_root() && toolchain::which("apt-get").is_some()
    }

    fn has(&mut self, package: &str) -> bool {
        self.update();
        succeeds(command("apt-cache").args(["show", "--no-all-versions", package]))
    }

    fn install(&mut self, packages: &[&str]) -> Result<()> {
        let missing = |package: &&&str| !succeeds(command("dpkg").args(["--status", package]));
        let packages: Vec<&str> = packages.iter().filter(missing).copied().collect();
        if packages.is_empty() {
            return Ok(());
        }
        self.update();
        say(&format!("installing Debian's {}", packages.join(" ")));
        run_command(
            command("apt-get")
                .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
                .args(packages),
        )
    }

    fn update(&mut self) {
        // An old list can still do; when it cannot, the installation says so.
        if !std::mem::replace(&mut self.updated, true)
            && run_command(command("apt-get").args(["update", "--quiet=2"])).is_err()
        {
            say("apt-get update failed; going on with the lists that are there");
        }
    }
}

/// rustup, without the backtrace that it prints where a download fails and `RUST_BACKTRACE` is set.
fn rustup() -> std::process::Command {
    let mut command = command("rustup");
    command.env_remove("RUST_BACKTRACE");
    command
}

fn say(what: &str) {
    eprintln!("setup: {what}");
}
