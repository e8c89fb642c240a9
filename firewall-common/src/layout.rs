//! Names and shapes of the maps that the kernel programs and user space share.
//!
//! Any change here, in [`crate::event`] or in [`crate::evaluate`] that another build would misread
//! raises [`ABI_VERSION`]: it stands in the pin directory, and a pin of another version is never
//! adopted.

use crate::{
    app::Apps,
    evaluate::{NAMES, Named},
    event::{FlowEvent, Identity},
    flow::Address,
    name::Text,
    parse::{dns::MESSAGE, payload::Payload, quic::Cid},
};

/// Version of everything that is pinned or crosses the ring buffer.
pub const ABI_VERSION: u32 = 9;

/// Generations that can be in the kernel at once: the running one and the one being built.
pub const SLOTS: u32 = 2;

/// Blocks the map holds until user space puts one of the right size in its place.
pub const TEMPLATE_BLOCKS: usize = 1;

/// `BPF_F_INNER_MAP`: an array inside an array of maps may differ from the template in its size
/// (kernel 5.10).
pub const INNER_MAP: u32 = 1 << 12;

/// Size of the ring buffer in bytes.
pub const RING_BYTES: u32 = 1 << 20;

/// Executables whose path is kept, the least recently used out first.
pub const MAX_EXECUTABLES: u32 = 4096;
/// Cgroups whose path is kept, the least recently used out first.
pub const MAX_CGROUPS: u32 = 4096;
/// Processes that are kept, the least recently used out first.
pub const MAX_PROCESSES: u32 = 16384;
/// Processes whose script is kept, the least recently used out first.
pub const MAX_SCRIPTS: u32 = 8192;

/// Which generation decides: one word, so that it is read and written whole.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active(pub u64);

impl Active {
    /// Generation `number`, which is never 0, in slot `slot`.
    pub const fn new(number: u32, slot: u32) -> Self {
        Self((number as u64) << 32 | slot as u64)
    }

    /// The generation's number; 0 before the first.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where its tables are.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// What the kernel needs to know of a generation besides its blocks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`crate::evaluate::Cell`] that IPv4 addresses start at.
    pub root_v4: u32,
    /// [`crate::evaluate::Cell`] that IPv6 addresses start at.
    pub root_v6: u32,
    /// The first block of the rows (app class × destination class).
    pub rows: u32,
    /// Destination classes, counting the unused class 0.
    pub classes: u32,
    /// Name groups, at least 1; group 0 takes nothing out.
    pub name_groups: u32,
    /// Address groups, at least 1; group 0 takes nothing out.
    pub address_groups: u32,
    /// The first block of the table of address groups by destination class; there is none if there
    /// is one group.
    pub address_group_of: u32,
    /// The first block of the name table, see [`crate::name_table`].
    pub names: u32,
    /// Lines of the name table that a hash can lead to; 0 if no rule matches by name.
    pub name_lines: u32,
    /// The most labels that an entry of the name table has.
    pub name_depth: u32,
    /// Name classes, counting class 0, which stands for names that no rule speaks of.
    pub name_classes: u32,
    /// The first block of [`crate::evaluate::NameRecord`], by (app class × name class).
    pub name_records: u32,
    /// The first block of the name rows, by (app class × name class × address group × trust). The
    /// leaf 0 of a row says that no rule matches by name.
    pub name_rows: u32,
    /// The errno of a denied `connect` or `sendmsg`, negative.
    pub errno: i32,
    /// Of [`flags`].
    pub flags: u32,
    /// The number of the generation; 0 until it is put in place.
    pub number: u32,
    /// Secrets of [`crate::name_table`]'s hash.
    pub name_keys: crate::name_table::Keys,
    /// How to find the class of an app.
    pub apps: Apps,
    /// Cookie of the network namespace that the resolvers are in. In another, an app can answer from
    /// their addresses itself.
    pub netns: u64,
    /// Ports that are asked for names, beside 53; 0 is none.
    pub dns_ports: [u16; DNS_PORTS],
    /// Resolvers whose answers can support an allow.
    pub resolvers: [Resolver; RESOLVERS],
}

