//! Programs at the egress of network interfaces (tcx), for what leaves by them without having been in a
//! cgroup. Interfaces come and go, and the programs with them.
//!
//! Of the network namespace of who follows them. The loopback is left out: nothing leaves by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::programs::SchedClassifier;
use nix::net::if_::if_nameindex;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
        sockopt,
    },
};

use super::{
    attach::pin_over,
    load::{self, Loaded},
    sys,
};

/// What a frame of an interface begins with, by its type (`ARPHRD_…`, linux/if_arp.h).
#[derive(Clone, Copy)]
enum Kind {
    /// The header of Ethernet.
    Ethernet,
    /// The IP header.
    Bare,
    /// Something that the programs do not read.
    Other,
}

const ARPHRD_RAWIP: u16 = 519;

impl Kind {
    const fn of(kind: u16) -> Self {
        match kind {
            libc::ARPHRD_ETHER => Self::Ethernet,
            libc::ARPHRD_PPP
            | ARPHRD_RAWIP
            | libc::ARPHRD_NONE
            | libc::ARPHRD_TUNNEL
            | libc::ARPHRD_TUNNEL6
            | libc::ARPHRD_SIT => Self::Bare,
            _ => Self::Other,
        }
    }

    const fn program(self) -> Option<&'static str> {
        match self {
            Self::Ethernet => Some("backstop"),
            Self::Bare => Some("backstop_bare"),
            Self::Other => None,
        }
    }
}

/// A network interface.
struct Interface {
    name: String,
    kind: Kind,
}

