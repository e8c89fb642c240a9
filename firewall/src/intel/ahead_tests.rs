use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use tokio::time::{Instant, timeout};

use super::*;
use crate::intel::resolver::Found;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Asks for all that is due at a moment.
fn asks(schedule: &mut Schedule, now: Duration) -> Vec<usize> {
    let mut asked = Vec::new();
    while let Next::Ask(name) = schedule.next(now) {
        asked.push(name);
    }
    asked
}

#[test]
fn names_are_asked_for_in_order_and_not_at_once() {
    let mut schedule = Schedule::new(6, SECOND);
    assert_eq!(schedule.next(Duration::ZERO), Next::At(SECOND));
    assert_eq!(asks(&mut schedule, SECOND), [0]);
    assert_eq!(schedule.next(SECOND), Next::At(SECOND + PACE));
    // A pause is not made up for.
    assert_eq!(asks(&mut schedule, 100 * SECOND), [1]);
    assert_eq!(asks(&mut schedule, 100 * SECOND + PACE), [2]);
    assert_eq!(asks(&mut schedule, 100 * SECOND + 2 * PACE), [3]);
    assert_eq!(schedule.next(200 * SECOND), Next::Wait, "four are being asked for");
    schedule.done(2, Again::Empty, 200 * SECOND, 0);
    assert_eq!(asks(&mut schedule, 200 * SECOND), [4]);
}

#[test]
fn a_name_comes_again_before_its_time_is_over() {
    for (again, random, wait) in [
        (Again::After(1000 * SECOND), 0, 700.0),
        (Again::After(1000 * SECOND), u32::MAX / 2, 800.0),
        (Again::After(1000 * SECOND), u32::MAX, 900.0),
        (Again::After(Duration::ZERO), 0, 42.0),
        (Again::After(Duration::MAX), u32::MAX, 3240.0),
        (Again::Empty, 0, 2520.0),
    ] {
        let mut schedule = Schedule::new(1, Duration::ZERO);
        assert_eq!(schedule.next(SECOND), Next::Ask(0));
        assert_eq!(schedule.next(SECOND), Next::Wait);
        schedule.done(0, again, 5 * SECOND, random);
        let Next::At(time) = schedule.next(5 * SECOND) else { panic!("{again:?}") };
        assert!((time.as_secs_f64() - 5.0 - wait).abs() < 0.001, "{again:?}: {time:?}");
    }
}

