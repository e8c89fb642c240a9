//! Names of DNS messages in scratch memory, and the names that addresses are known by.
//!
//! What is done with a message is in global functions, which the verifier goes through once each.
//! Memory is passed between them by its number in [`crate::maps::SCRATCH`].

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns};
use firewall_common::{
    event::Identity,
    flow::{Address, Destination, fingerprint_words},
    layout::{
        AnswerKey, Answers, Counter, Header, MAX_ANSWERS, MAX_PENDING, MAX_WAIT, Question,
        SocketState,
    },
    name_table::{Keys, Suffixes},
    parse::dns::{Message, NameReader},
};

use crate::{
    maps::{self, ANSWERS, FORMER, HEADERS, KNOWN, NAMES, QUESTIONS, Scratch, count},
    policy::Generation,
    repeat::repeat,
    scratch,
};

/// Which of the names in scratch memory.
pub mod which {
    /// [`crate::maps::Scratch::asked`]
    pub const ASKED: u32 = 0;
    /// [`crate::maps::Scratch::alias`]
    pub const ALIAS: u32 = 1;
}

/// Seconds of the boot-time clock; never 0.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32 + 1
}

/// Seconds of a clock that is cheap to read and stands still while the machine sleeps.
#[inline(always)]
fn awake() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
}

/// Notes the app that a socket belongs to, and its network namespace, where addresses mean what they
/// mean there: a secret hash, so that nobody finds two executables that fall together.
#[inline(always)]
pub fn note_app(state: &mut SocketState) {
    let Identity { executable: file, .. } = &state.identity;
    let identity = &state.identity;
    let app = fingerprint_words(
        maps::seed,
        [
            file.inode & 0xffff_ffff,
            file.inode >> 32,
            // Which says the device too.
            file.dentry & 0xffff_ffff ^ file.dentry >> 32,
            identity.cgroup & 0xffff_ffff,
            identity.cgroup >> 32,
            u64::from(identity.uid),
        ],
    );
    state.app = app.wrapping_add(state.netns.wrapping_mul(maps::seed(0) | 1));
}

/// In place of an app: every one that knows no name of an address.
pub const ANYBODY: u64 = 0;
/// In place of an app: nobody knows a name.
pub const NOBODY: u64 = u64::MAX;

/// The names that an app knows an address by; those that no longer hold among them.
#[inline(always)]
pub fn of(app: u64, address: Address, generation: u32) -> Option<&'static Answers> {
    let key = AnswerKey { app, address };
    // SAFETY: the entry is not freed while the program runs. It can be written or given to another
    // key meanwhile, which makes names of one moment those of the next.
    let answers = unsafe { ANSWERS.get(&key) }?;
    if answers.generation == generation {
        return Some(answers);
    }
    // SAFETY: as above.
    let former = unsafe { FORMER.get(&key) }?;
    (former.generation == generation).then_some(former)
}

/// The generation whose names an address has for an app; 0 if it has none that hold.
#[inline(always)]
pub fn generation(app: u64, address: Address) -> u32 {
    let key = AnswerKey { app, address };
    // SAFETY: as above.
    match unsafe { ANSWERS.get(&key) } {
        Some(answers) if answers.names.iter().any(|answer| answer.until > now()) => {
            answers.generation
        }
        _ => 0,
    }
}

/// Whether [`of`] can have an answer, whichever the app.
#[inline(always)]
pub fn any(address: Address) -> bool {
    let (word, bit) = place(address);
    KNOWN.get(word).is_some_and(|bits| bits & bit != 0)
}

/// Where [`KNOWN`] has the bit of an address: by a secret hash, so nobody can aim at a place.
#[inline(always)]
fn place(address: Address) -> (u32, u64) {
    let hash = (address.high ^ maps::seed(0)).wrapping_mul(maps::seed(1) | 1);
    let hash = (hash ^ hash >> 32 ^ address.low).wrapping_mul(maps::seed(2) | 1);
    ((hash >> 32) as u32 % (MAX_ANSWERS / 8), 1 << (hash >> 58))
}

/// Notes that there is an entry for a key from now on.
#[inline(always)]
pub fn note(key: &AnswerKey) {
    let (word, bit) = place(key.address);
    if let Some(to) = KNOWN.get_ptr_mut(word) {
        // SAFETY: the pointer is valid and aligned. In one step, so that no bit is lost to another
        // CPU; `core` has none for this target.
        unsafe { asm!("lock *(u64 *)({to} + 0) |= {bit}", to = in(reg) to, bit = in(reg) bit) };
    }
}

#[inline(always)]
fn message(scratch: &Scratch) -> Message<'_> {
    Message { bytes: &scratch.message, len: scratch.len }
}

/// Reads the name at `at` of the message: the offset of what comes after it, or 0 if it is
/// malformed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_name(index: u32, at: u32, which: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    scratch.reader = NameReader::at(at);
    repeat(NameReader::STEPS, read_label, &mut Walk { scratch, which });
    scratch::get(index).map_or(0, |scratch| scratch.reader.end())
}

