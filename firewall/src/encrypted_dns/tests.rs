use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Finding, Home, Machine, State, find};

/// A machine in a folder, with one user.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(fixture.place("/home/ada")).unwrap();
        for (path, text) in files {
            fixture.file(path, text);
        }
        fixture
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, text).unwrap();
        place
    }

    fn machine(&self) -> Machine {
        Machine::at(self.root.path())
    }

    fn find(&self) -> Vec<Finding> {
        let home = Home { user: "ada".to_owned(), folder: "/home/ada".into() };
        find(&self.machine(), &[home])
    }

    /// The only thing there is to be found.
    #[track_caller]
    fn only(&self) -> Finding {
        let mut findings = self.find();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }
}

const PROFILE: &str = "/home/ada/.mozilla/firefox/x.default";
const POLICIES: &str = "/etc/firefox/policies/policies.json";

fn prefs() -> String {
    format!("{PROFILE}/prefs.js")
}

fn mode(mode: &str) -> String {
    format!("// Mozilla User Preferences\n\nuser_pref(\"network.trr.mode\", {mode});\n")
}

#[track_caller]
fn assert_state(finding: &Finding, state: State, detail: &str, file: &str) {
    assert!(finding.state == state && finding.detail.contains(detail), "{finding:#?}");
    assert_eq!(finding.file, Path::new(file), "{finding:#?}");
}

#[test]
fn a_profile_of_firefox_says_its_mode() {
    for (text, state, detail) in [
        (mode("2"), State::On, "network.trr.mode = 2"),
        (mode("3"), State::On, "network.trr.mode = 3"),
        (mode("5"), State::Off, "network.trr.mode = 5"),
        (mode("1"), State::Off, "network.trr.mode = 1"),
        (mode("\"3\""), State::Unknown, "network.trr.mode = \"3\""),
        (mode("0"), State::Automatic, "nothing chosen"),
        (String::new(), State::Automatic, "nothing chosen"),
        ("user_pref(\"doh-rollout.mode\", 2);".to_owned(), State::On, "doh-rollout.mode = 2"),
        ("user_pref(\"doh-rollout.mode\", 0);".to_owned(), State::Automatic, "nothing chosen"),
        (mode("5") + "user_pref(\"doh-rollout.mode\", 2);", State::Off, "network.trr.mode = 5"),
    ] {
        let finding = Fixture::new(&[(&prefs(), &text)]).only();
        assert_state(&finding, state, detail, &prefs());
        assert_eq!(finding.app, "Firefox");
        assert_eq!(finding.user.as_deref(), Some("ada"));
        assert_eq!(finding.profile.as_deref(), Some("x.default"));
    }
}

#[test]
fn preferences_are_read_as_firefox_reads_them() {
    for (text, state) in [
        ("// user_pref(\"network.trr.mode\", 3);", State::Automatic),
        ("# user_pref(\"network.trr.mode\", 3);", State::Automatic),
        ("/* user_pref(\"network.trr.mode\", 3); */", State::Automatic),
        ("/* on\n*/user_pref(\"network.trr.mode\", 3);", State::On),
        ("user_pref(\"a\", 1); user_pref(\"network.trr.mode\", 3);", State::On),
        ("user_pref ( 'network.trr.mode' ,\n 3 ) ; // on", State::On),
        ("user_pref(\"network.trr.mode\", 3);\nuser_pref(\"network.trr.mode\", 5);", State::Off),
        ("user_pref(\"a\", \"x; /* y\");\nuser_pref(\"network.trr.mode\", 3);", State::On),
        ("user_pref(\"a\", \"\\\";\\\"\");\nuser_pref(\"network.trr.mode\", 3);", State::On),
        ("user_pref(\"a\", \"open);\nuser_pref(\"network.trr.mode\", 3);", State::On),
        ("user_pref(\"a\", \"user_pref('network.trr.mode', 3)\");", State::Automatic),
        ("nonsense;;user_pref(\"network.trr.mode\", 3)", State::On),
        ("user_pref(\"network.trr.mode.x\", 3);\npref(\"network.trr.mode\", 3);", State::Automatic),
        ("/*", State::Automatic),
        ("//", State::Automatic),
    ] {
        assert_eq!(Fixture::new(&[(&prefs(), text)]).only().state, state, "{text}");
    }
    // Not in UTF-8, as old versions wrote paths.
    let fixture = Fixture::new(&[]);
    let place = fixture.file(&prefs(), "");
    fs::write(place, b"user_pref(\"a\", \"\xff\");\nuser_pref(\"network.trr.mode\", 3);").unwrap();
    assert_eq!(fixture.only().state, State::On);
}

