//! `setsockopt()`: what would let an app send from an address that is not this machine's, and, where
//! there is a backstop, past that.
//!
//! Nothing it sends with such a source gets past the other hooks. But a packet to one of the
//! machine's own addresses is answered by the kernel, and the answer goes to that source, from a
//! socket that is in no app's cgroup.

use aya_ebpf::programs::SockoptContext;
use firewall_common::layout::flags;

use crate::policy;

const SOL_IP: i32 = 0;
const IP_FREEBIND: i32 = 15;
const IP_TRANSPARENT: i32 = 19;
const SOL_IPV6: i32 = 41;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_FREEBIND: i32 = 78;
const SOL_PACKET: i32 = 263;
/// Frames go to the driver at once.
const PACKET_QDISC_BYPASS: i32 = 20;
const SOL_XDP: i32 = 283;
/// Memory for frames, without which an `AF_XDP` socket sends none: all that it sends goes to the driver.
const XDP_UMEM_REG: i32 = 4;

/// 1 lets the call go on, 0 fails it with EPERM.
#[inline(always)]
pub fn judge(ctx: &SockoptContext) -> i32 {
    // SAFETY: reading context members.
    let (level, option) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname) };
    let refused = match level {
        SOL_IP => option == IP_FREEBIND || option == IP_TRANSPARENT,
        SOL_IPV6 => option == IPV6_FREEBIND || option == IPV6_TRANSPARENT,
        SOL_PACKET => option == PACKET_QDISC_BYPASS && has_backstop(),
        SOL_XDP => option == XDP_UMEM_REG && has_backstop(),
        _ => false,
    };
    i32::from(!refused)
}

#[inline(always)]
fn has_backstop() -> bool {
    policy::header(policy::active()).is_some_and(|header| header.flags & flags::BACKSTOP != 0)
}