/// What the bodies of loops over a name need.
struct Walk {
    scratch: *mut Scratch,
    which: u32,
}

impl Walk {
    #[inline(always)]
    fn scratch(&mut self) -> &mut Scratch {
        // SAFETY: who makes it lends the memory for the time of the loop.
        unsafe { &mut *self.scratch }
    }
}

/// Whether the loop is to end.
extern "C" fn read_label(_: u32, walk: &mut Walk) -> i64 {
    let which = walk.which;
    let scratch = walk.scratch();
    let message = Message { bytes: &scratch.message, len: scratch.len };
    let name = if which == which::ASKED { &mut scratch.asked } else { &mut scratch.alias };
    i64::from(!scratch.reader.step(&message, &mut name.text))
}

/// The offset of what comes after the name at `at` of the message, or 0 if it is malformed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_skip(index: u32, at: u32) -> u32 {
    match scratch::get(index) {
        Some(scratch) => message(scratch).skip_name(at),
        None => 0,
    }
}

/// The class of a name that was read; its hashes are then in the memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn name_class(index: u32, which: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    let Some(header) = HEADERS.get(scratch.slot) else { return 0 };
    scratch.suffixes.start(header.name_keys);
    repeat(Suffixes::STEPS, hash_bytes, &mut Walk { scratch, which });
    match scratch::get(index) {
        Some(scratch) => scratch.suffixes.class(&Generation { slot: scratch.slot }, header),
        None => 0,
    }
}

/// Whether the loop is to end.
extern "C" fn hash_bytes(_: u32, walk: &mut Walk) -> i64 {
    let which = walk.which;
    let scratch = walk.scratch();
    let Some(header) = HEADERS.get(scratch.slot) else { return 1 };
    let name = if which == which::ASKED { &scratch.asked } else { &scratch.alias };
    i64::from(!scratch.suffixes.step(header.name_keys, &name.text))
}

/// Keeps the text of the name asked for, with the names it is an alias of if `chain` is not 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep_name(index: u32, chain: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    // An answer has told more of it.
    // SAFETY: only whether there is one.
    if chain == 0 && unsafe { NAMES.get(&scratch.name) }.is_some() {
        return 0;
    }
    if NAMES.insert(&scratch.name, &scratch.asked, 0).is_err() {
        count(Counter::NoName);
    }
    0
}

/// Where a question is kept, and the check over it and all that it is tied to.
#[inline(always)]
fn tie(keys: Keys, scratch: &Scratch, id: u16, question: &Question) -> (u32, u64) {
    let mix = |state: u64, word: u64| {
        let state = (state ^ word).wrapping_mul(keys.factor);
        state ^ state >> 32
    };
    let transaction = u64::from(id) << 48
        | u64::from(scratch.port & 0xffff) << 32
        | u64::from(scratch.own_port & 0xffff) << 16
        | u64::from(scratch.protocol);
    let mut state = mix(keys.seed, scratch.app);
    state = mix(state, scratch.server.high);
    state = mix(state, scratch.server.low);
    state = mix(state, transaction);
    state = mix(state, scratch.name);
    let place = (keys.finish(state) >> 32) as u32 % MAX_PENDING;
    state = mix(state, u64::from(question.trusted) << 32 | u64::from(question.asked));
    (place, keys.finish(state))
}

/// Notes that the name in the memory is asked for.
#[inline(always)]
pub fn ask(header: &Header, scratch: &Scratch, id: u16) {
    let mut question =
        Question { check: 0, name: scratch.name, asked: awake(), trusted: scratch.trusted };
    let (place, check) = tie(header.name_keys, scratch, id, &question);
    question.check = check;
    if let Some(to) = QUESTIONS.get_ptr_mut(place) {
        // SAFETY: the pointer is valid as long as the map; who writes at the same time makes it a
        // question whose check is wrong.
        unsafe { to.write(question) };
    }
}

/// The question that a message answers, taken away so that it is answered once.
#[inline(always)]
pub fn answered(header: &Header, scratch: &Scratch, id: u16) -> Option<Question> {
    let (place, _) = tie(header.name_keys, scratch, id, &Question::default());
    let kept = QUESTIONS.get_ptr_mut(place)?;
    // SAFETY: as in `ask`.
    let question = unsafe { kept.read() };
    let (_, check) = tie(header.name_keys, scratch, id, &question);
    if check != question.check || awake().wrapping_sub(question.asked) > MAX_WAIT {
        return None;
    }
    // SAFETY: as in `ask`.
    unsafe { (*kept).check = 0 };
    Some(question)
}

/// Whether a server's answers can support an allow.
#[inline(always)]
pub fn is_trusted(header: &Header, netns: u64, server: &Destination) -> bool {
    netns == header.netns && header.is_trusted(server)
}
