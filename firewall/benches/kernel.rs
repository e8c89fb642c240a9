//! Nanoseconds for a packet, as ratios to a program that does nothing. A part of `cargo xtask bench`.
//!
//! The kernel runs each program on a packet in a socket of its own (`BPF_PROG_TEST_RUN`). All rows
//! take turns, each beside a run of the empty program, so that what else the machine does meets
//! them alike; the ratio of a row is the median of the ratios of its turns.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people")]

mod common;
#[path = "common/world.rs"]
mod world;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use clap::Parser;
use common::report::{Goal, Row, tell_machine};
use firewall::{
    datapath::{
        BENCH_OBJECT, apply,
        load::{Loaded, load},
        plain::Plain,
        sys,
    },
    policy::compile::{Generation, Settings},
};
use firewall_common::{
    flow::{SCTP, TCP, UDP},
    layout::{Counter, FileId, PATH_BYTES, PathText, flags},
};

/// Times the empty program, for a packet of a decided flow.
const DECIDED: f64 = 1.8;
/// Times the empty program, for a new flow.
const NEW: f64 = 8.0;
/// Times the empty program, for a question for a name.
const QUESTION: f64 = 10.0;

/// The name that is asked for.
const NAME: &str = "hm.baidu.com";
/// Who is asked.
const RESOLVER: [u8; 4] = [192, 0, 2, 1];

/// How often a program runs in one turn. With two records for each, of the flow and of the end of the one
/// before, they fit the ring buffer.
const REPEAT: u32 = 2_500;
/// The same for programs so short that the kernel's whole nanoseconds would show.
const REPEAT_SHORT: u32 = 50_000;

/// Nanoseconds for a packet, as ratios to a program that does nothing
#[derive(Parser)]
struct Arguments {
    /// How many turns each row takes
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The programs with a generation in place.
struct Bench {
    name: &'static str,
    recorded: bool,
    loaded: Loaded,
}

/// One line of the result.
struct Packets {
    /// Index of a [`Bench`].
    bench: usize,
    program: &'static str,
    packet: &'static str,
    frame: Vec<u8>,
    repeat: u32,
    /// What the packet is counted as, each time.
    counted: Option<Counter>,
    /// Whether there is room for records; if not, every one is lost.
    room: bool,
    goal: Option<f64>,
    nanoseconds: Vec<f64>,
    ratios: Vec<f64>,
    /// Records that found no room while the row was measured.
    lost: u64,
    /// Packets that were taken for something else.
    others: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    common::pin_to_core()?;
    tell_machine()?;

