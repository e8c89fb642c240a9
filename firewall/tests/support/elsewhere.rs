//! Sending from another place: as another program, in another cgroup or namespace, by somebody else's
//! socket, below the sockets.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    client::{SCRIPT, TEST, addr, check, check_size, option, raw_send_to, sockaddr},
    packet,
};

pub fn act(words: &[&str]) -> io::Result<()> {
    match words {
        ["as", form, step @ ..] => as_program(form, &step.join(" ")),
        // Into another cgroup, and from there.
        ["leave", cgroup, step @ ..] => in_child(|| {
            fs::write(Path::new(cgroup).join("cgroup.procs"), "0")?;
            again(Path::new("/proc/self/exe"), &step.join(" "))
        }),
        // By a socket that somebody outside hands over.
        ["given", path, to] => {
            let there = UnixStream::connect(path)?;
            let fd = packet::receive_fd(there.as_raw_fd())?;
            raw_send_to(fd, b"x", 0, Some(addr(to)))
        }
        // By a socket that is taken from somebody outside.
        ["taken", pid, fd, to] => {
            let number = |text: &str| text.parse::<libc::c_long>().expect("a number");
            // SAFETY: takes integers alone.
            let other = unsafe { libc::syscall(libc::SYS_pidfd_open, number(pid), 0) };
            let other = check(other as i32)?;
            // SAFETY: takes integers alone.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, other, number(fd), 0) };
            raw_send_to(check(fd as i32)?, b"x", 0, Some(addr(to)))
        }
        // By somebody outside, who is asked.
        ["asked", name, to] => {
            let place = UnixAddr::from_abstract_name(name)?;
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&place)?;
            socket.send(to.as_bytes()).map(drop)
        }
        // From a user and a network namespace of its own, by a helper outside of these.
        ["contained", how, to] => contained(how, addr(to)),
        ["frame", to] => frame(c"wire0", addr(to)),
        ["framed", form, to] => framed(c"wire0", form, addr(to)),
        // The memory without which a socket below all others sends nothing.
        ["frames-by-xdp"] => xdp(),
        // A packet that comes in by a tunnel, and that this host forwards.
        ["tunnel", to] => tunnel(addr(to)),
        other => panic!("no such step: {other:?}"),
    }
}

/// This program once more, for one step.
fn again(program: &Path, step: &str) -> io::Result<()> {
    run(Command::new(program).args(["--exact", TEST]).env(SCRIPT, step))
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.stdin(std::process::Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ECHILD)) }
}

/// Runs a step as another program that is the same one.
fn as_program(form: &str, step: &str) -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    let folder = own.parent().expect("a folder");
    match form {
        "itself" => again(&own, step),
        "copy" => beside(&folder.join("copied"), |to| fs::copy(&own, to).map(drop), step),
        "link" => beside(&folder.join("linked"), |to| fs::hard_link(&own, to), step),
        "symbolic-link" => {
            beside(&folder.join("pointed"), |to| std::os::unix::fs::symlink(&own, to), step)
        }
        // The file goes by another name while it runs.
        "renamed" => {
            let other = folder.join("renamed");
            fs::rename(&own, &other)?;
            let done = again(Path::new("/proc/self/exe"), step);
            fs::rename(&other, &own)?;
            done
        }
        "memory" => {
            // SAFETY: the name is a string; the descriptor is nobody else's.
            let mut file =
                unsafe { File::from_raw_fd(check(libc::memfd_create(c"program".as_ptr(), 0))?) };
            file.write_all(&fs::read(&own)?)?;
            again(&PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), step)
        }
        "loader" => run(Command::new("/lib64/ld-linux-x86-64.so.2")
            .arg(&own)
            .args(["--exact", TEST])
            .env(SCRIPT, step)),
        // A copy that is mounted over the path, by who is root in a namespace of its own.
        "mounted" => {
            let other = folder.join("other");
            fs::copy(&own, &other)?;
            let before = ids();
            let done = in_child(|| {
                // SAFETY: takes integers alone.
                check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) })?;
                become_root(before)?;
                run(Command::new("mount").arg("--bind").args([&other, &own]))?;
                again(&own, step)
            });
            fs::remove_file(other)?;
            done
        }
        // Another library's code in this program.
        "preloaded" => {
            let library = folder.join("sends.so");
            if !library.exists() {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            run(Command::new(&own)
                .args(["--exact", TEST, "--quiet"])
                .env("LD_PRELOAD", library)
                .env("SENDS_TO", step)
                .env_remove(SCRIPT))
        }
        other => panic!("no such form: {other}"),
    }
}

