//! `cargo xtask dist`: a tarball and a Debian package, of the same files.
//!
//! The same commit, built in the same folder by the same compilers, gives the same bytes: times are
//! those of the commit, owners are root, files are sorted, and the paths of this machine that
//! compilers write down are replaced.

mod deb;
mod files;
mod licences;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    command::{command, run as run_command, workspace},
    setup,
    toolchain::which,
};
use files::{Files, Program};

pub use deb::deb;

/// Beside what building takes.
const PROGRAMS: [(&str, &str); 3] =
    [("setarch", "util-linux"), ("strip", "binutils"), ("tar", "tar")];

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the packages are put
    #[arg(long, value_name = "DIR", default_value = "target/packages")]
    out: PathBuf,
    /// Revision of the Debian package: what stands behind the version
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
    /// Build everything a second time, and fail if a byte differs
    #[arg(long)]
    check: bool,
}

/// Builds, packs, and says what was made.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let out = workspace().join(&arguments.out);
    let made = pack(&build()?, arguments.revision, &out)?;
    for file in &made {
        println!("{}  {}", digest(file)?, file.display());
    }
    if arguments.check { built_again(&made, arguments.revision) } else { Ok(()) }
}

/// Builds from nothing, and compares. It has to be in the same folder, so what is there goes first.
fn built_again(made: &[PathBuf], revision: u32) -> Result<()> {
    fs::remove_dir_all(target())?;
    let again = tempfile::tempdir()?;
    for (first, second) in made.iter().zip(pack(&build()?, revision, again.path())?) {
        ensure!(digest(first)? == digest(&second)?, "{} is not reproducible", first.display());
    }
    println!("built again: the same bytes");
    Ok(())
}

/// Its own, as it is built with flags of its own.
fn target() -> PathBuf {
    workspace().join("target/dist")
}

/// The program as it is packed.
pub fn build() -> Result<Program> {
    setup::programs(&PROGRAMS)?;
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let paths = [(workspace(), "/usr/src/firewall"), (home, "/usr/src/cargo")];
    let flags = paths.map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()));
    // LLVM writes types of the kernel programs down in the order of its memory, which is the same each
    // time only where addresses are.
    run_command(
        command("setarch")
            .args(["--addr-no-randomize", "cargo", "build", "--release", "--locked"])
            .args(["--package", "firewall", "--target-dir"])
            .arg(target())
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
    )?;
    let binary = target().join("firewall");
    // By hand, as cargo would strip the kernel programs too, of the types that they need.
    run_command(
        command("strip").arg("-o").arg(&binary).arg(target().join("release").join("firewall")),
    )?;
    Program::ask(binary)
}

fn pack(program: &Program, revision: u32, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out)?;
    let mut packed = vec![tarball(program, out)?];
    if which("dpkg-deb").is_some() && which("dpkg-shlibdeps").is_some() {
        packed.push(deb(program, revision, out)?);
    } else {
        eprintln!("skipped: the Debian package, for which dpkg-dev is missing");
    }
    Ok(packed)
}

/// An archive to unpack at the root directory.
fn tarball(program: &Program, out: &Path) -> Result<PathBuf> {
    let name = format!("{NAME}-{VERSION}-{}-linux", std::env::consts::ARCH);
    let work = tempfile::tempdir()?;
    Files::of(program)?.write(&work.path().join(&name))?;
    let archive = out.join(format!("{name}.tar.gz"));
    run_command(
        command("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
            .args([&format!("--mtime=@{}", epoch()?), "--use-compress-program=gzip -9n"])
            .arg("--directory")
            .arg(work.path())
            .arg("-cf")
            .arg(&archive)
            .arg(&name),
    )?;
    Ok(archive)
}

const NAME: &str = "firewall";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The time of everything: `SOURCE_DATE_EPOCH`, or that of the commit, in seconds since 1970.
fn epoch() -> Result<u64> {
    if let Some(given) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let given = given.to_string_lossy();
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}"));
    }
    output(command("git").args(["log", "-1", "--format=%ct"]))?.trim().parse().context("git log")
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim_end());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn digest(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