    let mut benches = benches()?;
    let mut rows = rows(&benches);
    for _ in 0..arguments.rounds {
        for row in &mut rows {
            row.take_turn(&mut benches[row.bench].loaded)?;
        }
    }
    for Bench { name, loaded, .. } in &benches {
        ensure!(counter(loaded, Counter::NoPolicy)? == 0, "{name}: the tables had no answer");
    }
    rows.iter().try_for_each(|row| row.tell(&benches[row.bench]))?;
    let wrong = rows.iter().filter(|row| row.others > 0).count();
    ensure!(wrong == 0, "{wrong} rows did not measure what they say");
    Ok(())
}

/// Loads the programs for each generation, with and without records of what may pass.
fn benches() -> Result<Vec<Bench>> {
    let intel = common::tables()?;
    let mut with_more = world::world(&intel)?;
    with_more.extend(world::networks(100_000));
    let generations = [
        ("cn-jurisdiction", common::shipped("cn-jurisdiction", &intel)?),
        ("the world", world::world(&intel)?),
        ("no rules", Vec::new()),
        ("10 rules", world::networks(10)),
        ("1,000 rules", world::networks(1_000)),
        ("100,000 rules", world::networks(100_000)),
        ("world + 100,000", with_more),
        (APPS, world::apps(1_000, &intel)?),
        (NAMES, world::names(&world::list(1_000_000))?),
    ];
    let settings = Settings { resolvers: vec![(RESOLVER.into(), 53)], ..Settings::default() };
    eprintln!(
        "{:<16} {:>8} {:>8} {:>11} {:>8} {:>10}",
        "generation", "rules", "classes", "boundaries", "blocks", "MiB"
    );
    let mut benches = Vec::new();
    for (name, policies) in generations {
        let rules: usize = policies.iter().map(|policy| policy.rules.len()).sum();
        let mut generation = common::compile(policies, &intel, settings.clone())?;
        let (blocks, classes) = (generation.blocks.len(), generation.header.classes - 1);
        let mib = size_of_val(generation.blocks.as_slice()) as f64 / f64::from(1 << 20);
        let boundaries = world::boundaries(&generation);
        eprintln!("{name:<16} {rules:>8} {classes:>8} {boundaries:>11} {blocks:>8} {mib:>10.1}");
        for recorded in [true, false] {
            generation.header.flags &= !flags::RECORD_ALLOW;
            if recorded {
                generation.header.flags |= flags::RECORD_ALLOW;
            }
            let loaded = in_place(&generation)?;
            benches.push(Bench { name, recorded, loaded });
        }
    }
    Ok(benches)
}

fn in_place(generation: &Generation) -> Result<Loaded> {
    let mut loaded = load(BENCH_OBJECT, 0)?;
    apply::apply(&loaded.maps()?, generation)?;
    let asked = loaded.ebpf.map_mut("ASKED_NAME").context("no map of the name asked for")?;
    Array::try_from(asked)?.set(0, generation.header.name_keys.hash(NAME), 0)?;
    let executables = loaded.ebpf.map_mut("EXECUTABLES").context("no map of executables")?;
    let mut executables: HashMap<_, Plain<FileId>, Plain<PathText>> = executables.try_into()?;
    let file = FileId { inode: 1, ..FileId::default() };
    let path = world::app(500);
    let start = PATH_BYTES - path.len();
    let mut text = [0; PATH_BYTES];
    text[start..].copy_from_slice(path.as_bytes());
    let path = PathText { stamp: 0, flags: 0, start: start as u32, text };
    executables.insert(Plain(file), Plain(path), 0)?;
    Ok(loaded)
}

fn rows(benches: &[Bench]) -> Vec<Packets> {
    let row = |bench, program, (packet, frame): (&'static str, Vec<u8>), repeat, goal| Packets {
        bench,
        program,
        packet,
        frame,
        repeat,
        counted: None,
        room: true,
        goal,
        nanoseconds: Vec::new(),
        ratios: Vec::new(),
        lost: 0,
        others: 0,
    };
    let mut rows = vec![
        row(0, "bench_empty", v4(UDP), REPEAT_SHORT, None),
        row(0, "bench_random", v4(UDP), REPEAT_SHORT, None),
    ];
    for (bench, Bench { name, recorded, .. }) in benches.iter().enumerate() {
        if *recorded && matches!(*name, "cn-jurisdiction" | "the world") {
            for packet in [v4(UDP), v4(TCP), v6(TCP)] {
                rows.push(row(bench, "bench_decided", packet, REPEAT_SHORT, Some(DECIDED)));
            }
        }
    }
    for (bench, Bench { name, recorded, .. }) in benches.iter().enumerate() {
        // Where names matter, for a rule or for a record, what TCP and UDP carry is looked at too; the
        // address alone decides about other protocols.
        let protocol = if *recorded || *name == NAMES { SCTP } else { TCP };
        rows.push(row(bench, "bench_new_v4", v4(protocol), REPEAT, Some(NEW)));
        rows.push(row(bench, "bench_new_v6", v6(protocol), REPEAT, Some(NEW)));
    }
    for (bench, Bench { name, recorded, .. }) in benches.iter().enumerate() {
        if *name == APPS && !*recorded {
            rows.push(row(bench, "bench_new_app", v4(TCP), REPEAT, None));
        }
        if *recorded || !matches!(*name, "no rules" | NAMES) {
            continue;
        }
        let mut push = |program, packet, goal, counted| {
            rows.push(Packets { counted, ..row(bench, program, packet, REPEAT, goal) });
        };
        let asked = Some(Counter::Questions);
        push("bench_decided", ("question", question(NAME)), Some(QUESTION), asked);
        push("bench_question", ("question", question("aaaa.baidu.com")), None, None);
        push("bench_ask", ("answer, 1", answer(1)), None, None);
        let learned = Some(Counter::Answers);
        push("bench_answer", ("answer, 1", answer(1)), None, learned);
        push("bench_answer", ("answer, 16", answer(16)), None, learned);
        if *name == NAMES {
            let allowed = Some(Counter::Allow);
            push("bench_again", HELLOS[0].frame(), None, None);
            for hello in &HELLOS {
                push("bench_shown", hello.frame(), None, allowed);
            }
        }
    }
    rows.push(Packets { room: false, ..row(0, "bench_new_v4", v4(SCTP), REPEAT, Some(NEW)) });
    rows
}

/// The generation with rules for apps.
const APPS: &str = "1,000 apps";
/// The generation with names.
const NAMES: &str = "1,000,000 names";

/// What a TLS client sends first.
struct Hello {
    name: &'static str,
    bytes: &'static [u8],
}

/// Real ones; the second has a post-quantum key share, the third an encrypted hello too.
const HELLOS: [Hello; 3] = [
    Hello {
        name: "hello 517 B",
        bytes: include_bytes!("../../firewall-common/tests/payload/curl"),
    },
    Hello {
        name: "hello 1491 B",
        bytes: include_bytes!("../../firewall-common/tests/payload/rustls-mlkem768"),
    },
    Hello {
        name: "hello 1926 B",
        bytes: include_bytes!("../../firewall-common/tests/payload/rustls-mlkem768-ech-grease"),
    },
];

impl Hello {
    fn frame(&self) -> (&'static str, Vec<u8>) {
        let mut tcp = vec![0; 20];
        tcp[..4].copy_from_slice(&[0xc3, 0x50, 1, 187]);
        tcp[12..14].copy_from_slice(&[0x50, 0x18]);
        tcp.extend(self.bytes);
        (self.name, ipv4(TCP, HERE.0, RESOLVER, &tcp))
    }
}

/// Where questions come from, and where they go.
const HERE: ([u8; 4], u16) = ([10, 0, 0, 2], 50_000);
const THERE: ([u8; 4], u16) = (RESOLVER, 53);

/// A question for the addresses of a name.
fn question(name: &str) -> Vec<u8> {
    udp(HERE, THERE, &message(name, 0x0100, 0))
}

/// The answer to that for [`NAME`], with so many addresses.
fn answer(addresses: u16) -> Vec<u8> {
    let mut message = message(NAME, 0x8180, addresses);
    for number in 0..addresses as u8 {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, number]);
    }
    udp(THERE, HERE, &message)
}