/// Further ports of DNS that can be configured.
pub const DNS_PORTS: usize = 8;

/// Trusted resolvers that can be configured.
pub const RESOLVERS: usize = 8;

/// A trusted resolver.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Its address.
    pub address: Address,
    /// Its port; 0 is no resolver.
    pub port: u32,
    /// Zero.
    pub _pad: u32,
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// A packet that cannot be read far enough to judge it passes.
    pub const UNPARSABLE_ALLOW: u32 = 1;
    /// Replies on connections that came from outside are judged too.
    pub const INBOUND_ENFORCE: u32 = 2;
    /// Allowed flows are recorded too.
    pub const RECORD_ALLOW: u32 = 4;
    /// What is known by names that get different verdicts, and shows none, passes.
    pub const AMBIGUOUS_ALLOW: u32 = 8;
    /// A QUIC Initial whose name decides is held back until user space has read it.
    pub const QUIC_INSPECT: u32 = 16;
    /// No QUIC passes.
    pub const QUIC_BLOCK: u32 = 32;
    /// QUIC passes, and user space is told what name it shows.
    pub const QUIC_WATCH: u32 = 64;
    /// What would be held back passes when nobody is there to read it.
    pub const UNATTENDED_ALLOW: u32 = 128;
    /// What is sent past every cgroup is judged at the interfaces: no socket may pass them by too.
    pub const BACKSTOP: u32 = 256;
}

/// What is kept with a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketState {
    /// Where the flow goes.
    pub dst: Address,
    /// Port of the destination; 0 without ports.
    pub dst_port: u16,
    /// IANA protocol number of the flow.
    pub protocol: u8,
    /// [`crate::verdict::Verdict`] of the flow; 0 before the first.
    pub verdict: u8,
    /// The generation that decided.
    pub generation: u32,
    /// Where the flow comes from; zero until a packet has shown it.
    pub src: Address,
    /// Port of the source.
    pub src_port: u16,
    /// [`crate::verdict::Reason`].
    pub reason: u8,
    /// [`crate::verdict::Hook`] that decided.
    pub hook: u8,
    /// [`crate::evaluate::Outcome::decision`].
    pub decision: u32,
    /// When the flow was last recorded, on the boot-time clock; 0 if not yet.
    pub recorded_at: u64,
    /// Repeats since then that no event has told of.
    pub repeats: u32,
    /// Of [`socket`].
    pub flags: u32,
    /// The verdict that holds for later packets too: the destination's
    /// [`crate::flow::fingerprint`] with one of [`kept`] in its low two bits; or 0.
    ///
    /// One word, so that it is read and written whole: two threads that send on one socket to two
    /// destinations must never make a verdict of the one hold for the other.
    pub kept: u64,
    /// Bytes of payload that the flow has sent. Beside `kept`: each datagram writes it.
    pub bytes_out: u64,
    /// Bytes of payload that the flow has received.
    pub bytes_in: u64,
    /// Sum of both when it was last told.
    pub bytes_told: u64,
    /// Cookie of the network namespace; 0 if no call of a process on the socket has shown it.
    pub netns: u64,
    /// Where the socket is in the kernel's memory, as a number.
    pub socket: u64,
    /// When the next datagram of it may be held, on the boot-time clock: see `held`.
    pub held: u64,
    /// What the destination is known by.
    pub known: Known,
    /// The app, as names are kept by.
    pub app: u64,
    /// The class of the app, [`numbered`]; 0 if it was not asked for yet.
    pub class: u64,
    /// Who made or last connected the socket.
    pub identity: Identity,
}

/// The name that a flow's destination is known by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The name, a key of the map of names; 0 if there is none.
    pub name: u64,
    /// [`crate::verdict::Via`], 0 without a name.
    pub via: u32,
    /// [`crate::verdict::Confidence`], 0 without a name, and [`ENCRYPTED_HELLO`].
    pub confidence: u32,
}

