//! `firewall import`: policies from what other programs use.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::check::count;
use super::list::{format, write_skipped};
use crate::lists::import::{self, Imported};
use crate::lists::{Format, Reason};
use crate::policy::diagnostic::printable;
use crate::policy::source::{Disk, Files as _};

/// Prints a policy made from a list or from the rules of another firewall.
///
/// What cannot be taken over is said on standard error. Rules per app are put out as comments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// hosts, domains, wildcard, adblock, dnsmasq, unbound, rpz, netset, lsrules, geosite or
    /// opensnitch
    #[arg(value_parser = kind)]
    format: Kind,
    /// The file; of opensnitch also the folder with its rules
    file: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    List(Format),
    OpenSnitch,
}

fn kind(word: &str) -> Result<Kind, String> {
    match word {
        "opensnitch" => Ok(Kind::OpenSnitch),
        _ => format(word).map(Kind::List).map_err(|error| format!("{error}, opensnitch")),
    }
}

/// Runs `firewall import`.
///
/// # Errors
///
/// When standard output or standard error cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = &args.file;
    if !path.exists() {
        eprintln!("error: cannot read {}: there is no such file", path.display());
        return Ok(ExitCode::from(super::USAGE));
    }
    let imported = match import(args.format, path) {
        Ok(imported) => imported,
        Err(why) => {
            eprintln!("error: {} cannot be read: {why}", path.display());
            return Ok(ExitCode::FAILURE);
        }
    };
    account(&mut io::stderr().lock(), &imported)?;
    if imported.rules == 0 {
        eprintln!("error: nothing of {} can be put into a policy", path.display());
        return Ok(ExitCode::FAILURE);
    }
    super::print_all(imported.policy.as_bytes())
}

fn import(kind: Kind, path: &Path) -> Result<Imported, String> {
    let origin = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    match kind {
        Kind::List(format) => {
            let bytes = Disk.read(path)?;
            let text = String::from_utf8_lossy(&bytes);
            import::list(format, &text, &origin, &stem).map_err(|error| error.to_string())
        }
        Kind::OpenSnitch => {
            Ok(import::opensnitch(&rules(path).map_err(|error| error.to_string())?, &origin, &stem))
        }
    }
}

/// The file, or the `*.json` of the folder, sorted by name, each with its name.
fn rules(path: &Path) -> io::Result<Vec<(String, String)>> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        paths = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
    }
    let read = |path: &PathBuf| {
        let bytes = Disk
            .read(path)
            .map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, String::from_utf8_lossy(&bytes).into_owned()))
    };
    paths.iter().map(read).collect()
}

/// What became of everything, for people.
fn account(out: &mut impl Write, imported: &Imported) -> io::Result<()> {
    let Imported { policy: _, rules, report, left_out } = imported;
    if let Some(report) = report {
        writeln!(
            out,
            "list: {}, {}, {} skipped",
            count(report.entries, "entry", "entries"),
            count(report.duplicates, "duplicate", "duplicates"),
            report.skipped(),
        )?;
        write_skipped(out, &report.skipped)?;
    }
    let lost = left_out.values().map(Vec::len).sum();
    writeln!(out, "{}, {} left out", count(*rules, "rule", "rules"), count(lost, "rule", "rules"))?;
    for (reason, names) in left_out {
        let comment =
            if *reason == Reason::App { " (comments where they can be written)" } else { "" };
        writeln!(
            out,
            "  {} left out as {}: {}{comment}",
            names.len(),
            reason.word(),
            reason.explanation()
        )?;
        for name in names {
            writeln!(out, "    {}", printable(name))?;
        }
    }
    Ok(())
}