/// Those of this network namespace by their index, without the loopback.
fn interfaces() -> io::Result<BTreeMap<u32, Interface>> {
    let mut found = BTreeMap::new();
    let all = if_nameindex()?;
    // Any socket of the network namespace will do to ask.
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    for interface in &all {
        let name = interface.name();
        match hardware_type(&socket, name) {
            Ok(libc::ARPHRD_LOOPBACK) => {}
            Ok(kind) => {
                let name = name.to_string_lossy().into_owned();
                found.insert(interface.index(), Interface { name, kind: Kind::of(kind) });
            }
            // It is gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `SIOCGIFHWADDR`, see netdevice(7).
fn hardware_type(socket: &OwnedFd, name: &CStr) -> io::Result<u16> {
    // SAFETY: made of integers and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the kernel reads the name and writes an address, both of them within the request.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has written it.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr }.sa_family)
}

/// Why an interface is without its program, or all are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The interfaces are not known.
    #[error("cannot look for network interfaces: {0}")]
    Interfaces(#[from] io::Error),
    /// A program cannot be loaded.
    #[error("cannot load the backstop: {0}")]
    Load(#[from] load::Error),
    /// Nobody knows how to read its frames.
    #[error("no backstop at {0}: its frames are neither those of Ethernet nor bare IP")]
    Kind(String),
    /// It cannot be attached.
    #[error("cannot attach the backstop to {interface}: {source}{}", hint(source))]
    Attach {
        /// Its name.
        interface: String,
        /// What the kernel says.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EINVAL) => " (programs at interfaces, tcx, came with Linux 6.6)",
        _ => "",
    }
}

/// What the link of an interface is pinned as.
fn pin(index: u32) -> String {
    format!("{PIN}{index}")
}

const PIN: &str = "backstop-";

/// Follows interfaces.
#[derive(Debug)]
pub struct Backstop {
    links: PathBuf,
    news: OwnedFd,
    /// Interfaces that have the programs of this build, by their index.
    done: BTreeSet<u32>,
    /// Those of which it was said that they have none.
    told: BTreeSet<u32>,
}

impl Backstop {
    /// With links pinned in a folder. Nothing is attached yet.
    ///
    /// # Errors
    /// The kernel does not tell of interfaces.
    pub fn new(links: PathBuf) -> Result<Self, Error> {
        /// `RTMGRP_LINK`
        const LINKS: u32 = 1;
        let news = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(io::Error::from)?;
        bind(&news, &netlink::SocketAddrNetlink::new(0, LINKS)).map_err(io::Error::from)?;
        // What is told is not read: that something was is enough.
        let _ = sockopt::set_socket_recv_buffer_size(&news, 0);
        Ok(Self { links, news, done: BTreeSet::new(), told: BTreeSet::new() })
    }

    /// To wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Gives each interface that is there its program. Returns why some have none, of each once.
    pub fn follow(&mut self, loaded: &mut Loaded) -> Vec<Error> {
        let mut byte = [0];
        // Until there is nothing more; that there was too much to tell is news too.
        while matches!(
            recv(&self.news, &mut byte, RecvFlags::empty()),
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR)
        ) {}
        let there = match interfaces() {
            Ok(there) => there,
            Err(error) => return vec![error.into()],
        };
        self.done.retain(|index| there.contains_key(index));
        self.told.retain(|index| there.contains_key(index));
        remove(&self.links, |index| !there.contains_key(&index));
        let mut failed = Vec::new();
        for (index, interface) in there {
            if self.done.contains(&index) {
                continue;
            }
            match self.attach(loaded, index, &interface) {
                Ok(()) => drop(self.done.insert(index)),
                Err(error) if self.told.insert(index) => failed.push(error),
                Err(_) => {}
            }
        }
        failed
    }

    fn attach(&self, loaded: &mut Loaded, index: u32, interface: &Interface) -> Result<(), Error> {
        let Some(program) = interface.kind.program() else {
            return Err(Error::Kind(interface.name.clone()));
        };
        let program = load(loaded, program)?;
        let failed = |source| Error::Attach { interface: interface.name.clone(), source };
        let pin = pin(index);
        if let Some(link) =
            sys::get(&self.links.join(&pin)).ok().filter(|link| is_at(link.as_fd(), index))
        {
            return sys::update_link(link.as_fd(), program).map_err(failed);
        }
        let link = sys::link_interface(program, index).map_err(failed)?;
        pin_over(&pin, &link, &self.links).map_err(|error| failed(io::Error::other(error)))
    }
}

fn is_at(link: BorrowedFd<'_>, index: u32) -> bool {
    sys::link_info(link).is_ok_and(|info| info.interface() == Some(index))
}

/// Loads one of the programs if that was not done yet: where there is no backstop nobody waits for it.
fn load<'a>(loaded: &'a mut Loaded, name: &'static str) -> Result<BorrowedFd<'a>, load::Error> {
    let failed = |source| load::Error::Program { name: name.to_owned(), source: Box::new(source) };
    let program = loaded.ebpf.program_mut(name).ok_or(load::Error::Missing(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    if program.fd().is_err() {
        program.load().map_err(failed)?;
    }
    Ok(program.fd().map_err(failed)?.as_fd())
}

/// Takes the programs off those interfaces whose index is `wanted`.
fn remove(links: &Path, wanted: impl Fn(u32) -> bool) {
    for entry in fs::read_dir(links).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let index = name.to_str().and_then(|name| name.strip_prefix(PIN)?.parse().ok());
        if index.is_some_and(&wanted) {
            // The interface can be in another network namespace by now.
            let _ = sys::get(&entry.path()).and_then(|link| sys::detach(link.as_fd()));
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Takes the programs off all interfaces.
pub fn remove_all(links: &Path) {
    remove(links, |_| true);
}

/// The interfaces, and whether each has its program by what is pinned.
///
/// # Errors
/// The interfaces are not known.
pub fn attached(links: &Path) -> io::Result<Vec<(String, bool)>> {
    let each = interfaces()?.into_iter().map(|(index, interface)| {
        let link = sys::get(&links.join(pin(index)));
        (interface.name, link.is_ok_and(|link| is_at(link.as_fd(), index)))
    });
    Ok(each.collect())
}

/// Whether the kernel has programs at interfaces, found out by trying one that is not there.
///
/// # Errors
/// It has not; or the program is refused.
pub fn probe(loaded: &mut Loaded) -> Result<(), Error> {
    let program = load(loaded, "backstop")?;
    match sys::link_interface(program, i32::MAX as u32) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(source) => Err(Error::Attach { interface: "any interface".to_owned(), source }),
        Ok(_) => Ok(()),
    }
}
