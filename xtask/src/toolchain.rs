//! Finds a Rust toolchain and a bpf-linker that can build the kernel programs.
//!
//! `firewall/build.rs` includes this file as well, so that what `cargo xtask setup` prepares is
//! what a plain `cargo build` picks. Nothing here installs or changes anything.
//!
//! The BPF target has no prebuilt `core`: it takes a toolchain with the `rust-src` component, and
//! a `bpf-linker` whose LLVM is not older than the compiler's, because it reads its bitcode.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A toolchain that has the sources of `core`.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// Its name for rustup; `None` where there is no rustup, for the compiler on the path.
    pub name: Option<String>,
    /// What `rustc --version` says.
    pub version: String,
    /// Whether `-Z` options work without `RUSTC_BOOTSTRAP`.
    pub nightly: bool,
    /// Major version of its LLVM.
    pub llvm: u32,
}

/// Why no toolchain fits, one line for each thing that was looked at.
pub type Misfits = Vec<String>;

/// The first toolchain that can build the kernel programs with the bpf-linker on the path:
/// nightlies before others, then in rustup's order.
pub fn find() -> Result<Toolchain, Misfits> {
    let mut misfits = Misfits::new();
    let candidates = with_sources(&mut misfits);
    if candidates.is_empty() {
        misfits.push("no toolchain has the component rust-src".to_owned());
        return Err(misfits);
    }
    let linker = match linker_llvm() {
        Ok(linker) => linker,
        Err(misfit) => {
            misfits.push(misfit);
            return Err(misfits);
        }
    };
    for toolchain in candidates {
        if toolchain.llvm <= linker {
            return Ok(toolchain);
        }
        let Toolchain { version, llvm, .. } = toolchain;
        misfits.push(format!("{version} has LLVM {llvm}, newer than bpf-linker's {linker}"));
    }
    Err(misfits)
}

/// The toolchains that have `rust-src` and are recent enough, nightlies first.
pub fn with_sources(misfits: &mut Misfits) -> Vec<Toolchain> {
    let mut found: Vec<Toolchain> = installed()
        .into_iter()
        .filter(|(_, sysroot)| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
        .filter_map(|(name, _)| {
            inspect(name.as_deref()).map_err(|misfit| misfits.push(misfit)).ok()
        })
        .collect();
    found.sort_by_key(|toolchain| !toolchain.nightly);
    found
}

/// Version and LLVM of a toolchain, or why it cannot be used.
pub fn inspect(name: Option<&str>) -> Result<Toolchain, String> {
    let label = name.unwrap_or("the installed rustc");
    let text = output(in_toolchain(name, "rustc").arg("-vV"))
        .map_err(|error| format!("{label} does not run: {error}"))?;
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let release = field("release:").unwrap_or_default();
    if version_key(release) < version_key(env!("CARGO_PKG_RUST_VERSION")) {
        return Err(format!("{label} is Rust {release}, too old"));
    }
    let llvm = field("LLVM version:")
        .and_then(major)
        .ok_or_else(|| format!("{label} does not say which LLVM it has"))?;
    Ok(Toolchain {
        name: name.map(str::to_owned),
        version: text.lines().next().unwrap_or_default().to_owned(),
        nightly: release.contains("-nightly") || release.contains("-dev"),
        llvm,
    })
}

/// Names and sysroots of all installed toolchains; without rustup, of the compiler on the path.
pub fn installed() -> Vec<(Option<String>, PathBuf)> {
    match output(Command::new("rustup").args(["toolchain", "list", "--verbose"])) {
        Ok(text) => text.lines().filter_map(rustup_line).collect(),
        Err(_) => output(Command::new("rustc").args(["--print", "sysroot"]))
            .map(|text| vec![(None, PathBuf::from(text.trim()))])
            .unwrap_or_default(),
    }
}

/// Major version of the LLVM in the bpf-linker on the path.
pub fn linker_llvm() -> Result<u32, String> {
    // bpf-linker's own `--version` says nothing about LLVM, but LLVM's answers for itself. The
    // input and output are never touched.
    let text = output(Command::new("bpf-linker").args([
        "--llvm-args=--version",
        "--target=bpfel-unknown-none",
        "--output=/dev/null",
        "/dev/null",
    ]))
    .map_err(|error| format!("no bpf-linker that runs ({error})"))?;
    text.split_once("LLVM version")
        .and_then(|(_, version)| major(version.trim_start()))
        .ok_or_else(|| "bpf-linker does not say which LLVM it has".to_owned())
}

/// `PROGRAM` as the toolchain has it.
pub fn in_toolchain(name: Option<&str>, program: &str) -> Command {
    match name {
        Some(name) => {
            let mut command = Command::new("rustup");
            command.args(["run", name, program]);
            command
        }
        None => Command::new(program),
    }
}

/// Where `cargo install` puts programs. Editors often start cargo without it on their path.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).map(|home| home.join("bin"))
}

/// The search path with [`cargo_bin`] on it.
pub fn search_path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut parts: Vec<PathBuf> = std::env::split_paths(&path).collect();
    parts.extend(cargo_bin().filter(|bin| !parts.contains(bin)));
    std::env::join_paths(parts).unwrap_or(path)
}

/// The file that a program on the path is.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Standard output of a command, or in a few words why there is none.
fn output(command: &mut Command) -> Result<String, String> {
    // A program can come with shims that pass every call on by path, so search where we search.
    let output =
        command.env("PATH", search_path()).output().map_err(|error| error.kind().to_string())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(stderr.lines().last().unwrap_or("no message").trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line of `rustup toolchain list -v`: `NAME (active, default) PATH`, the middle part optional.
fn rustup_line(line: &str) -> Option<(Option<String>, PathBuf)> {
    let (name, rest) = line.split_once(char::is_whitespace)?;
    let path = rest.rsplit_once(") ").map_or(rest, |(_, path)| path).trim();
    path.starts_with('/').then(|| (Some(name.to_owned()), PathBuf::from(path)))
}

fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn version_key(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map_while(major);
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_rustup() {
        let parse = |line| rustup_line(line).map(|(name, path)| (name.unwrap_or_default(), path));
        assert_eq!(
            parse("stable-x86_64-unknown-linux-gnu (active, default) /root/.rustup/x"),
            Some(("stable-x86_64-unknown-linux-gnu".into(), "/root/.rustup/x".into()))
        );
        assert_eq!(parse("debian /usr"), Some(("debian".into(), "/usr".into())));
        assert_eq!(parse("no installed toolchains"), None);
    }

    #[test]
    fn versions() {
        assert_eq!(major("22.1.8\n  Optimized build."), Some(22));
        assert_eq!(major("unknown"), None);
        assert!(version_key("1.101.0-nightly") > version_key("1.95"));
        assert!(version_key("1.63.0") < version_key("1.95"));
    }
}
