//! `firewall doctor`: what this kernel and this machine can and cannot enforce.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::unistd::{Uid, User};
use serde::Serialize;

use super::set;
use crate::{
    config::SOCKET,
    datapath::probe::{self, Feature, State},
    encrypted_dns::{self, Finding, Home, Machine},
    policy::diagnostic::printable,
    surroundings::{self, Places},
};

/// Says what this kernel and this machine can and cannot enforce, feature by feature, what else on it has to
/// do with that (other firewalls, who asks for names, the lists, the daemon), and which browsers and resolvers ask for names over encrypted DNS: those of all users for root, else your own.
///
/// Exits with 0 if policies can be enforced, 3 if not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object a feature, and one for each browser and resolver
    #[arg(long)]
    json: bool,
    /// Where the daemon answers
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    #[command(flatten)]
    state: set::State,
}

/// Lists the tables of nftables.
const NFT: &str = "/usr/sbin/nft";

#[derive(Serialize)]
struct Row<'a> {
    feature: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    of: Option<Of<'a>>,
}

/// Whose encrypted DNS it is.
#[derive(Serialize)]
struct Of<'a> {
    app: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    file: String,
}

/// Runs `firewall doctor`.
///
/// # Errors
/// Standard output cannot be written; what else fails is what it reports.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let machine = Machine::at("/");
    let mut features = probe::all();
    let places = Places { socket: &args.socket, state: &args.state.state, nft: Path::new(NFT) };
    features.extend(surroundings::all(&machine, places));
    let mut out = io::stdout().lock();
    for Feature { name, state, detail, .. } in &features {
        if args.json {
            write_row(&mut out, &Row { feature: name, state: state.word(), detail, of: None })?;
        } else {
            let line = format!("{:<8} {name:<42} {detail}", state.word());
            writeln!(out, "{}", printable(line.trim_end()))?;
        }
    }
    let findings = homes(&machine).map(|homes| encrypted_dns::find(&machine, &homes));
    match &findings {
        Ok(findings) if args.json => json(&mut out, findings)?,
        Ok(findings) => text(&mut out, findings)?,
        Err(error) => eprintln!("warning: whose browsers use encrypted DNS is not known: {error}"),
    }
    let missing: Vec<&str> = features
        .iter()
        .filter(|feature| feature.required && feature.state != State::Present)
        .map(|feature| feature.name)
        .collect();
    if missing.is_empty() {
        eprintln!("policies can be enforced on this machine");
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("policies cannot be enforced here; what is missing: {}", missing.join(", "));
        Ok(ExitCode::from(super::CANNOT))
    }
}

/// Whose settings are looked at: for root everybody's.
fn homes(machine: &Machine) -> anyhow::Result<Vec<Home>> {
    if Uid::effective().is_root() {
        return Ok(machine.homes()?);
    }
    let own = User::from_uid(Uid::effective())?;
    Ok(own.into_iter().map(|own| Home { user: own.name, folder: own.dir }).collect())
}

fn write_row(out: &mut impl Write, row: &Row) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string(row)?)?;
    Ok(())
}

fn json(out: &mut impl Write, findings: &[Finding]) -> anyhow::Result<()> {
    for Finding { app, user, profile, state, detail, file } in findings {
        let of = Of {
            app,
            user: user.as_deref(),
            profile: profile.as_deref(),
            file: file.to_string_lossy().into_owned(),
        };
        let state = state.word();
        write_row(out, &Row { feature: "encrypted DNS", state, detail, of: Some(of) })?;
    }
    Ok(())
}

fn text(out: &mut impl Write, findings: &[Finding]) -> anyhow::Result<()> {
    writeln!(out, "\nencrypted DNS, by the settings of browsers and resolvers:")?;
    if findings.is_empty() {
        writeln!(out, "none was found")?;
    }
    for Finding { app, user, profile, state, detail, file } in findings {
        let mut who = (*app).to_owned();
        if let Some(user) = user {
            who += &format!(" of {user}");
        }
        if let Some(profile) = profile {
            who += &format!(", {profile}");
        }
        let line = format!("{:<9} {who:<42} {detail} ({})", state.word(), file.display());
        writeln!(out, "{}", printable(&line))?;
    }
    if findings.iter().any(|finding| finding.state != encrypted_dns::State::Off) {
        writeln!(
            out,
            "names asked for so are not seen; the policy `encrypted-dns` denies its known servers"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each, with a profile whose name a terminal would obey.
    fn findings() -> Vec<Finding> {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("usr/lib/systemd/systemd-resolved", "");
        file("home/ada/.mozilla/firefox/a.default/prefs.js", "user_pref(\"network.trr.mode\", 3);");
        file("home/ada/.mozilla/firefox/b\u{1b}[2J/prefs.js", "");
        file("home/ada/.config/chromium/Local State", "{");
        file("root/snap/firefox/common/.mozilla/firefox/c/prefs.js", "");
        file("etc/firefox/policies/policies.json", "{\"policies\": {}}");
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        let machine = Machine::at(root.path());
        encrypted_dns::find(&machine, &machine.homes().unwrap())
    }

    #[test]
    fn what_browsers_do_is_told_in_words() {
        let mut out = Vec::new();
        text(&mut out, &findings()).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
        let mut out = Vec::new();
        text(&mut out, &[]).unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("none was found\n"));
    }

    #[test]
    fn what_browsers_do_is_told_in_json() {
        let mut out = Vec::new();
        json(&mut out, &findings()).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
