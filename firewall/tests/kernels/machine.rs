//! qemu.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{harness, support::wait};

pub const QEMU: &str = "qemu-system-x86_64";

/// It takes a minute on a machine that does nothing else.
const LIMIT: Duration = Duration::from_secs(900);

/// Boots a kernel with an initramfs, and returns what the guest said until it switched itself off.
#[track_caller]
pub fn boot(linux: &Path, initramfs: &Path, folder: &Path) -> String {
    let console = folder.join("console");
    let qemu = harness::program(QEMU).expect("it was looked for");
    // Without `cmpxchg16b`: after it the flags of a guest of qemu 7.2 are garbage now and then, and the kernel
    // panics wherever it next restores them (8 boots of 110; none of 150 without).
    let mut guest = Command::new(qemu)
        .args(["-accel", "tcg", "-cpu", "Haswell-noTSX,-cx16", "-smp", "1", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(linux)
        .arg("-initrd")
        .arg(initramfs)
        // A panic is an end too. What else the kernel says would come into the lines of the checks.
        .args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("qemu")).expect("a file"))
        .spawn()
        .expect("qemu");
    let status = wait(&mut guest, LIMIT);
    if status.is_none() {
        // Ended by itself in this moment, or by this.
        let _ = guest.kill();
        let _ = guest.wait();
    }
    let text =
        |file: &Path| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let said = text(&console);
    assert!(
        status.is_some_and(|status| status.success()),
        "the guest did not end well ({status:?}):\n{}{said}",
        text(&folder.join("qemu"))
    );
    said
}
