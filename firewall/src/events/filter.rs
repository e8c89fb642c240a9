//! Which events are asked for: by time, app, destination, and what decided.

use std::collections::HashMap;

use firewall_common::app::Kind;
use jiff::{SignedDuration, Timestamp, Zoned, civil};

use super::{App, View};
use crate::{
    intel::country::Country,
    policy::{self, AppFacts, Domain, Selector, diagnostic::quoted, parse::nearest, source::Files},
    span,
};

/// Apps that are remembered.
const MAX_KNOWN: usize = 4096;

/// What is asked for, as on the command line and in the query of a request. Of one kind one is enough,
/// and of different kinds all must hold.
#[derive(Clone, Debug, Default, clap::Args, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Only from then on: `10m`, `2h` or `3d` ago, `2026-11-22`, `2026-11-22 08:30` in local time, or a time
    /// of RFC 3339
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Only until then
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Only apps that this selects, as in policies: `exe:/usr/bin/curl`, `unit:*.service`, `user:ada`.
    /// May be repeated, like those that follow: one of several is enough
    #[arg(long, value_name = "SEL")]
    app: Vec<String>,
    /// Only this user, by name or number
    #[arg(long, value_name = "U")]
    user: Vec<String>,
    /// Only what goes to this country, as `CN`
    #[arg(long, value_name = "C")]
    country: Vec<String>,
    /// Only what this organisation owns, or an AS as `AS37963`
    #[arg(long, value_name = "O")]
    owner: Vec<String>,
    /// Only this name and those under it, as in policies: `baidu.com`, `=hm.baidu.com`, `*.baidu.com`
    #[arg(long, value_name = "G")]
    host: Vec<String>,
    /// Only what this policy decided
    #[arg(long, value_name = "P")]
    policy: Vec<String>,
    /// Only what this rule decided
    #[arg(long, value_name = "R")]
    rule: Vec<String>,
    /// Only this verdict: `allow`, `audit` or `deny`
    #[arg(long, value_name = "V")]
    verdict: Vec<String>,
}

/// What is wrong with what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}\n\nhint: {hint}")]
pub struct Wrong {
    /// Of which kind.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl Asked {
    /// From the pairs of a query.
    ///
    /// # Errors
    ///
    /// When one is of no kind that there is, or a time stands there twice.
    pub fn of_query<K: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, String)>,
    ) -> Result<Self, Wrong> {
        let mut asked = Self::default();
        for (key, value) in pairs {
            let key = key.as_ref();
            let time = match key {
                "since" => &mut asked.since,
                "until" => &mut asked.until,
                _ => {
                    asked.list(key)?.push(value);
                    continue;
                }
            };
            if time.replace(value).is_some() {
                return Err(Wrong {
                    key: key.to_owned(),
                    message: "it stands there twice".to_owned(),
                    hint: "keep one of the two".to_owned(),
                });
            }
        }
        Ok(asked)
    }

    fn list(&mut self, key: &str) -> Result<&mut Vec<String>, Wrong> {
        const KEYS: [&str; 10] = [
            "since", "until", "app", "user", "country", "owner", "host", "policy", "rule",
            "verdict",
        ];
        Ok(match key {
            "app" => &mut self.app,
            "user" => &mut self.user,
            "country" => &mut self.country,
            "owner" => &mut self.owner,
            "host" => &mut self.host,
            "policy" => &mut self.policy,
            "rule" => &mut self.rule,
            "verdict" => &mut self.verdict,
            _ => {
                return Err(Wrong {
                    key: key.to_owned(),
                    message: "nothing can be asked for by it".to_owned(),
                    hint: match nearest(key, KEYS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("one of {}", KEYS.join(", ")),
                    },
                });
            }
        })
    }

    /// The pairs of a query that asks for the same.
    pub fn pairs(&self) -> Vec<(&'static str, &str)> {
        let Self { since, until, app, user, country, owner, host, policy, rule, verdict } = self;
        let times = [("since", since), ("until", until)];
        let lists = [
            ("app", app),
            ("user", user),
            ("country", country),
            ("owner", owner),
            ("host", host),
            ("policy", policy),
            ("rule", rule),
            ("verdict", verdict),
        ];
        let times = times.into_iter().filter_map(|(key, time)| Some((key, time.as_deref()?)));
        let mut pairs: Vec<_> = times.collect();
        for (key, list) in lists {
            pairs.extend(list.iter().map(|value| (key, value.as_str())));
        }
        pairs
    }

    /// Whether everything is.
    pub fn is_all(&self) -> bool {
        let Self { since, until, app, user, country, owner, host, policy, rule, verdict } = self;
        let lists = [app, user, country, owner, host, policy, rule, verdict];
        since.is_none() && until.is_none() && lists.iter().all(|list| list.is_empty())
    }

    /// What lets it through. Times are told from `now`; users and groups by `files`.
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn filter(&self, now: &Zoned, files: &dyn Files) -> Result<Filter, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut time = |key: &str, text: &Option<String>| {
            let text = text.as_deref()?;
            let found = time(text, now);
            if found.is_none() {
                wrong.push(Wrong {
                    key: key.to_owned(),
                    message: format!("{} is no time", quoted(text)),
                    hint: "write `10m`, `2h` or `3d` (ago), `2026-11-22`, `2026-11-22 08:30` or \
                           `2026-11-22T08:30:00Z`"
                        .to_owned(),
                });
            }
            found
        };
        let (since, until) = (time("since", &self.since), time("until", &self.until));
        fn all<T>(
            key: &str,
            texts: &[String],
            wrong: &mut Vec<Wrong>,
            parse: impl Fn(&str) -> Result<T, (String, String)>,
        ) -> Vec<T> {
            let parsed = texts.iter().filter_map(|text| {
                let complain = |(message, hint)| {
                    wrong.push(Wrong { key: key.to_owned(), message, hint });
                };
                parse(text).map_err(complain).ok()
            });
            parsed.collect()
        }
        let selectors = all("app", &self.app, &mut wrong, |text| {
            policy::parse_selector(text, files).map_err(|error| (error.message, error.hint))
        });
        let countries = all("country", &self.country, &mut wrong, |text| {
            Country::from_code(&text.to_uppercase()).map(Country::code).ok_or_else(|| {
                let hint = match Country::suggest(text) {
                    Some(near) => format!("did you mean `{}`, {}?", near.code(), near.name()),
                    None => "it is a code of ISO 3166-1 with two letters, as `CN`".to_owned(),
                };
                (format!("there is no country {}", quoted(text)), hint)
            })
        });
        let hosts = all("host", &self.host, &mut wrong, |text| {
            Domain::parse(text).map_err(|error| (error.message, error.hint))
        });
        let verdicts = all("verdict", &self.verdict, &mut wrong, |text| {
            VERDICTS.into_iter().find(|verdict| *verdict == text).ok_or_else(|| {
                let hint = format!("it is one of {}", VERDICTS.join(", "));
                (format!("there is no verdict {}", quoted(text)), hint)
            })
        });
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Filter {
            since,
            until,
            apps: Apps { selectors, known: HashMap::new() },
            users: self.user.clone(),
            countries,
            owners: self.owner.clone(),
            hosts,
            policies: self.policy.clone(),
            rules: self.rule.clone(),
            verdicts,
        })
    }
}