#[test]
fn what_a_user_writes_counts_more_and_a_locked_policy_most() {
    let user = format!("{PROFILE}/user.js");
    let policy = |text: &str| format!("{{\"policies\": {{\"DNSOverHTTPS\": {text}}}}}");
    let fixture = Fixture::new(&[(&prefs(), &mode("3")), (&user, &mode("5"))]);
    assert_state(&fixture.only(), State::Off, "network.trr.mode = 5", &user);
    fixture.file(&user, &mode("0"));
    assert_eq!(fixture.only().state, State::Automatic);
    // A profile that was never started.
    assert_eq!(Fixture::new(&[(&user, &mode("3"))]).only().state, State::On);

    fixture.file(&user, &mode("5"));
    fixture.file(POLICIES, &policy("{\"Enabled\": true}"));
    assert_state(&fixture.only(), State::Off, "network.trr.mode = 5", &user);
    fixture.file(POLICIES, &policy("{\"Enabled\": true, \"Locked\": true}"));
    assert_state(&fixture.only(), State::On, "DNSOverHTTPS: on, locked", POLICIES);
    fixture.file(POLICIES, &policy("{\"Enabled\": false, \"Locked\": true}"));
    assert_state(&fixture.only(), State::Off, "DNSOverHTTPS: off, locked", POLICIES);

    // Where the user has chosen nothing.
    let fixture = Fixture::new(&[(&prefs(), "user_pref(\"doh-rollout.mode\", 2);")]);
    fixture.file(POLICIES, &policy("{\"Enabled\": true}"));
    assert_state(&fixture.only(), State::On, "DNSOverHTTPS: on", POLICIES);
    fixture.file(POLICIES, &policy("{\"Enabled\": false}"));
    assert_state(&fixture.only(), State::Off, "DNSOverHTTPS: off", POLICIES);
    fixture.file(POLICIES, "{\"policies\": {\"DisablePocket\": true}}");
    assert_state(&fixture.only(), State::Off, "none turns it on", POLICIES);
    fixture.file(POLICIES, "{\"policies\": {}}");
    assert_eq!(fixture.only().state, State::On);
}

#[test]
fn every_place_of_firefox_is_looked_at() {
    let fixture = Fixture::new(&[
        ("/home/ada/.mozilla/firefox/a/prefs.js", &mode("3")),
        ("/home/ada/.mozilla/firefox/Crash Reports/x", ""),
        ("/home/ada/.mozilla/firefox/installs.ini", ""),
        (
            "/home/ada/.mozilla/firefox/profiles.ini",
            "[General]\nVersion=2\n[Profile0]\nName=here\nIsRelative=1\nPath=a\n\
             [Profile1]\nName=there\nIsRelative=0\nPath=/srv/ada/b\n",
        ),
        ("/srv/ada/b/prefs.js", &mode("5")),
        ("/home/ada/.config/mozilla/firefox/c/prefs.js", &mode("2")),
        ("/home/ada/snap/firefox/common/.mozilla/firefox/d/prefs.js", &mode("3")),
        ("/home/ada/.var/app/org.mozilla.firefox/.mozilla/firefox/e/prefs.js", &mode("3")),
        (POLICIES, "{\"policies\": {\"DNSOverHTTPS\": {\"Enabled\": false, \"Locked\": true}}}"),
    ]);
    let found: Vec<(Option<String>, State)> =
        fixture.find().into_iter().map(|finding| (finding.profile, finding.state)).collect();
    let profile = |name: &str, state| (Some(name.to_owned()), state);
    // The policy of the machine is out of the Flatpak's sight.
    let wanted = [
        profile("a", State::Off),
        profile("b", State::Off),
        profile("c", State::Off),
        profile("d", State::Off),
        profile("e", State::On),
    ];
    assert_eq!(found, wanted);
    let own = format!(
        "/var/lib/flatpak/extension/org.mozilla.firefox.systemconfig/{}/stable/policies/policies.json",
        std::env::consts::ARCH
    );
    fixture
        .file(&own, "{\"policies\": {\"DNSOverHTTPS\": {\"Enabled\": false, \"Locked\": true}}}");
    assert_state(&fixture.find()[4], State::Off, "locked", &own);
}

const CHROMIUM: &str = "/home/ada/.config/chromium/Local State";

