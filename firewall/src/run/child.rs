//! Starting the command: in its cgroup, as its user, with nothing inherited that gets around.

use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    io,
    os::{
        fd::RawFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::ExitStatus,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::SigSet,
    unistd::User,
};
use tokio::process::{Child, Command};

/// Exit status of a command that was found and could not be started.
const CANNOT_EXECUTE: u8 = 126;
/// Exit status of a command that was not found.
const NOT_FOUND: u8 = 127;

/// Why the command did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot run `{program}`: {source}")]
pub struct Error {
    program: String,
    source: io::Error,
}

impl Error {
    /// The exit status, as `env` has it.
    pub fn status(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE }
    }
}

/// Starts `command` behind `door`, the `cgroup.procs` of its cgroup, with the signals blocked that
/// are in `mask`.
pub fn start(
    command: &[OsString],
    door: File,
    user: Option<&User>,
    mask: SigSet,
) -> Result<Child, Error> {
    let (program, arguments) = command.split_first().ok_or_else(|| Error {
        program: String::new(),
        source: io::Error::from(io::ErrorKind::NotFound),
    })?;
    let mut child = Command::new(program);
    child.args(arguments).kill_on_drop(false);
    let identity = user.map(|user| {
        child.env("USER", &user.name).env("LOGNAME", &user.name).env("HOME", &user.dir);
        // A name with a NUL cannot come out of the user database.
        (CString::new(user.name.as_str()).unwrap_or_default(), user.uid, user.gid)
    });
    let mut filter = no_typing();
    // SAFETY: between fork and exec there are only system calls, and `initgroups`, which reads the
    // group database as `sudo` and `su` do at this point; this process has one thread.
    unsafe {
        child.as_std_mut().pre_exec(move || {
            // "0" is the writer itself: the command is in its cgroup before its first instruction.
            rustix::io::write(&door, b"0").map_err(|errno| entering(errno.into()))?;
            if let Some((name, uid, gid)) = &identity {
                nix::unistd::initgroups(name, *gid)?;
                nix::unistd::setgid(*gid)?;
                nix::unistd::setuid(*uid)?;
                confine(&mut filter)?;
            }
            // The standard library leaves it as it is here, where the signals are blocked that
            // this process takes.
            mask.thread_set_mask()?;
            Ok(())
        });
    }
    child.spawn().map_err(|source| Error { program: program.display().to_string(), source })
}

/// Keeps a command that runs as another user from becoming this one again: by a set-user-ID program
/// (sudo may still remember the password), or by typing into the terminal that both share.
fn confine(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter and its instructions live until the call returns, which copies them.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A seccomp filter that refuses to put input into a terminal.
///
/// Classic BPF over `struct seccomp_data`: the call's number at 0 and, of its second argument, the
/// request of an ioctl, the lower half at 24 (little-endian).
fn no_typing() -> Vec<libc::sock_filter> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal =
        |value, jt, jf| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value);
    let end = |action| statement(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    // Of this machine's own interface; on x86-64 also those of x32 and i386. Under these numbers
    // other calls of the other interfaces take no such second argument.
    let ioctl: &[u32] = if cfg!(target_arch = "x86_64") {
        &[libc::SYS_ioctl as u32, 0x4000_0000 | 514, 54]
    } else {
        &[libc::SYS_ioctl as u32]
    };
    let mut program = Vec::new();
    for number in ioctl {
        program.extend([
            load(0),
            equal(*number, 0, 4),
            load(24),
            equal(libc::TIOCSTI as u32, 1, 0),
            equal(libc::TIOCLINUX as u32, 0, 1),
            end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        ]);
    }
    program.push(end(libc::SECCOMP_RET_ALLOW));
    program
}

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn entering(source: io::Error) -> io::Error {
    // Kept an error with a number: only that crosses from the child to its parent.
    io::Error::from_raw_os_error(source.raw_os_error().unwrap_or(libc::EIO))
}

/// The exit status that stands for how the command ended: its own, or 128 + n for signal n.
pub fn status(ended: ExitStatus) -> u8 {
    let status = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(125)
}

/// Sockets to other hosts that this process was started with. They were made outside the cgroup,
/// so nothing that is sent on them would be judged: those the command would inherit by accident
/// are closed to it. Returns the ones that are its standard streams and stay.
pub fn close_inherited_sockets() -> io::Result<Inherited> {
    let mut inherited = Inherited::default();
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if !is_network_socket(fd) {
            continue;
        }
        if fd <= 2 {
            inherited.kept.push(fd);
            continue;
        }
        // SAFETY: the descriptor is open for the whole of this call; this process has one thread.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let flags = FdFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFD)?);
        if !flags.contains(FdFlag::FD_CLOEXEC) {
            fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            inherited.closed.push(fd);
        }
    }
    Ok(inherited)
}

/// Network sockets that were open from the start.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Closed to the command.
    pub closed: Vec<RawFd>,
    /// Standard streams, which the command gets as they are.
    pub kept: Vec<RawFd>,
}

/// Whether it is a socket of a family that can reach other hosts: not of files or kernel messages.
fn is_network_socket(fd: RawFd) -> bool {
    let mut domain: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option writes one integer; a descriptor that is no socket is an error.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut len,
        )
    };
    result == 0 && !matches!(domain, libc::AF_UNIX | libc::AF_NETLINK)
}

/// For messages: descriptors by number.
pub fn numbers(fds: &[RawFd]) -> String {
    fds.iter().map(RawFd::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_confined_cannot_type_into_a_terminal() {
        // Of this thread alone, which ends with the test.
        let tried = std::thread::spawn(|| {
            confine(&mut no_typing()).unwrap();
            let errno = |request| {
                let byte = b'x';
                // SAFETY: both requests read or write no more than an integer, and fail on what is
                // no terminal.
                match unsafe { libc::ioctl(-1, request, &raw const byte) } {
                    0 => 0,
                    _ => io::Error::last_os_error().raw_os_error().unwrap(),
                }
            };
            (errno(libc::TIOCSTI), errno(libc::TIOCLINUX), errno(libc::TIOCGPGRP))
        });
        assert_eq!(tried.join().unwrap(), (libc::EPERM, libc::EPERM, libc::EBADF));
    }
}
