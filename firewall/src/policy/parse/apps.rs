//! `apps` and `except-apps`: which apps a policy or a rule holds for.

use std::path::Path;

use super::super::diagnostic::{Severity, quoted};
use super::super::model::{Action, Default, Policy, Rule};
use super::super::selector::{Apps, META, Means, Paths, Selector, Whole, is_glob, selects_every};
use super::super::source::Files;
use super::nearest;
use super::values::{Complaint, complaint, decimal};
use super::walk::{Elements, Field, Fields, Walker};
use crate::apps::cgroup::ENGINES;

/// What a selector of a place that lets more pass must not rest on.
const FORGED: &str = "a process says itself what script it runs, and could say this one";

impl Walker<'_> {
    /// `apps` and `except-apps` of a policy, or of a rule with this action.
    pub(super) fn apps(&mut self, fields: &Fields<'_>, action: Option<Action>) -> Apps {
        let form = Elements { example: "exe:/usr/bin/firefox", number: None };
        let files = self.files;
        let mut list = |key: &str, widens: Option<&str>| match fields.field(key) {
            Some(field) => self.elements(field, &form, |text| {
                let selector = selector(text, files)?;
                match widens {
                    Some(widens) if matches!(selector.means, Means::Script(_)) => complaint(
                        format!("{} can be forged, so {widens}", quoted(text)),
                        format!("{FORGED}: select by `exe:`, `unit:` or `user:`"),
                    ),
                    _ => Ok(selector),
                }
            }),
            None => Vec::new(),
        };
        let (only, except) = match action {
            Some(Action::Allow) => (Some("it never supports an `allow`"), None),
            Some(Action::Log) => (Some("it never supports a `log`, which lets pass"), None),
            Some(Action::Drop) => (None, Some("it takes nothing out of a `drop`")),
            None => (None, None),
        };
        let apps = Apps { only: list("apps", only), except: list("except-apps", except) };
        if let Some(field) = fields.field("except-apps")
            && apps.except.iter().any(|selector| selector.means == Means::Every)
        {
            let message = "`except-apps` takes out every app: nothing is left";
            self.error(field.value.span(), message, "leave `except-apps` out");
        }
        apps
    }

    /// Reports a rule that holds for no app of its policy.
    pub(super) fn empty_apps(&mut self, fields: &Fields<'_>, of: &Apps, rule: &Apps) {
        let except = fields.field("except-apps");
        if rule.except.iter().any(|one| one.means == Means::Every) {
            return;
        }
        let every = |field: &Field<'_>| field.value.span();
        let taken = |one: &Selector| {
            rule.except.iter().chain(&of.except).any(|except| one.is_within(except))
        };
        if let Some(field) = fields.field("apps").filter(|_| !selects_every(&rule.only)) {
            let apart = |one: &Selector| of.only.iter().all(|other| one.is_apart_from(other));
            let (message, hint) = if !selects_every(&of.only) && rule.only.iter().all(apart) {
                ("no app of the policy is one of the rule's", "a rule holds for the apps of both")
            } else if rule.only.iter().all(taken) {
                ("`except-apps` takes out all of `apps`: nothing is left", "leave one of them out")
            } else {
                return;
            };
            self.error(every(field), message, hint);
        } else if let Some(field) = except
            && !selects_every(&of.only)
            && of.only.iter().all(taken)
        {
            let message = "`except-apps` takes out all apps of the policy: nothing is left";
            self.error(every(field), message, "a rule holds for the policy's `apps`");
        }
    }

    /// Reports what a policy takes a script's word for, and a policy that holds for no app.
    pub(super) fn policy_apps(&mut self, fields: &Fields<'_>, policy: &Policy) {
        let Apps { only, except } = &policy.apps;
        if let Some(field) = fields.field("except-apps")
            && !selects_every(only)
            && only.iter().all(|one| except.iter().any(|other| one.is_within(other)))
        {
            let message = "`except-apps` takes out all of `apps`: nothing is left";
            self.error(field.value.span(), message, "leave one of them out");
        }
        let passes = |rule: &&Rule| rule.action != Action::Drop;
        let script = |list: &[Selector]| {
            list.iter()
                .find(|one| matches!(one.means, Means::Script(_)))
                .map(|one| one.text.clone())
        };
        for (key, list, lets_pass, default) in
            [("apps", only, true, Default::Allow), ("except-apps", except, false, Default::Drop)]
        {
            let (Some(field), Some(text)) = (fields.field(key), script(list)) else { continue };
            let rule = policy.rules.iter().find(|rule| passes(rule) == lets_pass);
            let what = match rule {
                Some(rule) => format!("rule `{}` says `{}`", rule.name, rule.action.word()),
                None if policy.default == Some(default) => {
                    format!("its `default` is `{}`", default.word())
                }
                None => continue,
            };
            let so = match lets_pass {
                true => "it cannot let pass, and",
                false => "it takes nothing out of what drops, and",
            };
            let message = format!("{} can be forged, so {so} {what}", quoted(&text));
            let hint = format!("{FORGED}: keep what drops in a policy of its own");
            self.report(Severity::Error, field.value.span(), message, None, hint);
        }
    }
}