/// A DNS message with a question.
fn message(name: &str, bits: u16, answers: u16) -> Vec<u8> {
    let header = [1, bits, 1, answers, 0, 0].map(u16::to_be_bytes);
    let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
    let labels = name.split('.').flat_map(label);
    header.into_iter().flatten().chain(labels).chain([0, 0, 1, 0, 1]).collect()
}

fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), message: &[u8]) -> Vec<u8> {
    let header = [from.1, to.1, 8 + message.len() as u16, 0].map(u16::to_be_bytes);
    ipv4(UDP, from.0, to.0, &[header.as_flattened(), message].concat())
}

fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    frame.extend([0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0]);
    frame.extend(from.into_iter().chain(to));
    frame.extend(payload);
    frame
}

/// An Ethernet frame to 192.0.2.1, a documentation address (RFC 5737), port 443.
fn v4(protocol: u8) -> (&'static str, Vec<u8>) {
    let mut bytes = Vec::new();
    transport(&mut bytes);
    let frame = ipv4(protocol, HERE.0, RESOLVER, &bytes);
    (["v4 tcp", "v4 udp", "v4 sctp"][kind(protocol)], frame)
}

/// An Ethernet frame to 2001:db8::1, a documentation address (RFC 3849), port 443.
fn v6(protocol: u8) -> (&'static str, Vec<u8>) {
    let mut frame = ethernet(0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 40, protocol, 64]);
    for last in [2, 1] {
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    transport(&mut frame);
    (["v6 tcp", "v6 udp", "v6 sctp"][kind(protocol)], frame)
}

fn kind(protocol: u8) -> usize {
    [TCP, UDP].iter().position(|known| *known == protocol).unwrap_or(2)
}

fn ethernet(ether_type: u16) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(ether_type.to_be_bytes());
    frame
}

/// Source port 50000, destination port 443, and zeros up to 40 bytes.
fn transport(frame: &mut Vec<u8>) {
    frame.extend(50_000u16.to_be_bytes());
    frame.extend(443u16.to_be_bytes());
    frame.resize(frame.len() + 36, 0);
}

