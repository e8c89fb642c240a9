//! io_uring by its system calls: one request at a time.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicU32, Ordering},
};

use super::client::{check, sockaddr};

const OP_SENDMSG: u8 = 9;
const OP_CONNECT: u8 = 16;
const OP_SEND: u8 = 26;
const OP_SEND_ZC: u8 = 47;
const GETEVENTS: u32 = 1;
const SQ_WAKEUP: u32 = 2;
/// A flag of the set-up.
const SQPOLL: u32 = 2;
const OFF_SQ_RING: i64 = 0;
const OFF_CQ_RING: i64 = 0x0800_0000;
const OFF_SQES: i64 = 0x1000_0000;

/// `struct io_uring_params`, its two structures of offsets as arrays.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    /// head, tail, mask, entries, flags, dropped, array, reserved and a user address.
    sq_off: [u32; 10],
    /// head, tail, mask, entries, overflow, cqes, …
    cq_off: [u32; 10],
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// Whether rings can be made here.
pub fn available() -> io::Result<()> {
    setup(Params::default()).map(|_| ())
}

pub fn connect(fd: RawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    let request = Submission {
        opcode: OP_CONNECT,
        fd,
        off: u64::from(length),
        addr: (&raw const address) as u64,
        ..Submission::default()
    };
    submit(request).map(|_| ())
}

pub fn send_msg(fd: RawFd, to: SocketAddr) -> io::Result<()> {
    let (mut address, length) = sockaddr(to);
    let mut data = *b"x";
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: a plain structure of integers and pointers, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let request = Submission {
        opcode: OP_SENDMSG,
        fd,
        addr: (&raw const message) as u64,
        len: 1,
        ..Submission::default()
    };
    submit(request).map(|_| ())
}

/// Sends by a connected socket. Returns how much of it.
pub fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    let request = Submission {
        opcode: OP_SEND,
        fd,
        addr: data.as_ptr() as u64,
        len: data.len() as u32,
        ..Submission::default()
    };
    submit(request)
}

/// A datagram whose bytes the kernel does not copy.
pub fn send_zero_copy(fd: RawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    let data = [b'x'; 512];
    let request = Submission {
        opcode: OP_SEND_ZC,
        fd,
        // The address and its length, which is behind two fields of two bytes.
        off: (&raw const address) as u64,
        rest: [u64::from(length) << 32, 0, 0],
        addr: data.as_ptr() as u64,
        len: 512,
        ..Submission::default()
    };
    submit(request).map(|_| ())
}

/// By a thread of the kernel that looks for requests by itself.
pub fn send_polled(fd: RawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    let request = Submission {
        opcode: OP_SEND,
        fd,
        off: (&raw const address) as u64,
        rest: [u64::from(length) << 32, 0, 0],
        addr: b"x".as_ptr() as u64,
        len: 1,
        ..Submission::default()
    };
    submit_to(setup(Params { flags: SQPOLL, sq_thread_idle: 1000, ..Params::default() })?, request)
        .map(|_| ())
}

fn setup(mut params: Params) -> io::Result<(OwnedFd, Params)> {
    // SAFETY: the kernel reads and writes one structure of this layout.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, &raw mut params) };
    let fd = check(fd as i32)?;
    // SAFETY: just made, and nobody else has it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, params))
}

/// Maps a part of the ring, which stays mapped until the process ends.
fn map(ring: &OwnedFd, offset: i64) -> io::Result<*mut u8> {
    // SAFETY: a new mapping of a page where the kernel has room; no memory of ours is touched.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ring.as_raw_fd(),
            offset,
        )
    };
    if place == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(place.cast()) }
}

/// Makes a request and waits for what it gives.
fn submit(request: Submission) -> io::Result<usize> {
    submit_to(setup(Params::default())?, request)
}

fn submit_to((ring, params): (OwnedFd, Params), request: Submission) -> io::Result<usize> {
    let (sq, cq) = (map(&ring, OFF_SQ_RING)?, map(&ring, OFF_CQ_RING)?);
    let entries = map(&ring, OFF_SQES)?;
    // SAFETY: the offsets are the kernel's own, into what it mapped; nobody else uses the ring.
    unsafe {
        entries.cast::<Submission>().write(request);
        sq.add(params.sq_off[6] as usize).cast::<u32>().write(0);
        (*sq.add(params.sq_off[1] as usize).cast::<AtomicU32>()).store(1, Ordering::Release);
        check(libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            1_u32,
            1_u32,
            GETEVENTS | if params.flags == SQPOLL { SQ_WAKEUP } else { 0 },
            0_usize,
            0_usize,
        ) as i32)?;
        let tail = (*cq.add(params.cq_off[1] as usize).cast::<AtomicU32>()).load(Ordering::Acquire);
        // Of what is not copied there may be word besides that its pages are free again.
        assert!(tail == 1 || tail == 2, "one request is done: {tail}");
        // `struct io_uring_cqe`: what was asked (8 bytes), then the result.
        let result = cq.add(params.cq_off[5] as usize + 8).cast::<i32>().read();
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) }
    }
}