const SELECTORS: &[&str] =
    &["exe", "script", "unit", "cgroup", "user", "group", "flatpak", "snap", "container"];

const FORM: &str = "an app is `*`, `kernel`, `unknown`, or one of `exe:`, `script:`, `unit:`, \
                    `cgroup:`, `user:`, `group:`, `flatpak:`, `snap:`, `container:` and its value";

/// `*`, `kernel`, `unknown` or a kind and its value.
pub(crate) fn selector(text: &str, files: &dyn Files) -> Result<Selector, Complaint> {
    let of = |means| Ok(Selector { text: text.to_owned(), means });
    let (kind, value) = match text {
        "*" => return of(Means::Every),
        "kernel" => return of(Means::Kernel),
        "unknown" => return of(Means::Unknown),
        _ => known_kind(text)?,
    };
    if value.trim().is_empty() {
        let hint = format!("`{kind}:` needs a value, as `exe:/usr/bin/firefox`");
        return complaint(not_an_app(text), hint);
    }
    if value.contains('\0') {
        return complaint(not_an_app(text), "no path and no name has the character NUL");
    }
    match kind {
        "exe" | "script" => {
            let glob = real(checked_path(text, kind, value)?, files);
            let paths = paths(text, vec![glob.clone()], Whole::Path)?;
            let means = if kind == "exe" { Means::Exe(paths) } else { Means::Script(paths) };
            Ok(Selector { text: format!("{kind}:{glob}"), means })
        }
        "cgroup" if value == "/" => {
            complaint("`cgroup:/` is every app", "write `*`, or leave `apps` out")
        }
        "cgroup" => {
            let path = checked_path(text, kind, value)?;
            of(Means::Cgroup(paths(text, vec![path.to_owned()], Whole::Below)?))
        }
        "user" => of(Means::User(number(text, value, "user", files.user(value))?)),
        "group" => of(Means::Group(number(text, value, "group", files.group(value))?)),
        _ => {
            let names = match kind {
                "unit" => unit(text, value)?,
                "flatpak" => flatpak(text, value)?,
                "snap" => vec![snap(text, value)?],
                _ => return of(Means::Cgroup(container(text, value)?)),
            };
            of(Means::Cgroup(paths(text, names, Whole::Unit)?))
        }
    }
}

fn not_an_app(text: &str) -> String {
    format!("{} is not an app", quoted(text))
}

fn known_kind(text: &str) -> Result<(&str, &str), Complaint> {
    let Some((kind, value)) = text.split_once(':') else {
        let hint = match text {
            "any" | "all" | "everything" => "did you mean `*`?".to_owned(),
            _ if text.starts_with('/') => {
                format!("did you mean {}?", quoted(&format!("exe:{text}")))
            }
            _ if UNITS.iter().any(|suffix| text.ends_with(suffix)) => {
                format!("did you mean {}?", quoted(&format!("unit:{text}")))
            }
            _ => FORM.to_owned(),
        };
        return complaint(not_an_app(text), hint);
    };
    if SELECTORS.contains(&kind) {
        return Ok((kind, value));
    }
    let meant = match kind {
        "path" | "process" | "app" | "bin" => Some("exe"),
        "service" | "systemd" => Some("unit"),
        "uid" => Some("user"),
        "gid" => Some("group"),
        "docker" | "podman" | "lxc" => Some("container"),
        _ => nearest(kind, SELECTORS.iter().copied()),
    };
    let hint = match meant {
        Some(meant) => format!("did you mean {}?", quoted(&format!("{meant}:{value}"))),
        None => FORM.to_owned(),
    };
    complaint(not_an_app(text), hint)
}

/// A whole path, as the kernel would write it, or a glob for such.
fn checked_path<'v>(text: &str, kind: &str, value: &'v str) -> Result<&'v str, Complaint> {
    let not = |hint: String| complaint(not_an_app(text), hint);
    if !value.starts_with('/') && !value.starts_with("**/") {
        let name = value.trim_start_matches(['*', '/']);
        return not(match kind {
            "cgroup" => {
                format!("a cgroup's path begins with `/`: `cgroup:**/{name}` is it anywhere")
            }
            _ => format!(
                "`{kind}:` takes a whole path or a glob, as `{kind}:/usr/bin/x` or `{kind}:**/x`"
            ),
        });
    }
    let whole = value.trim_end_matches('/');
    if whole.len() < value.len() {
        return not(format!(
            "for all that is in the folder, write {}",
            quoted(&format!("{kind}:{whole}/**"))
        ));
    }
    for component in value.split('/').skip(1) {
        match component {
            "" => return not("no path has `//` in it".to_owned()),
            "." | ".." => return not(format!("no path has `{component}` in it: write it out")),
            "**" => {}
            _ if component.contains("**") => {
                let hint = "`**` is any folders and stands alone between `/`; in a name, write `*`";
                return not(hint.to_owned());
            }
            _ => {}
        }
    }
    Ok(value)
}

