//! `cargo xtask`: set-up, build, test, data and measurements.
fn main() {}
