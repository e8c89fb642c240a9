//! The one matcher: against an oracle that walks the rules, and in the kernel against user space.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod agree;
mod frames;
mod generate;
#[path = "../support/loaded.rs"]
mod loaded;
mod oracle;
mod parity;

use std::cell::RefCell;

use firewall_common::{app::Kind, verdict::Verdict};
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
    check(512, &generate::case(64), |case| agree::by_address(&case));
}

#[test]
fn the_tables_say_what_the_rules_say_of_names() {
    check(768, &generate::case(64), |case| agree::by_name(&case));
}

#[test]
fn a_question_gets_what_the_rules_say_of_names() {
    check(96, &generate::case(64), |case| agree::asked(&case));
}

#[test]
fn a_rule_said_to_be_unreachable_is_never_reached() {
    let told = RefCell::new(0);
    check(256, &generate::case(64), |case| {
        *told.borrow_mut() += agree::unreachable(&case)?;
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
