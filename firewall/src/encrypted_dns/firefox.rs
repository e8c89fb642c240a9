//! Firefox: `network.trr.mode` of each profile, and the policy `DNSOverHTTPS`.
//!
//! By <https://firefox-source-docs.mozilla.org/networking/dns/dns-over-https-trr.html>, the administrator
//! reference of Firefox, and `toolkit/components/doh` of its source.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Finding, Home, Machine, Setting, State, Unreadable, machine::sections};

const APP: &str = "Firefox";

/// Where profiles are, below a home: the old place, the new one, the snap, the Flatpak's two.
const PLACES: [&str; 5] = [
    ".mozilla/firefox",
    ".config/mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/config/mozilla/firefox",
];

/// Where policies are; the first one there holds.
const POLICIES: [&str; 6] = [
    "/etc/firefox/policies/policies.json",
    "/usr/lib/firefox/distribution/policies.json",
    "/usr/lib64/firefox/distribution/policies.json",
    "/usr/lib/firefox-esr/distribution/policies.json",
    "/usr/share/firefox-esr/distribution/policies.json",
    "/opt/firefox/distribution/policies.json",
];

/// A Flatpak sees none of these, and takes policies from an extension of its own.
const FLATPAK_POLICIES: &str = "/var/lib/flatpak/extension/org.mozilla.firefox.systemconfig";

/// What the policies of a machine say.
struct Policies {
    file: PathBuf,
    /// `DNSOverHTTPS.Enabled`.
    enabled: Option<bool>,
    /// `DNSOverHTTPS.Locked`: no profile can say otherwise.
    locked: bool,
}

impl Policies {
    fn setting(&self) -> Option<Setting> {
        let (state, word) = match self.enabled? {
            true => (State::On, "on"),
            false => (State::Off, "off"),
        };
        let locked = if self.locked { ", locked" } else { "" };
        Some(Setting::new(state, format!("policy DNSOverHTTPS: {word}{locked}"), &self.file))
    }
}

/// Each profile of a user.
pub fn find(machine: &Machine, home: &Home) -> Vec<Finding> {
    let mut findings = Vec::new();
    for place in PLACES {
        let folder = home.folder.join(place);
        let profiles = match profiles(machine, &folder) {
            Ok(profiles) => profiles,
            Err(unreadable) => {
                findings.push(Setting::unknown(unreadable).of(APP, Some(&home.user), None));
                continue;
            }
        };
        for profile in profiles {
            let setting = policies(machine, place)
                .and_then(|policies| of_profile(machine, &profile, policies.as_ref()))
                .unwrap_or_else(Setting::unknown);
            let name = profile.file_name().unwrap_or_default().to_string_lossy();
            findings.push(setting.of(APP, Some(&home.user), Some(&name)));
        }
    }
    findings
}

/// The folders with preferences, and those that `profiles.ini` says are elsewhere.
fn profiles(machine: &Machine, folder: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let mut profiles = machine.entries(folder)?;
    let ini = machine.read(&folder.join("profiles.ini"))?.unwrap_or_default();
    for (_, keys) in sections(&ini) {
        let value = |wanted| keys.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        if let (Some("0"), Some(path)) = (value("IsRelative"), value("Path")) {
            profiles.push(path.into());
        }
    }
    profiles.retain(|path| machine.has(&path.join(PREFS)) || machine.has(&path.join(USER)));
    Ok(profiles)
}

/// What Firefox writes, and what its user may write, which counts more.
const PREFS: &str = "prefs.js";
const USER: &str = "user.js";

