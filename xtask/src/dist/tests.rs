//! Of packages with another binary in them: what is around it does not depend on it.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::demo::harness;

fn program() -> Program {
    Program {
        binary: "/bin/true".into(),
        manuals: vec![("firewall.1".to_owned(), b".TH firewall 1\n".to_vec())],
        completions: vec![("bash".to_owned(), "complete firewall\n".to_owned())],
        licences: "a licence\n".to_owned(),
    }
}

/// Whether programs are here; if not, that is said.
fn here(programs: &[&str]) -> bool {
    let Some(missing) = programs.iter().find(|program| which(program).is_none()) else {
        return true;
    };
    harness::skip(&format!("there is no `{missing}`"));
    false
}

#[test]
fn a_package_made_twice_is_the_same_and_holds_what_it_should() {
    if !here(&["dpkg-deb", "dpkg-shlibdeps"]) {
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = program();
    let make = |out: &Path| (deb(&program, 1, out).unwrap(), tarball(&program, out).unwrap());
    let (package, archive) = make(one.path());
    // Archives tell seconds apart: files that are packed with the time they were made at differ.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let (package_again, archive_again) = make(two.path());
    assert_eq!(digest(&package).unwrap(), digest(&package_again).unwrap());
    assert_eq!(digest(&archive).unwrap(), digest(&archive_again).unwrap());

    let unpacked = one.path().join("unpacked");
    output(command("dpkg-deb").arg("--raw-extract").args([&package, &unpacked])).unwrap();
    let read = |path: &str| fs::read_to_string(unpacked.join(path)).expect(path);
    let control = read("DEBIAN/control");
    assert!(control.contains(&format!("\nVersion: {VERSION}-1\n")), "{control}");
    assert!(control.contains("\nDepends: libc6 (>= "), "{control}");
    assert!(!control.contains('@') || control.matches('@').count() == 1, "{control}");

    for path in [
        "usr/lib/systemd/system/firewall.service",
        "usr/lib/systemd/system/firewall-early.service",
        "usr/lib/sysusers.d/firewall.conf",
        "usr/lib/tmpfiles.d/firewall.conf",
        "usr/share/man/man1/firewall.1.gz",
        "usr/share/bash-completion/completions/firewall",
        "usr/share/doc/firewall/changelog.gz",
        "usr/share/doc/firewall/changelog.Debian.gz",
        "usr/share/doc/firewall/third-party-licences.txt.gz",
        "usr/share/doc/firewall/policies.md",
    ] {
        assert!(unpacked.join(path).is_file(), "{path}");
    }
    let names = |folder: &Path| -> BTreeSet<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(
        names(&unpacked.join("usr/share/firewall/policies")),
        names(&workspace().join("policies"))
    );
    // Nothing is blocked by what is enabled, and what is of the user's is not overwritten.
    assert_eq!(
        names(&unpacked.join("etc/firewall/policies.d")),
        BTreeSet::from(["watch-everything.toml".into()])
    );
    let conffiles = read("DEBIAN/conffiles");
    let of_the_user: BTreeSet<String> = conffiles.lines().map(str::to_owned).collect();
    let in_etc = Files::of(&program).unwrap();
    let in_etc = in_etc.paths().filter(|path| path.starts_with("etc/"));
    assert_eq!(of_the_user, in_etc.map(|path| format!("/{path}")).collect());
    for (path, mode) in [
        ("usr/bin/firewall", 0o755),
        ("DEBIAN/postinst", 0o755),
        ("DEBIAN/prerm", 0o755),
        ("DEBIAN/postrm", 0o755),
        ("etc/firewall/firewall.toml", 0o644),
    ] {
        let found = fs::metadata(unpacked.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{path}");
    }
    let copyright = read("usr/share/doc/firewall/copyright");
    assert!(copyright.contains("Permission is hereby granted"), "{copyright}");
    for script in ["postinst", "prerm", "postrm"] {
        output(command("sh").arg("-n").arg(unpacked.join("DEBIAN").join(script))).unwrap();
    }
}

#[test]
fn the_licences_of_libraries_go_along() {
    let licences = licences::of_libraries().unwrap();
    // Of the binary, of the kernel programs, and not of what only builds or tests them.
    for (name, there) in [("\ntokio ", true), ("\naya-ebpf ", true), ("\nproptest ", false)] {
        assert_eq!(licences.contains(name), there, "{name}");
    }
    assert!(licences.matches("Permission is hereby granted").count() > 10);
}

#[test]
fn systemd_takes_the_units() {
    if !here(&["systemd-analyze"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for name in ["firewall.service", "firewall-early.service"] {
        let unit = files::text(&format!("firewall/dist/{name}")).unwrap();
        assert!(unit.contains("/usr/bin/firewall"), "{name}");
        let file = folder.path().join(name);
        // It looks whether the program is there.
        fs::write(&file, unit.replace("/usr/bin/firewall", "/bin/true")).unwrap();
        units.push(file);
    }
    let verify = command("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("firewall")).collect();
    assert!(verify.status.success() && ours.is_empty(), "{said}");
}
