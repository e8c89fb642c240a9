//! A program that runs beside a test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where servers are that are not on the path of an ordinary user.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Finds a program.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// A server of this test, ended when it is dropped.
pub(super) struct Program {
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts it, with all that it says in a file.
    pub(super) fn start(command: &mut Command, output: &Path) -> Self {
        let file = File::create(output).expect("a file for the program's output");
        let copy = file.try_clone().expect("a copy of a descriptor");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Self { child, output: output.to_owned() }
    }

    /// What it has said until now.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until it serves; panics with what it said if it does not get there.
    #[track_caller]
    pub(super) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let mut ended = None;
        let done = super::wait_until(Duration::from_secs(10), || {
            ended = self.child.try_wait().expect("waiting for a program");
            ended.is_some() || ready()
        });
        assert!(done && ended.is_none(), "{what} does not serve ({ended:?}): {}", self.output());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