/// Bit of [`Known::confidence`]: the ClientHello has an encrypted one inside, so the name is the
/// outer one's.
pub const ENCRYPTED_HELLO: u32 = 0x100;

/// What [`SocketState::kept`] says of the next packet.
pub mod kept {
    /// Its payload is looked at.
    pub const INSPECT: u64 = 0;
    /// It passes.
    pub const PASS: u64 = 1;
    /// It passes if it begins no connection of QUIC.
    pub const OPAQUE: u64 = 2;
    /// It is dropped.
    pub const DENY: u64 = 3;
}

/// Bits of [`SocketState::flags`].
pub mod socket {
    /// The connection came from outside.
    pub const INBOUND: u32 = 1;
    /// One of the kernel's own control sockets.
    pub const CONTROL: u32 = 2;
    /// The app has called `connect()` on it, so it is no accepted connection: TCP lets two ends
    /// open at once, and one socket connect to itself.
    pub const CONNECTED: u32 = 4;
    /// Its first payload is still to show a name; until then its packets pass unrecorded.
    pub const WAITS: u32 = 8;
    /// The flow may pass and is recorded, so its end is told.
    pub const OPEN: u32 = 16;
    /// The kernel says when its TCP connection ends.
    pub const FOLLOWED: u32 = 32;
}

/// Addresses whose names are kept, the least recently used out first.
pub const MAX_ANSWERS: u32 = 1 << 17;
/// Of these, those whose names of the generation before are kept too.
pub const MAX_FORMER: u32 = 1 << 12;
/// Questions that wait for an answer, the oldest out first.
pub const MAX_PENDING: u32 = 1 << 14;
/// Names whose text is kept, the least recently used out first.
pub const MAX_NAMES: u32 = 1 << 14;
/// Seconds for which a name is kept at least, whatever its time to live.
pub const MIN_LIFETIME: u32 = 300;
/// Seconds within which a question is answered.
pub const MAX_WAIT: u32 = 60;

/// An app and an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnswerKey {
    /// The app, by a secret hash of its identity.
    pub app: u64,
    /// The address.
    pub address: Address,
}

/// The names of an address for one app.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// Names of different kinds; what rules cannot tell apart is kept once, the latest of it.
    pub names: [Answer; NAMES],
    /// The generation whose classes and hashes these are.
    pub generation: u32,
    /// Until when there were more names than fit, in seconds of the boot-time clock.
    pub more_until: u32,
    /// Bits by the place in `names`: more than one name was kept there.
    pub several: u32,
    /// Zero.
    pub _pad: u32,
}

/// A name of an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// The name asked for, by its hash; a key of the map of names.
    pub name: u64,
    /// What rules know of it.
    pub named: Named,
    /// Until when it holds, in seconds of the boot-time clock; 0 is an empty place.
    pub until: u32,
}

/// A question that waits for its answer.
///
/// They are kept in places that their hashes lead to, so a new one can take the place of an old one.
/// Two programs can write to one place at a time; the check tells what comes of that from a question.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    /// Over all of this and all that the answer is tied to: socket, server and transaction.
    pub check: u64,
    /// The name, by its hash.
    pub name: u64,
    /// When it was asked, in seconds of the monotonic clock.
    pub asked: u32,
    /// 1 if the server is a trusted resolver.
    pub trusted: u32,
}

/// Pieces of memory that programs on one CPU read messages in at a time.
pub const SCRATCHES: u32 = 4;

/// Addresses that are taken from one answer.
pub const MAX_ADDRESSES: usize = 32;

/// A stream of DNS messages (RFC 1035 section 4.2.2), as far as it has come.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stream {
    /// The sequence number that comes next.
    pub next: u32,
    /// 1 after the first byte.
    pub started: u32,
    /// Bytes of the message and of its length before it that have come.
    pub have: u32,
    /// The message's length, when its two bytes are there.
    pub length: u32,
    /// Bytes of the message that are in memory.
    pub read: u32,
    /// What was denied, as a leaf or what stands in its place: nothing more is let through. 0 if
    /// nothing was.
    pub closed: u32,
    /// The name of that.
    pub name: u64,
    /// The message as far as it fits.
    pub message: [u8; MESSAGE],
}