impl Packets {
    fn take_turn(&mut self, loaded: &mut Loaded) -> Result<()> {
        // Brings the tables into the caches, as far as they fit. What it records goes unmeasured.
        sys::test_run(loaded.program(self.program)?, &self.frame, REPEAT_SHORT)?;
        if self.room {
            drain(loaded)?;
        }
        let empty = nanoseconds(loaded, "bench_empty", &self.frame, REPEAT_SHORT)?;
        let lost_before = counter(loaded, Counter::LostEvents)?;
        let counted = |loaded: &Loaded| match self.counted {
            Some(kind) => counter(loaded, kind),
            None if self.is_new() => verdicts(loaded),
            None => Ok(0),
        };
        let before = counted(loaded)?;
        let own = nanoseconds(loaded, self.program, &self.frame, self.repeat)?;
        if self.counted.is_some() || self.is_new() {
            self.others += u64::from(self.repeat).abs_diff(counted(loaded)? - before);
        }
        self.lost += counter(loaded, Counter::LostEvents)? - lost_before;
        self.nanoseconds.push(own);
        self.ratios.push(own / empty);
        Ok(())
    }

    fn tell(&self, bench: &Bench) -> Result<()> {
        // Such a row would be better than it should.
        ensure!(
            !self.room || self.lost == 0,
            "{}: {} records were lost, so what is measured is not what is said",
            self.program,
            self.lost
        );
        let with = match (self.program, self.room, bench.recorded) {
            ("bench_empty" | "bench_random", ..) => String::new(),
            ("bench_decided", ..) if self.counted.is_none() => bench.name.to_owned(),
            (_, false, _) => format!("{}, recorded, ring full", bench.name),
            (_, true, true) => format!("{}, recorded", bench.name),
            (_, true, false) => format!("{}, not recorded", bench.name),
        };
        let what = format!("{}: {}", self.says(), self.packet);
        if self.others > 0 {
            let why =
                format!("not measured: {} packets were taken for something else", self.others);
            return Row::missing("kernel", &what, &with, &why).tell();
        }
        Row::ratios(
            "kernel",
            what,
            with,
            (self.nanoseconds.iter().copied(), "ns"),
            self.ratios.iter().copied(),
            self.goal.map(Goal::Most),
        )
        .tell()
    }

    /// Whether each packet is to be a flow of its own.
    fn is_new(&self) -> bool {
        self.program.starts_with("bench_new")
    }

    /// What a program does, for people.
    fn says(&self) -> &'static str {
        match self.program {
            "bench_empty" => "empty program",
            "bench_random" => "random address made",
            "bench_decided" if self.counted.is_none() => "decided flow",
            "bench_decided" => "question judged",
            "bench_new_v4" | "bench_new_v6" => "new flow, random address",
            "bench_new_app" => "new flow, and its app found",
            "bench_question" => "question judged, random name",
            "bench_ask" => "question kept for its answer",
            "bench_answer" => "the same, and its answer learned",
            "bench_again" => "socket made new",
            "bench_shown" => "the same, and its hello judged",
            other => other,
        }
    }
}

fn nanoseconds(loaded: &Loaded, program: &'static str, frame: &[u8], repeat: u32) -> Result<f64> {
    let run = sys::test_run(loaded.program(program)?, frame, repeat)
        .with_context(|| format!("cannot run {program}"))?;
    // The kernel drops the fraction; half of one is missing on average.
    Ok(f64::from(run.nanoseconds) + 0.5)
}

/// Flows that were decided.
fn verdicts(loaded: &Loaded) -> Result<u64> {
    let kinds = [Counter::Allow, Counter::Audit, Counter::Deny];
    kinds.into_iter().map(|kind| counter(loaded, kind)).sum()
}

fn counter(loaded: &Loaded, counter: Counter) -> Result<u64> {
    let counters = loaded.ebpf.map("COUNTERS").context("no map of counters")?;
    let counters: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(counters)?;
    Ok(counters.get(&(counter as u32), 0)?.iter().sum())
}

/// Takes everything out of the ring buffer.
fn drain(loaded: &mut Loaded) -> Result<()> {
    let events = loaded.ebpf.map_mut("EVENTS").context("no map of events")?;
    let mut events = RingBuf::try_from(events)?;
    while events.next().is_some() {}
    Ok(())
}
