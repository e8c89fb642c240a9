//! Which browsers and resolvers of this machine ask for names over encrypted DNS, by their settings.
//!
//! Such questions pass unread, so the names behind them are known only from what an app sends later. This
//! reads files and judges nothing: what an app was started with, or has been told since, is not in them.

mod chromium;
mod firefox;
mod machine;
mod resolved;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use machine::{Home, Machine, Unreadable};

/// Whether an app asks over encrypted DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is told to.
    On,
    /// It may: the app decides by itself, by its resolver or by where it is.
    Automatic,
    /// It is told not to, or never does unless it is told.
    Off,
    /// What would tell cannot be read.
    Unknown,
}

impl State {
    /// The word in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Automatic => "automatic",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// What one app does, for one user and one profile of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub app: &'static str,
    /// The user, unless it is the same for all.
    pub user: Option<String>,
    /// The profile, where an app has several.
    pub profile: Option<String>,
    /// What was found.
    pub state: State,
    /// The setting that says so, or why nothing can be said.
    pub detail: String,
    /// Where that stands.
    pub file: PathBuf,
}

/// A state, with the setting that says so and its file.
struct Setting {
    state: State,
    detail: String,
    file: PathBuf,
}

impl Setting {
    fn new(state: State, detail: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self { state, detail: detail.into(), file: file.into() }
    }

    fn unknown(unreadable: Unreadable) -> Self {
        Self::new(State::Unknown, unreadable.why, unreadable.file)
    }

    fn of(self, app: &'static str, user: Option<&str>, profile: Option<&str>) -> Finding {
        Finding {
            app,
            user: user.map(str::to_owned),
            profile: profile.map(str::to_owned),
            state: self.state,
            detail: self.detail,
            file: self.file,
        }
    }
}

/// What the browsers below these homes and the system's resolver are told.
pub fn find(machine: &Machine, homes: &[Home]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = resolved::find(machine).into_iter().collect();
    for home in homes {
        match machine.entries(&home.folder) {
            Ok(_) => {
                findings.extend(firefox::find(machine, home));
                findings.extend(chromium::find(machine, home));
            }
            Err(unreadable) => {
                findings.push(Setting::unknown(unreadable).of("browsers", Some(&home.user), None));
            }
        }
    }
    findings
}
