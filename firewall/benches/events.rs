//! Events decoded and enriched in a second, verdicts stored without a loss, and how long a search of a
//! million records takes. All on one core. A part of `cargo xtask bench`.
#![allow(clippy::expect_used, reason = "what is built is right")]

mod common;

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use common::{
    milliseconds,
    report::{Goal, Row, tell_machine},
    timed,
};
use firewall::{
    cgroup::Hierarchy,
    datapath::{OBJECT, load::load},
    events::{
        View,
        apps::Apps,
        coalesce::Coalescer,
        enrich::Enricher,
        filter::{Asked, Filter},
        names::Names,
        record::{self, Line},
    },
    intel::Intel,
    policy::{
        compile::{Generation, Settings},
        source::Disk,
    },
    sink::{Entry, Queue, audit::Audit},
    store::{
        FILE,
        chain::Head,
        key::Key,
        reader::Reader,
        writer::{self, Limits, Signer, Store},
    },
};
use firewall_common::{
    event::{FlowEvent, Identity, app},
    flow::{Address, Destination, TCP},
    verdict::Hook,
};
use jiff::Timestamp;

const PART: &str = "space";

/// Events decoded and enriched in a second.
const RATE_GOAL: f64 = 300_000.0;
/// Verdicts stored in a second.
const STORED: u64 = 100_000;
/// Milliseconds that they may be late meanwhile.
const BEHIND_GOAL: f64 = 1_000.0;
/// Milliseconds that a search may take.
const SEARCH_GOAL: f64 = 200.0;
/// Flows that verdicts repeat.
const FLOWS: usize = 1_000;
/// Processes that they are of.
const PROCESSES: u32 = 50;

/// Events in a second, and the audit store
#[derive(Parser)]
struct Arguments {
    /// How many turns each row takes
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// For how many seconds verdicts are stored
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many records are searched
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

struct Signs(Arc<Key>);

impl Signer for Signs {
    fn sign(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        Ok(self.0.sign(head))
    }
    fn stored(&mut self, _: &Head) {}
    fn last(&mut self) -> i64 {
        0
    }
}

impl Clone for Signs {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    common::pin_to_core()?;
    tell_machine()?;
    let intel = common::tables()?;
    let generation =
        common::compile(common::shipped("deepseek", &intel)?, &intel, Settings::default())?;
    let loaded = load(OBJECT, 0)?;
    let maps = loaded.maps()?;
    let hierarchy = Hierarchy::find()?;
    let enricher = Enricher::new(Apps::new(&maps, &hierarchy)?, Names::new(&maps)?);
    let mut world = World { intel, generation, enricher, folder: tempfile::tempdir()? };
    world.rates(arguments.rounds)?;
    world.sustained(arguments.seconds)?;
    world.searches(arguments.records, arguments.rounds)
}

struct World<'a> {
    intel: Intel,
    generation: Generation,
    enricher: Enricher<'a>,
    folder: tempfile::TempDir,
}

