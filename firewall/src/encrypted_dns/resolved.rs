//! systemd-resolved: `DNSOverTLS=` of resolved.conf(5). What single links are told is not looked at.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Finding, Machine, Setting, State, Unreadable, machine::sections};

const PROGRAM: [&str; 2] = ["/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved"];

/// Where its configuration is. Of files with one name the first counts.
const PLACES: [&str; 4] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// What it does, if it is there.
pub fn find(machine: &Machine) -> Option<Finding> {
    let program = PROGRAM.map(Path::new).into_iter().find(|program| machine.has(program))?;
    let setting =
        configured(machine).unwrap_or_else(|unreadable| Some(Setting::unknown(unreadable)));
    let none = || Setting::new(State::Off, "DNSOverTLS= is not set", program);
    Some(setting.unwrap_or_else(none).of("systemd-resolved", None, None))
}

fn configured(machine: &Machine) -> Result<Option<Setting>, Unreadable> {
    let mut setting = None;
    for file in files(machine)? {
        let text = machine.read(&file)?.unwrap_or_default();
        let resolve = sections(&text).into_iter().filter(|(name, _)| *name == "Resolve");
        for (_, value) in resolve.flat_map(|(_, keys)| keys).filter(|(key, _)| *key == "DNSOverTLS")
        {
            let state = match value.to_ascii_lowercase().as_str() {
                // Set to nothing, it is as if it had not been set.
                "" => {
                    setting = None;
                    continue;
                }
                "yes" | "y" | "true" | "t" | "on" | "1" => State::On,
                "no" | "n" | "false" | "f" | "off" | "0" => State::Off,
                "opportunistic" => State::Automatic,
                _ => State::Unknown,
            };
            setting = Some(Setting::new(state, format!("DNSOverTLS={value}"), &file));
        }
    }
    Ok(setting)
}

/// The files in the order in which they are read: what is read later counts more.
fn files(machine: &Machine) -> Result<Vec<PathBuf>, Unreadable> {
    let main = PLACES.map(|place| Path::new(place).join("resolved.conf"));
    let mut files: Vec<PathBuf> =
        main.into_iter().find(|file| machine.has(file)).into_iter().collect();
    let mut parts: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for place in PLACES {
        for file in machine.entries(&Path::new(place).join("resolved.conf.d"))? {
            let conf = file.extension().is_some_and(|extension| extension == "conf");
            if let Some(name) = file.file_name().filter(|_| conf) {
                parts.entry(name.to_owned()).or_insert(file.clone());
            }
        }
    }
    files.extend(parts.into_values());
    Ok(files)
}
