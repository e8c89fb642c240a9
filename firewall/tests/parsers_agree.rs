//! The parsers find in the kernel what they find in user space, in the same bytes.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "../../firewall-common/tests/message/built.rs"]
mod built;
#[path = "../../firewall-common/tests/stream/cuts.rs"]
mod cuts;
#[path = "support/loaded.rs"]
mod loaded;

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path};

use aya::maps::{Array, MapData};
use firewall::{
    datapath::{BENCH_OBJECT, apply::apply, load::Loaded, plain::Plain, sys::test_run},
    policy::{
        Action, Apps, Destinations, Domain, Mode, Policy, Rule,
        compile::{Facts, Generation, Settings, compile},
    },
};
use firewall_common::{
    name::Text,
    name_table::Suffixes,
    parse::{
        dns::{MESSAGE, Message},
        payload::{Payload, answer},
    },
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

/// Names and what is below them, in rules of their own.
const RULES: [&str; 6] = ["=hm.baidu.com", "*.hm.baidu.com", "baidu.com", "*.x", "com", "=hm.x.x"];

fn generation() -> Generation {
    let rules = RULES.iter().map(|domain| {
        let to = Destinations { domains: vec![Domain::parse(domain).unwrap()], ..<_>::default() };
        let name = domain.to_string();
        let apps = Apps::default();
        Rule { name, action: Action::Drop, to: Some(to), ports: Vec::new(), apps, until: None }
    });
    let policy = Policy {
        name: "names".to_owned(),
        description: String::new(),
        mode: Mode::Enforce,
        priority: 100,
        default: None,
        apps: Apps::default(),
        rules: rules.collect(),
    };
    let facts = Facts { countries: None, asns: None, organisation: &|_| vec![] };
    compile(vec![policy], facts, Settings::default()).unwrap()
}

struct Kernel {
    loaded: Loaded,
    generation: Generation,
    read: Array<MapData, [u64; 4]>,
    name: Array<MapData, Plain<Text>>,
    payload: Array<MapData, Plain<Payload>>,
}

impl Kernel {
    fn load() -> Option<Self> {
        let mut loaded = loaded::loaded(BENCH_OBJECT, "the parsers in kernel and user space")?;
        let generation = generation();
        apply(&loaded.maps().unwrap(), &generation).unwrap();
        let mut map = |name| loaded.ebpf.take_map(name).unwrap();
        let (read, name, payload) = (map("READ"), map("READ_NAME"), map("PAYLOAD"));
        Some(Self {
            loaded,
            generation,
            read: read.try_into().unwrap(),
            name: name.try_into().unwrap(),
            payload: payload.try_into().unwrap(),
        })
    }

    /// Runs a program on a packet: what it returns.
    fn run(&self, program: &'static str, packet: &[u8]) -> u32 {
        let frame = [&[0; 14], packet].concat();
        test_run(self.loaded.program(program).unwrap(), &frame, 1).unwrap().returned
    }

    /// Whether both read the same name at a place: its text and its class, if it is one.
    fn read_name(&self, bytes: &[u8], at: u16) -> Option<(Vec<u8>, u32)> {
        let mut memory = [0; MESSAGE];
        memory[..bytes.len()].copy_from_slice(bytes);
        let message = Message { bytes: &memory, len: bytes.len() as u32 };
        let mut text = Text::EMPTY;
        let end = message.name(at.into(), &mut text);
        let past = message.skip_name(at.into());

        assert_eq!(self.run("read_dns", &[&at.to_be_bytes()[..], bytes].concat()), 1);
        let [kernel_end, kernel_past, class, hash] = self.read.get(&0, 0).unwrap();
        let told = || format!("at {at}: {}", bytes.escape_ascii());
        assert_eq!(kernel_end, u64::from(end), "{}", told());
        assert_eq!(kernel_past, u64::from(past), "{}", told());
        if end == 0 {
            return None;
        }
        let kernel_text = self.name.get(&0, 0).unwrap().0;
        assert_eq!(kernel_text.as_bytes(), text.as_bytes(), "{}", told());
        let keys = self.generation.header.name_keys;
        let suffixes = Suffixes::of(keys, &text);
        assert_eq!(hash, suffixes.whole, "{text} {}", told());
        let want = suffixes.class(&self.generation, &self.generation.header);
        assert_eq!(class, u64::from(want), "{text} {}", told());
        Some((text.as_bytes().to_vec(), want))
    }

    /// Whether both read the same in a stream in pieces: the last answer, and the flags then.
    fn read_stream(&mut self, pieces: &[&[u8]], around: &[(u8, u8)]) -> (u32, u32) {
        let mut user = Payload::START;
        self.payload.set(0, Plain(user), 0).unwrap();
        let mut last = answer::MORE;
        let mut around = around.iter().cycle();
        for piece in pieces {
            let (before, behind) = around.next().map_or((2, 0), |(a, b)| (2 + a % 8, b % 8));
            let mut packet = vec![before, behind];
            packet.resize(before.into(), b'<');
            packet.extend(*piece);
            let end = packet.len() as u32;
            packet.resize(packet.len() + usize::from(behind), b'>');

            let answer = user.read(&packet[..], before.into(), end);
            let told = || format!("{user:?} {} of {pieces:02x?}", piece.escape_ascii());
            assert_eq!(self.run("read_payload", &packet), answer, "{}", told());
            let kernel = self.payload.get(&0, 0).unwrap().0;
            assert_eq!(format!("{kernel:?}"), format!("{user:?}"), "{}", told());
            last = answer;
        }
        (last, user.flags)
    }
}

/// The bytes of the files in these folders of `firewall-common`.
fn files(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firewall-common");
    let all = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let all: Vec<Vec<u8>> = all
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_none())
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(!all.is_empty(), "no files in {folders:?}");
    all
}

fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let run = TestRunner::new(config).run(strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

/// What a test run takes beside the rest of the frame.
const MOST: usize = 3000;

#[test]
fn names() {
    let Some(kernel) = Kernel::load() else { return };
    // How often each class was found; without one if there was no name.
    let found: RefCell<BTreeMap<Option<u32>, u32>> = RefCell::default();
    let everywhere = |bytes: &[u8]| {
        for at in 0..bytes.len() as u16 + 3 {
            let class = kernel.read_name(bytes, at).map(|(_, class)| class);
            *found.borrow_mut().entry(class).or_default() += 1;
        }
    };
    files(&["../firewall/fuzz/regressions/dns"]).iter().for_each(|bytes| everywhere(bytes));
    everywhere(b"");
    let named = |name: String| {
        let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
        everywhere(&built::message(&[&built::labels(&labels)[..], &[0]].concat()));
    };
    for rule in RULES {
        let name = rule.trim_start_matches(['=', '*', '.']);
        ["", "x.", "hm.x."].iter().for_each(|below| named(format!("{below}{name}")));
    }
    for labels in [29, 30, 31, 32, 33, 121] {
        named("X.".repeat(labels) + "baidu.com");
    }
    check(1000, &built::built(), |built| {
        if built.bytes.len() > MOST {
            return;
        }
        for (at, labels, _) in &built.names {
            if let Some((text, class)) = kernel.read_name(&built.bytes, *at as u16) {
                assert_eq!(text, labels.join(&b'.').to_ascii_lowercase());
                *found.borrow_mut().entry(Some(class)).or_default() += 1;
            }
        }
    });
    check(300, &built::bent(), |bytes| everywhere(&bytes[..bytes.len().min(300)]));
    let found = found.into_inner();
    println!("names by class: {found:?}");
    let classes = kernel.generation.header.name_classes;
    assert!((0..classes).all(|class| found.contains_key(&Some(class))), "{classes}: {found:?}");
    assert!(found.values().sum::<u32>() > 10_000, "{found:?}");
}

/// The places where a stream is cut, and the bytes around its pieces.
type Cuts = (Vec<Index>, Vec<(u8, u8)>);

fn cut<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let places = cuts::places(cuts, stream.len());
    let from = [0].into_iter().chain(places.iter().copied());
    let to = places.iter().copied().chain([stream.len()]);
    // No packet is larger than a test run takes.
    from.zip(to).flat_map(|(from, to)| stream[from..to].chunks(MOST)).collect()
}

#[test]
fn streams() {
    let Some(kernel) = Kernel::load() else { return };
    let kernel = RefCell::new(kernel);
    let found: RefCell<BTreeMap<(u32, u32), u32>> = RefCell::default();
    let read = |pieces: &[&[u8]], around: &[(u8, u8)]| {
        let answer = kernel.borrow_mut().read_stream(pieces, around);
        *found.borrow_mut().entry(answer).or_default() += 1;
    };
    let mut streams = files(&[
        "tests/payload",
        "../firewall/fuzz/regressions/tls",
        "../firewall/fuzz/regressions/http",
    ]);
    streams.push(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec());
    streams.push([b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 17_000]].concat());
    streams.push(b"GET http://a.com/ HTTP/1.1\r\nX: y\r\nHost: A.com.:80\r\n\r\n".to_vec());
    // One hello after another, with what may come between.
    let hello = streams.iter().find(|stream| stream[0] == 22).unwrap().clone();
    for between in [&[][..], &[20, 3, 3, 0, 1, 1], &[21, 3, 3, 0, 2, 1, 90]] {
        let second = [between, &hello, &[23, 3, 3, 0, 1, 0]].concat();
        read(&[&hello, &second], &[]);
        streams.push([&hello[..], &second].concat());
    }
    for stream in &streams {
        read(&cut(stream, &[]), &[]);
        let single: Vec<&[u8]> = stream.chunks(1).take(2000).collect();
        read(&single, &[(1, 3)]);
    }
    let bends = || {
        let byte = prop_oneof![any::<u8>(), 0..4u8, proptest::sample::select(&b"\r\n .:/@["[..])];
        prop::collection::vec((any::<Index>(), byte, 0..6u8), 0..4)
    };
    let around = || prop::collection::vec(any::<(u8, u8)>(), 1..4);
    let cuts = || -> BoxedStrategy<Cuts> { (cuts::cuts(), around()).boxed() };
    check(3000, &(any::<Index>(), bends(), cuts()), |(stream, bends, (cuts, around))| {
        let mut stream = stream.get(&streams[..]).clone();
        for (at, byte, how) in bends {
            // Most of the lengths are near the start.
            let near = if how < 3 { stream.len().min(120) } else { stream.len() };
            let at = at.index(near);
            match how % 3 {
                0 => stream.insert(at, byte),
                1 if stream.len() > 1 => drop(stream.remove(at)),
                _ => stream[at] = byte,
            }
        }
        read(&cut(&stream, &cuts), &around);
    });
    let found = found.into_inner();
    println!("streams by answer and flags: {found:?}");
    let names = found.iter().filter(|((answer, _), _)| *answer == answer::NAME);
    assert!(names.map(|(_, times)| times).sum::<u32>() > 500, "{found:?}");
    assert!(found.len() > 8, "{found:?}");
}
