//! Which events are of an app, by the selectors that policies have.

use std::collections::HashMap;

use firewall_common::app::Kind;

use super::App;
use crate::policy::{AppFacts, Selector};

/// Apps that are remembered.
const MAX_KNOWN: usize = 4096;

/// Lets through the events of the apps that one of its selectors selects; without any, all.
#[derive(Debug, Default)]
pub struct Filter {
    selectors: Vec<Selector>,
    /// A selector takes its time.
    known: HashMap<Asked, bool>,
}

/// What selectors ask of an app.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    exe: Option<String>,
    script: Option<String>,
    cgroup: Option<String>,
    uid: u32,
    gid: Option<u32>,
    is_kernel: bool,
}

impl Filter {
    /// For the apps that one of these selects.
    pub fn new(selectors: Vec<Selector>) -> Self {
        Self { selectors, known: HashMap::new() }
    }

    /// Whether an event of this app passes.
    pub fn passes(&mut self, app: &App) -> bool {
        if self.selectors.is_empty() {
            return true;
        }
        let asked = Asked {
            exe: app.exe.clone(),
            script: app.script.clone(),
            cgroup: app.cgroup.clone(),
            uid: app.uid,
            gid: app.gid,
            is_kernel: app.is_kernel(),
        };
        if let Some(passes) = self.known.get(&asked) {
            return *passes;
        }
        let facts = facts(app);
        let passes = self.selectors.iter().any(|selector| selector.selects(&facts));
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(asked, passes);
        passes
    }
}

/// What selectors ask of an app, in their words. An event does not say how far its paths can be trusted:
/// they are taken as they are.
pub fn facts(app: &App) -> AppFacts {
    let bytes = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
    let kind = match &app.exe {
        Some(_) => Kind::Trusted,
        None if app.is_kernel() => Kind::Kernel,
        None => Kind::Unknown,
    };
    AppFacts {
        kind,
        exe: bytes(&app.exe),
        script: bytes(&app.script),
        cgroup: bytes(&app.cgroup),
        uid: Some(app.uid),
        gid: app.gid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        apps::cgroup::{Container, labels},
        policy::{self, source::Disk},
    };

    fn passes(selectors: &[&str], app: &App) -> bool {
        let selectors = selectors.iter().map(|text| policy::parse_selector(text, &Disk).unwrap());
        let mut filter = Filter::new(selectors.collect());
        let first = filter.passes(app);
        assert_eq!(filter.passes(app), first, "what is remembered is the same");
        first
    }

    fn app(cgroup: &str) -> App {
        App {
            name: "x".to_owned(),
            exe: Some("/opt/x".to_owned()),
            script: Some("/home/ada/a.py".to_owned()),
            pid: Some(7),
            uid: 4_000_000_001,
            gid: Some(4_000_000_002),
            cgroup: Some(cgroup.to_owned()),
            ..App::default()
        }
    }

    #[test]
    fn selectors_mean_what_they_mean_in_policies() {
        let app = app("/system.slice/docker.service/x");
        for selector in [
            "*",
            "exe:/opt/x",
            "exe:/opt/*",
            "script:/home/**/*.py",
            "unit:docker.service",
            "cgroup:/system.slice",
            "user:4000000001",
            "group:4000000002",
        ] {
            assert!(passes(&[selector], &app), "{selector}");
        }
        for selector in [
            "exe:/opt",
            "exe:/x",
            "script:/opt/x",
            "unit:x.service",
            "cgroup:/user.slice",
            "user:4000000002",
            "group:4000000001",
            "kernel",
            "unknown",
            "container:*",
        ] {
            assert!(!passes(&[selector], &app), "{selector}");
        }
        assert!(passes(&[], &app));
        assert!(passes(&["kernel", "exe:/opt/x"], &app), "one is enough");
    }

    #[test]
    fn the_kernel_and_the_unknown() {
        let kernel = App { name: "kernel".to_owned(), ..App::default() };
        let unknown = App { name: "unknown".to_owned(), ..App::default() };
        let called = App { exe: Some("/tmp/kernel".to_owned()), pid: Some(1), ..kernel.clone() };
        let nameless = App { pid: Some(1), ..kernel.clone() };
        for (app, want) in [
            (&kernel, [true, false]),
            (&unknown, [false, true]),
            (&called, [false, false]),
            (&nameless, [false, true]),
        ] {
            assert_eq!(["kernel", "unknown"].map(|one| passes(&[one], app)), want, "{app:?}");
        }
    }

    /// What an event says of the cgroup is what a selector for it selects.
    fn check(paths: &[String]) {
        for path in paths {
            let labels = labels(path);
            let Container { id, name, .. } = labels.container.unwrap_or_default();
            let selectors: Vec<String> = [
                ("unit", labels.unit),
                ("flatpak", labels.flatpak),
                ("snap", labels.snap),
                ("container", id.or(name)),
            ]
            .into_iter()
            .filter_map(|(kind, value)| Some(format!("{kind}:{}", value?)))
            .collect();
            assert!(!selectors.is_empty(), "{path}");
            for selector in selectors {
                assert!(passes(&[&selector], &app(path)), "{selector} of {path}");
                assert!(!passes(&[&selector], &app("/other.slice")), "{selector}");
            }
        }
    }

    #[test]
    fn labels_are_selectors() {
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        check(&[
            "/system.slice/docker.service".to_owned(),
            format!(r"{user}/app-flatpak-io.a\x2db.c-1.scope"),
            format!("{user}/flatpak-org.mozilla.firefox-123.scope/x"),
            format!("{user}/snap.firefox.firefox-1b2c.scope"),
            "/system.slice/snap.lxd.daemon.service".to_owned(),
        ]);
    }

    #[test]
    fn containers_are_selectors() {
        let id = "0123456789abcdef".repeat(4);
        check(&[
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/machine.slice/libpod-payload-{id}.scope"),
            format!("/kubepods.slice/cri-containerd-{id}.scope"),
            r"/machine.slice/machine-my\x2dbox.scope/x".to_owned(),
            "/machine.slice/systemd-nspawn@web.service".to_owned(),
            "/lxc/web".to_owned(),
            "/lxc.payload.web/x".to_owned(),
        ]);
    }
}
