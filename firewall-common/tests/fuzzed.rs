//! What fuzzing found, once more.
#![expect(clippy::unwrap_used, reason = "tests panic")]

mod message;
mod stream;

use std::{fs, path::Path};

#[test]
fn regressions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let mut seen = 0;
    let mut replay = |target: &str, check: fn(&[u8])| {
        for file in fs::read_dir(folder.join(target)).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            check(&fs::read(path).unwrap());
            seen += 1;
        }
    };
    replay("tls", stream::check);
    replay("http", stream::check);
    replay("dns", message::check);
    assert!(seen > 0, "no files in {}", folder.display());
}