fn paths(text: &str, globs: Vec<String>, whole: Whole) -> Result<Paths, Complaint> {
    Paths::new(globs, whole).or_else(|why| {
        complaint(
            format!("{} is not a glob: {why}", quoted(text)),
            "`*`, `?`, `[a-z]` and `{a,b}` have a meaning; as themselves they stand in brackets: `[*]`",
        )
    })
}

/// The path with what is behind links in its place, as far as it has no glob.
fn real(value: &str, files: &dyn Files) -> String {
    let fixed = match value.find(META) {
        Some(meta) => value[..meta].rfind('/').unwrap_or(0),
        None => value.len(),
    };
    let (fixed, rest) = value.split_at(fixed);
    if !fixed.starts_with('/') {
        return value.to_owned();
    }
    match files.real(Path::new(fixed)).to_str() {
        Some("/") if !rest.is_empty() => rest.to_owned(),
        Some(real) => globset::escape(real) + rest,
        None => value.to_owned(),
    }
}

fn number(
    text: &str,
    value: &str,
    kind: &str,
    known: Result<Option<u32>, String>,
) -> Result<u32, Complaint> {
    if decimal(value) {
        // The highest stands for none (chown(2)).
        return match value.parse() {
            Ok(number) if number != u32::MAX => Ok(number),
            _ => complaint(
                format!("{} is past the last number of a {kind}", quoted(text)),
                "numbers end at 4294967294",
            ),
        };
    }
    match known {
        Ok(Some(number)) => Ok(number),
        Ok(None) => complaint(
            format!("this machine knows no {kind} {}", quoted(value)),
            format!(
                "write a name that `getent {}` shows, or a number",
                match kind {
                    "user" => "passwd",
                    _ => "group",
                }
            ),
        ),
        Err(why) => complaint(
            format!("the {kind} {} cannot be looked up: {why}", quoted(value)),
            format!("write the number, as `{kind}:1000`"),
        ),
    }
}

/// Units that are cgroups (systemd.unit(5)).
const UNITS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

fn unit(text: &str, value: &str) -> Result<Vec<String>, Complaint> {
    if value.contains('/') {
        let hint =
            format!("a unit is a name: for a path, write {}", quoted(&format!("cgroup:{value}")));
        return complaint(not_an_app(text), hint);
    }
    if UNITS.iter().any(|suffix| value.ends_with(suffix)) {
        return Ok(vec![value.to_owned()]);
    }
    if value.ends_with('*') {
        return Ok(UNITS.map(|suffix| format!("{value}{suffix}")).into());
    }
    let suffix = if value.starts_with("app-") { ".scope" } else { ".service" };
    let hint = format!(
        "a unit's name ends in its type: did you mean {}?",
        quoted(&format!("{text}{suffix}"))
    );
    complaint(not_an_app(text), hint)
}

/// The scopes that Flatpak puts an app into, of versions up to 1.8 and since.
fn flatpak(text: &str, id: &str) -> Result<Vec<String>, Complaint> {
    let is = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*' | b'?');
    if !id.bytes().all(is) || !(id.contains('.') || is_glob(id)) {
        let hint = "write the ID that `flatpak list` shows, as `flatpak:org.mozilla.firefox`";
        return complaint(not_an_app(text), hint);
    }
    let escaped = id.replace('-', "\\x2d");
    Ok(vec![format!("app-flatpak-{escaped}-*.scope"), format!("flatpak-{escaped}-*.scope")])
}

/// The scopes and services of a snap.
fn snap(text: &str, name: &str) -> Result<String, Complaint> {
    let is = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'?');
    if !name.bytes().all(is) {
        let hint = "write the name that `snap list` shows, as `snap:firefox`";
        return complaint(not_an_app(text), hint);
    }
    Ok(format!("snap.{name}.*"))
}

/// Digits of a container's ID that tell it from others for certain.
const SHORT_ID: usize = 12;

/// The scopes and services of a container by its ID, of a machine or an LXC container by its name.
fn container(text: &str, value: &str) -> Result<Paths, Complaint> {
    let hex = value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if value != "*" && hex && (value.len() < SHORT_ID || value.len() > 64) {
        let hint = "write 12 to 64 digits of the ID, or the name of a machine or an LXC container";
        return complaint(not_an_app(text), hint);
    }
    let is = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if value != "*" && !value.bytes().all(is) {
        let hint = "write an ID, as `docker ps` shows it, a name of a machine, or `*`";
        return complaint(not_an_app(text), hint);
    }
    let mut names = Vec::new();
    if hex || value == "*" {
        let rest = if value == "*" || value.len() == 64 { "" } else { "*" };
        let id = format!("{value}{rest}");
        names.extend(ENGINES.map(|engine| format!("{engine}-{id}.scope")));
        // Where the engine makes its cgroups itself.
        names.extend(["docker/", "libpod_parent/libpod-"].map(|before| format!("{before}{id}")));
    }
    if !hex || value == "*" {
        let escaped = value.replace('-', "\\x2d");
        names.push(format!("machine-{escaped}.scope"));
        names.push(format!("systemd-nspawn@{escaped}.service"));
        names.extend(
            ["lxc/", "lxc.payload/", "lxc.payload."].map(|before| format!("{before}{value}")),
        );
    }
    paths(text, names, Whole::Unit)
}
