use std::os::unix::fs::PermissionsExt as _;

use sha2::Digest as _;
use tempfile::TempDir;

use super::*;
use crate::{
    lists,
    policy::{compile::Generation, source::Disk},
    remote::{Store, Validators},
};

const KEYS: Keys = Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 };

/// A policy that needs everything that is read from somewhere.
const POLICY: &str = r#"
[policy]
name = "own"

[[rule]]
name = "apps"
action = "drop"
apps = ["exe:LINK/*", "user:daemon", "group:daemon"]
to = { lists = ["file", "url"], organisations = ["own"], jurisdictions = ["CN"] }

[[rule]]
name = "names"
action = "allow"
to = { domains = ["example.org"], except = { networks = ["192.0.2.0/24"] } }

[list.file]
file = "lists/names.txt"

[list.url]
url = "https://lists.example/names.txt"

[list.empty]
url = "https://lists.example/never-fetched.txt"
"#;

const NAMES: &[u8] = b"# \xff is no text\na.example\nb.example\n";

/// The files of a machine.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        let path = |name: &str| machine.path(name);
        fs::create_dir_all(path("policies/lists")).unwrap();
        fs::create_dir(path("opt")).unwrap();
        std::os::unix::fs::symlink(path("opt"), path("link")).unwrap();
        let policy = POLICY.replace("LINK", path("link").to_str().unwrap());
        fs::write(path("policies/own.toml"), policy).unwrap();
        fs::write(path("policies/lists/names.txt"), NAMES).unwrap();
        fs::write(path("own.tsv"), "own\tAS64512\tA lab\n").unwrap();
        let own = path("own.tsv");
        fs::write(
            path("firewall.toml"),
            format!("default = \"drop\"\norganisations = {:?}\n", own.to_str().unwrap()),
        )
        .unwrap();
        let remote = Remote {
            url: "https://lists.example/names.txt".parse().unwrap(),
            format: None,
            sha256: None,
            refresh: Remote::REFRESH,
        };
        let report = lists::parse(None, "c.example\n").unwrap().report;
        let validators = Validators::default();
        let head = Head::new(&remote, validators, b"c.example\n", &report, Timestamp::now());
        let store = machine.store();
        store.prepare().unwrap();
        store.keep(&remote, &head, b"c.example\n").unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> Store {
        Store::new(&self.path("state"))
    }

    fn record(&self) -> (Inputs, Set) {
        let mut sources = Source::at(&self.path("policies")).unwrap();
        sources.extend(Source::find("baidu").unwrap());
        Inputs::record(
            Some(&self.path("firewall.toml")),
            &sources,
            &self.store(),
            KEYS,
            &Cache::default(),
        )
        .unwrap()
    }

    /// Afterwards there is nothing to read but what was saved.
    fn lose_all_but(&self, saved: &str) {
        for name in ["policies", "opt", "state/lists"] {
            fs::remove_dir_all(self.path(name)).unwrap();
        }
        for name in ["link", "own.tsv", "firewall.toml"] {
            fs::remove_file(self.path(name)).unwrap();
        }
        assert!(self.path(saved).exists());
    }
}

fn assert_same(one: &Generation, other: &Generation) {
    assert_eq!(one.header, other.header);
    assert!(one.blocks == other.blocks);
    assert!(one.decisions().eq(other.decisions()));
    assert_eq!(one.policies.len(), other.policies.len());
}

#[test]
fn what_was_recorded_compiles_to_the_same_when_the_files_are_gone() {
    let machine = Machine::new();
    let (inputs, set) = machine.record();
    let path = machine.path("state/generation");
    inputs.save(&path).unwrap();
    machine.lose_all_but("state/generation");
    let loaded = Inputs::load(&path).unwrap();
    assert_eq!(loaded, inputs);
    let again = loaded.compile(KEYS, &Cache::default()).unwrap();
    assert_eq!(again.differs, [""; 0]);
    assert_same(&set.generation, &again.set.generation);
    assert_eq!(set.findings.render(false), again.set.findings.render(false));
    // All of it was there to begin with.
    assert!(set.generation.class_of("c.example") != 0 && set.generation.class_of("b.example") != 0);
    let Read { files, real, users, groups, moment, kept } = &inputs.read;
    assert!(moment.is_some());
    let sizes = [files.len(), real.len(), users.len(), groups.len(), kept.len()];
    assert_eq!(sizes, [2, 1, 1, 1, 2], "{:?}", inputs.read);
    let other = loaded.compile(Keys { seed: 8, ..KEYS }, &Cache::default()).unwrap().set.generation;
    assert!(set.generation.blocks != other.blocks, "the names are hashed with the keys");
}

