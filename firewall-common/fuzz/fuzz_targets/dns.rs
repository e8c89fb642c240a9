//! Names at any place of a DNS message, whatever lies behind it.
#![no_main]

#[path = "../../tests/message/mod.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::check(bytes));