/// What is known of a TCP flow's payload.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PayloadState {
    /// The sequence number that comes next.
    pub next: u32,
    /// 1 after the first byte.
    pub started: u32,
    /// What was read.
    pub payload: Payload,
}

/// Connections of QUIC that are known, the least recently used out first.
pub const MAX_CONNECTIONS: u32 = 1 << 14;

/// Bytes of a datagram that can be handed to user space.
pub const MAX_DATAGRAM: usize = 2000;

/// Size of the ring buffer of [`Held`] in bytes.
pub const HELD_BYTES: u32 = 1 << 20;

/// Nanoseconds after which a reader of [`Held`] that gave no sign is taken to be gone.
pub const PATIENCE: u64 = 5_000_000_000;

/// A connection of QUIC, or a flow that has some.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Cookie of the socket.
    pub cookie: u64,
    /// The other end.
    pub address: Address,
    /// Its port.
    pub port: u32,
    /// 1 for the flow, whose ID is empty.
    pub flow: u32,
    /// What the client sends to.
    pub cid: Cid,
}

/// What is known of a connection or of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection {
    /// The generation that decided.
    pub generation: u32,
    /// [`crate::evaluate::Outcome::decision`]
    pub decision: u32,
    /// [`crate::verdict::Verdict`]
    pub verdict: u32,
    /// [`crate::verdict::Reason`], 0 if the decision says.
    pub reason: u32,
    /// What it is known by.
    pub known: Known,
    /// When the flow began to be known, on the boot-time clock. What is known of a connection that
    /// passes goes with its flow.
    pub begun: u64,
    /// Of a flow: Initials that went out.
    pub passed: u32,
    /// Of a flow: those of them of which user space has said what they show.
    pub verified: u32,
}

/// Why user space gets a datagram.
pub mod held {
    /// It was dropped, and is sent again.
    pub const BACK: u32 = 0;
    /// It has passed for what was said before; it is to say the same.
    pub const PASSED: u32 = 1;
    /// It has passed, and is to be recorded with the name that it shows.
    pub const WATCHED: u32 = 2;
    /// It came in where nothing went out, and may be of a client out there.
    pub const CAME: u32 = 3;
}

/// A datagram that user space reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Held {
    /// What is known of its flow, without a verdict.
    pub event: FlowEvent,
    /// The app, as names are kept by.
    pub app: u64,
    /// Of [`held`].
    pub why: u32,
    /// Bytes of the datagram.
    pub len: u32,
    /// The datagram; past its length are bytes of others.
    pub datagram: [u8; MAX_DATAGRAM],
}

/// What user space tells.
pub mod told {
    /// What the datagrams of a connection show.
    pub const HELLO: u32 = 0;
    /// What went out shows what was shown before.
    pub const VERIFIED: u32 = 1;
    /// A name leads to an address.
    pub const AHEAD: u32 = 2;
    /// A client out there began a connection.
    pub const INBOUND: u32 = 3;
    /// The root directory of who tells is that of the machine.
    pub const ROOT: u32 = 4;
    /// Who tells asks for names on behalf of the firewall.
    pub const OWN: u32 = 5;
}

/// What user space tells the kernel: the packet that a program is run on by hand.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Told {
    /// Of [`told`].
    pub kind: u32,
    /// As [`Held::why`].
    pub why: u32,
    /// Of [`crate::parse::payload::answer`].
    pub answer: u32,
    /// Of [`crate::parse::payload::flags`].
    pub flags: u32,
    /// As [`Held::app`]; 0 is every app that knows no better.
    pub app: u64,
    /// Seconds that the address holds.
    pub lifetime: u32,
    /// Zero.
    pub _pad: u32,
    /// The connection.
    pub cid: Cid,
    /// As [`Held::event`]; of a name that leads to an address only that.
    pub event: FlowEvent,
    /// The name, in lower case.
    pub name: Text,
}