#[test]
fn a_chromium_says_its_mode() {
    for (text, state, detail) in [
        ("{\"dns_over_https\": {\"mode\": \"secure\"}}", State::On, "mode = \"secure\""),
        ("{\"dns_over_https\": {\"mode\": \"automatic\"}}", State::Automatic, "\"automatic\""),
        ("{\"dns_over_https\": {\"mode\": \"off\"}}", State::Off, "\"off\""),
        ("{\"dns_over_https\": {\"mode\": \"else\"}}", State::Off, "\"else\""),
        ("{\"dns_over_https\": {\"templates\": \"\"}}", State::Automatic, "nothing chosen"),
        ("{}", State::Automatic, "nothing chosen"),
        ("{\"dns_over_https\": 1}", State::Automatic, "nothing chosen"),
        ("[]", State::Unknown, "no JSON object"),
        ("{\"dns_over_https\": {\"mode\": \"off\"", State::Unknown, "no JSON object"),
        ("", State::Unknown, "no JSON object"),
    ] {
        let finding = Fixture::new(&[(CHROMIUM, text)]).only();
        assert_state(&finding, state, detail, CHROMIUM);
        assert_eq!((finding.app, finding.profile), ("Chromium", None));
    }
}

#[test]
fn the_last_policy_of_a_chromium_counts_before_its_user() {
    let folder = "/etc/chromium/policies/managed";
    let file = |name: &str| format!("{folder}/{name}");
    let fixture = Fixture::new(&[(CHROMIUM, "{\"dns_over_https\": {\"mode\": \"secure\"}}")]);
    fixture.file(&file("0.json"), "{}");
    assert_eq!(fixture.only().state, State::On);
    fixture.file(&file("0.json"), "{\"BookmarkBarEnabled\": true}");
    assert_state(&fixture.only(), State::Off, "none turns it on", &file("0.json"));
    fixture.file(&file("1.json"), "{\"DnsOverHttpsMode\": \"automatic\"}");
    assert_state(&fixture.only(), State::Automatic, "DnsOverHttpsMode", &file("1.json"));
    fixture.file(&file("2.json"), "{\"DnsOverHttpsMode\": \"off\"}");
    assert_state(&fixture.only(), State::Off, "DnsOverHttpsMode", &file("2.json"));
    fixture.file(&file("3.json"), "{\"DnsOverHttpsMode\": 3}");
    assert_state(&fixture.only(), State::Unknown, "DnsOverHttpsMode", &file("3.json"));
    fixture.file(&file("4.json"), "{broken");
    assert_state(&fixture.only(), State::Unknown, "no JSON object", &file("4.json"));
}

#[test]
fn every_place_of_a_chromium_is_looked_at() {
    for (place, app) in [
        (".config/google-chrome", "Chrome"),
        (".var/app/com.google.Chrome/config/google-chrome", "Chrome"),
        ("snap/chromium/common/chromium", "Chromium"),
        (".config/BraveSoftware/Brave-Browser", "Brave"),
        (".config/microsoft-edge", "Edge"),
        (".config/vivaldi", "Vivaldi"),
        (".config/opera", "Opera"),
    ] {
        let state = format!("/home/ada/{place}/Local State");
        let fixture = Fixture::new(&[(&state, "{\"dns_over_https\": {\"mode\": \"secure\"}}")]);
        for managed in ["opt/chrome", "chromium-browser", "brave", "opt/edge"] {
            let file = format!("/etc/{managed}/policies/managed/x.json");
            fixture.file(&file, "{\"DnsOverHttpsMode\": \"off\"}");
        }
        let managed = !place.starts_with(".var") && !matches!(app, "Vivaldi" | "Opera");
        let wanted = if managed { State::Off } else { State::On };
        let finding = fixture.only();
        assert_eq!((finding.app, finding.state), (app, wanted), "{finding:#?}");
    }
}

