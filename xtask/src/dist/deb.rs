//! The Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    NAME, VERSION, epoch,
    files::{DOC, Files, Program, gzip, set_mode, text},
    output,
};
use crate::command::{command, run as run_command};

const SOURCES: &str = "firewall/dist/debian";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the package of a revision in a folder.
pub fn deb(program: &Program, revision: u32, out: &Path) -> Result<PathBuf> {
    let version = format!("{VERSION}-{revision}");
    let epoch = epoch()?;
    let architecture = output(command("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let mut files = Files::of(program)?;
    files.put(&format!("{DOC}/changelog.Debian.gz"), gzip(changelog(&version, epoch)?.as_bytes())?);

    let work = tempfile::tempdir()?;
    let root = work.path().join("root");
    files.write(&root)?;
    let sums = output(command("md5sum").args(files.paths()).current_dir(&root))?;
    let control = text(&format!("{SOURCES}/control"))?
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", &architecture)
        .replace("@SIZE@", &files.kibibytes().to_string())
        .replace("@DEPENDS@", &libraries(&program.binary)?);

    let folder = root.join("DEBIAN");
    fs::create_dir(&folder)?;
    set_mode(&folder, 0o755)?;
    let write = |name: &str, content: &str, mode| -> Result<()> {
        fs::write(folder.join(name), content)?;
        set_mode(&folder.join(name), mode)
    };
    write("control", &control, 0o644)?;
    write("md5sums", &sums, 0o644)?;
    write("conffiles", &text(&format!("{SOURCES}/conffiles"))?, 0o644)?;
    for script in SCRIPTS {
        write(script, &text(&format!("{SOURCES}/{script}"))?, 0o755)?;
    }

    let package = out.join(format!("{NAME}_{version}_{architecture}.deb"));
    run_command(
        command("dpkg-deb")
            // What several threads compress depends on how many there are.
            .args(["--root-owner-group", "--threads-max=1", "-Zxz", "--build"])
            .args([&root, &package])
            .env("SOURCE_DATE_EPOCH", epoch.to_string())
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(package)
}

/// The packages of the libraries that the binary asks the loader for.
fn libraries(binary: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let control = folder.path().join("debian/control");
    fs::create_dir(folder.path().join("debian"))?;
    fs::write(control, "Source: firewall\n\nPackage: firewall\nArchitecture: any\n")?;
    let found = output(
        command("dpkg-shlibdeps").arg("-O").arg("-e").arg(binary).current_dir(folder.path()),
    )?;
    let depends = found.trim().strip_prefix("shlibs:Depends=");
    Ok(depends.with_context(|| format!("dpkg-shlibdeps said {found:?}"))?.to_owned())
}

fn changelog(version: &str, epoch: u64) -> Result<String> {
    let date = output(command("date").args(["--utc", "--rfc-email", &format!("--date=@{epoch}")]))?;
    let control = text(&format!("{SOURCES}/control"))?;
    let maintainer = control
        .lines()
        .find_map(|line| line.strip_prefix("Maintainer: "))
        .context("the control file names no maintainer")?;
    Ok(format!(
        "{NAME} ({version}) unstable; urgency=medium\n\n  \
         * What is new stands in changelog.gz.\n\n \
         -- {maintainer}  {}\n",
        date.trim()
    ))
}
