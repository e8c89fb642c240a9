//! The kernel programs, loaded and attached nowhere.

use std::io::Write as _;

use firewall::datapath::load::{Loaded, load};

/// `None`, with the reason told, where the kernel refuses; panics where that may not be.
#[expect(clippy::print_stderr, reason = "a test that passes without having run says so")]
pub fn loaded(object: &[u8], what: &str) -> Option<Loaded> {
    let reason = match load(object, 0) {
        Ok(loaded) => return Some(loaded),
        Err(error) => format!("{what}: {error}"),
    };
    let required = std::env::var_os("FIREWALL_REQUIRE_KERNEL");
    assert!(required.is_none_or(|value| value != "1"), "{reason}");
    eprintln!("skipped: {reason}");
    // Test runners hide the line above; `cargo xtask test` reads this one.
    if let Some(path) = std::env::var_os("FIREWALL_SKIP_LOG")
        && let Ok(mut log) = std::fs::File::options().append(true).open(path)
    {
        let line = reason.lines().next().unwrap_or_default();
        // One write, so that lines of tests side by side do not mix.
        let _ = log.write_all(format!("{line}\n").as_bytes());
    }
    None
}