fn beside(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>, step: &str) -> io::Result<()> {
    make(path)?;
    let done = again(path, step);
    fs::remove_file(path)?;
    done
}

/// Does something in a child, whose failure is ours.
fn in_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: this process has the test's thread and its main thread, which waits; the child ends by
    // itself.
    match check(unsafe { libc::fork() })? {
        0 => {
            let errno = work().err().map_or(0, |error| error.raw_os_error().unwrap_or(255));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(errno) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to an integer of our own.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
            match libc::WEXITSTATUS(status) {
                0 if libc::WIFEXITED(status) => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

/// Who one is outside.
fn ids() -> (u32, u32) {
    // SAFETY: takes nothing.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// In a user namespace that was just made, by who is this outside.
fn become_root((user, group): (u32, u32)) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// What rootless containers do: what leaves their tunnel, a helper sends by a socket of its own.
fn contained(how: &str, to: SocketAddr) -> io::Result<()> {
    let (helper, inside) = UnixStream::pair()?;
    helper.set_read_timeout(Some(PATIENCE))?;
    // SAFETY: as in `in_child`.
    let child = check(unsafe { libc::fork() })?;
    if child == 0 {
        let done = inside_of_namespace(&inside, how, to);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(done.err().map_or(0, |error| error.raw_os_error().unwrap_or(255))) }
    }
    drop(inside);
    let carried = carry(&helper, to);
    let mut status = 0;
    // SAFETY: the pointer is to an integer of our own.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    match libc::WEXITSTATUS(status) {
        0 => carried,
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn inside_of_namespace(helper: &UnixStream, how: &str, to: SocketAddr) -> io::Result<()> {
    let before = ids();
    // SAFETY: takes integers alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    become_root(before)?;
    let tunnel = open_tunnel("tap0")?;
    let (own, all) =
        if to.is_ipv4() { ("192.0.2.1/24", "0.0.0.0/0") } else { ("2001:db8::1/64", "::/0") };
    ip(&["link", "set", "tap0", "up"])?;
    ip(&["address", "add", own, "dev", "tap0"])?;
    ip(&["route", "add", all, "dev", "tap0"])?;
    packet::send_fd(helper.as_raw_fd(), tunnel.as_raw_fd())?;
    // By a socket, whose packets are judged here already, or below them.
    let socket = UdpSocket::bind((any(to), 0))?;
    // An address that has just come may not be usable yet.
    for _ in 0..10 {
        let sent = match how {
            "frame" => frame(c"tap0", to),
            _ => socket.send_to(b"datagram", to).map(drop),
        };
        match sent {
            Err(error) if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(2);

fn any(to: SocketAddr) -> &'static str {
    if to.is_ipv4() { "0.0.0.0" } else { "::" }
}

/// Reads what leaves the tunnel, and sends the datagrams to that place on.
fn carry(helper: &UnixStream, to: SocketAddr) -> io::Result<()> {
    let fd = packet::receive_fd(helper.as_raw_fd())?;
    // SAFETY: just received, and nobody else has it.
    let mut tunnel = unsafe { File::from_raw_fd(fd) };
    // SAFETY: takes integers alone.
    check(unsafe { libc::fcntl(tunnel.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    let socket = UdpSocket::bind((any(to), 0))?;
    let mut packet = [0; 2048];
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match tunnel.read(&mut packet) {
            // What IPv6 says to find its neighbours is in the way.
            Ok(length) if packet[..length].ends_with(b"datagram") => {
                return socket.send_to(b"carried", to).map(drop);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENODATA))
}

/// Makes a tunnel, which is there as long as the file is open.
pub fn open_tunnel(name: &str) -> io::Result<File> {
    /// `linux/if_tun.h`
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let tunnel = File::options().read(true).write(true).open("/dev/net/tun")?;
    // `struct ifreq`: a name of 16 bytes, then flags: IFF_TUN, IFF_NO_PI.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&0x1001_u16.to_ne_bytes());
    // SAFETY: the kernel reads and writes one structure of this size.
    check(unsafe { libc::ioctl(tunnel.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) })?;
    Ok(tunnel)
}

fn ip(words: &[&str]) -> io::Result<()> {
    run(Command::new("ip").args(words))
}

/// By a packet socket, to everyone on the wire.
fn frame(interface: &CStr, to: SocketAddr) -> io::Result<()> {
    send_frame(interface, libc::SOCK_DGRAM, ethertype(to), &packet::form("plain", to), |_| Ok(()))
}

/// The same with a header of its own: behind tags, in a session of PPPoE, as something else than IP, or
/// past all that waits for its turn.
fn framed(interface: &CStr, form: &str, to: SocketAddr) -> io::Result<()> {
    const TAG: [u8; 4] = [0x81, 0x00, 0, 7];
    let kind = ethertype(to).to_be_bytes();
    let before: Vec<u8> = match form {
        "tagged" => [&TAG[..], &kind].concat(),
        "twice-tagged" => [&[0x88, 0xa8, 0, 7], &TAG[..], &kind].concat(),
        "pppoe" => {
            let protocol = if to.is_ipv4() { [0x00, 0x21] } else { [0x00, 0x57] };
            [&[0x88, 0x64, 0x11, 0, 0, 1, 0, 64], &protocol[..]].concat()
        }
        "other" => vec![0x88, 0xb6],
        "past" | "cut" => kind.to_vec(),
        other => panic!("no such form: {other}"),
    };
    let mut frame = [&[0xff; 6], &[2, 0, 0, 0, 0, 1], &before[..]].concat();
    frame.extend(packet::form("plain", to));
    if form == "cut" {
        frame.truncate(14 + 16);
    }
    send_frame(interface, libc::SOCK_RAW, libc::ETH_P_ALL as u16, &frame, |socket| match form {
        "past" => option(socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1),
        _ => Ok(()),
    })
}

const fn ethertype(to: SocketAddr) -> u16 {
    if to.is_ipv4() { libc::ETH_P_IP as u16 } else { libc::ETH_P_IPV6 as u16 }
}

fn send_frame(
    interface: &CStr,
    kind: libc::c_int,
    protocol: u16,
    frame: &[u8],
    prepare: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<()> {
    // SAFETY: takes integers alone.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    prepare(&socket)?;
    // SAFETY: a plain structure of integers, for which zeros are valid.
    let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    place.sll_family = libc::AF_PACKET as u16;
    place.sll_protocol = protocol.to_be();
    // SAFETY: the name ends with a zero.
    place.sll_ifindex = unsafe { libc::if_nametoindex(interface.as_ptr()) }.cast_signed();
    place.sll_halen = 6;
    place.sll_addr[..6].fill(0xff);
    // SAFETY: both pointers are valid for their lengths.
    check_size(unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const place).cast(),
            size_of_val(&place) as u32,
        )
    })
}

fn xdp() -> io::Result<()> {
    // SAFETY: takes integers alone.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // `struct xdp_umem_reg`: where, how long, by pieces of which size.
    let mut memory = vec![0_u8; 3 << 12];
    let place = memory.as_mut_ptr() as u64;
    let place = place.next_multiple_of(1 << 12);
    option(&socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &[place, 2 << 12, 1 << 12, 0])
}

fn tunnel(to: SocketAddr) -> io::Result<()> {
    let name = if to.is_ipv4() { "inside4" } else { "inside6" };
    let mut tunnel = open_tunnel(name)?;
    ip(&["link", "set", name, "up"])?;
    // One that may come in there, and is this host's business to forward.
    let (own, forward, source): (_, _, IpAddr) = match to {
        SocketAddr::V4(_) => ("192.0.2.1/24", "ipv4/ip_forward", "192.0.2.2".parse().expect("v4")),
        SocketAddr::V6(_) => {
            ("2001:db8::1/64", "ipv6/conf/all/forwarding", "2001:db8::2".parse().expect("v6"))
        }
    };
    ip(&["address", "add", own, "dev", name])?;
    fs::write(Path::new("/proc/sys/net").join(forward), "1")?;
    let mut bytes = packet::form("plain", to);
    packet::from(&mut bytes, source);
    tunnel.write_all(&bytes)?;
    std::thread::sleep(Duration::from_millis(200));
    fs::write(Path::new("/proc/sys/net").join(forward), "0")
}

/// An executable that anybody may read and run, for [`as_program`].
pub fn program_in(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::copy(super::own_program(), &path).expect("a copy of this program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our file");
    path
}