/// Names of a CNAME chain that are kept.
pub const CHAIN: usize = 4;

/// A name as text, and the names it was an alias of, by their hashes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NameText {
    /// The name.
    pub text: Text,
    /// 0 is none.
    pub chain: [u64; CHAIN],
}

/// Bytes of a path that are kept; a longer one is none.
pub const PATH_BYTES: usize = 512;

/// An executable, by the file and the way to it and not by a name that could be a link.
///
/// Two files can have the same numbers, as in two subvolumes of btrfs, and one file two paths, by hard
/// links or mounts. So the places of the directory entry and of the mount in the kernel's memory are
/// part of it: as long as a process runs the file, nothing else has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Inode number.
    pub inode: u64,
    /// Device as the kernel has it: `major << 20 | minor`.
    pub device: u32,
    /// Zero.
    pub _pad: u32,
    /// Where the directory entry is, as a number.
    pub dentry: u64,
    /// Where the mount is, as a number.
    pub mount: u64,
}

/// A path.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PathText {
    /// When it was written, in nanoseconds: the place of an entry is given to another at any moment.
    pub stamp: u64,
    /// Of [`path`].
    pub flags: u32,
    /// Where the path begins in `text`; it ends where `text` does.
    pub start: u32,
    /// The path, at the end.
    pub text: [u8; PATH_BYTES],
}

/// A number that holds in one generation.
#[inline(always)]
pub const fn numbered(generation: u32, number: u32) -> u64 {
    (generation as u64) << 32 | number as u64
}

/// Bits of [`PathText::flags`].
pub mod path {
    /// Nobody but root could have arranged the mounts that the path goes through, and it starts at the
    /// root that this machine has.
    pub const TRUSTED: u32 = 1;
}

/// A process: numbers are given to others when it is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Its number.
    pub pid: u32,
    /// Zero.
    pub _pad: u32,
    /// When it started, in nanoseconds of the boot-time clock.
    pub started: u64,
}

/// What is known of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Its class, [`numbered`]; 0 if it was not asked for yet.
    pub class: u64,
    /// When it was written, as of a [`PathText`].
    pub stamp: u64,
    /// The rest.
    pub identity: Identity,
}

/// Member offsets of kernel structures, in bytes, from the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `task_struct.group_leader`
    pub task_leader: u32,
    /// `task_struct.start_boottime`
    pub task_started: u32,
    /// `task_struct.self_exec_id`
    pub task_execs: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `task_struct.fs`
    pub task_fs: u32,
    /// `fs_struct.root` + `path.dentry`
    pub fs_root: u32,
    /// `fs_struct.pwd` + `path.dentry`
    pub fs_pwd_dentry: u32,
    /// `fs_struct.pwd` + `path.mnt`
    pub fs_pwd_mnt: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `cred.gid`
    pub cred_gid: u32,
    /// `cred.user_ns`
    pub cred_user_ns: u32,
    /// `user_namespace.level`
    pub user_ns_level: u32,
    /// `css_set.dfl_cgrp`
    pub cgroups_default: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `kernfs_node.name`
    pub node_name: u32,
    /// `kernfs_node.parent`, which is `__parent` since kernel 6.15
    pub node_parent: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `mount.mnt_ns`
    pub mount_ns: u32,
    /// `mnt_namespace.user_ns`
    pub mount_ns_user_ns: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.f_flags`
    pub file_flags: u32,
    /// `file.f_path` + `path.dentry`
    pub file_dentry: u32,
    /// `file.f_path` + `path.mnt`
    pub file_mnt: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `super_block.s_dev`
    pub sb_dev: u32,
    /// `dentry.d_parent`
    pub dentry_parent: u32,
    /// `dentry.d_name` + `qstr.name`
    pub dentry_name: u32,
    /// `dentry.d_name` + `qstr.len`
    pub dentry_len: u32,
    /// `mount.mnt`
    pub mount_mnt: u32,
    /// `mount.mnt_parent`
    pub mount_parent: u32,
    /// `mount.mnt_mountpoint`
    pub mount_mountpoint: u32,
    /// `vfsmount.mnt_root`
    pub vfsmount_root: u32,
    /// Byte of `sock.sk_kern_sock`.
    pub sock_kern_byte: u32,
    /// Bit of `sock.sk_kern_sock` in that byte, as a mask.
    pub sock_kern_mask: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// `sock.__sk_common` + `sock_common.skc_flags`
    pub sock_flags: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.__sk_common` + `sock_common.skc_family`
    pub sock_family: u32,
    /// … `skc_state`
    pub sock_state: u32,
    /// … `skc_num`
    pub sock_port: u32,
    /// … `skc_dport`
    pub sock_peer_port: u32,
    /// … `skc_rcv_saddr`
    pub sock_v4: u32,
    /// … `skc_daddr`
    pub sock_peer_v4: u32,
    /// … `skc_v6_rcv_saddr`
    pub sock_v6: u32,
    /// … `skc_v6_daddr`
    pub sock_peer_v6: u32,
    /// … `skc_net`
    pub sock_net: u32,
    /// `net.net_cookie`
    pub net_cookie: u32,
    /// `tcp_sock.bytes_received`
    pub tcp_received: u32,
    /// `tcp_sock.bytes_acked`
    pub tcp_acked: u32,
    /// `tcp_sock.snd_una`
    pub tcp_unacked: u32,
    /// `tcp_sock.snd_nxt`
    pub tcp_next: u32,
    /// `tcp_sock.write_seq`
    pub tcp_written: u32,
}