impl World<'_> {
    /// Events as the kernel tells them.
    fn events(&self, time: u64) -> Vec<FlowEvent> {
        (0..FLOWS as u32)
            .map(|number| {
                let address: Address = std::net::IpAddr::from([39, 156, 66, number as u8]).into();
                let to = Destination { address, port: 443, protocol: TCP, port_hidden: 0 };
                let outcome =
                    self.generation.evaluate(0, &to, &self.generation.named::<&str>(&[], true));
                let outcome = outcome.expect("a verdict");
                FlowEvent {
                    time,
                    cookie: u64::from(number),
                    dst: address,
                    dst_port: 443,
                    src_port: 1024 + number as u16,
                    protocol: TCP,
                    hook: Hook::Connect as u8,
                    verdict: outcome.verdict as u8,
                    decision: outcome.decision,
                    generation: 1,
                    count: 1,
                    identity: Identity {
                        kind: app::PROCESS,
                        // Beyond those that can be.
                        pid: (5 << 20) + number % PROCESSES,
                        uid: 1000,
                        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
                        ..Identity::default()
                    },
                    ..FlowEvent::default()
                }
            })
            .collect()
    }

    fn rates(&mut self, rounds: u32) -> Result<()> {
        const TIMES: u32 = 100;
        let events = self.events(1);
        let bytes: Vec<&[u8]> = events.iter().map(bytes).collect();
        let mut rates = Vec::new();
        for _ in 0..rounds {
            let (time, made) = timed(|| {
                let mut made = 0;
                for bytes in std::iter::repeat_n(&bytes, TIMES as usize).flatten() {
                    let event = FlowEvent::try_from(*bytes).expect("an event");
                    made +=
                        self.enricher.enrich(&event, Some(&self.generation), &self.intel)?.len();
                }
                Ok::<_, anyhow::Error>(made)
            });
            ensure!(made? >= FLOWS * TIMES as usize);
            rates.push(f64::from(TIMES) * FLOWS as f64 / time.as_secs_f64());
        }
        let goal = Some(Goal::Least(RATE_GOAL));
        Row::values(PART, "events decoded and enriched", "one core", (rates, "/s"), goal).tell()
    }

    /// Verdicts at a fixed rate, through all that the daemon does with them.
    fn sustained(&mut self, seconds: u64) -> Result<()> {
        let state = self.folder.path().join("sustained");
        fs::create_dir(&state)?;
        let key = Signs(Arc::new(Key::open(&self.folder.path().join("key"))?));
        let limits = Limits { age: Duration::from_secs(10 << 30), size: 1 << 30 };
        let (audit, _) = Audit::open(&state, limits, key)?;
        let queue = Queue::start(audit, 16 << 20)?;
        let mut coalescer = Coalescer::default();
        let events = self.events(0);
        let bytes: Vec<&[u8]> = events.iter().map(bytes).collect();
        let (memory, before, start) = (resident()?, cpu()?, Instant::now());
        let (mut sent, mut recorded, mut behind) = (0u64, 0u64, Duration::ZERO);
        let mut due = Vec::new();
        while sent < seconds * STORED {
            for bytes in &bytes {
                let event = FlowEvent::try_from(*bytes).expect("an event");
                let time = 1 + start.elapsed().as_nanos() as u64;
                coalescer.push(FlowEvent { time, ..event }, |event| due.push(event));
                sent += 1;
            }
            recorded += self.record(&mut due, &queue)?;
            let planned = Duration::from_secs_f64(sent as f64 / STORED as f64);
            match planned.checked_sub(start.elapsed()) {
                Some(early) => thread::sleep(early),
                None => behind = behind.max(start.elapsed().saturating_sub(planned)),
            }
        }
        coalescer.flush(|event| due.push(event));
        recorded += self.record(&mut due, &queue)?;
        let took = start.elapsed();
        queue.close();
        queue.wait(Instant::now() + Duration::from_secs(10));
        let counts = queue.counts();
        let (busy, grown) = (cpu()?.saturating_sub(before), resident()? - memory);
        let mut stored = 0;
        let mut reader = Reader::open(&state)?.context("no store")?;
        let end = reader.end()?;
        loop {
            let found = reader.next(&mut Filter::default(), end, 1000)?;
            if found.is_empty() {
                break;
            }
            for found in found {
                match record::read(found.as_bytes()).expect("a record") {
                    Line::Verdict(record) => stored += record.count,
                    Line::Lost(_) => {}
                }
            }
        }
        let lost = sent - stored + counts.dropped + counts.failed;
        let with = format!("{STORED}/s for {:.0} s", took.as_secs_f64());
        let busy = busy.as_secs_f64() / took.as_secs_f64() * 100.0;
        for (what, value, unit, most) in [
            ("verdicts stored: lost", lost as f64, "", Some(0.0)),
            ("verdicts stored: records made of them", recorded as f64, "", None),
            ("verdicts stored: of the core", busy, "%", None),
            ("verdicts stored: memory grown", grown, "MiB", None),
            ("verdicts stored: most behind", milliseconds(behind), "ms", Some(BEHIND_GOAL)),
        ] {
            Row::values(PART, what, &*with, ([value], unit), most.map(Goal::Most)).tell()?;
        }
        Ok(())
    }

    fn record(&mut self, due: &mut Vec<FlowEvent>, queue: &Queue) -> Result<u64> {
        let mut recorded = 0;
        for event in due.drain(..) {
            for event in self.enricher.enrich(&event, Some(&self.generation), &self.intel)? {
                let line = serde_json::to_string(&event)?.into();
                queue.push(&Entry::Event {
                    event: Arc::new(event),
                    line,
                    recorded: Timestamp::now(),
                });
                recorded += 1;
            }
        }
        Ok(recorded)
    }

    fn searches(&mut self, records: u64, rounds: u32) -> Result<()> {
        let path = self.folder.path().join(FILE);
        let mut store = Store::open(&path, None)?;
        let (time, filled) = timed(|| fill(&mut store, records));
        filled?;
        drop(store);
        let with = format!("{records} records, {} MiB", fs::metadata(&path)?.len() >> 20);
        let stored = ([time.as_secs_f64()], "s");
        Row::values(PART, "records stored, all at once", &*with, stored, None).tell()?;
        for (what, pairs, most) in [
            ("the first page of all", &[][..], 50),
            ("an app, all of it", &[("app", "exe:/usr/bin/app7")], usize::MAX),
            ("a user that is not there", &[("user", "nobody")], 50),
            ("a country, all of it", &[("country", "SG")], usize::MAX),
            ("a name, all of it", &[("host", "host42.example")], usize::MAX),
            ("an owner, a verdict", &[("owner", "o3"), ("verdict", "deny")], 50),
            ("a policy and a rule", &[("policy", "p1"), ("rule", "r9")], 50),
            ("the last hour", &[("since", "2026-11-22T10:40:00Z")], 50),
        ] {
            let mut times = Vec::new();
            let mut count = 0;
            for _ in 0..rounds {
                let (time, found) = timed(|| search(self.folder.path(), pairs, most));
                times.push(milliseconds(time));
                count = found?;
            }
            let with = format!("{records} records, {count} found");
            let goal = Some(Goal::Most(SEARCH_GOAL));
            Row::values(PART, format!("search: {what}"), with, (times, "ms"), goal).tell()?;
        }
        Ok(())
    }
}

