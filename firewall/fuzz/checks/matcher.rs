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
use sha2::{Digest as _, Sha256};

/// Few, so that most time goes into policies.
const DESTINATIONS: usize = 12;

thread_local! {
    static CASES: LazyCell<BoxedStrategy<generate::Case>> =
        const { LazyCell::new(|| generate::case(DESTINATIONS).boxed()) };
}

/// The bytes are the seed of the generator: as its choices themselves they would run out, and where it tries
/// again until something fits, it would never end.
pub fn check(bytes: &[u8]) {
    let choices = TestRng::from_seed(RngAlgorithm::ChaCha, &Sha256::digest(bytes));
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
