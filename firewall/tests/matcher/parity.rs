//! The loaded kernel program gives the verdict that user space gives, on the same bytes, and tells
//! of it truthfully.

use std::{cell::RefCell, net::IpAddr, time::Duration};

use aya::maps::{Array, HashMap, MapData, RingBuf};
use firewall::{
    datapath::{
        BENCH_OBJECT, OBJECT,
        apply::apply,
        load::Loaded,
        plain::{Plain, Shared},
        sys::test_run,
    },
    events::reader::Reader,
    policy::{
        AppFacts, Default,
        compile::{Generation, Settings},
    },
};
use firewall_common::{
    app::Kind,
    evaluate::{Fault, Named, Outcome},
    event::{FlowEvent, Identity, app as kind},
    flow::{TCP, UDP},
    layout::{FileId, PATH_BYTES, PathText, path},
    parse::ip,
    verdict::{Hook, Reason, Verdict},
};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use proptest::prelude::*;
use tokio::time::timeout;

use crate::{
    check,
    frames::{Dress, Extra, SOURCE_PORT, dress, frame},
    generate::{self, Target},
    loaded::loaded,
};

/// The kernel programs, loaded and attached nowhere.
struct Kernel {
    loaded: Loaded,
    events: RingBuf<MapData>,
}

impl Kernel {
    /// `None`, with the reason told, where the kernel refuses.
    fn load(object: &[u8]) -> Option<Self> {
        let mut loaded = loaded(object, "parity of kernel and user space")?;
        let events = loaded.ebpf.take_map("EVENTS").unwrap();
        Some(Self { loaded, events: RingBuf::try_from(events).unwrap() })
    }

    /// Sends `frame` `times` times over a socket of its own: whether it passed the last time, and
    /// what was told.
    fn send(&mut self, program: &'static str, frame: &[u8], times: u32) -> (bool, Vec<FlowEvent>) {
        let program = self.loaded.program(program).unwrap();
        let passed = match test_run(program, frame, times).unwrap().returned {
            0 => false,
            1 => true,
            other => panic!("the program returned {other}"),
        };
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(FlowEvent::try_from(&item[..]).unwrap());
        }
        (passed, events)
    }
}

const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

/// What user space says of a packet: the verdict, the reason where no decision says it, and the
/// number of the decision.
fn judged(
    generation: &Generation,
    app: u32,
    packet: &ip::Packet,
    error: Option<ip::Error>,
) -> Judged {
    let to = &packet.destination;
    let names = generation.header.name_lines != 0;
    let outcome = match error {
        Some(_) => Err(Fault::PortHidden),
        // The name could be in it.
        None if names && to.port_hidden != 0 && matches!(to.protocol, TCP | UDP) => {
            Err(Fault::PortHidden)
        }
        None => generation.evaluate(app, to, &Named::default()),
    };
    // No payload is no question.
    let asks = names && to.protocol == UDP && to.port == 53;
    let (outcome, hook) = match outcome {
        Ok(outcome) if asks && outcome.verdict.passes() => (Err(Fault::PortHidden), Hook::Dns),
        outcome => (outcome, Hook::Packet),
    };
    match outcome {
        Ok(Outcome { verdict, decision }) => Judged { verdict, reason: 0, decision, hook },
        Err(Fault::PortHidden) => Judged {
            verdict: match generation.settings.unparsable {
                Default::Drop if !generation.settings.observe => Verdict::Deny,
                Default::Drop | Default::Allow => Verdict::Audit,
            },
            reason: Reason::ParseError as u8,
            decision: 0,
            hook,
        },
        Err(Fault::Damaged) => panic!("damaged tables at {packet:?}"),
    }
}

struct Judged {
    verdict: Verdict,
    reason: u8,
    decision: u32,
    hook: Hook,
}

/// Whether a packet without payload, which is what these are, passes without a record.
fn waits_for_payload(
    generation: &Generation,
    packet: &ip::Packet,
    error: Option<ip::Error>,
    recorded: bool,
) -> bool {
    let to = &packet.destination;
    error.is_none()
        && to.protocol == TCP
        && to.port_hidden == 0
        && (generation.header.name_lines != 0 || to.port == 53 || recorded)
}

