//! Where a process runs: its cgroup, its file system.

use crate::{
    harness::{require_kernel, skip},
    support::FREE,
    world::{World, apps, attempt, by, reach},
};

/// A shell's words that make cgroups below the one of the run, and say where they are.
const CGROUPS: &str = "\
    mount=$(awk '$0 ~ / - cgroup2 / { print $5; exit }' /proc/self/mountinfo)\n\
    own=$mount$(sed -n 's/^0:://p' /proc/self/cgroup)\n\
    mkdir $own/test-a.service $own/test-a.service/deep $own/test-b.scope\n\
    enter() { echo $BASHPID >$own/$1/cgroup.procs; }\n";

#[test]
fn units_and_cgroups() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let shell = world.shell("shell");
    let shell = shell.display();
    let policy = world.policy(
        "allow",
        &[
            ("unit", "drop", apps(&["unit:test-a*"])),
            ("group", "drop", apps(&["cgroup:/**/test-?.scope"])),
        ],
    );
    let mut script = CGROUPS.to_owned();
    for (name, group, port) in [
        ("unit", "test-a.service", 1001),
        ("below", "test-a.service/deep", 1002),
        ("scope", "test-b.scope", 1003),
    ] {
        script += &attempt(name, format!("(enter {group}; {shell} -c '{}')", reach(port)));
    }
    script += &by("outside", &shell, 1004);
    world.run(&policy, &script).assert(&["outside"], &["unit", "below", "scope"]);
}

/// Who may make cgroups below a unit is in it all the same, however deep and long of name.
#[test]
fn nobody_leaves_a_unit_downwards() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let shell = world.shell("shell");
    let shell = shell.display();
    let policy = world.policy("allow", &[("unit", "drop", apps(&["unit:test-a.service"]))]);
    let long = format!("/{}", "a".repeat(250));
    let mut script = CGROUPS.to_owned();
    for (name, below, port) in [("long", long.repeat(2), 1001), ("deep", "/d".repeat(140), 1002)] {
        let group = format!("test-a.service{below}");
        script += &format!("mkdir -p $own/{group}\n");
        script += &attempt(name, format!("(enter {group}; {shell} -c '{}')", reach(port)));
    }
    script += &by("outside", &shell, 1003);
    world.run(&policy, &script).assert(&["outside"], &["long", "deep"]);
}

#[test]
fn a_process_that_is_moved_while_it_is_connected() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let _host = world.net.listen_udp(&["[::]:1001"]);
    let policy = world.policy("allow", &[("unit", "drop", apps(&["unit:test-a.service"]))]);
    let mut script = CGROUPS.to_owned();
    script += &format!("exec 3<>/dev/udp/{FREE}/1001\n");
    script += &attempt("before", "echo x >&3");
    script += "enter test-a.service\n";
    // What was connected before stays what it was; what comes after is of the new place.
    script += &attempt("connected", "echo x >&3");
    script += &attempt("anew", reach(1002));
    script += "echo $BASHPID >$own/cgroup.procs\n";
    script += &attempt("back", reach(1003));
    world.run(&policy, &script).assert(&["before", "connected", "back"], &["anew"]);
}

#[test]
fn the_same_inode_number_in_two_subvolumes() {
    if !require_kernel() || !is_there("btrfs") {
        return;
    }
    let world = World::new();
    let (image, mount) = (world.path("image"), world.path("btrfs"));
    std::fs::create_dir(&mount).expect("a directory");
    let (image, mount) = (image.display(), mount.display());
    let policy = world.policy("allow", &[("a", "drop", apps(&[format!("exe:{mount}/a/sh")]))]);
    let mut tries = by("a", format!("{mount}/a/sh"), 1001);
    tries += &by("b", format!("{mount}/b/sh"), 1002);
    tries += &by("a-again", format!("{mount}/a/sh"), 1003);
    // Of two that run at a time, each stays what it is.
    tries += &format!(
        "{mount}/b/sh -c \"while [ ! -e {place}/mark ]; do sleep 0.05; done; {} && echo b-later=pass || echo b-later=stop\" &\n\
         sleep 0.2\n{}touch {place}/mark\nwait\n",
        reach(1004),
        by("a-meanwhile", format!("{mount}/a/sh"), 1005),
        place = world.path("").display(),
    );
    // In mounts of root's own, which are gone with the shell.
    let script = format!(
        "exec unshare -m /bin/bash -c '\n\
         truncate -s 128M {image} && mkfs.btrfs -q {image} >/dev/null 2>&1 && mount -o loop {image} {mount} || exit 9\n\
         for one in a b; do btrfs -q subvolume create {mount}/$one && cp /bin/bash {mount}/$one/sh; done\n\
         stat -c inode=%i {mount}/a/sh {mount}/b/sh\n{}'",
        quoted(&tries)
    );
    let tries = world.run(&policy, &script);
    let inodes: Vec<&str> =
        tries.outcome.stdout.lines().filter(|line| line.starts_with("inode=")).collect();
    assert!(inodes.len() == 2 && inodes[0] == inodes[1], "{inodes:?}");
    tries.assert(&["b", "b-later"], &["a", "a-again", "a-meanwhile"]);
    assert_eq!(tries.exe_of(1004), format!("{mount}/b/sh"));
    assert_eq!(tries.exe_of(1001), format!("{mount}/a/sh"));
}

#[test]
fn a_file_seen_through_an_overlay() {
    if !require_kernel() || !is_there("overlay") {
        return;
    }
    let world = World::new();
    let lower = world.shell("lower/sh");
    let place = world.path("");
    let place = place.to_str().expect("a path").trim_end_matches('/');
    let merged = format!("{place}/room/merged/sh");
    std::fs::create_dir(world.path("room")).expect("a directory");
    let policy = world.policy("allow", &[("merged", "drop", apps(&[format!("exe:{merged}")]))]);
    let mut tries = by("merged", &merged, 1001);
    tries += &by("lower", lower.display(), 1002);
    tries += &format!("touch {merged}\n");
    tries += &by("copied-up", &merged, 1003);
    // An overlay does not take another one for its upper layer.
    let script = format!(
        "exec unshare -m /bin/bash -c '\n\
         mount -t tmpfs room {place}/room && cd {place}/room && mkdir upper work merged && \
         mount -t overlay -o lowerdir={place}/lower,upperdir=upper,workdir=work overlay merged || exit 9\n{}'",
        quoted(&tries)
    );
    let tries = world.run(&policy, &script);
    tries.assert(&["lower"], &["merged", "copied-up"]);
    assert_eq!(tries.exe_of(1001), merged);
}

/// For within single quotes.
fn quoted(script: &str) -> String {
    script.replace('\'', "'\\''")
}

/// Whether the kernel has a file system; said if not.
fn is_there(file_system: &str) -> bool {
    let all = std::fs::read_to_string("/proc/filesystems").expect("the kernel's list");
    let there = all.lines().any(|line| line.split_whitespace().last() == Some(file_system));
    if !there {
        skip(&format!("the kernel has no {file_system}"));
    }
    there
}
