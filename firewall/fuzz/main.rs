//! The fuzzer: the target that the environment names, or the list of all.
#![no_main]

mod checks;

use std::{process::exit, sync::OnceLock};

use checks::{TARGETS, Target};

/// Names the target.
const TARGET: &str = "FIREWALL_FUZZ_TARGET";

static CHOSEN: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: choose(),
    |bytes: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.check)(bytes);
        }
    }
);

/// Without a target there is nothing to do but to tell which there are, each with the bytes that an
/// input has at most.
fn choose() {
    let name = std::env::var(TARGET).unwrap_or_default();
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => {
            CHOSEN.get_or_init(|| target);
        }
        None => {
            for Target { name, longest, .. } in TARGETS {
                println!("{name}\t{longest}");
            }
            exit(i32::from(!name.is_empty()));
        }
    }
}
