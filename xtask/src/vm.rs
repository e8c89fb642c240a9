//! `cargo xtask test vm`: the package in a whole Debian with systemd, in qemu.
//!
//! The image is made once, by debootstrap, and kept in `target/vm`; nothing of a run is left in it. The guest has no network but the one it makes within itself.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{command, is_root, run as run_command, workspace},
    dist, setup,
};

const RELEASE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Beside what every Debian has: systemd, a kernel, and something that waits for the network.
const PACKAGES: &str =
    "systemd-sysv,udev,ifupdown,iproute2,linux-image-cloud-amd64,initramfs-tools,zstd";
/// Programs of this machine, and the packages they are in.
const PROGRAMS: [(&str, &str); 3] = [
    ("debootstrap", "debootstrap"),
    ("mkfs.ext4", "e2fsprogs"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// What is put into the image.
const IMAGE_FILES: [(&str, &str); 4] = [
    ("etc/fstab", "/dev/vda / ext4 rw 0 0\n/dev/vdb /srv ext4 ro 0 0\n"),
    ("etc/hostname", "guest\n"),
    ("etc/systemd/system/guest.service", include_str!("vm/guest.service")),
    ("etc/systemd/system/networking.service.d/vm.conf", include_str!("vm/networking.conf")),
];
/// What each run gives to the guest beside the packages.
const RUN_FILES: [(&str, &str); 4] = [
    ("guest.sh", include_str!("vm/guest.sh")),
    ("network.sh", include_str!("vm/network.sh")),
    ("reach.sh", include_str!("vm/reach.sh")),
    ("by-path.toml", include_str!("vm/by-path.toml")),
];

/// A busy host lets the guest wait for a minute, which is no fault of its kernel.
const CMDLINE: &str = "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=1 nowatchdog \
                       rcupdate.rcu_cpu_stall_suppress=1";

/// Two starts, an installation and an upgrade take 5 minutes without KVM on 2 cores.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Where the result is written.
const RESULT: &str = "firewall/docs/tested.md";

/// Makes packages and image, boots, and writes down what the guest found.
pub fn run() -> Result<()> {
    ensure!(is_root(), "debootstrap needs root: sudo cargo xtask test vm");
    setup::programs(&PROGRAMS)?;
    let folder = workspace().join("target/vm");
    fs::create_dir_all(&folder)?;
    let image = Image::find_or_make(&folder)?;

    let work = tempfile::tempdir_in(&folder)?;
    let shared = work.path().join("shared");
    fs::create_dir(&shared)?;
    let binary = dist::build()?;
    for (name, revision) in [("first", 1), ("second", 2)] {
        let package = dist::deb(&binary, revision, work.path())?;
        fs::rename(package, shared.join(name).with_extension("deb"))?;
    }
    for (name, content) in RUN_FILES {
        fs::write(shared.join(name), content)?;
    }
    let shared_disk = work.path().join("shared.ext4");
    file_system(&shared, &shared_disk, "256M")?;
    let began = Instant::now();
    let console = folder.join("console.log");
    let lines = Guest::start(&image, &shared_disk, &console)?.watch()?;
    let report = Report::of(&lines);
    let ended = lines.iter().any(|line| line == "end");
    ensure!(
        ended && report.failed.is_empty() && !report.passed.is_empty(),
        "{}; the guest's console is in {}",
        match report.failed.as_slice() {
            [] => "the guest did not come to the end".to_owned(),
            failed => format!("{} of its checks failed: {}", failed.len(), failed.join("; ")),
        },
        console.display()
    );
    fs::write(workspace().join(RESULT), report.page(began.elapsed())?)?;
    eprintln!("{} checks passed; written to {RESULT}", report.passed.len());
    Ok(())
}

/// A Debian that has never been started, and how to boot it.
struct Image {
    disk: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Image {
    fn find_or_make(folder: &Path) -> Result<Self> {
        let image = Self {
            disk: folder.join("image.ext4"),
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.img"),
        };
        // The disk comes last, so where it is the rest is too.
        if !image.disk.exists() {
            image.make(folder)?;
        }
        Ok(image)
    }

    fn make(&self, folder: &Path) -> Result<()> {
        eprintln!("making an image of Debian {RELEASE}, once: 3 minutes and 1 GB");
        let root = tempfile::tempdir_in(folder)?;
        // What debootstrap mounts goes with the namespace, whatever becomes of it.
        run_command(
            command("unshare")
                .args(["--mount", "debootstrap", "--variant=minbase"])
                .arg(format!("--include={PACKAGES}"))
                .arg(RELEASE)
                .arg(root.path())
                .arg(MIRROR)
                .stdout(Stdio::null()),
        )?;
        for (path, content) in IMAGE_FILES {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().context("a file in a folder")?)?;
            fs::write(path, content)?;
        }
        run_command(
            command("systemctl").arg("--root").arg(root.path()).args(["enable", "guest.service"]),
        )?;
        for (link, kept) in [("vmlinuz", &self.kernel), ("initrd.img", &self.initrd)] {
            fs::copy(fs::canonicalize(root.path().join(link))?, kept)?;
        }
        let unfinished = self.disk.with_extension("unfinished");
        file_system(root.path(), &unfinished, "2G")?;
        fs::rename(unfinished, &self.disk)?;
        Ok(())
    }
}

/// Puts a folder into a file system of its own.
fn file_system(folder: &Path, disk: &Path, size: &str) -> Result<()> {
    run_command(command("mkfs.ext4").args(["-q", "-F", "-d"]).args([folder, disk]).arg(size))
}

/// A machine that runs, ended when it is dropped.
struct Guest(Child);

impl Guest {
    fn start(image: &Image, shared: &Path, console: &Path) -> Result<Self> {
        let drive = |file: &Path, rest: &str| format!("file={},if=virtio,{rest}", file.display());
        let mut qemu = command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-cpu", "max,-cx16", "-m", "1536", "-nic", "none"])
            .args(["-display", "none", "-monitor", "none"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args(["-append", CMDLINE])
            .arg("-drive")
            // What is written lasts as long as qemu: over restarts of the guest, and no longer.
            .arg(drive(&image.disk, "format=raw,snapshot=on"))
            .arg("-drive")
            .arg(drive(shared, "format=raw,readonly=on"))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"]);
        let child = qemu.stdout(Stdio::piped()).spawn().context("qemu-system-x86_64")?;
        Ok(Self(child))
    }

    /// Shows and returns what the guest says, until it is switched off.
    fn watch(mut self) -> Result<Vec<String>> {
        let output = self.0.stdout.take().context("no output of qemu")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let until = Instant::now() + TIME_LIMIT;
        let mut lines = Vec::new();
        loop {
            match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let line = line.trim_end().to_owned();
                    eprintln!("guest: {line}");
                    lines.push(line);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(lines),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the guest did not end within {} minutes", TIME_LIMIT.as_secs() / 60)
                }
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the guest found.
#[derive(Default)]
struct Report {
    notes: Vec<String>,
    passed: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    fn of(lines: &[String]) -> Self {
        let mut report = Self::default();
        for line in lines {
            match line.split_once(' ') {
                Some(("ok", what)) => report.passed.push(what.to_owned()),
                Some(("failed", what)) => report.failed.push(what.to_owned()),
                // The same at each start.
                Some(("note", what)) if !report.notes.iter().any(|note| note == what) => {
                    report.notes.push(what.to_owned());
                }
                _ => {}
            }
        }
        report
    }

    fn page(&self, took: Duration) -> Result<String> {
        let date = command("date").args(["--utc", "+%Y-%m-%d"]).output().context("date")?;
        let date = String::from_utf8(date.stdout)?;
        let mut page = Vec::new();
        writeln!(page, "# Tested as a package\n")?;
        writeln!(
            page,
            "Written by `cargo xtask test vm`, which boots a whole Debian ({RELEASE}) with systemd \
             in qemu\nand installs the package there.\n"
        )?;
        writeln!(page, "| | |\n|---|---|\n| date | {} |", date.trim())?;
        for note in &self.notes {
            let (what, value) = note.split_once(' ').unwrap_or((note, ""));
            writeln!(page, "| {what} | {value} |")?;
        }
        writeln!(page, "| took, without KVM | {} s |\n", took.as_secs())?;
        for check in &self.passed {
            writeln!(page, "- {check}")?;
        }
        Ok(String::from_utf8(page)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_runs_is_shell() {
        for (name, script) in RUN_FILES.iter().filter(|(name, _)| name.ends_with(".sh")) {
            let parsed = command("bash").args(["-n", "-c", script]).output().unwrap();
            assert!(parsed.status.success(), "{name}: {}", String::from_utf8_lossy(&parsed.stderr));
        }
    }

    #[test]
    fn what_the_guest_says_is_told_apart() {
        let lines =
            ["note kernel 6.1", "ok it holds", "failed it breaks: why", "note kernel 6.1", "x"];
        let report = Report::of(&lines.map(str::to_owned));
        assert_eq!(report.notes, ["kernel 6.1"]);
        assert_eq!(report.passed, ["it holds"]);
        assert_eq!(report.failed, ["it breaks: why"]);
        let page = report.page(Duration::from_secs(7)).unwrap();
        assert!(page.contains("| kernel | 6.1 |") && page.contains("- it holds\n"), "{page}");
    }
}
