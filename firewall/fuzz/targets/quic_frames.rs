//! Any frames in packets of QUIC that can be opened.
#![no_main]

#[path = "../checks/quic.rs"]
mod quic;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    quic::frames(bytes);
});