impl Offsets {
    /// Before the kernel's BTF was read.
    pub const NONE: Self = Self {
        task_mm: 0,
        mm_exe_file: 0,
        task_leader: 0,
        task_started: 0,
        task_execs: 0,
        task_tgid: 0,
        task_comm: 0,
        task_cred: 0,
        task_cgroups: 0,
        task_fs: 0,
        fs_root: 0,
        fs_pwd_dentry: 0,
        fs_pwd_mnt: 0,
        cred_uid: 0,
        cred_gid: 0,
        cred_user_ns: 0,
        user_ns_level: 0,
        cgroups_default: 0,
        cgroup_node: 0,
        node_id: 0,
        node_name: 0,
        node_parent: 0,
        mm_arg_start: 0,
        mm_arg_end: 0,
        mount_ns: 0,
        mount_ns_user_ns: 0,
        file_inode: 0,
        file_flags: 0,
        file_dentry: 0,
        file_mnt: 0,
        inode_ino: 0,
        inode_sb: 0,
        sb_dev: 0,
        dentry_parent: 0,
        dentry_name: 0,
        dentry_len: 0,
        mount_mnt: 0,
        mount_parent: 0,
        mount_mountpoint: 0,
        vfsmount_root: 0,
        sock_kern_byte: 0,
        sock_kern_mask: 0,
        socket_sk: 0,
        sock_type: 0,
        sock_flags: 0,
        sock_protocol: 0,
        sock_family: 0,
        sock_state: 0,
        sock_port: 0,
        sock_peer_port: 0,
        sock_v4: 0,
        sock_peer_v4: 0,
        sock_v6: 0,
        sock_peer_v6: 0,
        sock_net: 0,
        net_cookie: 0,
        tcp_received: 0,
        tcp_acked: 0,
        tcp_unacked: 0,
        tcp_next: 0,
        tcp_written: 0,
    };
}

/// Where somebody listens for TCP connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// The address; unspecified for any of the family.
    pub address: Address,
    /// The port.
    pub port: u32,
    /// `AF_INET` or `AF_INET6`: an accepted socket has that of its listener.
    pub family: u32,
}

/// Listeners that are known at a time.
pub const MAX_LISTENERS: u32 = 1 << 12;

