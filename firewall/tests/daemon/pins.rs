//! What a daemon finds pinned that is not what it would have left.

use std::{fs, fs::File, os::fd::AsFd as _, os::unix::fs::MetadataExt as _, path::Path};

use firewall::{
    datapath::{
        OBJECT,
        apply::{apply, new_blocks},
        attach::take_over,
        load::{load, load_pinned},
        pins::Pins,
        sys,
    },
    policy::{
        Action, Apps, Destinations, Mode, Policy, Rule,
        compile::{Facts, Settings, compile},
    },
};
use firewall_common::layout::ABI_VERSION;

use crate::{
    harness::require_kernel,
    host::{CHINA, Host, Server},
    support::BAIDU,
};

/// Of the kernel's `enum bpf_attach_type`.
const INGRESS: u32 = 0;

fn links(host: &Host, version: u32) -> std::path::PathBuf {
    host.pin.join(format!("v{version}/links"))
}

/// A step that no hook but that of packets denies.
fn ping() -> String {
    format!("ping {BAIDU}:0")
}

#[track_caller]
fn assert_mended(host: &mut Host, said: &str) {
    let server = Server::of(host);
    host.start();
    host.wait_said(said);
    let mut app = host.app();
    assert_eq!(app.step(&ping()), libc::EPERM);
    app.assert_enforced();
    assert!(host.status()["hooks"].as_array().unwrap().iter().all(|hook| hook["attached"] == true));
    server.assert_untouched();
}

#[test]
fn a_link_to_another_hook_is_replaced() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    host.kill(false);
    let other = load(OBJECT, 0).unwrap();
    let cgroup = File::open(host.cgroup.path()).unwrap();
    let link =
        sys::link_cgroup(other.program("ingress").unwrap(), cgroup.as_fd(), INGRESS).unwrap();
    let egress = links(&host, ABI_VERSION).join("egress");
    sys::detach(sys::get(&egress).unwrap().as_fd()).unwrap();
    fs::remove_file(&egress).unwrap();
    sys::pin(link.as_fd(), &egress).unwrap();
    host.app().does(&ping());
    assert_mended(&mut host, "the link pinned for `egress` was another one; it is replaced");
}

#[test]
fn a_link_that_holds_another_program_gets_its_own() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    host.kill(false);
    let other = load(OBJECT, 0).unwrap();
    let egress = sys::get(&links(&host, ABI_VERSION).join("egress")).unwrap();
    sys::update_link(egress.as_fd(), other.program("ingress").unwrap()).unwrap();
    host.app().does(&ping());
    assert_mended(&mut host, "generation 1 goes on");
}

#[test]
fn links_that_are_gone_are_made_anew() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    host.kill(false);
    for name in ["egress", "connect4"] {
        let path = links(&host, ABI_VERSION).join(name);
        sys::detach(sys::get(&path).unwrap().as_fd()).unwrap();
        fs::remove_file(path).unwrap();
    }
    host.app().does(&ping());
    assert_mended(&mut host, "generation 1 goes on");
}

#[test]
fn a_map_of_another_size_is_refused() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    host.kill(false);
    let path = host.pin.join(format!("v{ABI_VERSION}/maps/ACTIVE"));
    fs::remove_file(&path).unwrap();
    sys::pin(new_blocks(7).unwrap().fd().as_fd(), &path).unwrap();
    let (status, said) = host.ends(host.command("daemon"));
    assert_eq!(status, Some(3), "{said}");
    for word in [path.to_str().unwrap(), "not what it should be", "hint: `firewall off`"] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    host.app().assert_enforced();
    server.assert_untouched();
    // As the hint says.
    host.off();
    host.start();
    host.app().assert_enforced();
    server.assert_untouched();
}

#[test]
fn another_cgroup_is_refused() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::with_china();
    let server = Server::of(&host);
    host.kill(false);
    let first = std::mem::take(&mut host.cgroup);
    let (status, said) = host.ends(host.command("daemon"));
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("enforce on another cgroup"), "{said}");
    host.app_in(&first).assert_enforced();
    server.assert_untouched();
}

/// What another version of the programs has left, which denies the same.
fn leave_version(pin: &Path, cgroup: &Path, version: u32) {
    let pins = Pins::of_version(pin, version, &mut |_| {}).unwrap();
    let cgroup = File::open(cgroup).unwrap();
    let loaded = load_pinned(OBJECT, cgroup.metadata().unwrap().ino(), &pins).unwrap();
    let networks = ["110.242.68.0/24", "2400:3200::/32"];
    let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
    let rule = Rule {
        name: "those".to_owned(),
        action: Action::Drop,
        apps: Apps::default(),
        to: Some(Destinations { networks, ..Destinations::default() }),
        ports: Vec::new(),
        until: None,
    };
    let policy = Policy {
        name: "of-then".to_owned(),
        description: String::new(),
        mode: Mode::Enforce,
        priority: 100,
        apps: Apps::default(),
        default: None,
        rules: vec![rule],
    };
    let facts = Facts { countries: None, asns: None, organisation: &|_| vec![] };
    let generation = compile(vec![policy], facts, Settings::default()).unwrap();
    apply(&loaded.maps().unwrap(), &generation).unwrap();
    take_over(&loaded, cgroup.as_fd(), &pins.links()).unwrap();
}

#[test]
fn another_version_is_replaced_and_nothing_gets_through_meanwhile() {
    if !require_kernel() {
        return;
    }
    let mut host = Host::new();
    host.set("policies.d/china.toml", CHINA);
    let server = Server::of(&host);
    let old = ABI_VERSION - 1;
    leave_version(&host.pin, host.cgroup.path(), old);
    host.app().assert_enforced();

    let apps = [host.app(), host.app()];
    let lines = ["until 15000 udp-sendto 110.242.68.66:81", "until 15000 tcp [2400:3200::1]:80"];
    let errors = std::thread::scope(|scope| {
        let running: Vec<_> = apps
            .into_iter()
            .zip(lines)
            .map(|(mut app, line)| scope.spawn(move || app.step(line)))
            .collect();
        host.start();
        running.into_iter().map(|app| app.join().unwrap()).collect::<Vec<i32>>()
    });
    assert_eq!(errors, [libc::ECONNREFUSED; 2]);
    host.wait_said("took over from another version");
    assert!(!host.pin.join(format!("v{old}")).exists());
    assert!(
        host.pinned().iter().all(|path| path.starts_with(host.pin.join(format!("v{ABI_VERSION}"))))
    );
    assert_eq!(host.status()["policies"][0]["name"], "china");
    host.app().assert_enforced();
    server.assert_untouched();
}
