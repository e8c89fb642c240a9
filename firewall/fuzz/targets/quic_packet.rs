//! Any bytes as datagrams of QUIC.
#![no_main]

#[path = "../checks/quic.rs"]
mod quic;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quic::packets(bytes));
