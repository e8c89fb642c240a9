//! Any text as a list in the format `geosite`.
#![no_main]

#[path = "../checks/lists.rs"]
mod lists;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lists::check(firewall::lists::Format::Geosite, bytes));
