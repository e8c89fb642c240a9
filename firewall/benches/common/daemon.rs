//! A daemon whose policies, state, socket, cgroup and pins are its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use firewall::policy::source::{Content, Origin, Source};
use tempfile::TempDir;

use crate::harness::{Cgroup, Namespace, wait_until};

const FIREWALL: &str = env!("CARGO_BIN_EXE_firewall");
const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "firewall-bench-";
/// The shipped policies without a country or a name: they stop everything, or watch it.
const NOT_ENABLED: [&str; 2] = ["local-only", "watch-everything"];
/// How long anything may take that is expected to end by itself.
const LIMIT: Duration = Duration::from_secs(180);

/// Dropped, it leaves nothing in force and no process.
pub struct Daemon {
    directory: TempDir,
    pin: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// With settings and without policies; not started.
    pub fn new(settings: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            remove_stale()?;
        }
        let pin = Path::new(BPFFS).join(format!("{PREFIX}{}-{number}", std::process::id()));
        let daemon = Self { directory: tempfile::tempdir()?, pin, child: None };
        fs::create_dir(daemon.file("policies.d"))?;
        fs::write(daemon.file("firewall.toml"), settings)?;
        Ok(daemon)
    }

    /// A path in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes one of its policies.
    pub fn set_policy(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.file(&format!("policies.d/{name}.toml")), text)?)
    }

    /// Gives it every shipped policy that goes by countries and names.
    pub fn enable_shipped(&self) -> Result<()> {
        for source in Source::all_shipped() {
            if let Source { origin: Origin::Shipped(name), content: Content::Text(text) } = source
                && !NOT_ENABLED.contains(&&*name)
            {
                self.set_policy(&name, &text)?;
            }
        }
        Ok(())
    }

    /// Starts it for a cgroup.
    pub fn start(&mut self, namespace: &Namespace, cgroup: &Cgroup) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.file("said"))?;
        let mut command = namespace.command(FIREWALL);
        command.arg("daemon").arg("--cgroup").arg(cgroup.path()).arg("--pin").arg(&self.pin);
        for (option, file) in [
            ("--config", "firewall.toml"),
            ("--policies", "policies.d"),
            ("--state", "state"),
            ("--socket", "api.sock"),
        ] {
            command.arg(option).arg(self.file(file));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().context(FIREWALL)?);
        Ok(())
    }

    /// Waits until it answers.
    pub fn wait(&mut self) -> Result<()> {
        let mut ended = false;
        let answers = wait_until(LIMIT, || {
            let child = self.child.as_mut().map(Child::try_wait);
            ended = !matches!(child, Some(Ok(None)));
            ended || self.ask(&["status"]).is_ok()
        });
        ensure!(answers && !ended, "no daemon: {}", self.said());
        Ok(())
    }

    /// Asks it something by the command line.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(FIREWALL)
            .args(words)
            .arg("--socket")
            .arg(self.file("api.sock"))
            .output()
            .context(FIREWALL)?;
        ensure!(
            output.status.success(),
            "firewall {}: {}{}{}",
            words.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.said()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// All that it has said, and what it has denied.
    pub fn said(&self) -> String {
        let said = fs::read_to_string(self.file("said")).unwrap_or_default();
        let mut log = Command::new(FIREWALL);
        let log = log.args(["log", "--verdict=deny"]).arg("--state").arg(self.file("state"));
        let denied = log.output().map(|output| [output.stdout, output.stderr].concat());
        said + &String::from_utf8_lossy(&denied.unwrap_or_default())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The worker goes with it. Fails if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        clear(&self.pin);
    }
}

/// Takes away what is pinned below a folder, and the folder.
fn clear(pin: &Path) {
    // Where nothing is pinned this fails, and nothing is what is wanted.
    let nobody = pin.join("socket");
    let words = [Path::new("off"), Path::new("--socket"), &nobody, Path::new("--pin"), pin];
    let _ = Command::new(FIREWALL).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = fs::remove_dir_all(pin);
}

/// Removes what killed measurements have left.
fn remove_stale() -> Result<()> {
    for entry in fs::read_dir(BPFFS).context("no bpf file system")? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            clear(&entry.path());
        }
    }
    Ok(())
}
