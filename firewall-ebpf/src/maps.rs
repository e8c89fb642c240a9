//! The maps. Their names are what user space looks for.

use aya_ebpf::{
    Global,
    btf_maps::{self, ArrayOfMaps, SkStorage},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use firewall_common::{
    evaluate::{BLOCK, Named},
    flow::{Address, Destination, SEEDS},
    layout::{
        Active, AnswerKey, Answers, CHAIN, Connection, ConnectionKey, Counter, FileId, HELD_BYTES,
        Header, INNER_MAP, Listener, MAX_ADDRESSES, MAX_ANSWERS, MAX_CGROUPS, MAX_CONNECTIONS,
        MAX_EXECUTABLES, MAX_FORMER, MAX_LISTENERS, MAX_NAMES, MAX_PENDING, MAX_PROCESSES,
        MAX_SCRIPTS, MAX_UNOWNED, NameText, Offsets, PathText, PayloadState, Process, ProcessKey,
        Question, RING_BYTES, SCRATCHES, SLOTS, SocketState, Stream, TEMPLATE_BLOCKS, Told,
        Unowned,
    },
    name_table::Suffixes,
    parse::{
        args::Args,
        dns::{MESSAGE, NameReader},
        quic::Cid,
    },
};

use crate::policy::{Judgement, Who};

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

/// Further programs of the egress hook, by [`Jump`].
#[map]
pub static JUMPS: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Index of a program in [`JUMPS`].
pub enum Jump {
    /// Looks at the payload of a flow.
    Inspect = 0,
    /// Looks at a datagram that can be QUIC.
    Quic = 1,
}

/// Questions that wait for an answer.
#[map]
pub static QUESTIONS: Array<Question> = Array::with_max_entries(MAX_PENDING, 0);

/// The names of addresses.
#[map]
pub static ANSWERS: LruHashMap<AnswerKey, Answers> = LruHashMap::with_max_entries(MAX_ANSWERS, 0);

/// What [`ANSWERS`] had before a name was brought over to another generation: a program that is at
/// work has chosen its generation already.
#[map]
pub static FORMER: LruHashMap<AnswerKey, Answers> = LruHashMap::with_max_entries(MAX_FORMER, 0);

/// Bits by a hash of the address: 0 where [`ANSWERS`] never had an entry. Of most addresses no
/// name is known, and this says so without the wait for the memory of so large a map.
#[map]
pub static KNOWN: Array<u64> = Array::with_max_entries(MAX_ANSWERS / 8, 0);

/// Names as text, by their hash.
#[map]
pub static NAMES: LruHashMap<u64, NameText> = LruHashMap::with_max_entries(MAX_NAMES, 0);

/// What a socket has sent of a DNS message over TCP.
#[btf_map]
pub static ASKED: SkStorage<Stream> = SkStorage::new();

/// What a socket has received of a DNS message over TCP.
#[btf_map]
pub static ANSWERED: SkStorage<Stream> = SkStorage::new();

/// What a socket has sent first.
#[btf_map]
pub static PAYLOADS: SkStorage<PayloadState> = SkStorage::new();

/// Connections of QUIC, and the flows that have some.
#[map]
pub static CONNECTIONS: LruHashMap<ConnectionKey, Connection> =
    LruHashMap::with_max_entries(MAX_CONNECTIONS, 0);

/// Datagrams for user space to read: [`firewall_common::layout::Held`].
#[map]
pub static HELD: RingBuf = RingBuf::with_byte_size(HELD_BYTES, 0);

/// When the reader of [`HELD`] last gave a sign, on the monotonic clock: it has not been away while the
/// machine slept.
#[map]
pub static READER: Array<u64> = Array::with_max_entries(1, 0);

/// When the next datagram of an app may be held, by a hash of the app: see [`crate::held`].
#[map]
pub static BUDGETS: Array<u64> = Array::with_max_entries(MAX_BUDGETS, 0);

/// Apps whose datagrams are counted apart.
pub const MAX_BUDGETS: u32 = 1024;

/// Where messages are read.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCHES, 0);

/// An address of an answer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Led {
    /// The address.
    pub to: Address,
    /// How long it holds, in seconds.
    pub lifetime: u64,
}

/// How far a path has been put together or followed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    /// The directory entry or the cgroup's node that comes next.
    pub next: u64,
    /// The mount that it is in.
    pub mount: u64,
    /// What came of it.
    pub found: u32,
    /// Where the next byte is.
    pub at: u32,
    /// The [`firewall_common::evaluate::Cell`] that has been reached.
    pub cell: u32,
    /// Where the next byte was when the machine's own root was passed.
    pub root_at: u32,
}

