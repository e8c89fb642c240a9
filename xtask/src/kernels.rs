//! Other kernels to test on: Debian's, downloaded and unpacked below `target/`, never installed.
//!
//! Which version a series is at is asked of the archive, by apt with lists and sources of its own, so that
//! the machine's stay as they are and need not be Debian's release that has the kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{command, output, run as run_command, target_directory};

/// The series that tests boot, the oldest that the firewall promises first.
const SERIES: [&str; 2] = ["6.1", "6.12"];
/// The releases of Debian that have them.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
const ARCHIVE: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// A package without files, which depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// Provides `target/kernels/SERIES`, each an unpacked package, and returns those that were not there.
pub fn provide() -> Result<Vec<&'static str>> {
    let kernels = target_directory()?.join("kernels");
    let missing: Vec<&str> =
        SERIES.into_iter().filter(|series| !kernels.join(series).is_dir()).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    std::fs::create_dir_all(&kernels)?;
    let scratch = tempfile::tempdir_in(&kernels)?;
    let apt = Apt::new(scratch.path())?;
    for series in &missing {
        apt.unpack(series, &kernels.join(series)).with_context(|| format!("kernel {series}"))?;
    }
    Ok(missing)
}

/// apt as it is without this machine's configuration.
struct Apt<'a> {
    folder: &'a Path,
    configuration: PathBuf,
}

impl<'a> Apt<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let sources =
            RELEASES.map(|release| format!("deb [signed-by={KEYRING}] {ARCHIVE} {release} main\n"));
        std::fs::write(folder.join("sources.list"), sources.concat())?;
        let configuration = folder.join("apt.conf");
        let folder_name = folder.display();
        std::fs::write(
            &configuration,
            format!(
                "Dir::State::Lists \"{folder_name}/lists\";\n\
                 Dir::State::status \"/dev/null\";\n\
                 Dir::Cache \"{folder_name}/cache\";\n\
                 Dir::Etc::SourceList \"{folder_name}/sources.list\";\n\
                 Dir::Etc::SourceParts \"/dev/null\";\n\
                 APT::Architecture \"amd64\";\n\
                 APT::Sandbox::User \"\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
            ),
        )?;
        let apt = Self { folder, configuration };
        run_command(apt.command("apt-get").args(["update", "--quiet=2"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> std::process::Command {
        let mut command = command(program);
        command.env("APT_CONFIG", &self.configuration).current_dir(self.folder);
        command
    }

    fn unpack(&self, series: &str, to: &Path) -> Result<()> {
        let versions = output(self.command("apt-cache").args(["madison", NEWEST]))?;
        let version = newest(&versions, series)
            .with_context(|| format!("{NEWEST} of {} has none", RELEASES.join(" and ")))?;
        let newest = format!("{NEWEST}={version}");
        let about = output(self.command("apt-cache").args(["show", &newest]))?;
        let package = dependency(&about).with_context(|| format!("{newest} depends on nothing"))?;
        run_command(self.command("apt-get").args([
            "download",
            "--quiet=2",
            &format!("{package}={version}"),
        ]))?;
        let file = std::fs::read_dir(self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let Some(file) = file else {
            bail!("apt-get left no package in {}", self.folder.display())
        };
        let unpacked = self.folder.join(series);
        run_command(command("dpkg-deb").arg("--extract").args([&file, &unpacked]))?;
        std::fs::remove_file(file)?;
        // In one step, so that what is there is whole.
        std::fs::rename(unpacked, to).with_context(|| to.display().to_string())
    }
}

/// The first, which is the newest, of the lines `PACKAGE | VERSION | SOURCE` with a version of the series.
fn newest<'a>(madison: &'a str, series: &str) -> Option<&'a str> {
    madison
        .lines()
        .filter_map(|line| Some(line.split('|').nth(1)?.trim()))
        .find(|version| version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')))
}

/// The first package of `Depends: PACKAGE (= VERSION)`.
fn dependency(about: &str) -> Option<&str> {
    about.lines().find_map(|line| line.strip_prefix("Depends: "))?.split([' ', ',']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series() {
        let lines = " linux-image-cloud-amd64 | 6.12.107-1 | http://deb.debian.org/debian trixie/main\n\
                     linux-image-cloud-amd64 |  6.1.176-1 | http://deb.debian.org/debian bookworm/main\n\
                     linux-image-cloud-amd64 |  6.1.170-1 | http://deb.debian.org/debian bookworm/main\n";
        assert_eq!(newest(lines, "6.1"), Some("6.1.176-1"));
        assert_eq!(newest(lines, "6.12"), Some("6.12.107-1"));
        assert_eq!(newest(lines, "6.18"), None);
        let about = "Version: 6.1.176-1\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n";
        assert_eq!(dependency(about), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(dependency("Version: 6.1.176-1\n"), None);
    }
}
