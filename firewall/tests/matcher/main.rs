//! The one matcher: against an oracle that walks the rules, and in the kernel against user space.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod frames;
mod generate;
#[path = "../support/loaded.rs"]
mod loaded;
mod oracle;
mod parity;

use std::cell::RefCell;

use firewall::policy::{
    AppFacts,
    compile::{Decision, Generation, Ground},
};
use firewall_common::{
    app::Kind,
    evaluate::{Fault, Named, Outcome},
    flow::Destination,
    verdict::Verdict,
};
use oracle::{Answer, Oracle, faces};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};

/// Random cases, as many as `PROPTEST_CASES` says or `cases`.
fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if let Err(error) = TestRunner::new(config).run(strategy, test) {
        panic!("{error}");
    }
}

#[test]
fn the_tables_say_what_the_rules_say() {
    check(512, &generate::case(64), |case| {
        let generation = case.compile();
        for (target, app) in case.targets.iter().zip(&case.apps) {
            let oracle = Oracle::new(&case, app);
            let tables = answer(&generation, app, &target.destination(), &Named::default());
            prop_assert_eq!(tables, oracle.ask(*target), "{:?} {:?}", target, app);
        }
        Ok(())
    });
}

#[test]
fn the_tables_say_what_the_rules_say_of_names() {
    check(768, &generate::case(64), |case| {
        let generation = case.compile();
        for ((target, known), app) in case.targets.iter().zip(&case.known).zip(&case.apps) {
            let oracle = Oracle::new(&case, app);
            let named = generation.named(&known.names, known.trusted);
            let tables = answer(&generation, app, &target.destination(), &named);
            let target = *target;
            // Which of several names counts that take something out is not laid down.
            let ways = 0..oracle.taking(known).len().max(1);
            let told = || format!("{target:?} {known:?} {named:?} {app:?}");
            if target.hidden && !oracle.spoken_of(known).is_empty() {
                // What address and names say for certain each for itself may deny in vain, but lets
                // nothing pass that a port could deny.
                let Answer::Decided { verdict, .. } = &tables else { continue };
                let ports = [0, 1, 52, 53, 80, 81, 255, 256, 443, 444, 1024, 8000, 9000, 65535];
                let passes = |which, port| {
                    let shown = generate::Target { port, hidden: false, ..target };
                    let answer = oracle.ask_known(shown, known, which);
                    matches!(answer, Answer::Decided { verdict, .. } if verdict.passes())
                };
                let mut ways = ways;
                let always = ways.any(|way| ports.iter().all(|port| passes(way, *port)));
                prop_assert!(*verdict == Verdict::Deny || always, "{}", told());
                continue;
            }
            let mut wanted = ways.map(|which| oracle.ask_known(target, known, which));
            if oracle.spoken_of(known).len() <= 1 {
                prop_assert_eq!(Some(tables), wanted.next(), "{}", told());
            } else {
                // What only observes is seen with one of the names.
                let same = wanted
                    .any(|one| without_observed(&case, &one) == without_observed(&case, &tables));
                prop_assert!(same, "{:?} {}", tables, told());
            }
        }
        Ok(())
    });
}

#[test]
fn a_question_gets_what_the_rules_say_of_names() {
    check(96, &generate::case(64), |case| {
        let generation = case.compile();
        let known = case.known.iter().zip(&case.apps);
        let asked = known.flat_map(|(known, app)| known.names.iter().map(move |name| (name, app)));
        for (name, app) in asked.take(24) {
            let oracle = Oracle::new(&case, app);
            let class = generation.class_of_app(app);
            let outcome = generation.question(class, name);
            let outcome = outcome.map_err(|_| TestCaseError::fail("damaged"))?;
            let tables = decided(&generation, outcome);
            prop_assert_eq!(tables, oracle.question(name), "{} {:?}", name, app);
        }
        Ok(())
    });
}

/// The verdict and where the search for it ended.
fn without_observed(case: &generate::Case, answer: &Answer) -> Option<(bool, String)> {
    let Answer::Decided { verdict, ground, observed } = answer else { return None };
    let observing = |name: &str| {
        let policy = name.split('/').next().unwrap();
        let mut policies = case.policies.iter();
        policies.any(|one| one.name == policy && one.mode == firewall::policy::Mode::Observe)
    };
    match observed.last() {
        Some(last) if case.settings.observe && !observing(last) => Some((false, last.clone())),
        _ => Some((verdict.passes(), ground.clone())),
    }
}

