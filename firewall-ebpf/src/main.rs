//! Entry points of the kernel programs.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros drop the comments of what they wrap")]

use aya_ebpf::{
    macros::{
        cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier, raw_tracepoint,
        sock_ops,
    },
    programs::{
        RawTracePointContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext,
        SockoptContext, TcContext,
    },
};
use firewall_common::verdict::Hook;
use firewall_ebpf::{
    answers, backstop as interface, bytes, connect, egress as packet, exec, inspect, open,
    quic as datagram, script, socket, sockopt, tell as told,
};

firewall_ebpf::object!();

/// `connect()` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::v4(&ctx, Hook::Connect)
}

/// `connect()` to an IPv6 address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::v6(&ctx, Hook::Connect)
}

/// `sendmsg()` to an IPv4 address on a UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    connect::v4(&ctx, Hook::Sendmsg)
}

/// `sendmsg()` to an IPv6 address on a UDP socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    connect::v6(&ctx, Hook::Sendmsg)
}

/// Every packet of a local socket.
// A jump out of a function would leave the verifier without knowing what is returned.
#[cgroup_skb(egress)]
#[inline(always)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet::judge(&ctx, |_, _| {})
}

/// The payload of a packet that the program above does not decide about alone.
#[cgroup_skb(egress)]
pub fn payload(ctx: SkBuffContext) -> i32 {
    inspect::inspect(&ctx)
}

/// A datagram that can be QUIC.
#[cgroup_skb(egress)]
pub fn quic(ctx: SkBuffContext) -> i32 {
    datagram::inspect(&ctx)
}

/// Run by hand: what user space has found out.
#[cgroup_skb(egress)]
pub fn tell(ctx: SkBuffContext) -> i32 {
    told::tell(&ctx)
}

/// Every packet for a local socket.
#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    answers::arrived(&ctx)
}

/// Every frame that leaves by an Ethernet interface.
#[classifier]
pub fn backstop(ctx: TcContext) -> i32 {
    interface::judge(&ctx, interface::ethernet)
}

/// Every packet that leaves by an interface without a header of its own, as a tunnel's.
#[classifier]
pub fn backstop_bare(ctx: TcContext) -> i32 {
    interface::judge(&ctx, interface::bare)
}

/// `socket()`.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    socket::created(&ctx);
    1
}

/// The last `close()`.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    socket::released(&ctx);
    1
}

/// `setsockopt()`.
#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    sockopt::judge(&ctx)
}

/// Events of TCP connections.
#[sock_ops]
pub fn tcp_event(ctx: SockOpsContext) -> u32 {
    socket::tcp_event(&ctx);
    1
}

/// A program was started.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_path(ctx: RawTracePointContext) -> i32 {
    exec::executed(&ctx);
    0
}

/// A process or thread was made.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork(ctx: RawTracePointContext) -> i32 {
    script::forked(&ctx);
    0
}

/// Run by hand: every socket with a state.
// aya has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub fn moved_bytes(ctx: &bytes::Visit) -> i32 {
    bytes::visit(ctx);
    0
}

/// Run by hand: every open file of every process.
// aya has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub fn open_files(ctx: &open::Visit) -> i32 {
    open::visit(ctx);
    0
}