/// The policies for the Firefox whose profiles are in this place.
fn policies(machine: &Machine, place: &str) -> Result<Option<Policies>, Unreadable> {
    let extension = Path::new(FLATPAK_POLICIES)
        .join(std::env::consts::ARCH)
        .join("stable/policies/policies.json");
    let files = match place.starts_with(".var/") {
        true => vec![extension],
        false => POLICIES.map(PathBuf::from).to_vec(),
    };
    for file in files {
        let Some(object) = machine.json(&file)? else { continue };
        let Some(policies) = object.get("policies").and_then(Value::as_object) else {
            return Err(Unreadable::new(file, "no object `policies`"));
        };
        let flag = |key| policies.get("DNSOverHTTPS")?.get(key)?.as_bool();
        return Ok((!policies.is_empty()).then(|| Policies {
            file,
            enabled: flag("Enabled"),
            locked: flag("Locked").unwrap_or_default(),
        }));
    }
    Ok(None)
}

fn of_profile(
    machine: &Machine,
    profile: &Path,
    policies: Option<&Policies>,
) -> Result<Setting, Unreadable> {
    if let Some(setting) = policies.filter(|policies| policies.locked).and_then(Policies::setting) {
        return Ok(setting);
    }
    let [prefs, user] = [PREFS, USER].map(|name| profile.join(name));
    let text = machine.read(&prefs)?.unwrap_or_default();
    let own = machine.read(&user)?.unwrap_or_default();
    let mode = |text| pref(text, MODE);
    let mode =
        mode(&own).map(|mode| (mode, user)).or(mode(&text).map(|mode| (mode, prefs.clone())));
    if let Some((value, file)) = mode
        && let Some(state) = chosen(value)
    {
        return Ok(Setting::new(state, format!("{MODE} = {value}"), file));
    }
    if let Some(policies) = policies {
        // Where an administrator has policies, Firefox turns nothing on by itself.
        let none = || Setting::new(State::Off, "policies, and none turns it on", &policies.file);
        return Ok(policies.setting().unwrap_or_else(none));
    }
    Ok(match pref(&text, ROLLOUT) {
        Some(value @ ("2" | "3")) => Setting::new(
            State::On,
            format!("{ROLLOUT} = {value}: Firefox has turned it on by itself"),
            prefs,
        ),
        _ => Setting::new(
            State::Automatic,
            "nothing chosen: Firefox may turn it on by itself, by country",
            prefs,
        ),
    })
}

const MODE: &str = "network.trr.mode";
const ROLLOUT: &str = "doh-rollout.mode";

/// What a mode says; none for 0, which leaves it to Firefox.
fn chosen(mode: &str) -> Option<State> {
    match mode.parse::<u32>() {
        Ok(0) => None,
        Ok(2 | 3) => Some(State::On),
        // 5 is off by choice, and what has no meaning counts as that.
        Ok(_) => Some(State::Off),
        Err(_) => Some(State::Unknown),
    }
}

/// The last value that a file of preferences gives to a name. As in Firefox, what cannot be read is
/// passed over up to the next semicolon.
fn pref<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut found = None;
    let mut rest = text;
    while let Some(start) = skip_blanks(rest) {
        let statement = &start[..end(start)];
        let value = statement
            .strip_prefix("user_pref")
            .and_then(|call| call.trim().strip_prefix('(')?.strip_suffix(')')?.split_once(','))
            .filter(|(key, _)| key.trim().trim_matches(['"', '\'']) == name);
        if let Some((_, value)) = value {
            found = Some(value.trim());
        }
        rest = start.get(statement.len() + 1..).unwrap_or_default();
    }
    found
}

/// Where a statement ends: at a semicolon that is in no string, or with a line that leaves one open.
fn end(text: &str) -> usize {
    let (mut open, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (open, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(quote), _) if c == quote => open = None,
            (None, '"' | '\'') => open = Some(c),
            (None, ';') | (Some(_), '\n') => return at,
            _ => {}
        }
    }
    text.len()
}

/// What comes after white space and comments; none at the end.
fn skip_blanks(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(block) = rest.strip_prefix("/*") {
            block.split_once("*/")?.1.trim_start()
        } else if rest.starts_with("//") || rest.starts_with('#') {
            rest.split_once('\n')?.1.trim_start()
        } else {
            return (!rest.is_empty()).then_some(rest);
        }
    }
}
