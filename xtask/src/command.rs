//! Running other programs, and saying which.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// The top folder of the workspace.
pub fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// A command in the top folder, without standard input and with cargo's programs on its path.
pub fn command(program: &str) -> Command {
    prepared(Command::new(program))
}

/// `cargo` as the one that started us, for the workspace's usual toolchain.
pub fn cargo() -> Command {
    command("cargo")
}

/// A command of the toolchain for the kernel programs.
pub fn ebpf_command(found: &toolchain::Toolchain, program: &str) -> Command {
    let mut command = prepared(toolchain::in_toolchain(found.name.as_deref(), program));
    if !found.nightly {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
}

fn prepared(mut command: Command) -> Command {
    command
        .current_dir(workspace())
        .stdin(Stdio::null())
        .env("PATH", toolchain::search_path())
        .env("DEBIAN_FRONTEND", "noninteractive");
    // What `cargo run` tells xtask about itself: build scripts that look at it would run again, and all that
    // needs them be built again, each time cargo is called the other way.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Where cargo puts what it builds.
pub fn target_directory() -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let text = output(cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Metadata = serde_json::from_str(&text)
        .with_context(|| format!("cargo metadata in {}", workspace().display()))?;
    Ok(metadata.target_directory)
}

/// What a command says on standard output; fails when it does.
pub fn output(command: &mut Command) -> Result<String> {
    let line = display(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{line}: not started"))?;
    if !output.status.success() {
        bail!("{line}: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Shows the command, runs it, and fails when it does.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("{line}: not started"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Whether a command succeeds, with nothing shown.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether we are root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|data| {
        use std::os::unix::fs::MetadataExt as _;
        data.uid() == 0
    })
}

fn display(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| !matches!(*name, "PATH" | "DEBIAN_FRONTEND"))?;
        Some(format!("{name}={}", value?.to_string_lossy()))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    variables
        .chain(words.map(|word| word.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}
