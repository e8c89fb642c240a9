//! Starts where the policies are broken, or there are none, or the machine was started anew.

use std::{fs, os::unix::fs::symlink};

use crate::{
    harness::require_kernel,
    host::{ALLOWED, BROKEN, CHINA, DENIED, Host, Server},
    support::FREE,
};

/// A boot policy that drops one that is else allowed.
const BOOT: &str = "[policy]\nname = \"boot\"\n[[rule]]\nname = \"one\"\naction = \"drop\"\n\
                    to = { networks = [\"212.27.48.0/24\"] }\n";

/// Has it in the settings.
fn with_boot_policy(host: &Host) {
    host.set("boot.toml", BOOT);
    host.set("firewall.toml", &format!("boot = {:?}\n", host.file("boot.toml")));
}

#[track_caller]
fn assert_boot_policy(host: &Host) {
    let mut app = host.app();
    assert_eq!(app.step(&format!("tcp {FREE}:80")), libc::ECONNREFUSED);
    app.assert_open(&DENIED);
}

/// Everything passes, and nothing is left that could enforce.
#[track_caller]
fn assert_nothing(host: &Host) {
    assert_eq!(host.pinned(), Vec::<std::path::PathBuf>::new());
    let mut app = host.app();
    app.assert_open(&DENIED);
    app.assert_open(&ALLOWED);
}

#[test]
fn with_broken_policies_alone_nothing_is_in_force() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    let _server = Server::of(&host);
    host.set("policies.d/broken.toml", BROKEN);
    host.set("policies.d/china.toml", CHINA);
    let (status, said) = host.ends(host.command("daemon"));
    assert_eq!(status, Some(1), "{said}");
    for word in ["broken.toml:3", "perhaps", "nothing is in force"] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    assert_nothing(&host);
    assert!(!host.api.exists());
}

#[test]
fn with_broken_settings_alone_nothing_is_in_force() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    let _server = Server::of(&host);
    host.set("policies.d/china.toml", CHINA);
    host.set("firewall.toml", "defaults = \"drop\"\n");
    let (status, said) = host.ends(host.command("daemon"));
    assert_eq!(status, Some(1), "{said}");
    for word in ["firewall.toml:1", "did you mean `default`"] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    assert_nothing(&host);
}

#[test]
fn with_broken_policies_the_boot_policy_holds() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let server = Server::of(&host);
    with_boot_policy(&host);
    host.set("policies.d/broken.toml", BROKEN);
    let (status, said) = host.ends(host.command("daemon"));
    assert_eq!(status, Some(1), "{said}");
    for word in ["broken.toml:3", "the boot policy is put in force"] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    assert_boot_policy(&host);
    assert_eq!(server.datagrams(FREE), 0);

    // Once it is in force, it is the last generation.
    host.start();
    let status = host.status();
    assert_eq!(
        (&status["state"], &status["generation"]["number"]),
        (&"degraded".into(), &1.into())
    );
    assert_boot_policy(&host);
    host.remove("policies.d/broken.toml");
    host.set("policies.d/china.toml", CHINA);
    host.done(&["reload"]);
    assert_eq!(host.status()["state"], "enforcing");
    host.app().assert_enforced();
}

/// The pins are gone with the kernel that had them.
fn turn_off_and_on(host: &mut Host) {
    host.kill(false);
    host.off();
    assert_eq!(host.pinned(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn after_a_reboot_with_broken_policies_the_last_generation_comes_back() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let _server = Server::of(&host);
    // It is no more than what there is in need.
    with_boot_policy(&host);
    turn_off_and_on(&mut host);
    host.app().assert_open(&DENIED);
    host.set("policies.d/china.toml", BROKEN);
    host.start();
    assert_eq!(host.generation(), (1, "last".to_owned()));
    let status = host.status();
    assert_eq!(status["state"], "degraded");
    let degraded = status["degraded"][0].as_str().unwrap();
    let place = host.file("policies.d/china.toml").display().to_string();
    let first = format!("the policies are not valid: {place}:1:1: ");
    assert!(degraded.starts_with(&first) && degraded.ends_with(", and 1 more"), "{degraded}");
    assert_eq!(status["policies"][0]["name"], "china");
    host.app().assert_enforced();
    assert!(host.said().contains("china.toml:3"), "{}", host.said());

    host.set("policies.d/china.toml", CHINA);
    host.done(&["reload"]);
    assert_eq!(host.status()["state"], "enforcing");
    host.app().assert_enforced();
}

#[test]
fn boot_brings_the_last_generation_back() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    with_boot_policy(&host);
    turn_off_and_on(&mut host);
    // Nothing but what was recorded counts.
    fs::remove_dir_all(host.file("policies.d")).unwrap();
    let (status, said) = host.ends(host.command("boot"));
    assert_eq!(status, Some(0), "{said}");
    host.app().assert_enforced();
    server.assert_untouched();

    let pinned = host.pinned();
    let (status, said) = host.ends(host.command("boot"));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("something is in force already"), "{said}");
    assert_eq!(host.pinned(), pinned);
    host.app().assert_enforced();

    fs::create_dir(host.file("policies.d")).unwrap();
    host.set("policies.d/china.toml", CHINA);
    host.start();
    assert_eq!(host.generation(), (1, "adopted".to_owned()));
    host.app().assert_enforced();
    server.assert_untouched();
}

#[test]
fn boot_without_a_last_generation_takes_the_boot_policy() {
    if !require_kernel() {
        return;
    }
    let host = Host::new();
    let _server = Server::of(&host);
    let (status, said) = host.ends(host.command("boot"));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing to put in force"), "{said}");
    assert_nothing(&host);
    with_boot_policy(&host);
    // It waits for no policies.
    host.set("policies.d/china.toml", CHINA);
    let (status, said) = host.ends(host.command("boot"));
    assert_eq!(status, Some(0), "{said}");
    assert_boot_policy(&host);
}

#[test]
fn without_policies_everything_passes_and_that_is_said() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    let _server = Server::of(&host);
    fs::remove_dir(host.file("policies.d")).unwrap();
    host.start();
    let folder = host.file("policies.d");
    host.wait_said(&format!("no policy is enabled in {}", folder.display()));
    let status = host.status();
    assert_eq!(
        (&status["state"], &status["policies"]),
        (&"enforcing".into(), &serde_json::json!([]))
    );
    let mut app = host.app();
    app.assert_open(&DENIED);
    app.assert_open(&ALLOWED);
    // An empty folder is the same, and one that comes later counts.
    fs::create_dir(&folder).unwrap();
    host.done(&["reload"]);
    app.assert_open(&DENIED);
    host.set("policies.d/china.toml", CHINA);
    host.done(&["reload"]);
    app.assert_enforced();
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_not_taken_for_an_empty_one() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    host.kill(false);
    // A link to itself: whatever stands in the way, nothing is known of the policies.
    fs::rename(host.file("policies.d"), host.file("away")).unwrap();
    symlink("policies.d", host.file("policies.d")).unwrap();
    host.start();
    assert_eq!(host.status()["state"], "degraded");
    assert!(host.said().contains("cannot read"), "{}", host.said());
    host.app().assert_enforced();
    // A file is no folder without policies.
    fs::remove_file(host.file("policies.d")).unwrap();
    host.set("policies.d", CHINA);
    assert!(!host.ask(&["reload"]).status.success());
    host.app().assert_enforced();
    server.assert_untouched();
}

#[test]
fn what_there_is_to_say_of_policies_is_said_once() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    host.start();
    let said = host.said();
    assert_eq!(said.matches("no policy is enabled").count(), 1, "{said}");
}
