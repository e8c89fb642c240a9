//! Any text as rules of another firewall, or as a list whose format its content tells.
#![no_main]

#[path = "../checks/lists.rs"]
mod lists;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lists::check_import(bytes));
