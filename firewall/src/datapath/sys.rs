//! System calls that nobody else has a wrapper for: `bpf(2)` commands, with layouts that are prefixes
//! of the kernel's `union bpf_attr`, a stable interface, and a socket option.

use std::{
    ffi::CString,
    io,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;

/// # Safety
/// `attr` has the layout that `command` reads, and its pointers are valid for what it does.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: as the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes elements of an array map, from `first` on.
pub fn write_array<T: Copy>(map: BorrowedFd<'_>, first: u32, values: &[T]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        ..BatchAttr::default()
    };
    // SAFETY: both vectors live until the call returns and have `count` elements.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) }?;
    if attr.count as usize == values.len() {
        Ok(())
    } else {
        Err(io::Error::other(format!("wrote {} of {} elements", attr.count, values.len())))
    }
}

/// Reads an array map from some element on.
pub struct ArrayReader<'a> {
    map: BorrowedFd<'a>,
    position: Option<u32>,
}

impl<'a> ArrayReader<'a> {
    /// At the element `first`.
    pub const fn new(map: BorrowedFd<'a>, first: u32) -> Self {
        // Where the kernel is told that it was: it goes on with the next one.
        Self { map, position: first.checked_sub(1) }
    }

    /// The next `len` elements.
    pub fn next<T: Copy>(&mut self, len: usize) -> io::Result<Vec<T>> {
        let mut keys = vec![0u32; len];
        let mut values: Vec<T> = Vec::with_capacity(len);
        let position = self.position;
        let mut next = 0u32;
        let mut attr = BatchAttr {
            in_batch: position.as_ref().map_or(0, |position| (&raw const *position) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: len as u32,
            map_fd: self.map.as_raw_fd() as u32,
            ..BatchAttr::default()
        };
        // SAFETY: both vectors have room for `len` elements and live until the call returns.
        match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) } {
            Ok(_) => {}
            // The kernel says so when it has reached the end.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
        if attr.count as usize != len {
            return Err(io::Error::other(format!("read {} of {len} elements", attr.count)));
        }
        // SAFETY: the kernel has written `len` elements of the map, whose value size is that of
        // `T`, a type of plain integers.
        unsafe { values.set_len(len) };
        self.position = Some(next);
        Ok(values)
    }
}

#[repr(C)]
struct NextKeyAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    next_key: u64,
}

/// About how many entries a hash map has, by going from key to key: a call for each. `most` is how many fit.
pub fn entries(map: BorrowedFd<'_>, key_size: usize, most: u32) -> io::Result<u32> {
    let mut key: Option<Vec<u8>> = None;
    let mut next = vec![0; key_size];
    let mut first = Vec::new();
    let mut count = 0;
    // Where a key goes while it is stood upon, the kernel begins with the first one again.
    for _ in 0..u64::from(most) * 4 {
        let mut attr = NextKeyAttr {
            map_fd: map.as_raw_fd() as u32,
            _pad: 0,
            key: key.as_ref().map_or(0, |key| key.as_ptr() as u64),
            next_key: next.as_mut_ptr() as u64,
        };
        // SAFETY: both have as many bytes as a key of the map, and live until the call returns.
        match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        match first.is_empty() {
            true => first.clone_from(&next),
            false if first == next => count = 0,
            false => {}
        }
        count += 1;
        match &mut key {
            Some(key) => key.copy_from_slice(&next),
            None => key = Some(next.clone()),
        }
    }
    Ok(count.min(most))
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// What a test run gave.
#[derive(Clone, Copy, Debug)]
pub struct TestRun {
    /// What the program returned, the last time.
    pub returned: u32,
    /// Mean nanoseconds of one run, as the kernel counts.
    pub nanoseconds: u32,
}

/// Runs a packet program on `frame`, an Ethernet frame, in one socket made for the call.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<TestRun> {
    let mut attr = TestRunAttr {
        prog_fd: program.as_raw_fd() as u32,
        data_in: frame.as_ptr() as u64,
        data_size_in: frame.len() as u32,
        repeat,
        ..TestRunAttr::default()
    };
    // SAFETY: the frame lives until the call returns.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(TestRun { returned: attr.retval, nanoseconds: attr.duration })
}

/// Cookie of the network namespace of this thread.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes up to `size` bytes to the cookie.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins a program, map or link in a bpf file system.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr = PinAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the path lives until the call returns.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(|_| ())
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct IteratorLinkAttr {
    link: LinkCreateAttr,
    info: u64,
    info_len: u32,
    _pad: u32,
}

