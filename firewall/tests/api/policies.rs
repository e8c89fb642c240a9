//! `firewall policy enable` and `disable`.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use firewall::daemon::control::Refusal;
use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::{
    rights::is_root,
    world::{Daemon, Said},
};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

impl Daemon {
    fn policy(&self, verb: &str, name: &str) -> Said {
        let folder = self.path("policies.d");
        let folder = folder.to_str().unwrap();
        self.run(&["policy", verb, name, "--policies", folder])
    }
}

/// Without a daemon.
fn alone(verb: &str, name: &str, folder: &Path) -> Said {
    Said::of(command(verb, name, folder))
}

fn command(verb: &str, name: &str, folder: &Path) -> Command {
    let mut firewall = Command::new(env!("CARGO_BIN_EXE_firewall"));
    firewall.args(["policy", verb, name, "--policies"]).arg(folder);
    firewall.args(["--socket", "/none"]);
    firewall
}

#[test]
fn in_and_out() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::new();
    let folder = daemon.path("policies.d");
    let path = folder.join("baidu.toml");
    let said = daemon.policy("enable", "baidu");
    let out = format!("enabled: {}\n", path.display());
    assert_eq!((said.status, said.out), (0, out));
    assert_eq!(said.err, "in force: generation 7: 2 policies, 1 rule\n");
    assert_eq!(daemon.asked(), ["Status", "Reload"]);
    let shipped = firewall::policy::SHIPPED.iter().find(|(name, _)| *name == "baidu").unwrap().1;
    assert_eq!(fs::read_to_string(&path).unwrap(), shipped);
    let again = daemon.policy("enable", "baidu");
    assert_eq!((again.status, again.out), (0, format!("already enabled: {}\n", path.display())));

    // What the user has changed is not lost.
    let own = format!("# mine\n{shipped}");
    fs::write(&path, &own).unwrap();
    let said = daemon.policy("enable", "baidu");
    assert_eq!((said.status, said.out.as_str()), (1, ""));
    assert!(said.err.contains("is another one") && said.err.contains("hint: "), "{}", said.err);
    let said = daemon.policy("disable", "baidu");
    let out = format!("disabled: {}.disabled\n", path.display());
    assert_eq!((said.status, said.out), (0, out), "{}", said.err);
    assert_eq!(names(&folder), ["baidu.toml.disabled"]);
    assert_eq!(daemon.policy("disable", "baidu").status, 1, "it is not there");
    assert_eq!(daemon.policy("enable", "baidu").status, 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), own);
    // Two that were disabled would be one too many.
    fs::write(folder.join("baidu.toml.disabled"), "old").unwrap();
    let said = daemon.policy("disable", "baidu");
    assert!(said.status == 1 && said.err.contains("is there already"), "{said:?}");
    assert_eq!(names(&folder), ["baidu.toml", "baidu.toml.disabled"]);
}

#[test]
fn what_the_daemon_does_not_take_is_put_back() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::new();
    let folder = daemon.path("policies.d");
    assert_eq!(daemon.policy("enable", "tencent").status, 0);
    for (refusal, status) in [
        (Refusal::invalid("error: two policies are called `x`"), 1),
        (Refusal::cannot("the kernel has no room"), 3),
    ] {
        daemon.refuse(Some(refusal.clone()));
        let said = daemon.policy("enable", "baidu");
        assert_eq!((said.status, said.out.as_str()), (status, ""), "{said:?}");
        assert!(said.err.contains(&refusal.message) && said.err.contains("gone again"), "{said:?}");
        let said = daemon.policy("disable", "tencent");
        assert_eq!((said.status, said.out.as_str()), (status, ""), "{said:?}");
        assert!(said.err.contains(&refusal.message) && said.err.contains("stays"), "{said:?}");
        assert_eq!(names(&folder), ["tencent.toml"]);
    }
}

