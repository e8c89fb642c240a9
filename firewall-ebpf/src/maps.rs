//! The maps. Their names are what user space looks for.

use aya_ebpf::{
    Global,
    btf_maps::{self, ArrayOfMaps, SkStorage},
    macros::{btf_map, map},
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use firewall_common::{
    evaluate::BLOCK,
    flow::SEEDS,
    layout::{
        Active, Counter, ExecutablePath, FileId, Header, INNER_MAP, MAX_EXECUTABLES, Offsets,
        RING_BYTES, SLOTS, SocketState, TEMPLATE_BLOCKS,
    },
};

/// One generation's blocks.
pub type Blocks = btf_maps::Array<[u32; BLOCK], TEMPLATE_BLOCKS, { INNER_MAP as usize }>;

/// Which generation decides.
#[map]
pub static ACTIVE: Array<Active> = Array::with_max_entries(1, 0);

/// By slot.
#[map]
pub static HEADERS: Array<Header> = Array::with_max_entries(SLOTS, 0);

/// By slot.
#[btf_map]
pub static BLOCKS: ArrayOfMaps<Blocks, { SLOTS as usize }> = ArrayOfMaps::new();

/// What is kept with a socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();

/// What user space is told.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// By [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Paths of the executables that were started.
#[map]
pub static EXECUTABLES: LruHashMap<FileId, ExecutablePath> =
    LruHashMap::with_max_entries(MAX_EXECUTABLES, 0);

/// Where a path is put together: too large for the stack.
#[map]
pub static PATH: PerCpuArray<ExecutablePath> = PerCpuArray::with_max_entries(1, 0);

/// From the running kernel's BTF, set when the object is loaded.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets {
    task_mm: 0,
    mm_exe_file: 0,
    file_inode: 0,
    file_dentry: 0,
    file_mnt: 0,
    inode_ino: 0,
    inode_sb: 0,
    sb_dev: 0,
    dentry_parent: 0,
    dentry_name: 0,
    mount_mnt: 0,
    mount_parent: 0,
    mount_mountpoint: 0,
    vfsmount_root: 0,
    sock_kern_byte: 0,
    sock_kern_mask: 0,
});

/// The cgroup whose execs are followed, by the inode number of its directory; 0 follows all. Set
/// when the object is loaded.
#[unsafe(no_mangle)]
pub static SCOPE: Global<u64> = Global::new(0);

/// Random numbers for [`firewall_common::flow::fingerprint`], set when the object is loaded.
#[unsafe(no_mangle)]
pub static SEED: Global<[u64; SEEDS]> = Global::new([0; SEEDS]);

/// One of [`SEED`]; all of them at once would go over the stack.
#[inline(always)]
pub fn seed(index: usize) -> u64 {
    let seeds = (&raw const SEED).cast::<u64>();
    // SAFETY: the only callers are unrolled loops up to `SEEDS`; volatile, because the loader
    // writes the numbers.
    unsafe { seeds.add(index).read_volatile() }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer is to this CPU's own value, which lives as long as the map. An
        // interrupt that counts in between can take one away: counters are no ground of a verdict.
        unsafe { *value = (*value).wrapping_add(1) }
    }
}