/// What a program needs to read a DNS message and to say what comes of it.
#[repr(C)]
pub struct Scratch {
    /// 1 while a program has it.
    pub busy: u64,
    /// The generation's slot.
    pub slot: u32,
    /// The generation.
    pub generation: u32,
    /// The app.
    pub app: u64,
    /// Where the packet comes from.
    pub src: Address,
    /// Port of the source.
    pub src_port: u32,
    /// Port of the socket.
    pub own_port: u32,
    /// As of [`firewall_common::parse::ip::Packet::plain`].
    pub plain: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// As of [`crate::names::service`].
    pub service: u32,
    /// The server.
    pub server: Address,
    /// Port of the server.
    pub port: u32,
    /// IANA protocol number.
    pub protocol: u32,
    /// Whether the server is a trusted resolver.
    pub trusted: u32,
    /// Bytes of the message.
    pub len: u32,
    /// How many addresses the answer has.
    pub addresses: u32,
    /// How many names its chain has.
    pub aliases: u32,
    /// Where the name asked for and those of the chain were read; 0 is nowhere.
    pub places: [u32; 1 + CHAIN],
    /// The last name of the chain.
    pub last: u64,
    /// Zero, or more names than fit.
    pub more: u32,
    /// Seconds of the boot-time clock.
    pub now: u32,
    /// The name asked for, by its hash.
    pub name: u64,
    /// Its class.
    pub class: u32,
    /// The name of the question that stands.
    pub known: u64,
    /// What rules know of the name asked for.
    pub named: Named,
    /// What came of the questions so far: the leaf of the one that stands, or what
    /// [`crate::dns`] has in its place.
    pub result: u32,
    /// [`firewall_common::verdict::Hook`] of the judgement.
    pub hook: u32,
    /// What came of the packet.
    pub judgement: Judgement,
    /// 1 if user space records the flow.
    pub told: u32,
    /// Of [`firewall_common::layout::flags`].
    pub flags: u32,
    /// The class of the app, with its generation above.
    pub app_class: u64,
    /// A process that is looked at.
    pub process: Process,
    /// A path that is put together or followed.
    pub path: PathText,
    /// How far that has come.
    pub walk: Walk,
    /// What was read of arguments.
    pub args: Args,
    /// Where a packet of QUIC goes.
    pub cid: Cid,
    /// The connection that is looked up.
    pub key: ConnectionKey,
    /// What is written for it.
    pub connection: Connection,
    /// What user space tells.
    pub tells: Told,
    /// The name asked for.
    pub asked: NameText,
    /// Another name.
    pub alias: NameText,
    /// Of the name that is being read.
    pub reader: NameReader,
    /// Of the name that was read last.
    pub suffixes: Suffixes,
    /// What is written for an address of which nothing was known.
    pub fresh: Answers,
    /// What the answer leads to.
    pub led: [Led; MAX_ADDRESSES],
    /// The message.
    pub message: [u8; MESSAGE],
}

impl Scratch {
    /// Whose packet it is.
    #[inline(always)]
    pub fn who(&self) -> Who<'_> {
        Who { app: &self.app, class: &self.app_class }
    }

    /// Where the message goes, or where an answer comes from.
    #[inline(always)]
    pub fn destination(&self) -> Destination {
        Destination {
            address: self.server,
            port: self.port as u16,
            protocol: self.protocol as u8,
            port_hidden: 0,
        }
    }
}

/// What user space is told.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// When an event has last woken who reads, on the boot-time clock.
#[map]
pub static WOKEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// By [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Paths of executables that were started or have used a socket.
#[map]
pub static EXECUTABLES: LruHashMap<FileId, PathText> =
    LruHashMap::with_max_entries(MAX_EXECUTABLES, 0);

/// Paths of cgroups whose processes have used a socket, by the inode number of the directory.
#[map]
pub static CGROUPS: LruHashMap<u64, PathText> = LruHashMap::with_max_entries(MAX_CGROUPS, 0);

/// Paths of scripts that interpreters run; of an interpreter that runs none, no path.
#[map]
pub static SCRIPTS: LruHashMap<ProcessKey, PathText> = LruHashMap::with_max_entries(MAX_SCRIPTS, 0);

/// Processes that have used a socket.
#[map]
pub static PROCESSES: LruHashMap<ProcessKey, Process> =
    LruHashMap::with_max_entries(MAX_PROCESSES, 0);

/// Where somebody listened before the programs were attached: a set.
#[map]
pub static LISTENERS: HashMap<Listener, u8> = HashMap::with_max_entries(MAX_LISTENERS, 0);

/// What is told of flows without a socket. No verdict rests on it.
#[map]
pub static UNOWNED: LruHashMap<Unowned, SocketState> = LruHashMap::with_max_entries(MAX_UNOWNED, 0);

/// Where the machine's own root directory is in the kernel's memory, as a number.
#[map]
pub static ROOT: Array<u64> = Array::with_max_entries(1, 0);

/// The process that asks for names on behalf of the firewall, denied ones among them.
#[map]
pub static OWN: Array<ProcessKey> = Array::with_max_entries(1, 0);

/// From the running kernel's BTF, set when the object is loaded.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::NONE);

/// A member of [`OFFSETS`]; all of them at once would go over the stack.
#[macro_export]
macro_rules! offset {
    ($name:ident) => {{
        let offsets = (&raw const $crate::maps::OFFSETS).cast::<firewall_common::layout::Offsets>();
        // SAFETY: a plain read; volatile, because the loader writes the numbers.
        unsafe { (&raw const (*offsets).$name).read_volatile() }
    }};
}

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
