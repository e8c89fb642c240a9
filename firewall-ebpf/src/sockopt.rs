//! `setsockopt()`: what would let an app send from an address that is not this machine's.
//!
//! Nothing it sends with such a source gets past the other hooks. But a packet to one of the
//! machine's own addresses is answered by the kernel, and the answer goes to that source, from a
//! socket that is in no app's cgroup.

use aya_ebpf::programs::SockoptContext;

const SOL_IP: i32 = 0;
const IP_FREEBIND: i32 = 15;
const IP_TRANSPARENT: i32 = 19;
const SOL_IPV6: i32 = 41;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_FREEBIND: i32 = 78;

/// 1 lets the call go on, 0 fails it with EPERM.
#[inline(always)]
pub fn judge(ctx: &SockoptContext) -> i32 {
    // SAFETY: reading context members.
    let (level, option) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname) };
    let refused = match level {
        SOL_IP => option == IP_FREEBIND || option == IP_TRANSPARENT,
        SOL_IPV6 => option == IPV6_FREEBIND || option == IPV6_TRANSPARENT,
        _ => false,
    };
    i32::from(!refused)
}