#[repr(C)]
struct IteratorAttr {
    link_fd: u32,
    flags: u32,
}

const BPF_ITER_CREATE: libc::c_int = 33;
/// `BPF_TRACE_ITER`
const TRACE_ITER: u32 = 28;

/// Makes a way through a map: to read it is to run the program over every element.
pub fn iterate_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info` is the descriptor of the map.
    let info = map.as_raw_fd() as u32;
    let link = LinkCreateAttr {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: TRACE_ITER,
        ..LinkCreateAttr::default()
    };
    let mut attr = IteratorLinkAttr {
        link,
        info: (&raw const info) as u64,
        info_len: size_of::<u32>() as u32,
        _pad: 0,
    };
    // SAFETY: the descriptor lives until the call returns.
    let link = unsafe { bpf(BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    let link = unsafe { OwnedFd::from_raw_fd(link as i32) };
    let mut attr = IteratorAttr { link_fd: link.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the attribute has no pointers.
    let way = unsafe { bpf(BPF_ITER_CREATE, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(way as i32) })
}

/// `MEMBARRIER_CMD_GLOBAL`
const MEMBARRIER_GLOBAL: libc::c_int = 1;

/// Waits until no kernel program runs any more that has begun before: the call returns after a grace
/// period of RCU, in which they all run. A kernel with `nohz_full` does not have it; there programs
/// that were interrupted for all the time that a generation takes to build are not waited for.
pub fn wait_for_programs() {
    // SAFETY: takes integers alone.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
}

const BPF_LINK_CREATE: libc::c_int = 28;

/// Attaches a program to a cgroup by a link: it holds as long as the link or a pin of it does.
pub fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    link(program, cgroup.as_raw_fd() as u32, attach_type)
}

fn link(program: BorrowedFd<'_>, target: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: target,
        attach_type,
        flags: 0,
    };
    // SAFETY: the attribute has no pointers.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct RawTracepointAttr {
    name: u64,
    prog_fd: u32,
    _pad: u32,
}

const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;

/// Attaches a program to a raw tracepoint.
pub fn open_raw_tracepoint(program: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let mut attr = RawTracepointAttr {
        name: name.as_ptr() as u64,
        prog_fd: program.as_raw_fd() as u32,
        _pad: 0,
    };
    // SAFETY: the name lives until the call returns.
    let fd = unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

const BPF_OBJ_GET: libc::c_int = 7;

/// Opens what is pinned at a path.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr = PinAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the path lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with what it has of a link to a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// Of `enum bpf_link_type`.
    pub kind: u32,
    /// The link.
    pub id: u32,
    /// The program that it holds.
    pub program: u32,
    _pad: u32,
    /// Inode number of the cgroup's directory; 0 if the cgroup is gone.
    pub cgroup: u64,
    /// Of `enum bpf_attach_type`.
    pub attach_type: u32,
    _pad2: u32,
}

/// `BPF_LINK_TYPE_CGROUP`
pub const LINK_TO_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_TCX`
const LINK_TO_INTERFACE: u32 = 11;
/// `BPF_TCX_EGRESS`
const TCX_EGRESS: u32 = 47;

impl LinkInfo {
    /// Index of the interface whose egress it is at; 0 if that is gone.
    pub const fn interface(&self) -> Option<u32> {
        // Of such a link there are two words in the place of the inode number: index and attach type.
        let [index, attach_type] = words(self.cgroup);
        if self.kind == LINK_TO_INTERFACE && attach_type == TCX_EGRESS { Some(index) } else { None }
    }
}

/// The two words of a number, in the order of memory.
const fn words(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// Attaches a program to the egress of an interface, behind those that are there.
pub fn link_interface(program: BorrowedFd<'_>, index: u32) -> io::Result<OwnedFd> {
    link(program, index, TCX_EGRESS)
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// What the kernel says of a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes up to `info_len` bytes to `info`, which lives until the call returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

const BPF_LINK_UPDATE: libc::c_int = 29;

/// Puts another program in the place of the one that a link holds, at once. The kernel checks no more
/// than its type: the attach type is the caller's to look at.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attribute has no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(|_| ())
}

const BPF_LINK_DETACH: libc::c_int = 34;

/// Takes a program off its cgroup, whoever holds the link.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = link.as_raw_fd();
    // SAFETY: the attribute is the descriptor alone.
    unsafe { bpf(BPF_LINK_DETACH, &mut fd) }.map(|_| ())
}
