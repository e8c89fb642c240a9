//! What is tried, and what came of it.

use std::{fmt, net::IpAddr};

use serde_json::Value;

/// Something that is tried by the steps of the client (`support/client.rs`).
#[derive(Clone, Copy)]
pub struct Probe {
    pub what: &'static str,
    /// Its lines: [`fill`] has the placeholders, and the stages say what they stand for.
    pub step: Step,
    pub families: Families,
    pub control: Control,
    pub charged: Charged,
    /// What of the kernel or the machine it takes, for where that is missing.
    pub needs: Option<&'static str>,
    /// How the entry of `known-issues.md` begins that says why it cannot be stopped.
    pub known: Option<&'static str>,
    /// Tried against a daemon as well.
    pub by_daemon: bool,
    /// The address in the packet carries the one that is denied.
    pub form: Form,
    /// The packet that is watched goes to an address that no rule denies.
    pub elsewhere: bool,
}

/// What each placeholder stands for.
pub type Places<'a> = &'a dyn Fn(&str) -> String;

#[derive(Clone, Copy)]
pub enum Step {
    Lines(&'static str),
    /// Made of what the placeholders of lines stand for.
    Made(fn(Places<'_>) -> String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Both,
}

/// What shows that it could have arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The same to what no rule denies, under the same policy.
    Allowed,
    /// The same to what is denied, without a firewall.
    Open,
    /// Another step to what is denied, under the same policy.
    Step(&'static str),
}

/// Which app a verdict names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// The program that tries.
    Probe,
    /// An executable of this name.
    Named(&'static str),
    /// `unknown`.
    Unknown,
    /// The same, and no user: what is forwarded.
    Forwarded,
    /// Nobody: nothing is recorded.
    Nobody,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    Nat64,
    SixToFour,
    Teredo,
    Multicast,
    Broadcast,
}

pub const fn probe(what: &'static str, lines: &'static str) -> Probe {
    Probe {
        what,
        step: Step::Lines(lines),
        families: Families::Both,
        control: Control::Allowed,
        charged: Charged::Probe,
        needs: None,
        known: None,
        by_daemon: false,
        form: Form::Plain,
        elsewhere: false,
    }
}

impl Probe {
    pub const fn v4(self) -> Self {
        Self { families: Families::V4, ..self }
    }

    pub const fn v6(self) -> Self {
        Self { families: Families::V6, ..self }
    }

    pub const fn both(self) -> Self {
        Self { families: Families::Both, ..self }
    }

    pub const fn by_daemon(self) -> Self {
        Self { by_daemon: true, ..self }
    }

    pub const fn open(self) -> Self {
        Self { control: Control::Open, ..self }
    }

    pub const fn control(self, step: &'static str) -> Self {
        Self { control: Control::Step(step), ..self }
    }

    pub const fn known(self, issue: &'static str) -> Self {
        Self { known: Some(issue), ..self }
    }

    pub const fn needs(self, what: &'static str) -> Self {
        Self { needs: Some(what), ..self }
    }

    pub const fn charged(self, charged: Charged) -> Self {
        Self { charged, ..self }
    }

    pub const fn form(self, form: Form) -> Self {
        Self { form, families: Families::V6, ..self }
    }

    /// To an address that no rule denies, and denied for what it carries; see [`Probe::elsewhere`].
    pub const fn elsewhere(self) -> Self {
        Self { elsewhere: true, control: Control::Open, ..self }
    }

    pub const fn made(self, step: fn(Places<'_>) -> String) -> Self {
        Self { step: Step::Made(step), ..self }
    }

    /// Whether there is to be a verdict on it.
    pub fn is_recorded(&self) -> bool {
        self.known.is_none() && self.charged != Charged::Nobody
    }

    /// Its lines, with what each placeholder stands for.
    pub fn lines(&self, stands_for: Places<'_>) -> String {
        match self.step {
            Step::Lines(lines) => fill(lines, stands_for),
            Step::Made(make) => make(stands_for),
        }
    }
}

/// Words in capital letters are placeholders.
pub fn fill(lines: &str, stands_for: Places<'_>) -> String {
    let word = |word: &str| {
        let is_place = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_place { stands_for(word) } else { word.to_owned() }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    lines.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What came of a probe: a line of the table.
#[derive(Clone)]
pub struct Trial {
    pub what: String,
    /// `v4`, `v6` or neither.
    pub family: &'static str,
    pub policy: &'static str,
    /// `run` or `daemon`.
    pub by: &'static str,
    /// Whether the receiving side saw it.
    pub seen: bool,
    /// Whether it saw the control.
    pub control: bool,
    /// Why it was not tried.
    pub skip: Option<String>,
    /// The verdict that denied it.
    pub event: Option<Value>,
    pub charged: Charged,
    pub user: &'static str,
    pub known: Option<&'static str>,
}

/// The outcome of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Stopped,
    /// Stands in `known-issues.md`.
    Known,
    Skipped,
    GotOut,
    /// The control was not seen either, which proves nothing.
    NoControl,
    /// Stopped, and nothing says so.
    NoEvent,
    /// Stopped, and charged to somebody else.
    WrongApp,
    /// Stopped, though `known-issues.md` says that it cannot be.
    Outdated,
}

impl Word {
    pub fn fails(self) -> bool {
        !matches!(self, Self::Stopped | Self::Known | Self::Skipped)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Known | Self::GotOut => "GOT OUT",
            Self::Skipped => "skipped",
            Self::NoControl => "NO CONTROL",
            Self::NoEvent => "NO EVENT",
            Self::WrongApp => "WRONG APP",
            Self::Outdated => "NOT KNOWN",
        })
    }
}

impl Trial {
    pub fn word(&self) -> Word {
        match self {
            _ if self.skip.is_some() => Word::Skipped,
            _ if self.seen && self.known.is_some() => Word::Known,
            _ if self.seen => Word::GotOut,
            _ if !self.control => Word::NoControl,
            _ if self.known.is_some() => Word::Outdated,
            _ if self.event.is_none() && self.charged != Charged::Nobody => Word::NoEvent,
            _ if !self.is_charged() => Word::WrongApp,
            _ => Word::Stopped,
        }
    }

    fn is_charged(&self) -> bool {
        let Some(event) = &self.event else { return true };
        let app = &event["app"];
        let is_exe = |name: &str| {
            app["exe"].as_str().is_some_and(|exe| exe.rsplit('/').next() == Some(name))
                && app["name"] == name
        };
        let named = match self.charged {
            Charged::Probe => is_exe(PROBE),
            Charged::Named(name) => is_exe(name),
            Charged::Unknown => app["exe"].is_null(),
            Charged::Forwarded => return app["name"] == "unknown" && app["user"].is_null(),
            Charged::Nobody => false,
        };
        named && app["user"] == self.user
    }

    /// What denied it: the hook, or the reason if that is no rule or default.
    pub fn denied_at(&self) -> String {
        let Some(event) = &self.event else { return "-".to_owned() };
        let [hook, reason] = ["hook", "reason"].map(|key| event[key].as_str().unwrap_or("?"));
        if matches!(reason, "rule" | "default") { hook.to_owned() } else { reason.to_owned() }
    }

    /// Who is charged with it: the app's name and user.
    pub fn app(&self) -> String {
        let Some(event) = &self.event else { return "-".to_owned() };
        let text = |key: &str| event["app"][key].as_str().unwrap_or("?").to_owned();
        format!("{} {}", text("name"), text("user"))
    }
}

/// The name of the program that tries.
pub const PROBE: &str = "probe";

/// The verdict that denies a flow to an address.
pub fn denied_to(events: &[Value], ip: IpAddr) -> Option<Value> {
    find(events, |event| event["dst"]["ip"].as_str().and_then(|text| text.parse().ok()) == Some(ip))
}

/// The verdict that denies a name.
pub fn denied_name(events: &[Value], name: &str) -> Option<Value> {
    find(events, |event| {
        event["host"]["name"].as_str().is_some_and(|host| host.eq_ignore_ascii_case(name))
    })
}

fn find(events: &[Value], fits: impl Fn(&Value) -> bool) -> Option<Value> {
    events.iter().find(|event| event["verdict"] == "deny" && fits(event)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Trial {
        let event = serde_json::json!({
            "hook": "connect", "reason": "rule",
            "app": {"exe": "/tmp/x/probe", "name": "probe", "user": "root"},
        });
        Trial {
            what: "a probe".to_owned(),
            family: "v4",
            policy: "country",
            by: "run",
            seen: false,
            control: true,
            skip: None,
            event: Some(event),
            charged: Charged::Probe,
            user: "root",
            known: None,
        }
    }

    #[test]
    fn what_fails_the_suite() {
        assert_eq!(trial().word(), Word::Stopped);
        assert_eq!(Trial { seen: true, ..trial() }.word(), Word::GotOut);
        assert_eq!(Trial { control: false, ..trial() }.word(), Word::NoControl);
        assert_eq!(Trial { event: None, ..trial() }.word(), Word::NoEvent);
        assert_eq!(Trial { user: "ada", ..trial() }.word(), Word::WrongApp);
        assert_eq!(Trial { charged: Charged::Named("curl"), ..trial() }.word(), Word::WrongApp);
        assert_eq!(Trial { charged: Charged::Unknown, ..trial() }.word(), Word::WrongApp);
        assert_eq!(Trial { charged: Charged::Nobody, ..trial() }.word(), Word::WrongApp);
        let known = Trial { known: Some("Root leaves"), ..trial() };
        assert_eq!(known.word(), Word::Outdated);
        assert_eq!(Trial { seen: true, ..known }.word(), Word::Known);
        let fails = [Word::GotOut, Word::NoControl, Word::NoEvent, Word::WrongApp, Word::Outdated];
        assert!(fails.iter().all(|word| word.fails()));
    }

    #[test]
    fn placeholders_are_filled() {
        let filled = fill("tcp TO x\nas Copy VIA", &|word| format!("<{word}>"));
        assert_eq!(filled, "tcp <TO> x\nas Copy <VIA>");
    }
}
