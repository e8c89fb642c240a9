//! What must hold of what is read of apps: files that users and package managers write, paths of
//! cgroups, and the selectors that look for them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use firewall::{
    apps::{
        cgroup::{Container, labels, without_instance},
        containers::Containers,
        packages::Packages,
        process::Stat,
    },
    encrypted_dns::{self, State},
    policy::{
        self, Action, AppFacts, Apps, Default as Standard, Mode, Policy, Rule, Selector,
        compile::{self, Facts, Settings},
    },
};
use firewall_common::{
    app::Kind,
    evaluate::Named,
    flow::{Destination, TCP},
    verdict::Verdict,
};
use tempfile::TempDir;

use super::events::Nothing;

/// A root of a file system, one for each thread.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder for temporary files"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file there, or takes it away.
    fn put(&self, path: &str, bytes: Option<&[u8]>) {
        let path = self.path().join(path);
        match bytes {
            Some(bytes) => {
                if fs::write(&path, bytes).is_err() {
                    fs::create_dir_all(path.parent().expect("a folder")).expect("making it");
                    fs::write(&path, bytes).expect("writing");
                }
            }
            None => drop(fs::remove_file(&path)),
        }
    }
}

thread_local! {
    static ROOT: Root = Root::new();
}

/// The parts of an input: a byte 0xff, which no text has, stands between two. An empty part is no file.
fn parts<const N: usize>(bytes: &[u8]) -> [Option<&[u8]>; N] {
    let mut parts = bytes.splitn(N, |byte| *byte == 0xff);
    [(); N].map(|()| parts.next().filter(|part| !part.is_empty()))
}

/// The path of a cgroup: labels are parts of it, and the same unit at its next start is called the same.
pub fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let found = labels(&text);
    let names: Vec<&str> = text.split('/').collect();
    if let Some(unit) = &found.unit {
        assert!(names.contains(&unit.as_str()), "{unit} in {text:?}");
        let same = without_instance(unit);
        assert_eq!(without_instance(&same), same, "{unit:?}");
        let selector = policy::parse_selector(&format!("unit:{same}"), &Nothing);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@*".contains(c);
        if let Ok(selector) = selector
            && same.chars().all(plain)
        {
            let cgroup = format!("/{unit}").into_bytes();
            let app = AppFacts { cgroup, ..AppFacts::default() };
            assert!(selector.selects(&app), "{same} selects no {unit}");
        }
    }
    if let Some(Container { id: Some(id), .. }) = &found.container {
        assert!(text.contains(id.as_str()) && (12..=64).contains(&id.len()), "{id} in {text:?}");
        assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    }
    if let Some(snap) = &found.snap {
        assert!(text.contains(&format!("snap.{snap}.")), "{snap} in {text:?}");
    }
    assert!(found.flatpak.is_none_or(|id| id.contains('.')));
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// `/proc/PID/stat`: read as a slow parser reads it, and a name that is the input hides no field of a text as
/// the kernel writes it.
pub fn stat(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(Stat::parse(&text), slow_stat(&text), "{text:?}");

    let number = |at: usize| {
        bytes.iter().cycle().skip(at).take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    let (parent, session) = (number(0), number(1));
    let started = u64::from(number(2)) << 32 | u64::from(number(3));
    let behind =
        format!("R {parent} 3 {session} 0 -1 {} {started} 23 24\n", "7 ".repeat(13).trim_end());
    let want = Stat { name: text.clone().into_owned(), parent, session, started };
    assert_eq!(Stat::parse(&format!("1 ({text}) {behind}")), Some(want), "{text:?}");
}

/// proc_pid_stat(5), from the last field to the first. Only a name has parentheses.
fn slow_stat(text: &str) -> Option<Stat> {
    let close = text.bytes().rposition(|byte| byte == b')')?;
    let open = text.find('(').filter(|open| *open < close)?;
    let mut fields = vec![String::new()];
    for c in text[close + 1..].chars() {
        match c.is_whitespace() {
            true => fields.push(String::new()),
            false => fields.last_mut()?.push(c),
        }
    }
    fields.retain(|field| !field.is_empty());
    // The state of the process is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Stat {
        name: text[open + 1..close].to_owned(),
        parent: u32::try_from(field(4)?).ok()?,
        session: u32::try_from(field(6)?).ok()?,
        started: field(22)?,
    })
}

/// Files of Docker and of Podman: a name comes of one of them, and what cannot be read is counted.
pub fn containers(bytes: &[u8]) {
    let [docker, podman, volatile] = parts(bytes);
    ROOT.with(|root| {
        root.put(&format!("var/lib/docker/containers/{ID}/config.v2.json"), docker);
        let storage = "var/lib/containers/storage/overlay-containers";
        root.put(&format!("{storage}/containers.json"), podman);
        root.put(&format!("{storage}/volatile-containers.json"), volatile);
        let mut containers = Containers::below(root.path());
        let asked = Container { id: Some(ID.to_owned()), ..Container::default() };
        let found = containers.name(asked.clone());
        assert_eq!(containers.name(asked.clone()), found);
        assert_eq!(found.id.as_deref(), Some(ID));
        assert!(found.name != Some(String::new()) && found.image != Some(String::new()));
        let is_json = |text| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
        assert!(docker.is_none_or(is_json) || containers.unreadable > 0);
        assert!(containers.unreadable <= 3);
    });
}