#[test]
fn the_kernel_says_what_user_space_says() {
    let Some(kernel) = Kernel::load(OBJECT) else { return };
    let kernel = RefCell::new(kernel);
    let dresses = prop::collection::vec(dress(), 64);
    check(64, &(generate::case(64), dresses), |(case, dresses)| {
        let kernel = &mut *kernel.borrow_mut();
        let case = case.without_apps();
        let generation = case.compile();
        let number = apply(&kernel.loaded.maps().unwrap(), &generation).unwrap();
        for (target, dress) in case.targets.iter().zip(&dresses) {
            let (frame, plain) = frame(*target, dress);
            let (packet, error) = ip::parse(&frame[14..]);
            // The number of an extension header as the protocol makes one of what follows.
            if !(target.ip.is_ipv6() && EXTENSIONS.contains(&target.protocol)) {
                prop_assert_eq!(error.is_some(), dress.is_unreadable(*target));
                if error.is_none() {
                    prop_assert_eq!(packet.destination, target.destination());
                    prop_assert_eq!(packet.plain != 0, plain);
                }
            }
            let want = judged(&generation, 0, &packet, error);
            let recorded = want.verdict != Verdict::Allow || generation.settings.record_allow;
            let waits =
                want.verdict.passes() && waits_for_payload(&generation, &packet, error, recorded);
            let told = recorded && !waits;
            // The second time and the third, a plain packet is let through or dropped by what is
            // kept with the socket.
            for times in [1, 3] {
                let (passed, events) = kernel.send("egress", &frame, times);
                prop_assert_eq!(passed, want.verdict.passes(), "{:?} {:?}", target, dress);
                prop_assert_eq!(
                    events.len(),
                    usize::from(told),
                    "{:?} {:?} {:?}",
                    events,
                    target,
                    dress
                );
                for event in events {
                    let FlowEvent { time, cookie: _, identity, .. } = event;
                    prop_assert!(time != 0);
                    let want = FlowEvent {
                        src: packet.src,
                        dst: packet.destination.address,
                        src_port: packet.src_port,
                        dst_port: packet.destination.port,
                        protocol: packet.destination.protocol,
                        verdict: want.verdict as u8,
                        reason: want.reason,
                        hook: want.hook as u8,
                        generation: number,
                        decision: want.decision,
                        count: 1,
                        closed: 0,
                        bytes_out: 0,
                        bytes_in: 0,
                        ..event
                    };
                    prop_assert_eq!(event, want, "{:?} {:?}", target, dress);
                    // Such a socket belongs to no process.
                    prop_assert_eq!(identity.pid, 0);
                }
            }
        }
        Ok(())
    });
}

/// Has the kernel know an app, as number `number` of all.
fn introduce(kernel: &mut Kernel, number: u32, app: &AppFacts) {
    // Numbers that no selector names.
    const NOBODY: u32 = 4_000_000_001;
    let executable = FileId { inode: number.into(), ..FileId::default() };
    let identity = Identity {
        executable,
        cgroup: number.into(),
        started: number.into(),
        pid: number,
        uid: app.uid.unwrap_or(NOBODY),
        gid: app.gid.unwrap_or(NOBODY),
        kind: match app.kind {
            Kind::Trusted | Kind::Untrusted => kind::PROCESS,
            Kind::Kernel => kind::KERNEL,
            Kind::Unknown => 0,
        },
        ..Identity::default()
    };
    let flags = if app.kind == Kind::Trusted { path::TRUSTED } else { 0 };
    keep(kernel, "EXECUTABLES", executable, &app.exe, flags);
    keep(kernel, "SCRIPTS", identity.process(), &app.script, 0);
    keep(kernel, "CGROUPS", u64::from(number), &app.cgroup, 0);
    let map = kernel.loaded.ebpf.map_mut("SENDER").unwrap();
    Array::<_, Plain<Identity>>::try_from(map).unwrap().set(0, Plain(identity), 0).unwrap();
}