const VERDICTS: [&str; 3] = ["allow", "audit", "deny"];

/// A moment: so long ago, at a local time, or as RFC 3339 has it.
fn time(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(ago) = span::seconds(text, "mhd") {
        return now.timestamp().checked_sub(SignedDuration::from_secs(ago.cast_signed())).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let local = text.parse::<civil::DateTime>().ok()?;
    Some(local.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

/// Lets through the events that are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    apps: Apps,
    users: Vec<String>,
    countries: Vec<&'static str>,
    owners: Vec<String>,
    hosts: Vec<Domain>,
    policies: Vec<String>,
    rules: Vec<String>,
    verdicts: Vec<&'static str>,
}

impl Filter {
    /// Whether some times are asked for, and others not.
    pub const fn asks_time(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// Whether a time is within what is asked for, in microseconds since 1970.
    pub fn is_within(&self, time: i64) -> bool {
        // Between two microseconds there is nothing.
        self.since.is_none_or(|since| time >= since.as_microsecond())
            && self.until.is_none_or(|until| time <= until.as_microsecond())
    }

    /// Whether an event passes; one that has no time passes at any.
    pub fn passes<'a>(&mut self, event: impl Into<View<'a>>) -> bool {
        let event = event.into();
        let within = event.time.is_none_or(|time| self.is_within(time.as_microsecond()));
        fn any<T>(asked: &[T], is: impl Fn(&T) -> bool) -> bool {
            asked.is_empty() || asked.iter().any(is)
        }
        let is_owner = |owner: &String| {
            let number = owner.strip_prefix("AS").unwrap_or(owner);
            event.organisation == Some(owner)
                || event.asn.is_some_and(|asn| number.parse() == Ok(asn))
        };
        let app = event.app;
        within
            && any(&self.verdicts, |verdict| event.verdict == *verdict)
            && any(&self.policies, |policy| event.policy == Some(policy))
            && any(&self.rules, |rule| event.rule == Some(rule))
            && any(&self.countries, |country| event.country == Some(country))
            && any(&self.owners, is_owner)
            && any(&self.users, |user| {
                app.user.as_ref() == Some(user) || user.parse() == Ok(app.uid)
            })
            && any(&self.hosts, |host| {
                let chain = event.chain.iter().map(String::as_str);
                event.host.into_iter().chain(chain).any(|name| host.matches(name))
            })
            && self.apps.passes(app)
    }
}

/// Lets through the apps that one of its selectors selects; without any, all.
#[derive(Clone, Debug, Default)]
struct Apps {
    selectors: Vec<Selector>,
    /// A selector takes its time.
    known: HashMap<Known, bool>,
}

/// What selectors ask of an app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Known {
    exe: Option<String>,
    script: Option<String>,
    cgroup: Option<String>,
    uid: u32,
    gid: Option<u32>,
    is_kernel: bool,
}

impl Apps {
    fn passes(&mut self, app: &App) -> bool {
        if self.selectors.is_empty() {
            return true;
        }
        let asked = Known {
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
        events::record::{self, Line},
        policy::source::Disk,
    };

    fn passes(selectors: &[&str], app: &App) -> bool {
        let selectors = selectors.iter().map(|text| policy::parse_selector(text, &Disk).unwrap());
        let mut filter = Apps { selectors: selectors.collect(), known: HashMap::new() };
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

    /// Whether an event passes what is asked for, of which each pair is as in a query.
    fn is_asked_for(pairs: &[(&str, &str)]) -> bool {
        let line = r#"{"schema":1,"seq":1,"time":"2026-11-22T01:25:18.2Z","verdict":"deny",
            "mode":"enforce","reason":"rule","action":"drop","policy":"baidu","rule":"owner",
            "hook":"connect","app":{"name":"curl","exe":"/usr/bin/curl","uid":1000,"user":"ada"},
            "proto":"tcp","dst":{"ip":"103.235.46.191","port":443},
            "host":{"name":"hm.baidu.com","via":"dns","chain":["hm.e.shifen.com"]},
            "geo":{"country":"HK","asn":55967,"organisation":"baidu"},"count":1}"#;
        let Ok(Line::Verdict(record)) = record::read(line.as_bytes()) else { panic!() };
        let pairs = pairs.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let asked = Asked::of_query(pairs).unwrap();
        asked.filter(&now(), &Disk).unwrap().passes(&*record)
    }

    fn now() -> Zoned {
        let time: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
        time.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(1)))
    }

    #[test]
    fn each_kind_of_question() {
        assert!(is_asked_for(&[]));
        for (key, right, wrong) in [
            (
                "since",
                &["35m", "1h", "2026-11-22", "2026-11-22 02:25", "2026-11-22T02:25:18+01:00"][..],
                &["34m", "2026-11-22 02:26", "2026-11-22T01:25:19Z", "0d"][..],
            ),
            ("until", &["34m", "2026-11-22 02:26"], &["35m", "2026-11-22 02:25", "2026-11-22"]),
            ("app", &["exe:/usr/bin/*", "user:1000"], &["exe:/opt/x", "kernel"]),
            ("user", &["ada", "1000"], &["root", "0"]),
            ("country", &["HK", "hk"], &["CN"]),
            ("owner", &["baidu", "AS55967", "55967"], &["alibaba", "AS37963", "5596"]),
            (
                "host",
                &["baidu.com", "*.baidu.com", "=hm.baidu.com", "e.shifen.com"],
                &["=baidu.com", "*.hm.baidu.com", "aidu.com"],
            ),
            ("policy", &["baidu"], &["baid"]),
            ("rule", &["owner"], &["x"]),
            ("verdict", &["deny"], &["allow", "audit"]),
        ] {
            for right in right {
                assert!(is_asked_for(&[(key, right)]), "{key}={right}");
            }
            for wrong in wrong {
                assert!(!is_asked_for(&[(key, wrong)]), "{key}={wrong}");
            }
            if !["since", "until"].contains(&key) {
                assert!(is_asked_for(&[(key, wrong[0]), (key, right[0])]), "one is enough: {key}");
            }
        }
        assert!(is_asked_for(&[("user", "ada"), ("country", "HK"), ("since", "1d")]));
        assert!(!is_asked_for(&[("user", "ada"), ("country", "CN")]), "all kinds must hold");
    }

    #[test]
    fn what_makes_no_sense_is_told_all_at_once() {
        let pairs = ["since", "until", "app", "country", "host", "verdict"];
        let asked = Asked::of_query(pairs.map(|key| (key, "no such".to_owned()))).unwrap();
        let wrong = asked.filter(&now(), &Disk).unwrap_err();
        assert_eq!(wrong.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), pairs);
        assert!(wrong.iter().all(|one| !one.message.is_empty() && !one.hint.is_empty()));
        let wrong = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| (*key, (*value).to_owned()));
            Asked::of_query(pairs).unwrap_err().to_string()
        };
        assert_eq!(
            wrong(&[("hosts", "x")]),
            "hosts: nothing can be asked for by it\n\nhint: did you mean `host`?"
        );
        assert!(wrong(&[("since", "1h"), ("since", "2h")]).starts_with("since: it stands there"));
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
