//! Which events are wanted: by app, with the selectors that policies have, and by what else they say.

use std::{collections::HashMap, net::IpAddr};

use firewall_common::app::Kind;
use jiff::Timestamp;

use super::{
    App,
    record::{Record, Verdict},
};
use crate::policy::{self, AppFacts, Selector, source::Files};

/// Apps that are remembered.
const MAX_KNOWN: usize = 4096;

/// Which events are wanted, as options of a command and as parameters of the API. Each may be repeated:
/// one of its values has to hold, and of the options all.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only of apps that this selects, as in policies: `exe:/usr/bin/curl`, `unit:*.service`
    #[arg(long, value_name = "SEL")]
    pub app: Vec<String>,
    /// Only of this user, by name or number
    #[arg(long, value_name = "U")]
    pub user: Vec<String>,
    /// Only to this country: `CN`
    #[arg(long, value_name = "C")]
    pub country: Vec<String>,
    /// Only to this owner: an organisation, or an AS as `AS37963`
    #[arg(long, value_name = "O")]
    pub owner: Vec<String>,
    /// Only to this name and names under it, or to this address
    #[arg(long, value_name = "G")]
    pub host: Vec<String>,
    /// Only by this policy
    #[arg(long, value_name = "P")]
    pub policy: Vec<String>,
    /// Only by rules of this name
    #[arg(long, value_name = "R")]
    pub rule: Vec<String>,
    /// Only with this verdict: `allow`, `audit` or `deny`
    #[arg(long, value_name = "V")]
    pub verdict: Vec<String>,
}

impl Wanted {
    /// Each by its name.
    fn each(&mut self) -> [(&'static str, &mut Vec<String>); 8] {
        let Self { app, user, country, owner, host, policy, rule, verdict } = self;
        [
            ("app", app),
            ("user", user),
            ("country", country),
            ("owner", owner),
            ("host", host),
            ("policy", policy),
            ("rule", rule),
            ("verdict", verdict),
        ]
    }

    /// Takes in a parameter, and tells whether it is one of these.
    pub fn take(&mut self, name: &str, value: &str) -> bool {
        let found = self.each().into_iter().find(|(known, _)| *known == name);
        found.map(|(_, values)| values.push(value.to_owned())).is_some()
    }

    /// All as parameters.
    pub fn parameters(mut self) -> Vec<(&'static str, String)> {
        let each = self.each().into_iter();
        each.flat_map(|(name, values)| values.drain(..).map(move |value| (name, value))).collect()
    }
}

/// From when to when events are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Period {
    /// Not before this time
    pub since: Option<Timestamp>,
    /// Before this time
    pub until: Option<Timestamp>,
}

/// What cannot be wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {message}")]
pub struct Wrong {
    /// Name of the option.
    pub option: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// Lets through the events that are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    wanted: Wanted,
    period: Period,
    verdicts: Vec<Verdict>,
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
    /// For what is wanted.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(wanted: Wanted, period: Period, files: &dyn Files) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut selectors = Vec::new();
        for text in &wanted.app {
            match policy::parse_selector(text, files) {
                Ok(selector) => selectors.push(selector),
                Err(error) => {
                    wrong.push(Wrong { option: "app", message: error.message, hint: error.hint })
                }
            }
        }
        let mut verdicts = Vec::new();
        for word in &wanted.verdict {
            match Verdict::of(word) {
                Some(verdict) => verdicts.push(verdict),
                None => wrong.push(Wrong {
                    option: "verdict",
                    message: format!("there is no verdict {}", policy::diagnostic::quoted(word)),
                    hint: "it is one of `allow`, `audit` or `deny`".to_owned(),
                }),
            }
        }
        match wrong.is_empty() {
            true => Ok(Self { wanted, period, verdicts, selectors, known: HashMap::new() }),
            false => Err(wrong),
        }
    }

    /// Whether everything passes.
    pub fn is_open(&self) -> bool {
        self.wanted == Wanted::default() && self.period == Period::default()
    }

    /// Whether an event passes.
    pub fn passes(&mut self, record: &Record) -> bool {
        let Record { time, verdict, app, dst, host, geo, policy, rule, .. } = record;
        let Wanted { user, country, owner, host: hosts, policy: policies, rule: rules, .. } =
            &self.wanted;
        let one = |wanted: &[String], is: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| is(wanted))
        };
        let same = |known: &Option<String>, wanted: &str| {
            known.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(wanted))
        };
        self.period.since.is_none_or(|since| *time >= since)
            && self.period.until.is_none_or(|until| *time < until)
            && (self.verdicts.is_empty() || self.verdicts.contains(verdict))
            && one(user, &|user| app.user.as_deref() == Some(user) || app.uid.to_string() == user)
            && one(country, &|country| same(&geo.country, country))
            && one(owner, &|owner| {
                same(&geo.organisation, owner) || geo.asn.is_some_and(|asn| is_as(owner, asn))
            })
            && one(hosts, &|wanted| {
                wanted.parse() == Ok::<IpAddr, _>(dst.ip)
                    || host.as_ref().is_some_and(|host| is_under(&host.name, wanted))
            })
            && one(policies, &|wanted| policy.as_deref() == Some(wanted))
            && one(rules, &|wanted| rule.as_deref() == Some(wanted))
            && self.selects(app)
    }

    /// Whether one of the selectors selects an app.
    fn selects(&mut self, app: &App) -> bool {
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

/// Whether a word means an AS: `AS37963`, `37963`.
fn is_as(word: &str, asn: u32) -> bool {
    let prefix = word.get(..2).is_some_and(|two| two.eq_ignore_ascii_case("as"));
    word.get(if prefix { 2.. } else { 0.. }).is_some_and(|rest| rest.parse() == Ok(asn))
}

/// Whether a name is another or under it.
fn is_under(name: &str, other: &str) -> bool {
    let other = other.trim_end_matches('.');
    let Some(at) = name.len().checked_sub(other.len()) else { return false };
    let (before, end) = (name.get(..at), name.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(other))
        && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
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
        policy::source::Disk,
    };

    fn passes(selectors: &[&str], app: &App) -> bool {
        let app_words = selectors.iter().map(|text| (*text).to_owned()).collect();
        let wanted = Wanted { app: app_words, ..Wanted::default() };
        let mut filter = Filter::new(wanted, Period::default(), &Disk).unwrap();
        let first = filter.selects(app);
        assert_eq!(filter.selects(app), first, "what is remembered is the same");
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
