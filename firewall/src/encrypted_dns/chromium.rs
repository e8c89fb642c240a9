//! Chromium and the browsers made from it: `dns_over_https.mode` in `Local State`, and the policy
//! `DnsOverHttpsMode`.
//!
//! By <https://chromeenterprise.google/policies/#DnsOverHttpsMode> and `chrome/browser/net` of Chromium's
//! source.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Finding, Home, Machine, Setting, State, Unreadable};

/// One of them.
struct Browser {
    app: &'static str,
    /// Where its data is, below a home.
    places: &'static [&'static str],
    /// Where an administrator puts policies, as far as its vendor says.
    managed: &'static [&'static str],
}

const BROWSERS: [Browser; 6] = [
    Browser {
        app: "Chrome",
        places: &[".config/google-chrome", ".var/app/com.google.Chrome/config/google-chrome"],
        managed: &["/etc/opt/chrome/policies/managed"],
    },
    Browser {
        app: "Chromium",
        places: &[
            ".config/chromium",
            "snap/chromium/common/chromium",
            ".var/app/org.chromium.Chromium/config/chromium",
        ],
        managed: &["/etc/chromium/policies/managed", "/etc/chromium-browser/policies/managed"],
    },
    Browser {
        app: "Brave",
        places: &[
            ".config/BraveSoftware/Brave-Browser",
            "snap/brave/current/.config/BraveSoftware/Brave-Browser",
            ".var/app/com.brave.Browser/config/BraveSoftware/Brave-Browser",
        ],
        managed: &["/etc/brave/policies/managed"],
    },
    Browser {
        app: "Edge",
        places: &[".config/microsoft-edge", ".var/app/com.microsoft.Edge/config/microsoft-edge"],
        managed: &["/etc/opt/edge/policies/managed"],
    },
    Browser {
        app: "Vivaldi",
        places: &[".config/vivaldi", ".var/app/com.vivaldi.Vivaldi/config/vivaldi"],
        managed: &[],
    },
    Browser {
        app: "Opera",
        places: &[".config/opera", ".var/app/com.opera.Opera/config/opera"],
        managed: &[],
    },
];

/// Each of them that a user has. The mode is the same for all profiles.
pub fn find(machine: &Machine, home: &Home) -> Vec<Finding> {
    let mut findings = Vec::new();
    for browser in &BROWSERS {
        for place in browser.places {
            let file = home.folder.join(place).join("Local State");
            // A Flatpak does not see the policies of the machine.
            let managed = if place.starts_with(".var/") { &[] } else { browser.managed };
            let setting = match machine.json(&file) {
                Ok(None) => continue,
                Ok(Some(state)) => of_policies(machine, managed)
                    .map(|policies| policies.unwrap_or_else(|| of_user(&state, file)))
                    .unwrap_or_else(Setting::unknown),
                Err(unreadable) => Setting::unknown(unreadable),
            };
            findings.push(setting.of(browser.app, Some(&home.user), None));
        }
    }
    findings
}

/// What policies say. Where there are some and none of this, the browser leaves it off.
fn of_policies(machine: &Machine, folders: &[&str]) -> Result<Option<Setting>, Unreadable> {
    let mut other: Option<PathBuf> = None;
    for folder in folders {
        // The last file in order counts first.
        for file in machine.entries(Path::new(folder))?.into_iter().rev() {
            let policies = machine.json(&file)?.unwrap_or_default();
            if let Some(mode) = policies.get("DnsOverHttpsMode") {
                let word = mode.as_str().unwrap_or_default();
                return Ok(Some(setting("policy DnsOverHttpsMode", word, State::Unknown, file)));
            }
            if !policies.is_empty() {
                other.get_or_insert(file);
            }
        }
    }
    Ok(other.map(|file| Setting::new(State::Off, "policies, and none turns it on", file)))
}

fn of_user(state: &Map<String, Value>, file: PathBuf) -> Setting {
    const KEY: &str = "dns_over_https.mode";
    let mode = state.get("dns_over_https").and_then(|settings| settings.get("mode"));
    match mode {
        // Any other word is off: `chrome/common/pref_names.h`.
        Some(mode) => setting(KEY, mode.as_str().unwrap_or_default(), State::Off, file),
        None => Setting::new(
            State::Automatic,
            "nothing chosen: used where the system's resolver is known to have it",
            file,
        ),
    }
}

fn setting(key: &str, mode: &str, otherwise: State, file: PathBuf) -> Setting {
    let state = match mode {
        "secure" => State::On,
        "automatic" => State::Automatic,
        "off" => State::Off,
        _ => otherwise,
    };
    Setting::new(state, format!("{key} = {mode:?}"), file)
}
