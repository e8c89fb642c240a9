//! Sockets that were open before the programs were attached: no hook saw who made them, so each is
//! charged to the first process that has it open, in the order of the processes' numbers.
//!
//! User space runs this twice. An accepted connection looks like one of the app's own but for its
//! port, at which somebody listens, and by the second time all listeners are known.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{file, seq_file},
    helpers::generated::{bpf_get_socket_cookie, bpf_seq_write, bpf_sock_from_file},
};
use firewall_common::{
    event::{OpenSocket, tcp},
    flow::{Address, TCP},
    layout::{Counter, Listener, SocketState, socket as flags},
};

use crate::{
    app,
    identity::member,
    maps::{LISTENERS, count},
    names, offset, policy, process, socket,
};

/// An open file of a process: `struct bpf_iter__task_file`.
#[repr(C)]
pub struct Visit {
    meta: *const Meta,
    task: *const c_void,
    fd: u64,
    file: *mut file,
}

/// `struct bpf_iter_meta`
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_MPTCP: u16 = 262;

/// Looks at one open file.
#[inline(always)]
pub fn visit(visit: &Visit) {
    // At the end both are null.
    if visit.task.is_null() || visit.file.is_null() {
        return;
    }
    // SAFETY: the kernel gives a file that it holds.
    let sock = unsafe { bpf_sock_from_file(visit.file) };
    if sock.is_null() {
        return;
    }
    let offset = offset!(socket_sk) as usize;
    // SAFETY: where the kernel's type information says that the member is; the verifier checks.
    let sk = unsafe { sock.cast::<u8>().add(offset).cast::<*mut c_void>().read_volatile() };
    if sk.is_null() {
        return;
    }
    let Some(netns) = netns(sk) else { return };
    let Some(state) = socket::state(sk) else {
        count(Counter::NoState);
        return;
    };
    if state.identity.kind == 0 {
        take_in(state, netns, visit.task);
    } else {
        // The next generation will ask for them, and a socket that is only sent on shows nobody.
        process::remember(visit.task);
    }
    let active = policy::active();
    if let Some(header) = policy::header(active) {
        app::find_class(active, header, state);
    }
    tell(visit, sk, state, active.generation());
}

/// The network namespace of a socket; `None` if it reaches no other hosts.
#[inline(always)]
fn netns(sk: *mut c_void) -> Option<u64> {
    let family: u16 = member(sk as u64, offset!(sock_family))?;
    match family {
        AF_INET | AF_INET6 => member(member(sk as u64, offset!(sock_net))?, offset!(net_cookie)),
        _ => None,
    }
}

/// Tells of a socket.
// Not inlined: the stack that it takes is none of the others'.
#[inline(never)]
fn tell(visit: &Visit, sk: *mut c_void, state: &mut SocketState, generation: u32) {
    let Some((mut open, family)) = describe(sk) else { return };
    if is_inbound(state, &open, family) {
        state.flags |= flags::INBOUND;
    }
    open.inbound = u8::from(state.flags & flags::INBOUND != 0);
    open.identity = state.identity;
    open.class = state.class as u32;
    open.generation = generation;
    // SAFETY: the file that user space reads, and a structure without padding. What does not fit is
    // taken again: the kernel then visits the file once more.
    unsafe {
        bpf_seq_write((*visit.meta).seq, (&raw const open).cast(), size_of::<OpenSocket>() as u32);
    }
}

/// What a socket is, but for whose; `None` if it reaches no other hosts.
#[inline(always)]
fn describe(sk: *mut c_void) -> Option<(OpenSocket, u32)> {
    let at = sk as u64;
    let family: u16 = member(at, offset!(sock_family))?;
    let (local, peer) = match family {
        AF_INET => {
            let v4 = |offset| member(at, offset).map(|bits| Address::v4(u32::from_be(bits)));
            (v4(offset!(sock_v4))?, v4(offset!(sock_peer_v4))?)
        }
        AF_INET6 => {
            let v6 = |offset| member(at, offset).map(Address::v6);
            (v6(offset!(sock_v6))?, v6(offset!(sock_peer_v6))?)
        }
        _ => return None,
    };
    let protocol: u16 = member(at, offset!(sock_protocol))?;
    let open = OpenSocket {
        // SAFETY: the helper takes a socket that the verifier knows.
        cookie: unsafe { bpf_get_socket_cookie(sk) },
        netns: netns(sk)?,
        local,
        peer,
        local_port: member(at, offset!(sock_port))?,
        peer_port: u16::from_be(member(at, offset!(sock_peer_port))?),
        protocol: if protocol == IPPROTO_MPTCP { TCP } else { protocol as u8 },
        state: member(at, offset!(sock_state))?,
        ..OpenSocket::default()
    };
    Some((open, u32::from(family)))
}

/// Charges a socket that is charged to nobody yet.
// Not inlined: as above.
#[inline(never)]
fn take_in(state: &mut SocketState, netns: u64, task: *const c_void) {
    // What the verifier knows as a pointer is no argument of a function: memory makes a number of it.
    state.socket = task as u64;
    // SAFETY: a plain read of what was just written; volatile, so that it is really read.
    let task = unsafe { (&raw const state.socket).read_volatile() };
    if process::charge(state, task).is_none() {
        count(Counter::UnknownApp);
        return;
    }
    state.socket = 0;
    state.netns = netns;
    names::note_app(state);
    // A verdict on nobody in particular holds no longer.
    // SAFETY: a plain write; volatile, so that it is one write of the whole word.
    unsafe { (&raw mut state.kept).write_volatile(0) };
}

/// Whether a TCP connection came from outside. Notes a listener.
#[inline(always)]
fn is_inbound(state: &SocketState, open: &OpenSocket, family: u32) -> bool {
    if open.protocol != TCP || open.state == tcp::CLOSE || state.flags & flags::CONNECTED != 0 {
        return false;
    }
    let mut at = Listener {
        netns: open.netns,
        address: open.local,
        port: u32::from(open.local_port),
        family,
    };
    if open.state == tcp::LISTEN {
        if LISTENERS.insert(&at, &1, 0).is_err() {
            count(Counter::NoListener);
        }
        return false;
    }
    if LISTENERS.get_ptr(&at).is_some() {
        return true;
    }
    at.address = if family == u32::from(AF_INET) { Address::v4(0) } else { Address::default() };
    LISTENERS.get_ptr(&at).is_some()
}
