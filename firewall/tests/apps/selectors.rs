//! Which processes a selector means.

use crate::{
    harness::require_kernel,
    support::FREE,
    world::{World, apps, attempt, by, exe, reach},
};

#[test]
fn an_executable_however_it_was_started() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, two) = (world.shell("one"), world.shell("two"));
    std::os::unix::fs::symlink(&one, world.path("link")).expect("a link");
    let policy = world.policy("allow", &[("one", "drop", apps(&[exe(&one)]))]);
    let (one, two) = (one.display(), two.display());
    let place = world.path("");
    let place = place.display();
    let mut script = by("direct", &one, 1001);
    script += &attempt("under-sh", format!("sh -c \"{one} -c '{}'\"", reach(1002)));
    script += &by("by-a-link", format!("{place}/link"), 1003);
    script += &by("a-copy", &two, 1004);
    script += &attempt("forked", format!("{one} -c '( ( {} ) )'", reach(1005)));
    // Twice forked, in a session of its own, and whose parent is gone.
    script += &format!(
        "setsid -f {one} -c '{} && echo daemon=pass >{place}/said || echo daemon=stop >{place}/said' \
         2>/dev/null\nfor i in $(seq 100); do [ -s {place}/said ] && break; sleep 0.05; done\ncat {place}/said\n",
        reach(1006)
    );
    // In a network namespace of its own there is only the loopback.
    for (name, shell) in [("elsewhere", &one), ("a-copy-elsewhere", &two)] {
        script += &attempt(
            name,
            format!(
                "unshare -n sh -c \"ip link set lo up && {shell} -c 'echo x >/dev/udp/127.0.0.9/1007'\""
            ),
        );
    }
    // As packages are upgraded: the file is another, its path is the same.
    script += &format!("cp {two} {place}/new && mv {place}/new {one}\n");
    script += &by("replaced", &one, 1008);
    let tries = world.run(&policy, &script);
    tries.assert(
        &["a-copy", "a-copy-elsewhere"],
        &["direct", "under-sh", "by-a-link", "forked", "daemon", "elsewhere", "replaced"],
    );
    assert_eq!(tries.exe_of(1001), one.to_string());
    assert_eq!(tries.exe_of(1003), one.to_string());
    let event = tries.outcome.denied(FREE, 1001, "udp");
    assert_eq!(
        event["evidence"],
        serde_json::json!([format!("net:{FREE}/32"), format!("app:exe:{one}")]),
        "{event}"
    );
}

#[test]
fn files_by_a_pattern() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let place = world.path("");
    let place = place.to_str().expect("a path").trim_end_matches('/');
    std::fs::create_dir_all(world.path("x/deep")).expect("directories");
    std::fs::create_dir_all(world.path("y/deep/er")).expect("directories");
    let selectors = [format!("exe:{place}/x/*"), format!("exe:{place}/y/**/sh[0-9]")];
    let policy = world.policy("allow", &[("x", "drop", apps(&selectors))]);
    let mut script = String::new();
    for (name, path, port) in [
        ("beside", "x/new", 1001),
        ("below", "x/deep/new", 1002),
        ("deep", "y/deep/er/sh7", 1003),
        ("not-deep", "y/deep/er/shy", 1004),
    ] {
        // A moment before it runs there was no such file.
        script += &format!("cp /bin/bash {place}/{path}\n");
        script += &by(name, format!("{place}/{path}"), port);
    }
    world.run(&policy, &script).assert(&["below", "not-deep"], &["beside", "deep"]);
}

#[test]
fn users_and_groups() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, two) = (world.shell("one"), world.shell("two"));
    let policy = world.policy(
        "allow",
        &[("user", "drop", apps(&["user:nobody"])), ("group", "drop", apps(&["group:daemon"]))],
    );
    let (one, two) = (one.display(), two.display());
    let mut script = by("root", &one, 1001);
    script += &by("nobody", format!("setpriv --reuid nobody --clear-groups {one}"), 1002);
    script += &by("nobody-again", format!("setpriv --reuid nobody --clear-groups {two}"), 1003);
    script += &by("group", format!("setpriv --regid daemon --clear-groups {two}"), 1004);
    world.run(&policy, &script).assert(&["root"], &["nobody", "nobody-again", "group"]);
}

#[test]
fn exceptions() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let (one, two) = (world.shell("one"), world.shell("two"));
    let rule = format!("{}\nexcept-{}", apps(&["user:root"]), apps(&[exe(&one)]));
    let policy = world.policy("allow", &[("all-but-one", "drop", rule)]);
    let mut script = by("one", one.display(), 1001);
    script += &by("two", two.display(), 1002);
    script +=
        &by("other-user", format!("setpriv --reuid nobody --clear-groups {}", two.display()), 1003);
    world.run(&policy, &script).assert(&["one", "other-user"], &["two"]);
}

#[test]
fn scripts() {
    if !require_kernel() {
        return;
    }
    let world = World::new();
    let text = |port| format!("#!/bin/bash\n{}\n", reach(port));
    let tool = world.file("tool.sh", &text(1001));
    let other = world.file("other.sh", &text(1002));
    let named = world.file(
        "named.pl",
        &format!(
            "use IO::Socket::INET;\n$0 = 'x';\nmy $pid = fork();\nif ($pid) {{ waitpid($pid, 0); exit($? >> 8); }}\n\
             my $to = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '{FREE}', PeerPort => 1003) or exit 1;\n\
             $to->send('x') or exit 1;\n"
        ),
    );
    let plain = world.shell("plain").display().to_string();
    let starts =
        world.file("starts.sh", &format!("#!/bin/bash\nexec {plain} -c '{}'\n", reach(1005)));
    let selectors: Vec<String> =
        [&tool, &named, &starts].iter().map(|path| format!("script:{}", path.display())).collect();
    let policy = world.policy("allow", &[("scripts", "drop", apps(&selectors))]);
    let place = world.path("");
    let place = place.display();
    let (tool, other) = (tool.display(), other.display());
    let mut script = attempt("itself", &tool);
    script += &attempt("by-interpreter", format!("/bin/bash -e {tool}"));
    script += &attempt("relative", format!("sh -c 'cd {place} && /bin/bash ./tool.sh'"));
    script += &attempt("other", &other);
    script += &by("interpreter", "/bin/bash", 1004);
    // What a script starts is another program, also in its own process.
    script += &attempt("started", starts.display());
    script += &attempt("argument", format!("/bin/bash {other} {tool}"));
    script += &attempt("renamed-and-forked", format!("perl {}", world.path("named.pl").display()));
    let tries = world.run(&policy, &script);
    tries.assert(
        &["other", "interpreter", "started", "argument"],
        &["itself", "by-interpreter", "relative", "renamed-and-forked"],
    );
}