/// A flow that no socket of IP has: what is known of it is the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unowned {
    /// Source address.
    pub src: Address,
    /// Where it goes.
    pub dst: Address,
    /// Port of the source.
    pub src_port: u16,
    /// Port of the destination.
    pub dst_port: u16,
    /// IANA protocol number.
    pub protocol: u32,
    /// Of [`crate::event::app`].
    pub kind: u32,
    /// Zero.
    pub _pad: u32,
}

/// Flows without a socket whose records are put together, the least recently used out first.
pub const MAX_UNOWNED: u32 = 1 << 11;

/// Deepest level of a cgroup that is followed; systemd's user sessions go down to about ten.
pub const MAX_LEVELS: u32 = 32;

macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident = $word:literal;)+) => {
        /// A per-CPU counter: each says of one kind of thing how often it happened.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$meta])* $name),+ }

        impl Counter {
            /// Every counter, in the order of the map.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word in machine output.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

counters! {
    /// Flows decided `allow`.
    Allow = "allow";
    /// Flows decided `audit`.
    Audit = "audit";
    /// Flows decided `deny`.
    Deny = "deny";
    /// Packets dropped of flows already denied.
    DeniedPackets = "denied-packets";
    /// Packets of the kernel's own sockets.
    Kernel = "kernel";
    /// Flows that came from outside.
    Inbound = "inbound";
    /// Packets that could not be read far enough to judge them.
    ParseError = "parse-error";
    /// Decisions for which the tables had no answer.
    NoPolicy = "no-policy";
    /// Events that found no room in the ring buffer.
    LostEvents = "lost-events";
    /// Sockets for which no state could be kept.
    NoState = "no-state";
    /// Flows of a socket whose app was never seen.
    UnknownApp = "unknown-app";
    /// Executables whose path could not be kept.
    NoPath = "no-path";
    /// Questions for names.
    Questions = "questions";
    /// DNS messages that could not be read.
    MalformedDns = "malformed-dns";
    /// Answers that were believed.
    Answers = "answers";
    /// Answers to what nobody asked.
    UnaskedAnswers = "unasked-answers";
    /// TLS, QUIC and HTTP payloads that could not be read.
    MalformedPayload = "malformed-payload";
    /// Names, addresses or questions that could not be kept.
    NoName = "no-name";
    /// Packets that were dropped because no memory to read them in was free.
    NoScratch = "no-scratch";
    /// QUIC datagrams held back for user space to read.
    HeldInitials = "held-initials";
    /// QUIC datagrams held back that user space never saw: too many at once.
    LostInitials = "lost-initials";
    /// Listeners that could not be kept: connections to them count as the app's own.
    NoListener = "no-listener";
    /// Frames at an interface, of no socket of IP, that carry neither IP nor ARP: they pass.
    UnreadFrames = "unread-frames";
}

const _: () = {
    assert!(size_of::<Header>() == 64 + 16 + 64 + 8 + 2 * DNS_PORTS + 24 * RESOLVERS);
    assert!(size_of::<Resolver>() == 24);
    assert!(size_of::<SocketState>() == 152 + size_of::<Identity>());
    assert!(core::mem::offset_of!(SocketState, identity) == 152);
    assert!(size_of::<PathText>() == 16 + PATH_BYTES);
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<Offsets>() == 4 * 61);
    assert!(size_of::<Process>() == 16 + size_of::<Identity>());
    assert!(size_of::<FileId>() == 32);
    assert!(size_of::<Listener>() == 32);
    assert!(size_of::<Unowned>() == 48);
    assert!(size_of::<Answer>() == 32);
    assert!(size_of::<Answers>() == 32 * NAMES + 16);
    assert!(size_of::<AnswerKey>() == 24);
    assert!(size_of::<Question>() == 24);
    assert!(size_of::<Stream>() == 32 + MESSAGE);
    assert!(size_of::<NameText>() == size_of::<Text>() + 8 * CHAIN);
    assert!(size_of::<ConnectionKey>() == 64);
    assert!(size_of::<Connection>() == 48);
    assert!(size_of::<Held>() == 184 + 16 + MAX_DATAGRAM);
    assert!(size_of::<Told>() == 32 + 32 + 184 + size_of::<Text>());
};