#[test]
fn a_rule_said_to_be_unreachable_is_never_reached() {
    let told = RefCell::new(0);
    check(256, &generate::case(64), |case| {
        let generation = case.compile();
        let unreachable: Vec<String> = generation
            .unreachable
            .iter()
            .map(|one| name(&generation, Ground::Rule { policy: one.policy, rule: one.rule }))
            .collect();
        *told.borrow_mut() += unreachable.len();
        for ((target, known), app) in case.targets.iter().zip(&case.known).zip(&case.apps) {
            let answer = Oracle::new(&case, app).ask_known(*target, known, 0);
            let Answer::Decided { ground, observed, .. } = answer else { continue };
            for reached in observed.iter().chain([&ground]) {
                prop_assert!(!unreachable.contains(reached), "{} by {:?}", reached, target);
            }
        }
        Ok(())
    });
    assert!(told.into_inner() > 0, "no case had an unreachable rule");
}

/// A property of cases that never get somewhere says nothing about it. The same cases each time:
/// what is judged here is how they are made.
#[test]
fn the_cases_get_everywhere() {
    #[derive(Debug, Default)]
    struct Seen {
        rule: u32,
        policy_default: u32,
        default: u32,
        observed: u32,
        observed_default: u32,
        hidden: u32,
        hidden_decided: u32,
        inner_decides: u32,
        by_app: u32,
        by_untrusted: u32,
        verdicts: [u32; 4],
    }
    let seen = RefCell::new(Seen::default());
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() };
    let same = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, same);
    let run = runner.run(&generate::case(64), |case| {
        let seen = &mut *seen.borrow_mut();
        for (target, app) in case.targets.iter().zip(&case.apps) {
            let oracle = Oracle::new(&case, app);
            let Answer::Decided { verdict, ground, observed } = oracle.ask(*target) else {
                seen.hidden += 1;
                continue;
            };
            seen.hidden_decided += u32::from(target.hidden);
            seen.verdicts[verdict as usize] += 1;
            seen.observed += u32::from(!observed.is_empty());
            seen.observed_default +=
                u32::from(observed.iter().any(|one| one.ends_with("/default")));
            let rules = case.policies.iter().flat_map(|policy| {
                policy.rules.iter().map(|rule| (format!("{}/{}", policy.name, rule.name), rule))
            });
            let decides = rules.into_iter().find(|(name, _)| *name == ground);
            if decides.is_some_and(|(_, rule)| !rule.apps.is_every()) {
                seen.by_app += 1;
                seen.by_untrusted += u32::from(app.kind == Kind::Untrusted);
            }
            match &ground[..] {
                "default" => seen.default += 1,
                of_policy if of_policy.ends_with("/default") => seen.policy_default += 1,
                _ => seen.rule += 1,
            }
            if let [_, inner] = faces(target.ip)[..] {
                let inside = oracle.ask(generate::Target { ip: inner, ..*target });
                let same = matches!(&inside, Answer::Decided { ground: g, .. } if *g == ground);
                seen.inner_decides += u32::from(same && ground.contains("/r"));
            }
        }
        Ok(())
    });
    run.unwrap();
    let seen = seen.into_inner();
    println!("{seen:?}");
    let Seen { verdicts, .. } = seen;
    let counts = [
        seen.rule,
        seen.policy_default,
        seen.default,
        seen.observed,
        seen.observed_default,
        seen.hidden,
        seen.hidden_decided,
        seen.inner_decides,
        seen.by_app,
        seen.by_untrusted,
        verdicts[Verdict::Allow as usize],
        verdicts[Verdict::Audit as usize],
        verdicts[Verdict::Deny as usize],
    ];
    assert!(counts.iter().all(|count| *count >= 10), "{seen:?}");
}

/// What the tables of a generation say.
fn answer(
    generation: &Generation,
    app: &AppFacts,
    destination: &Destination,
    named: &Named,
) -> Answer {
    match generation.evaluate(generation.class_of_app(app), destination, named) {
        Ok(outcome) => decided(generation, outcome),
        Err(Fault::PortHidden) => Answer::PortHidden,
        Err(Fault::Damaged) => panic!("damaged tables at {destination:?}"),
    }
}

fn decided(generation: &Generation, outcome: Outcome) -> Answer {
    let Decision { verdict, ground, observed } =
        generation.decision(outcome.decision).expect("a decision of that number");
    assert_eq!(outcome.verdict, *verdict, "the leaf and the decision differ");
    Answer::Decided {
        verdict: *verdict,
        ground: name(generation, *ground),
        observed: observed.iter().map(|ground| name(generation, *ground)).collect(),
    }
}

fn name(generation: &Generation, ground: Ground) -> String {
    match ground {
        Ground::Rule { policy, .. } => {
            let (of, rule) = generation.rule(ground).expect("a rule that is there");
            assert_eq!(of.name, generation.policies[policy].name);
            format!("{}/{}", of.name, rule.name)
        }
        Ground::PolicyDefault { policy } => {
            format!("{}/default", generation.policies[policy].name)
        }
        Ground::Default => "default".to_owned(),
        Ground::Question => "question".to_owned(),
    }
}