fn keep<K: Shared>(kernel: &mut Kernel, map: &str, key: K, path: &[u8], flags: u32) {
    let start = PATH_BYTES - path.len();
    let mut text = [0; PATH_BYTES];
    text[start..].copy_from_slice(path);
    let path = Plain(PathText { stamp: 0, flags, start: start as u32, text });
    let map = kernel.loaded.ebpf.map_mut(map).unwrap();
    let mut map = HashMap::<_, Plain<K>, Plain<PathText>>::try_from(map).unwrap();
    map.insert(Plain(key), path, 0).unwrap();
}

#[test]
fn the_kernel_tells_apps_apart_as_user_space_does() {
    let Some(kernel) = Kernel::load(BENCH_OBJECT) else { return };
    let kernel = RefCell::new(kernel);
    check(48, &generate::case(64), |case| {
        let kernel = &mut *kernel.borrow_mut();
        let generation = case.compile();
        apply(&kernel.loaded.maps().unwrap(), &generation).unwrap();
        for (number, (target, app)) in (1..).zip(case.targets.iter().zip(&case.apps)) {
            introduce(kernel, number, app);
            let (frame, _) = frame(*target, &Dress::Plain);
            let (packet, error) = ip::parse(&frame[14..]);
            let class = generation.class_of_app(app);
            let want = judged(&generation, class, &packet, error);
            let (passed, events) = kernel.send("sent_by", &frame, 1);
            prop_assert_eq!(passed, want.verdict.passes(), "{:?} {:?}", target, app);
            for event in events {
                prop_assert_eq!(event.decision, want.decision, "{:?} {:?}", target, app);
            }
        }
        Ok(())
    });
}

fn everything_passes(unparsable: Default) -> Generation {
    use firewall::policy::compile::{Facts, compile};
    let settings = Settings { unparsable, ..Settings::default() };
    let facts = Facts { countries: None, asns: None, organisation: &|_| vec![] };
    compile(Vec::new(), facts, settings).unwrap()
}

fn target(ip: &str) -> Target {
    Target { ip: ip.parse::<IpAddr>().unwrap(), protocol: TCP, port: 443, hidden: false }
}

#[test]
fn a_packet_that_hides_where_it_goes_is_judged_by_the_setting() {
    let Some(mut kernel) = Kernel::load(OBJECT) else { return };
    let (v4, v6) = (target("198.51.100.1"), target("2001:db8::2"));
    let routes = [Extra::First, Extra::Second, Extra::Third, Extra::Fourth].map(Dress::SourceRoute);
    let dresses = routes.into_iter().chain((0..4).map(Dress::Cut));
    let mut frames: Vec<Vec<u8>> =
        dresses.flat_map(|dress| [frame(v4, &dress).0, frame(v6, &dress).0]).collect();
    // An option and an extension header that reach past the end.
    let mut long = frame(v4, &Dress::Extras(vec![Extra::Second])).0;
    long[14 + 21] = 0;
    frames.push(long);
    let mut long = frame(v6, &Dress::Extras(vec![Extra::First])).0;
    long[14 + 41] = 255;
    frames.push(long);

    for (unparsable, verdict) in [(Default::Drop, Verdict::Deny), (Default::Allow, Verdict::Audit)]
    {
        let generation = everything_passes(unparsable);
        let number = apply(&kernel.loaded.maps().unwrap(), &generation).unwrap();
        for frame in &frames {
            let (passed, events) = kernel.send("egress", frame, 2);
            assert_eq!(passed, verdict.passes(), "{frame:02x?}");
            let [event] = events[..] else { panic!("{events:?} of {frame:02x?}") };
            assert_eq!(event.verdict, verdict as u8, "{frame:02x?}");
            assert_eq!(event.reason, Reason::ParseError as u8, "{frame:02x?}");
            assert_eq!((event.decision, event.generation), (0, number), "{frame:02x?}");
        }
        // The same way without a disguise is open.
        for target in [v4, v6].map(|target| Target { protocol: UDP, ..target }) {
            let (passed, events) = kernel.send("egress", &frame(target, &Dress::Plain).0, 2);
            assert!(passed);
            assert_eq!(events[0].verdict, Verdict::Allow as u8);
            assert_eq!(events[0].src_port, SOURCE_PORT);
        }
    }
}