/// As if a command had just begun.
fn search(state: &Path, pairs: &[(&str, &str)], most: usize) -> Result<usize> {
    let pairs = pairs.iter().map(|(key, value)| (*key, (*value).to_owned()));
    let now: Timestamp = "2026-11-22T12:00:00Z".parse()?;
    let asked = Asked::of_query(pairs)?;
    let filter = asked.filter(&now.to_zoned(jiff::tz::TimeZone::UTC), &Disk);
    let mut filter = filter.map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
    let mut reader = Reader::open(state)?.context("no store")?;
    let end = reader.end()?;
    Ok(reader.next(&mut filter, end, most)?.len())
}

fn fill(store: &mut Store, records: u64) -> Result<()> {
    let start: Timestamp = "2026-11-11T00:00:00Z".parse()?;
    for piece in 0..records / 1000 {
        let lines: Vec<String> =
            (0..1000).map(|number| line(start, piece * 1000 + number)).collect();
        let mut all = Vec::new();
        for line in &lines {
            let Ok(Line::Verdict(record)) = record::read(line.as_bytes()) else { unreachable!() };
            all.push((line, record));
        }
        store.append(all.iter().map(|(line, record)| writer::Entry {
            event: line,
            view: Some(View::from(&**record)),
            seq: Some(record.seq),
        }))?;
    }
    Ok(())
}

/// One a second, of 40 apps, 500 names, 20 countries, 30 rules.
fn line(start: Timestamp, seq: u64) -> String {
    let time = start + jiff::SignedDuration::from_secs(seq.cast_signed());
    let (app, host, country) = (seq * 7 % 40, seq * 13 % 500, seq * 13 % 20);
    let country = ["US", "DE", "CN", "SG", "HK"].get(country as usize).unwrap_or(&"FR");
    let verdict = if seq.is_multiple_of(9) { "deny" } else { "audit" };
    format!(
        r#"{{"schema":1,"seq":{seq},"time":"{time}","verdict":"{verdict}","mode":"enforce","reason":"rule","action":"drop","policy":"p{}","rule":"r{}","hook":"connect","app":{{"name":"app{app}","exe":"/usr/bin/app{app}","package":{{"name":"app{app}","version":"1.0-1"}},"pid":{},"parents":["/usr/bin/bash","/usr/lib/systemd/systemd"],"uid":1000,"user":"ada","gid":1000,"cgroup":"/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope","unit":"app-x.scope"}},"proto":"tcp","src":{{"ip":"10.0.0.2","port":51234}},"dst":{{"ip":"192.0.2.1","port":443}},"host":{{"name":"host{host}.example","via":"dns","confidence":"unique","chain":["edge.host{host}.example"]}},"geo":{{"country":"{country}","asn":{},"organisation":"o{}","as_name":"An Organisation of Some Kind"}},"evidence":["list:tracking=host{host}.example"],"count":1,"bytes_out":0,"bytes_in":0}}"#,
        host % 3,
        host % 10,
        1000 + seq % 5000,
        64_512 + host % 50,
        host % 50,
    )
}

fn bytes(event: &FlowEvent) -> &[u8] {
    // SAFETY: integers alone, without padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(event).cast(), size_of::<FlowEvent>()) }
}

/// MiB that this process has in memory.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}

/// Time that this process has worked.
fn cpu() -> Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(time.into())
}
