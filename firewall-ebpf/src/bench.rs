//! What `cargo xtask bench` measures: the code that is attached, beside an empty program.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros drop the comments of what they wrap")]

use aya_ebpf::{
    helpers::generated::bpf_get_prandom_u32, macros::cgroup_skb, programs::SkBuffContext,
};
use firewall_common::{event::app, flow::Address};
use firewall_ebpf::egress;

firewall_ebpf::object!();

/// Nothing at all: what a call of any program costs.
#[cgroup_skb(egress)]
pub fn bench_empty(_ctx: SkBuffContext) -> i32 {
    egress::PASS
}

/// As attached: with the same packet again and again, a flow that is decided.
#[cgroup_skb(egress)]
pub fn bench_decided(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |_, _| {})
}

/// A new flow with every packet: a random IPv4 address takes the place of the packet's own, and
/// its state is stored in the socket. As with every socket made under the firewall, its app is known
/// from before.
#[cgroup_skb(egress)]
pub fn bench_new_v4(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |packet, state| {
        state.identity.kind = app::PROCESS;
        packet.destination.address = Address::v4(random());
    })
}

/// A new flow with every packet, to a random IPv6 address in 2000::/6, where the world's are.
#[cgroup_skb(egress)]
pub fn bench_new_v6(ctx: SkBuffContext) -> i32 {
    egress::judge(&ctx, |packet, state| {
        state.identity.kind = app::PROCESS;
        let high = u64::from(random()) << 32 | u64::from(random());
        packet.destination.address = Address { high: 0x2 << 60 | high >> 6, low: 1 };
    })
}

/// What the random numbers alone cost, to be taken into account.
#[cgroup_skb(egress)]
pub fn bench_random(_ctx: SkBuffContext) -> i32 {
    if random() == 0 { egress::DROP } else { egress::PASS }
}

fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}
