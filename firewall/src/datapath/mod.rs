//! The way into the kernel: load the programs, fill their maps, attach and pin them.

pub mod apply;
pub mod attach;
pub mod backstop;
pub mod bring;
pub mod btf;
pub mod bytes;
pub mod destroy;
pub mod iterate;
pub mod load;
pub mod maps;
pub mod pins;
pub mod plain;
pub mod probe;
pub mod sockets;
pub mod sys;
pub mod tell;

/// The kernel programs as built.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/firewall-ebpf"));
/// What `cargo xtask bench` measures.
pub static BENCH_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/firewall-bench"));
/// The compiler that built both.
pub const COMPILER: &str = env!("FIREWALL_EBPF_COMPILER");