/// Databases of dpkg and pacman: a package that has a path stands in the one or the other.
pub fn packages(bytes: &[u8]) {
    let [status, list, desc, files] = parts(bytes);
    ROOT.with(|root| {
        root.put("var/lib/dpkg/status", status);
        root.put("var/lib/dpkg/info/curl.list", list);
        root.put("var/lib/pacman/local/a-1/desc", desc);
        root.put("var/lib/pacman/local/a-1/files", files);
        let mut packages = Packages::below(root.path());
        let paths =
            [list, files].into_iter().flatten().flat_map(|text| text.split(|b| *b == b'\n'));
        for path in paths.take(32) {
            use std::os::unix::ffi::OsStrExt as _;
            let path = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
            let documents = path.as_os_str().as_bytes().starts_with(b"/usr/share/doc/");
            let Some(found) = packages.of(&path) else { continue };
            let stands = |text: Option<&[u8]>| {
                let text = String::from_utf8_lossy(text.unwrap_or_default());
                text.contains(&found.name) && text.contains(&found.version)
            };
            assert!(found.name == "curl" && stands(status) || stands(desc), "{found:?} {path:?}");
            assert!(!documents, "{path:?}");
        }
        assert_eq!(packages.of(Path::new("")), None);
    });
}

/// Settings that browsers and the resolver of systemd leave: each finding says where it stands, and
/// what, and the same files say the same.
pub fn encrypted_dns(bytes: &[u8]) {
    let [prefs, user, profiles, state, policies, resolved] = parts(bytes);
    ROOT.with(|root| {
        root.put("home/ada/file", Some(b"x"));
        root.put("home/ada/.mozilla/firefox/one/prefs.js", prefs);
        root.put("home/ada/.mozilla/firefox/one/user.js", user);
        root.put("home/ada/.mozilla/firefox/profiles.ini", profiles);
        root.put("home/ada/.config/chromium/Local State", state);
        root.put("etc/firefox/policies/policies.json", policies);
        root.put("etc/systemd/resolved.conf", resolved);
        root.put("usr/lib/systemd/systemd-resolved", Some(b"x"));
        let machine = encrypted_dns::Machine::at(root.path());
        let homes = machine.homes().expect("homes");
        assert_eq!(homes.len(), 1);
        let found = encrypted_dns::find(&machine, &homes);
        assert_eq!(encrypted_dns::find(&machine, &homes), found);
        let of = |app: &str| found.iter().filter(|one| one.app == app).collect::<Vec<_>>();
        let sound = state.is_none_or(|text| {
            let text = String::from_utf8_lossy(text);
            serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&text).is_ok()
        });
        assert_eq!(of("Chromium").len(), usize::from(state.is_some()), "{found:?}");
        let unknown = of("Chromium").iter().all(|one| one.state == State::Unknown);
        assert!(sound || unknown, "{found:?}");
        for one in &found {
            assert!(!one.detail.is_empty() && one.file != PathBuf::new(), "{one:?}");
            assert!(one.file.is_absolute() || profiles.is_some(), "{one:?}");
        }
    });
}

/// A selector and, in lines behind it, the paths of an app: it is the same when it is written again, and
/// a rule for it holds for the app if it selects it.
pub fn selector(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let Some(first) = lines.next() else { return };
    let Ok(selector) = policy::parse_selector(first, &Nothing) else { return };
    let again = policy::parse_selector(&selector.text, &Nothing);
    assert_eq!(again.as_ref(), Ok(&selector), "{first:?}");

    let mut path = || lines.next().unwrap_or_default().as_bytes().to_vec();
    let (exe, script, cgroup) = (path(), path(), path());
    let number = lines.next().and_then(|line| line.parse().ok());
    let app = AppFacts { kind: Kind::Trusted, exe, script, cgroup, uid: number, gid: number };
    let kinds = [Kind::Trusted, Kind::Kernel, Kind::Unknown];
    let apps = kinds.map(|kind| AppFacts { kind, ..app.clone() });
    // What no path can have ends the text for the kernel.
    let whole = |path: &[u8]| !path.contains(&0);
    if first.len() > 64 || ![&app.exe, &app.script, &app.cgroup].iter().all(|path| whole(path)) {
        return;
    }
    let Some(generation) = compiled(&selector) else { return };
    let destination = Destination {
        address: firewall_common::flow::Address::v4(0x0102_0304),
        port: 443,
        protocol: TCP,
        port_hidden: 0,
    };
    for app in apps {
        let class = generation.class_of_app(&app);
        let outcome = generation.evaluate(class, &destination, &Named::default());
        let Ok(outcome) = outcome else { panic!("damaged tables") };
        let dropped = outcome.verdict == Verdict::Deny;
        assert_eq!(dropped, selector.selects(&app), "{selector} {app:?}");
    }
}

/// All is dropped that the selected apps do; `None` if the selector needs more than there is room for.
fn compiled(selector: &Selector) -> Option<compile::Generation> {
    let apps = Apps { only: vec![selector.clone()], except: Vec::new() };
    let rule = Rule {
        name: "r".to_owned(),
        action: Action::Drop,
        to: None,
        ports: vec![],
        apps,
        until: None,
    };
    let policy = Policy {
        name: "p".to_owned(),
        description: String::new(),
        mode: Mode::Enforce,
        priority: 1,
        default: Some(Standard::Allow),
        apps: Apps::default(),
        rules: vec![rule],
    };
    let facts = Facts { countries: None, asns: None, organisation: &|_| Vec::new() };
    compile::compile(vec![policy], facts, Settings::default()).ok()
}
