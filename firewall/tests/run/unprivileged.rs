//! Without the capabilities that it takes: nothing is run, and what is missing is said.

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{
    harness::require_kernel,
    support::{BAIDU, FIREWALL},
};

/// `nobody`
const NOBODY: u32 = 65534;

/// The binary where everybody can reach it, and a place where everybody can write.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).expect("our directory");
        std::fs::copy(FIREWALL, directory.path().join("firewall")).expect("a copy");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As an ordinary user.
    fn firewall(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.path("firewall"));
        command.args(words).uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent");
        command.current_dir(self.directory.path()).output().expect("the firewall")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    if !require_kernel() {
        return;
    }
    let place = Place::new();
    let (ran, log) = (place.path("ran"), place.path("log"));
    let (touched, logged) = (ran.to_str().expect("UTF-8"), log.to_str().expect("UTF-8"));
    // What would be read and be wrong is not looked at.
    for policy in ["baidu", "/root/secret.toml"] {
        let words = ["run", "--policy", policy, "--log", logged, "--", "touch", touched];
        let output = place.firewall(&words);
        assert_eq!(output.status.code(), Some(125));
        assert_eq!(
            said(&output),
            "error: this process may not put programs into the kernel: it lacks CAP_BPF, \
             CAP_PERFMON, CAP_NET_ADMIN, CAP_DAC_OVERRIDE\n\n\
             hint: `sudo firewall run --as-me -- CMD` runs the command as yourself\n"
        );
        assert!(output.stdout.is_empty());
        assert!(!ran.exists() && !log.exists());
    }
}

/// What is said is what counts: with all but these it runs.
#[test]
fn root_is_told_which_capabilities_it_was_denied() {
    if !require_kernel() {
        return;
    }
    let run = |program: &str, words: &[&str]| {
        let command = ["run", "--policy", "baidu", "--", "sh", "-c", "exit 7"];
        let mut all = Command::new(program);
        all.args(words).arg(FIREWALL).args(command).output().expect("setpriv, unshare")
    };
    // Mounts what the next ones find.
    assert_eq!(run("env", &[]).status.code(), Some(7));
    let without = |capabilities: &str| run("setpriv", &["--bounding-set", capabilities]);
    for (capabilities, missing) in [
        ("-sys_admin,-bpf", "CAP_BPF"),
        ("-sys_admin,-perfmon", "CAP_PERFMON"),
        ("-sys_admin,-bpf,-perfmon", "CAP_BPF, CAP_PERFMON"),
        ("-net_admin", "CAP_NET_ADMIN"),
        ("-dac_override", "CAP_DAC_OVERRIDE"),
    ] {
        let output = without(capabilities);
        assert_eq!(output.status.code(), Some(125), "{capabilities}: {}", said(&output));
        let stderr = said(&output);
        assert!(stderr.contains(&format!("it lacks {missing}\n")), "{capabilities}: {stderr}");
    }
    for capabilities in ["-sys_admin", "-bpf,-perfmon"] {
        let output = without(capabilities);
        assert_eq!(output.status.code(), Some(7), "{capabilities}: {}", said(&output));
    }
    let output = run("unshare", &["--user", "--map-root-user"]);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(said(&output).contains("user namespace"), "{}", said(&output));
}

#[test]
fn what_asks_nothing_of_the_kernel_works_for_everybody() {
    if !require_kernel() {
        return;
    }
    let place = Place::new();
    let policy = place.path("my.toml");
    std::fs::write(&policy, "[policy]\nname = \"my\"\ndefault = \"drop\"\n").expect("a file");
    let policy = policy.to_str().expect("UTF-8");
    let list = place.path("list.txt");
    std::fs::write(&list, "hm.baidu.com\n").expect("a file");
    let list = list.to_str().expect("UTF-8");
    for (words, status, says) in [
        (&["explain", "--policy", "cn-jurisdiction", BAIDU][..], 0, "deny"),
        (&["explain", "--policy", policy, "--exit-code", BAIDU], 1, "deny"),
        (&["check", policy], 0, ""),
        (&["policy", "list"], 0, "cn-jurisdiction"),
        (&["policy", "show", "baidu"], 0, "[policy]"),
        (&["list", "show", list], 0, "(domains)"),
        (&["import", "domains", list], 0, "[policy]"),
        (&["geo", "lookup", BAIDU], 0, "CN"),
        // It says that nothing can be enforced.
        (&["doctor"], 3, "it lacks CAP_BPF"),
    ] {
        let output = place.firewall(words);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {stdout}{}", said(&output));
        assert!(stdout.contains(says), "{words:?}: {stdout}{}", said(&output));
    }
}