#[test]
fn who_does_not_answer_is_asked_less_and_less() {
    let mut schedule = Schedule::new(1, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for again in [Again::Failed; 20].into_iter().chain([Again::After(SOONEST), Again::Failed]) {
        assert_eq!(schedule.next(now), Next::Ask(0));
        schedule.done(0, again, now, 0);
        let Next::At(time) = schedule.next(now) else { panic!("{again:?}") };
        waits.push((time - now).as_secs());
        now = time;
    }
    assert_eq!(waits[..8], [42, 84, 168, 336, 672, 1344, 2520, 2520]);
    assert_eq!(waits[18..], [2520, 2520, 42, 42], "an answer makes up for it");
}

/// What a name is said to be, how long that takes, and a random number.
fn replies() -> impl Strategy<Value = Vec<(Again, u64, u32)>> {
    let again = prop_oneof![
        (0..100_000_u32).prop_map(|seconds| Again::After(seconds * SECOND)),
        Just(Again::Empty),
        Just(Again::Failed),
    ];
    proptest::collection::vec((again, 0..20_000_u64, any::<u32>()), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is answered and when: one name after the other, few at once, none twice at once, each
    /// once before any comes again, and that not too soon.
    #[test]
    fn the_schedule_keeps_its_bounds(names in 1..60_usize, replies in replies()) {
        let mut schedule = Schedule::new(names, Duration::ZERO);
        let mut replies = replies.into_iter();
        let mut now = Duration::ZERO;
        let mut last_ask: Option<Duration> = None;
        let mut last_done = vec![None; names];
        // When, and of which name, there will be which answer.
        let mut flying: Vec<(Duration, usize, Again, u32)> = Vec::new();
        let mut seen = HashSet::new();
        let mut asks = 0;
        loop {
            flying.sort_by_key(|(when, name, ..)| (*when, *name));
            match schedule.next(now) {
                Next::Ask(name) => {
                    prop_assert!(name < names);
                    prop_assert!(last_ask.is_none_or(|last| now - last >= PACE));
                    prop_assert!(flying.iter().all(|(_, flying, ..)| *flying != name));
                    prop_assert!(flying.len() < AT_ONCE);
                    if let Some(done) = last_done[name] {
                        prop_assert!(now - done >= SOONEST.mul_f64(0.69));
                    }
                    last_ask = Some(now);
                    seen.insert(name);
                    asks += 1;
                    prop_assert_eq!(seen.len(), names.min(asks));
                    let Some((again, took, random)) = replies.next() else { break };
                    flying.push((now + took as u32 * MS, name, again, random));
                }
                Next::At(time) if flying.first().is_none_or(|(when, ..)| *when > time) => {
                    prop_assert!(time > now);
                    prop_assert!(flying.len() < AT_ONCE);
                    prop_assert!(time - now <= LATEST);
                    now = time;
                }
                Next::At(_) | Next::Wait => {
                    prop_assert!(!flying.is_empty(), "nothing is due and nothing is asked for");
                    let (when, name, again, random) = flying.remove(0);
                    now = now.max(when);
                    schedule.done(name, again, now, random);
                    last_done[name] = Some(now);
                }
            }
        }
    }
}

/// Answers from a list, after a while, and notes who was asked for when.
#[derive(Clone)]
struct Fake {
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    answer: fn(&str) -> Result<Answer, Failure>,
    takes: Duration,
}

impl Fake {
    fn new(answer: fn(&str) -> Result<Answer, Failure>) -> Self {
        Self { asked: Arc::default(), answer, takes: 20 * MS }
    }

    fn asked(&self) -> Vec<(String, Instant)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolve for Fake {
    async fn resolve(&self, name: String) -> Result<Answer, Failure> {
        self.asked.lock().unwrap().push((name.clone(), Instant::now()));
        sleep(self.takes).await;
        (self.answer)(&name)
    }
}

fn ahead(names: &[&str], fake: &Fake) -> Ahead<Fake> {
    let start = Instant::now();
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Ahead::with(names, fake.clone(), move || start.elapsed(), || 0)
}

fn found(ip: &str, ttl: u32) -> Found {
    Found { ip: ip.parse().unwrap(), ttl, record: "A", target: None }
}

fn answer(addresses: &[(&str, u32)]) -> Result<Answer, Failure> {
    let addresses = addresses.iter().map(|(ip, ttl)| found(ip, *ttl)).collect();
    Ok(Answer { addresses, ..Answer::default() })
}

/// What is learned in this time, each as `NAME CHAIN ADDRESS LIFETIME`.
async fn learn(ahead: &mut Ahead<Fake>, time: Duration) -> Vec<String> {
    let mut facts = Vec::new();
    let _ = timeout(time, async {
        loop {
            let sink = |Fact { name, chain, address, lifetime }: Fact<'_>| {
                facts.push(format!("{name} {chain:?} {address} {}", lifetime.as_secs()));
            };
            ahead.learn(sink).await;
        }
    })
    .await;
    facts
}

#[tokio::test(start_paused = true)]
async fn what_is_learned_is_handed_on() {
    let fake = Fake::new(|name| match name {
        "a.example" => Ok(Answer {
            chain: vec!["b.example".to_owned()],
            addresses: vec![
                found("198.51.100.1", 20),
                found("2606:4700::1", 2000),
                Found { target: Some("c.example".to_owned()), ..found("198.51.100.2", 1_000_000) },
            ],
            ..Answer::default()
        }),
        "none.example" => Err(Failure::NoAddress),
        _ => Err(Failure::NoAnswer(Vec::new())),
    });
    let mut ahead = ahead(&["a.example", "none.example", "broken.example"], &fake);
    let facts = learn(&mut ahead, 30 * SECOND).await;
    let want = [
        "a.example [\"b.example\"] 198.51.100.1 300",
        "a.example [\"b.example\"] 2606:4700::1 2000",
        "a.example [\"b.example\", \"c.example\"] 198.51.100.2 3600",
    ];
    assert_eq!(facts, want);
    assert_eq!(ahead.tally, Tally { found: 1, empty: 1, failed: 1, unused: 0 });
    let asked: Vec<String> = fake.asked().into_iter().map(|(name, _)| name).collect();
    assert_eq!(asked, ["a.example", "none.example", "broken.example"], "each once until it is due");
}

/// A resolver that blocks a name leads to itself or to nowhere: nobody else is to be cut off from there.
#[tokio::test(start_paused = true)]
async fn an_address_that_the_internet_does_not_route_is_not_used() {
    let fake = Fake::new(|_| {
        answer(&[
            ("0.0.0.0", 2),
            ("127.0.0.1", 2),
            ("192.168.0.2", 2),
            ("100.64.0.1", 2),
            ("169.254.0.1", 2),
            ("::", 2),
            ("::1", 2),
            ("fe80::1", 2),
            ("fd00::1", 2),
            ("::ffff:127.0.0.1", 2),
            ("64:ff9b::7f00:1", 2),
            ("64:ff9b::c633:6401", 2),
            ("2002:a00:1::1", 2),
            ("ff02::1", 2),
            ("198.51.100.1", 500),
        ])
    });
    let mut ahead = ahead(&["a.example"], &fake);
    let facts = learn(&mut ahead, 300 * SECOND).await;
    let want = ["a.example [] 64:ff9b::c633:6401 300", "a.example [] 198.51.100.1 500"];
    assert_eq!(facts[..2], want);
    assert_eq!(ahead.tally.unused, 13 * ahead.tally.found);
}

#[tokio::test(start_paused = true)]
async fn of_many_addresses_some_are_used() {
    let fake = Fake::new(|_| {
        let addresses = (0..200).map(|last| found(&format!("198.51.100.{last}"), 3600)).collect();
        Ok(Answer { addresses, ..Answer::default() })
    });
    let mut ahead = ahead(&["a.example"], &fake);
    assert_eq!(learn(&mut ahead, 10 * SECOND).await.len(), MAX_ADDRESSES);
    assert_eq!(ahead.tally.unused, 200 - MAX_ADDRESSES as u64);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_kept_fresh() {
    let fake = Fake::new(|_| answer(&[("198.51.100.1", 1000)]));
    let mut ahead = ahead(&["a.example"], &fake);
    let start = Instant::now();
    learn(&mut ahead, 3000 * SECOND).await;
    let times: Vec<u64> =
        fake.asked().iter().map(|(_, at)| at.duration_since(start).as_secs()).collect();
    assert_eq!(times, [0, 700, 1400, 2100, 2800]);
}

/// As many as there can be, from a resolver that takes its time.
#[tokio::test(start_paused = true)]
async fn many_names_come_one_by_one_and_no_other_name_is_asked_for() {
    let names: Vec<String> = (0..MOST_NAMES).map(|number| format!("{number}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fake = Fake { takes: 30 * MS, ..Fake::new(|_| answer(&[("198.51.100.1", 30)])) };
    let mut ahead = ahead(&names, &fake);
    // Who waits for it is interrupted all the time.
    for _ in 0..1300 {
        learn(&mut ahead, 110 * MS).await;
    }
    let asked = fake.asked();
    let of: HashSet<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(of, names.into_iter().collect::<HashSet<_>>());
    let mut gaps = asked.windows(2).map(|pair| pair[1].1 - pair[0].1);
    assert!(gaps.all(|gap| gap >= PACE), "more than ten a second");
    assert!(asked.len() > 1200, "{}: nothing is lost by an interruption", asked.len());
}

#[tokio::test(start_paused = true)]
async fn a_silent_resolver_is_asked_for_few_at_once() {
    let fake = Fake { takes: 12 * SECOND, ..Fake::new(|_| Err(Failure::NoAnswer(Vec::new()))) };
    let mut ahead = ahead(&["0", "1", "2", "3", "4", "5", "6", "7", "8"], &fake);
    assert_eq!(learn(&mut ahead, 11 * SECOND).await, [""; 0]);
    assert_eq!(fake.asked().len(), AT_ONCE);
    learn(&mut ahead, 29 * SECOND).await;
    assert_eq!(fake.asked().len(), 9);
    assert_eq!(ahead.tally.failed, 9);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_panics_takes_nothing_with_it() {
    let fake = Fake::new(|name| match name {
        "bad.example" => panic!("on purpose"),
        _ => answer(&[("198.51.100.1", 3600)]),
    });
    let mut ahead = ahead(&["bad.example", "good.example"], &fake);
    assert_eq!(learn(&mut ahead, 10 * SECOND).await.len(), 1);
    assert_eq!(ahead.tally, Tally { found: 1, failed: 1, ..Tally::default() });
    learn(&mut ahead, 50 * SECOND).await;
    assert_eq!(fake.asked().len(), 3, "it is asked for again");
}

#[tokio::test(start_paused = true)]
async fn without_names_nothing_happens() {
    let fake = Fake::new(|_| answer(&[]));
    let mut ahead = ahead(&[], &fake);
    assert_eq!(learn(&mut ahead, 10_000 * SECOND).await, [""; 0]);
    assert!(fake.asked().is_empty());
}
