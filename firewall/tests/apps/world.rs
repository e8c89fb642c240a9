//! A host that programs try to reach, and shells by many names that try.

use std::{
    fmt::Display,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    harness::Net,
    support::{FREE, Outcome, Run},
};

/// A place with copies of a shell, and a host.
///
/// A shell tries to reach the host by `/dev/udp`: a `connect()` and a datagram, and no other program.
pub struct World {
    pub net: Net,
    place: TempDir,
}

/// What came of each try, by its name.
pub struct Tries {
    pub outcome: Outcome,
}

impl World {
    pub fn new() -> Self {
        Self::with(&[FREE])
    }

    /// With a host that has all these addresses.
    pub fn with(addresses: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))
            .expect("our directory");
        Self { net: Net::new(addresses), place }
    }

    /// The path of something in the place.
    pub fn path(&self, name: &str) -> PathBuf {
        // As the kernel has it, behind links.
        self.place.path().canonicalize().expect("our directory").join(name)
    }

    /// A copy of the shell by this name.
    pub fn shell(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::copy("/bin/bash", &path).expect("a copy of bash");
        path
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our file");
        path
    }

    /// A policy of these rules: name, action and apps of each, about the host.
    pub fn policy(&self, default: &str, rules: &[(&str, &str, String)]) -> PathBuf {
        let mut text = format!("[policy]\nname = \"test\"\ndefault = \"{default}\"\n");
        for (name, action, apps) in rules {
            text += &format!(
                "[[rule]]\nname = \"{name}\"\naction = \"{action}\"\n\
                 to = {{ networks = [\"{FREE}/32\", \"127.0.0.9/32\"] }}\n{apps}\n"
            );
        }
        self.file("policy.toml", &text)
    }

    /// Runs a shell script under a policy; see [`attempt`].
    pub fn run(&self, policy: &Path, script: &str) -> Tries {
        let policy = policy.display().to_string();
        let outcome =
            Run::new(&self.net, &["--policy", &policy]).program(&["/bin/bash", "-c", script]);
        outcome.assert_status(0);
        Tries { outcome }
    }
}

/// `apps = [...]` of selectors.
pub fn apps(selectors: &[impl Display]) -> String {
    let quoted: Vec<String> =
        selectors.iter().map(|one| format!("{:?}", one.to_string())).collect();
    format!("apps = [{}]", quoted.join(", "))
}

/// The selector of an executable.
pub fn exe(path: &Path) -> String {
    format!("exe:{}", path.display())
}

/// What a shell does to reach the host: each try at a port of its own.
pub fn reach(port: u16) -> String {
    format!("echo x >/dev/udp/{FREE}/{port}")
}

/// Has a command, which begins with a shell, try to reach the host, and say what came of it.
pub fn attempt(name: &str, command: impl Display) -> String {
    format!("if {command} 2>/dev/null; then echo {name}=pass; else echo {name}=stop; fi\n")
}

/// As [`attempt`], of a shell that tries at a port.
pub fn by(name: &str, shell: impl Display, port: u16) -> String {
    attempt(name, format!("{shell} -c '{}'", reach(port)))
}

impl Tries {
    /// What came of a try.
    #[track_caller]
    pub fn of(&self, name: &str) -> &str {
        let line = self.outcome.stdout.lines().find_map(|line| {
            let (tried, came) = line.split_once('=')?;
            (tried == name).then_some(came)
        });
        line.unwrap_or_else(|| {
            panic!("no try `{name}`: {}{}", self.outcome.stdout, self.outcome.stderr)
        })
    }

    #[track_caller]
    pub fn assert(&self, passed: &[&str], stopped: &[&str]) {
        for (names, came) in [(passed, "pass"), (stopped, "stop")] {
            for name in names {
                assert_eq!(
                    self.of(name),
                    came,
                    "{name}\n{:#?}\n{}",
                    self.outcome.events,
                    self.outcome.stderr
                );
            }
        }
    }

    /// The executable of the event about a port.
    #[track_caller]
    pub fn exe_of(&self, port: u16) -> &str {
        let event = self.outcome.events.iter().find(|event| event["dst"]["port"] == port);
        let event =
            event.unwrap_or_else(|| panic!("no event of {port}: {:#?}", self.outcome.events));
        event["app"]["exe"].as_str().unwrap_or_else(|| panic!("{event}"))
    }
}
