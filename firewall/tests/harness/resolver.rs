//! Which name server a command asks.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The files that a command sees of its own.
const FILES: [&str; 3] = ["resolv.conf", "nsswitch.conf", "hosts"];

/// A name that `/etc/hosts` leads astray: who asks name servers does not look there.
pub const DECOY: &str = "decoy.example";

/// An `/etc/resolv.conf` for single commands. They see it in a mount namespace of their own; the
/// machine's own file is never written.
pub struct Resolver {
    directory: TempDir,
}

impl Resolver {
    /// Asks these servers, with the `options` of resolv.conf(5).
    pub fn new(servers: &[&str], options: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut text: String =
            servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        if !options.is_empty() {
            text.push_str(&format!("options {options}\n"));
        }
        let hosts = format!("127.0.0.1 localhost\n192.0.2.66 {DECOY}\n");
        for (name, text) in FILES.into_iter().zip([&*text, "hosts: dns\n", &*hosts]) {
            std::fs::write(directory.path().join(name), text).expect("a file");
        }
        Self { directory }
    }

    /// Makes a command see it, and so all that this command starts.
    pub fn enter<'command>(&self, command: &'command mut Command) -> &'command mut Command {
        let files: Vec<(CString, CString)> = FILES
            .into_iter()
            .map(|name| (self.directory.path().join(name), Path::new("/etc").join(name)))
            // Without a file there is nothing to mount on, and the standard is what is wanted.
            .filter(|(_, to)| to.exists())
            .map(|(from, to)| (c_string(&from), c_string(&to)))
            .collect();
        // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                check(libc::unshare(libc::CLONE_NEWNS))?;
                // Otherwise the mounts below could be seen outside.
                mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
                files.iter().try_for_each(|(from, to)| mount(Some(from), to, libc::MS_BIND))
            })
        }
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without zeros")
}

fn mount(
    from: Option<&std::ffi::CStr>,
    to: &std::ffi::CStr,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let from = from.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: the paths end with a NUL; a bind mount and a change of propagation take neither a
    // type nor data.
    check(unsafe { libc::mount(from, to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