#[test]
fn the_one_before_is_kept() {
    let machine = Machine::new();
    let path = machine.path("state/generation");
    let (first, _) = machine.record();
    first.save(&path).unwrap();
    assert!(matches!(Inputs::load(&previous(&path)), Err(Error::Read { .. })));
    fs::write(machine.path("policies/lists/names.txt"), "other.example\n").unwrap();
    let (second, _) = machine.record();
    assert_ne!(first, second);
    // What a crash left behind is in nobody's way.
    fs::write(machine.path("state/generation.previous.new"), "x").unwrap();
    second.save(&path).unwrap();
    assert_eq!(Inputs::load(&path).unwrap(), second);
    assert_eq!(Inputs::load(&previous(&path)).unwrap(), first);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(machine.path("state")).unwrap().count(), 3, "the lists and the two");
    // Where nothing can be written, both stay.
    fs::create_dir(machine.path("state/generation.next.new")).unwrap();
    first.save(&path).unwrap_err();
    assert_eq!(Inputs::load(&path).unwrap(), second);
}

#[test]
fn what_is_no_file_is_not_used() {
    let machine = Machine::new();
    let path = machine.path("generation");
    let new = staged(&path).with_added_extension("new");
    for path in [&path, &new] {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let (inputs, _) = machine.record();
    for error in [
        Inputs::load(&path).unwrap_err().to_string(),
        inputs.stage(&path, &mut Packed::default()).unwrap_err().to_string(),
    ] {
        assert!(error.ends_with("it is no regular file"), "{error}");
    }
}

#[test]
fn what_is_damaged_is_not_used() {
    let machine = Machine::new();
    let path = machine.path("generation");
    let (inputs, _) = machine.record();
    inputs.save(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let unpacked = zstd::decode_all(&good[..]).unwrap();
    // Byte by byte: a list is no text.
    let text: String = unpacked.iter().copied().map(char::from).collect();
    let packed = |text: String| {
        let bytes: Vec<u8> = text.chars().map(|byte| byte as u8).collect();
        zstd::encode_all(&bytes[..], 0).unwrap()
    };
    let mut bad = vec![
        vec![],
        b"no zstd".to_vec(),
        good[..good.len() / 2].to_vec(),
        packed(text.replace("a.example", "d.example")),
        packed(text.clone() + " "),
        packed(text.replace("\"format\":2", "\"format\":3")),
        packed(text.lines().next().unwrap().to_owned()),
        packed("x".repeat(5000)),
    ];
    for place in (0..good.len()).step_by(good.len() / 50) {
        let mut flipped = good.clone();
        flipped[place] ^= 0x10;
        bad.push(flipped);
    }
    for bytes in bad {
        fs::write(&path, &bytes).unwrap();
        match Inputs::load(&path) {
            Err(Error::Damaged { why, .. }) => assert!(!why.is_empty()),
            // Some bits of a frame mean nothing.
            Ok(loaded) => assert_eq!(loaded, inputs),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn no_more_is_unpacked_than_is_said() {
    /// Counts what is taken of a file.
    struct Counted<'a>(&'a [u8], usize);
    impl io::Read for Counted<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let taken = self.0.read(to)?;
            self.1 += taken;
            Ok(taken)
        }
    }
    // Nothing makes it smaller, so that what is taken is as long as what is unpacked.
    let noise: Vec<u8> =
        (0u32..1 << 17).flat_map(|at| sha2::Sha256::digest(at.to_ne_bytes())).collect();
    for (bytes, says) in [
        (0, "EOF while parsing a value at line 1 column 0"),
        (1000, "its SHA-256 is another"),
        (LARGEST + 1, "it says that it has 1073741825 bytes"),
        (u64::MAX, "it says that it has 18446744073709551615 bytes"),
    ] {
        let head = FileHead { format: FORMAT, bytes, sha256: digest(b"") };
        let mut file = zstd::Encoder::new(Vec::new(), 1).unwrap();
        serde_json::to_writer(&mut file, &head).unwrap();
        file.write_all(&[b"\n", &noise[..]].concat()).unwrap();
        let file = file.finish().unwrap();
        let mut file = Counted(&file, 0);
        let refused = Inputs::of(Path::new("/x/generation"), &mut file).unwrap_err().to_string();
        assert!(refused.ends_with(says), "{refused}");
        assert!(file.1 < noise.len() / 2, "{} of {}", file.1, noise.len());
    }
}

#[test]
fn a_broken_policy_gives_no_inputs() {
    let machine = Machine::new();
    let sources = |machine: &Machine| Source::at(&machine.path("policies")).unwrap();
    fs::write(machine.path("policies/x.toml"), "[policy]\n").unwrap();
    let settings = machine.path("firewall.toml");
    let record = || {
        Inputs::record(
            Some(&settings),
            &sources(&machine),
            &machine.store(),
            KEYS,
            &Cache::default(),
        )
    };
    assert!(matches!(record(), Err(Error::Set(set::Error::Invalid(_)))));
    fs::write(machine.path("policies/x.toml"), b"\xff").unwrap();
    assert!(matches!(record(), Err(Error::Set(set::Error::Invalid(_)))));
    fs::remove_file(machine.path("policies/x.toml")).unwrap();
    record().unwrap();
    fs::write(&settings, "stop = 1\n").unwrap();
    assert!(matches!(record(), Err(Error::Config(config::Error::Invalid { .. }))));
}

#[test]
fn a_rule_for_a_time_counts_as_long_as_when_it_was_recorded() {
    let machine = Machine::new();
    let now = Disk.moment().unwrap();
    let policy = format!(
        "[policy]\nname = \"timed\"\n[[rule]]\nname = \"r\"\naction = \"allow\"\nports = [\"tcp\"]\n\
         until = \"{}+{}s\"\n",
        now.boot,
        now.second + 3_600
    );
    fs::write(machine.path("policies/timed.toml"), policy).unwrap();
    let (inputs, set) = machine.record();
    assert_same(&set.generation, &inputs.compile(KEYS, &Cache::default()).unwrap().set.generation);
    let rules = |moment: Option<Moment>| {
        let set = inputs.clone().at(moment).compile(KEYS, &Cache::default()).unwrap().set;
        let policy = set.generation.policies.iter().find(|policy| policy.name == "timed").unwrap();
        (policy.rules.len(), set.findings.render(false))
    };
    assert_eq!(rules(Some(now.clone())).0, 1);
    for (moment, says) in [
        (Some(Moment { second: now.second + 3_600, ..now }), "is over"),
        (Some(Moment { boot: "another".to_owned(), second: 0 }), "is over"),
        (None, "only the daemon keeps"),
    ] {
        let (count, said) = rules(moment);
        assert!(count == 0 && said.contains(says), "{count} {said}");
    }
}

#[test]
fn what_is_compressed_is_taken_over_as_long_as_it_is_sound() {
    let machine = Machine::new();
    let path = machine.path("state/generation");
    let (inputs, _) = machine.record();
    let mut packed = Packed::default();
    let all = || inputs.read.had().filter_map(Had::contents);
    let taken = |packed: &Packed| {
        all().filter(|contents| packed.frame(&path, contents.sha256()).is_some()).count()
    };
    inputs.stage(&path, &mut packed).unwrap();
    assert_eq!(taken(&packed), 0, "nothing is there before it decides");
    commit(&path).unwrap();
    assert_eq!(taken(&packed), all().count());
    for contents in all() {
        let (frame, _) = packed.frame(&path, contents.sha256()).unwrap();
        assert_eq!(zstd::decode_all(&frame[..]).unwrap(), &contents[..]);
    }
    // What was read is another one, and all behind it moves.
    fs::write(machine.path("policies/lists/names.txt"), "a.much.longer.example\n").unwrap();
    let (second, _) = machine.record();
    second.stage(&path, &mut packed).unwrap();
    commit(&path).unwrap();
    assert_eq!(Inputs::load(&path).unwrap(), second);
    assert_eq!(Inputs::load(&previous(&path)).unwrap(), inputs);
    assert_eq!(taken(&packed), all().count() - 1);
    // What is not as it was written any more is compressed anew.
    let mut damaged = fs::read(&path).unwrap();
    let len = damaged.len();
    damaged[len - 5..].fill(0);
    fs::write(&path, damaged).unwrap();
    assert!(taken(&packed) < all().count() - 1);
    second.stage(&path, &mut packed).unwrap();
    commit(&path).unwrap();
    assert_eq!(Inputs::load(&path).unwrap(), second);
}

#[test]
fn what_was_written_in_the_former_format_is_read() {
    let machine = Machine::new();
    let (inputs, _) = machine.record();
    let mut json = serde_json::to_value(&inputs).unwrap();
    let Read { files, kept, .. } = &inputs.read;
    let text =
        |had: &Had| serde_json::to_value(Bytes::from(had.contents().unwrap().to_vec())).unwrap();
    for (path, had) in files {
        json["read"]["files"][path.to_str().unwrap()] = text(had);
    }
    for (key, list) in kept {
        if let Ok(Some((_, had))) = &list.copy {
            json["read"]["kept"][key]["copy"]["Ok"][1] = text(had);
        }
    }
    let json = serde_json::to_vec(&json).unwrap();
    let head = FileHead { format: FORMER, bytes: json.len() as u64, sha256: digest(&json) };
    let head = serde_json::to_vec(&head).unwrap();
    let file = zstd::encode_all(&[&head[..], b"\n", &json].concat()[..], 0).unwrap();
    assert_eq!(Inputs::of(Path::new("/x"), &file[..]).unwrap(), inputs);
}