#[test]
fn without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies.d");
    let said = alone("enable", "baidu", &policies);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(
        said.err.ends_with("note: no daemon runs, so nothing in force has changed\n"),
        "{said:?}"
    );
    assert_eq!(names(&policies), ["baidu.toml"], "the folder is made");

    // A file of one's own, valid or not.
    let text = "[policy]\nname = \"own\"\ndefault = \"drop\"\n";
    let file = folder.path().join("50-local.toml");
    for (text, status, there) in [
        ("[policy]\nname = \"own\"\nmode = \"no\"\n", 1, &["baidu.toml"][..]),
        ("[policy]\nname = \"baidu\"\ndefault = \"drop\"\n", 1, &["baidu.toml"]),
        (text, 0, &["50-local.toml", "baidu.toml"]),
    ] {
        fs::write(&file, text).unwrap();
        let said = alone("enable", file.to_str().unwrap(), &policies);
        assert_eq!(said.status, status, "{said:?}");
        assert_eq!(said.err.contains("50-local.toml is gone again"), status == 1, "{said:?}");
        assert_eq!(names(&policies), there);
    }
    // By the name of the policy.
    assert_eq!(alone("disable", "own", &policies).status, 0);
    assert_eq!(names(&policies), ["50-local.toml.disabled", "baidu.toml"]);

    let place = folder.path().display();
    fs::write(folder.path().join(".hidden.toml"), text).unwrap();
    mkfifo(&folder.path().join("pipe.toml"), Mode::S_IRWXU).unwrap();
    for (name, status, says) in [
        ("baidoo", 2, "did you mean `baidu`?"),
        ("x\u{1b}[31m", 2, "no shipped policy `x?[31m`"),
        (&format!("{place}/.hidden.toml"), 2, ".hidden.toml is hidden"),
        (&format!("{place}/pipe.toml"), 2, "pipe.toml: it is no regular file"),
        ("./none.toml", 2, "cannot read"),
        ("/", 2, "is a folder"),
    ] {
        let said = alone("enable", name, &policies);
        assert_eq!((said.status, said.out.as_str()), (status, ""), "{said:?}");
        assert!(said.err.contains(says), "{said:?}");
    }
    assert_eq!(names(&policies), ["50-local.toml.disabled", "baidu.toml"]);
    let said = alone("disable", "own", &folder.path().join("nowhere"));
    assert!(said.status == 1 && said.err.contains("no policy `own`"), "{said:?}");
    mkfifo(&policies.join("tencent.toml"), Mode::S_IRWXU).unwrap();
    for name in ["tencent", "deepseek"] {
        let said = alone("enable", name, &policies);
        assert!(said.status == 1 && said.err.contains("it is no regular file"), "{said:?}");
    }
}

/// In a mount namespace of its own, so that no other sees them.
#[test]
fn with_broken_settings_all_stays_as_it_was() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies.d");
    let broken = |verb: &str| {
        let script = "mount -t tmpfs none /etc && mkdir /etc/firewall \
                      && echo 'defaults = 1' > /etc/firewall/firewall.toml && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_firewall")]);
        command.args(["policy", verb, "baidu", "--socket", "/none", "--policies"]).arg(&policies);
        let said = Said::of(command);
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
        assert!(said.err.contains("did you mean `default`?"), "{said:?}");
        said.err
    };
    let said = broken("enable");
    assert!(said.contains("baidu.toml is gone again"), "{said}");
    assert_eq!(names(&policies), [""; 0]);
    alone("enable", "baidu", &policies);
    let said = broken("disable");
    assert!(said.contains("baidu.toml stays enabled"), "{said}");
    assert_eq!(names(&policies), ["baidu.toml"]);
}

#[test]
fn what_cannot_be_told_is_no_reason_to_end() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("enable", "baidu", folder.path());
    let status = command.stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(names(folder.path()), ["baidu.toml"]);
}

#[test]
fn a_daemon_with_another_folder_is_not_asked() {
    let daemon = Daemon::new();
    daemon.change(|status| status.folder = "/elsewhere".to_owned());
    let said = daemon.policy("enable", "baidu");
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.err.contains("the daemon has another folder"), "{said:?}");
    assert_eq!(daemon.asked(), ["Status"]);
}