#[test]
fn resolved_says_whether_it_asks_over_tls() {
    const MAIN: &str = "/etc/systemd/resolved.conf";
    let fixture = Fixture::new(&[(MAIN, "[Resolve]\nDNSOverTLS=yes\n")]);
    assert_eq!(fixture.find(), [], "it is not installed");
    let program = "/usr/lib/systemd/systemd-resolved";
    fixture.file(program, "");
    for (text, state, file) in [
        ("[Resolve]\nDNSOverTLS=yes\n", State::On, MAIN),
        ("[Resolve]\n DNSOverTLS = Opportunistic\n", State::Automatic, MAIN),
        ("[Resolve]\nDNSOverTLS=no\n", State::Off, MAIN),
        ("[Resolve]\nDNSOverTLS=perhaps\n", State::Unknown, MAIN),
        ("[Resolve]\n#DNSOverTLS=yes\n", State::Off, program),
        ("[Resolve]\nDNSOverTLS=yes\nDNSOverTLS=\n", State::Off, program),
        ("DNSOverTLS=yes\n[Else]\nDNSOverTLS=yes\n", State::Off, program),
    ] {
        fixture.file(MAIN, text);
        assert_state(&fixture.only(), state, "DNSOverTLS", file);
    }
    let finding = fixture.only();
    assert_eq!((finding.app, finding.user), ("systemd-resolved", None));
    // Parts come after the whole, by name; of one name that in /etc counts.
    fixture.file(MAIN, "[Resolve]\nDNSOverTLS=no\n");
    let part = |place: &str| format!("{place}/systemd/resolved.conf.d/50-x.conf");
    fixture.file("/usr/lib/systemd/resolved.conf.d/10-y.conf", "[Resolve]\nDNSOverTLS=no\n");
    let vendor = fixture.file(&part("/usr/lib"), "[Resolve]\nDNSOverTLS=yes\n");
    assert_state(&fixture.only(), State::On, "DNSOverTLS=yes", &part("/usr/lib"));
    fixture.file(&part("/etc"), "[Resolve]\nDNSOverTLS=opportunistic\n");
    assert_state(&fixture.only(), State::Automatic, "DNSOverTLS", &part("/etc"));
    fs::remove_file(vendor).unwrap();
    fixture.file("/etc/systemd/resolved.conf.d/99-x.bak", "[Resolve]\nDNSOverTLS=no\n");
    assert_eq!(fixture.only().state, State::Automatic);
}

#[test]
fn what_cannot_be_read_is_said_and_waits_for_nobody() {
    // A folder where a file should be.
    let fixture = Fixture::new(&[(&format!("{PROFILE}/prefs.js/x"), "")]);
    assert_state(&fixture.only(), State::Unknown, "no regular file", &prefs());
    // A pipe that nobody writes to.
    let fixture = Fixture::new(&[(&prefs(), "")]);
    let place = fixture.place(&prefs());
    fs::remove_file(&place).unwrap();
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_state(&fixture.only(), State::Unknown, "no regular file", &prefs());
    // A link to itself.
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink("prefs.js", &place).unwrap();
    assert_state(&fixture.only(), State::Unknown, "(os error 40)", &prefs());
    // Larger than any.
    fs::remove_file(&place).unwrap();
    fs::File::create(&place).unwrap().set_len((16 << 20) + 1).unwrap();
    assert_state(&fixture.only(), State::Unknown, "more than 16 MiB", &prefs());
    // Broken policies could say anything.
    let fixture = Fixture::new(&[(&prefs(), &mode("3")), (POLICIES, "{")]);
    assert_state(&fixture.only(), State::Unknown, "no JSON object", POLICIES);
    fixture.file(POLICIES, "{}");
    assert_state(&fixture.only(), State::Unknown, "no object `policies`", POLICIES);
    // A home that is a link to itself.
    let fixture = Fixture::new(&[]);
    fs::remove_dir(fixture.place("/home/ada")).unwrap();
    std::os::unix::fs::symlink("ada", fixture.place("/home/ada")).unwrap();
    assert_state(&fixture.only(), State::Unknown, "(os error 40)", "/home/ada");
}

#[test]
fn everybody_has_a_home() {
    let fixture = Fixture::new(&[
        (
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n\
             twin:x:1001:1001::/home/ada:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
             relative:x:1002:1002::home:/bin/sh\ncut off\n",
        ),
        ("/root/x", ""),
        ("/home/bob/x", ""),
        ("/home/a file", ""),
    ]);
    let homes = fixture.machine().homes().unwrap();
    let homes: Vec<(&str, &Path)> =
        homes.iter().map(|home| (home.user.as_str(), home.folder.as_path())).collect();
    let wanted = [("root", "/root"), ("ada", "/home/ada"), ("bob", "/home/bob")];
    assert_eq!(homes, wanted.map(|(user, folder)| (user, Path::new(folder))));
    assert_eq!(Machine::at("/nonexistent").homes().unwrap(), []);
    fs::remove_file(fixture.place("/etc/passwd")).unwrap();
    fs::create_dir(fixture.place("/etc/passwd")).unwrap();
    let error = fixture.machine().homes().unwrap_err().to_string();
    assert_eq!(error, "/etc/passwd: it is no regular file");
}
