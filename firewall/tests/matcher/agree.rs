//! Whether the tables of a case say what its rules say.

use firewall::policy::{
    AppFacts, Mode,
    compile::{Decision, Generation, Ground},
};
use firewall_common::{
    evaluate::{Fault, Named, Outcome},
    flow::Destination,
    verdict::Verdict,
};
use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestCaseResult},
};

use super::{
    generate::{Case, Target},
    oracle::{Answer, Oracle},
};

/// Of destinations without a name.
pub fn by_address(case: &Case) -> TestCaseResult {
    let generation = case.compile();
    for (target, app) in case.targets.iter().zip(&case.apps) {
        let oracle = Oracle::new(case, app);
        let tables = answer(&generation, app, &target.destination(), &Named::default());
        prop_assert_eq!(tables, oracle.ask(*target), "{:?} {:?}", target, app);
    }
    Ok(())
}

/// Of destinations with names.
pub fn by_name(case: &Case) -> TestCaseResult {
    let generation = case.compile();
    for ((target, known), app) in case.targets.iter().zip(&case.known).zip(&case.apps) {
        let oracle = Oracle::new(case, app);
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
                let shown = Target { port, hidden: false, ..target };
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
            let same =
                wanted.any(|one| without_observed(case, &one) == without_observed(case, &tables));
            prop_assert!(same, "{:?} {}", tables, told());
        }
    }
    Ok(())
}

/// Of questions.
pub fn asked(case: &Case) -> TestCaseResult {
    let generation = case.compile();
    let known = case.known.iter().zip(&case.apps);
    let asked = known.flat_map(|(known, app)| known.names.iter().map(move |name| (name, app)));
    for (name, app) in asked.take(24) {
        let oracle = Oracle::new(case, app);
        let class = generation.class_of_app(app);
        let outcome = generation.question(class, name);
        let outcome = outcome.map_err(|_| TestCaseError::fail("damaged"))?;
        let tables = decided(&generation, outcome);
        prop_assert_eq!(tables, oracle.question(name), "{} {:?}", name, app);
    }
    Ok(())
}

/// No rule is reached that is said to be unreachable; how many are.
pub fn unreachable(case: &Case) -> Result<usize, TestCaseError> {
    let generation = case.compile();
    let unreachable: Vec<String> = generation
        .unreachable
        .iter()
        .map(|one| name(&generation, Ground::Rule { policy: one.policy, rule: one.rule }))
        .collect();
    for ((target, known), app) in case.targets.iter().zip(&case.known).zip(&case.apps) {
        let answer = Oracle::new(case, app).ask_known(*target, known, 0);
        let Answer::Decided { ground, observed, .. } = answer else { continue };
        for reached in observed.iter().chain([&ground]) {
            prop_assert!(!unreachable.contains(reached), "{} by {:?}", reached, target);
        }
    }
    Ok(unreachable.len())
}

/// The verdict and where the search for it ended.
fn without_observed(case: &Case, answer: &Answer) -> Option<(bool, String)> {
    let Answer::Decided { verdict, ground, observed } = answer else { return None };
    let observing = |name: &str| {
        let policy = name.split('/').next().unwrap();
        let mut policies = case.policies.iter();
        policies.any(|one| one.name == policy && one.mode == Mode::Observe)
    };
    match observed.last() {
        Some(last) if case.settings.observe && !observing(last) => Some((false, last.clone())),
        _ => Some((verdict.passes(), ground.clone())),
    }
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
