//! The name in a ClientHello, however it is cut.
#![no_main]

#[path = "../../tests/stream/mod.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if bytes.first() == Some(&22) {
        stream::check(bytes);
    }
});
