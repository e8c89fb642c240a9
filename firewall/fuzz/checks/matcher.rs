//! Random policies, compiled, against an oracle that walks their rules.

#[path = "../../tests/matcher/agree.rs"]
mod agree;
#[path = "../../tests/matcher/generate.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod generate;
#[path = "../../tests/matcher/oracle.rs"]
mod oracle;

use std::cell::LazyCell;

use proptest::{
    strategy::{BoxedStrategy, Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Few, so that most bytes say what the policies are.
const DESTINATIONS: usize = 12;

thread_local! {
    static CASES: LazyCell<BoxedStrategy<generate::Case>> =
        const { LazyCell::new(|| generate::case(DESTINATIONS).boxed()) };
}

/// The bytes are the choices of the generator; behind the last one it always takes the first.
pub fn check(bytes: &[u8]) {
    let choices = TestRng::from_seed(RngAlgorithm::PassThrough, bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), choices);
    let Ok(case) = CASES.with(|cases| cases.new_tree(&mut runner)) else { return };
    let case = case.current();
    let held = agree::by_address(&case)
        .and_then(|()| agree::by_name(&case))
        .and_then(|()| agree::asked(&case))
        .and_then(|()| agree::unreachable(&case));
    if let Err(error) = held {
        panic!("{error} {case:#?}");
    }
}