#[test]
fn nothing_passes_before_the_first_generation() {
    let Some(mut kernel) = Kernel::load(OBJECT) else { return };
    for target in [target("198.51.100.1"), target("2001:db8::2"), target("127.0.0.1")] {
        for dress in [Dress::Plain, Dress::FirstFragment, Dress::SourceRoute(Extra::First)] {
            let (passed, events) = kernel.send("egress", &frame(target, &dress).0, 2);
            assert!(!passed, "{target:?} {dress:?}");
            let [event] = events[..] else { panic!("{events:?}") };
            assert_eq!(event.verdict, Verdict::Deny as u8);
            assert_eq!(event.reason, Reason::NoPolicy as u8);
            assert_eq!((event.decision, event.generation), (0, 0));
        }
    }
    apply(&kernel.loaded.maps().unwrap(), &everything_passes(Default::Drop)).unwrap();
    assert!(kernel.send("egress", &frame(target("198.51.100.1"), &Dress::Plain).0, 1).0);
}

/// After an event that wakes who reads, the next ones wake nobody for a while: they are looked for.
#[tokio::test]
async fn what_wakes_nobody_is_read_all_the_same() {
    let Some(loaded) = loaded(OBJECT, "events that wake nobody") else { return };
    let mut reader = Reader::new(&loaded.maps().unwrap(), "EVENTS").unwrap();
    // The quiet is one of each processor.
    let here = sched_getcpu().unwrap();
    let mut only = CpuSet::new();
    only.set(here).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).unwrap();
    for ip in ["198.51.100.1", "198.51.100.2"] {
        let packet = frame(target(ip), &Dress::Plain).0;
        test_run(loaded.program("egress").unwrap(), &packet, 1).unwrap();
        timeout(LIMIT, reader.ready()).await.expect("nobody looks").unwrap();
        let event = reader.read_next(|bytes| FlowEvent::try_from(bytes)).expect("an event");
        assert_eq!(IpAddr::from(event.dst).to_string(), ip);
        assert_eq!(reader.read_next(|bytes| FlowEvent::try_from(bytes)), None);
    }
}

const LIMIT: Duration = Duration::from_secs(60);

/// Where the tables hold nothing, whichever part of them, nothing passes, also where each setting
/// lets pass what it can.
#[test]
fn tables_without_an_answer_let_nothing_pass() {
    let Some(mut kernel) = Kernel::load(OBJECT) else { return };
    let sound = everything_passes(Default::Allow);
    let blocks = 0..sound.blocks.len();
    let rows = sound.header.rows as usize;
    for empty in [blocks, rows..rows + 1] {
        let mut generation = everything_passes(Default::Allow);
        generation.blocks[empty.clone()].iter_mut().for_each(|block| block.fill(0));
        let number = apply(&kernel.loaded.maps().unwrap(), &generation).unwrap();
        for target in [target("198.51.100.1"), target("2001:db8::2")] {
            for target in [target, Target { protocol: UDP, ..target }] {
                let outcome = generation.evaluate(0, &target.destination(), &Named::default());
                assert_eq!(outcome, Err(Fault::Damaged), "{target:?} {empty:?}");
                let (passed, events) = kernel.send("egress", &frame(target, &Dress::Plain).0, 2);
                assert!(!passed, "{target:?} {empty:?}");
                let [event] = events[..] else { panic!("{events:?}") };
                assert_eq!(event.verdict, Verdict::Deny as u8);
                assert_eq!(event.reason, Reason::NoPolicy as u8);
                assert_eq!((event.decision, event.generation), (0, number));
            }
        }
    }
}
