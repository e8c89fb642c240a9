//! The kernel side of the firewall.
//!
//! ```text
//! connect, sendmsg ─┐
//!                   ├─ identity ─ policy::judge ─ socket state ─ emit
//! packet (egress) ──┘                  ▲
//!   └─ inspect: questions, hellos ─────┤
//! packet (ingress): answers ─ names ───┘
//!
//! frame (interface, where it was at no cgroup): backstop ─ policy::judge ─ emit
//! ```
//!
//! A verdict is computed before anything is written about it, so a full ring buffer loses events
//! and never opens or closes the gate.
#![no_std]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what is given to a map by value goes over the stack, which is small"
)]

pub mod answers;
pub mod app;
pub mod backstop;
pub mod bytes;
pub mod connect;
pub mod dns;
pub mod egress;
pub mod emit;
pub mod exec;
pub mod held;
pub mod identity;
pub mod inspect;
pub mod maps;
pub mod names;
pub mod open;
pub mod packet;
pub mod path;
pub mod payload;
pub mod policy;
pub mod process;
pub mod quic;
pub mod repeat;
pub mod scratch;
pub mod script;
pub mod socket;
pub mod sockopt;
pub mod stream;
pub mod tell;

/// Required in an eBPF program's object, where nothing can be printed and nothing unwinds.
#[macro_export]
macro_rules! object {
    () => {
        #[cfg(target_arch = "bpf")]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            loop {}
        }

        /// `bpf_probe_read_kernel` and others are only for programs under a GPL-compatible
        /// licence.
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
