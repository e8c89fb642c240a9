//! What the kernel programs and user space share, as maps take it.

use firewall_common::{
    event::Identity,
    layout::{
        Active, AnswerKey, Answers, FileId, Header, Listener, NameText, Offsets, PathText,
        ProcessKey,
    },
    name::Text,
    parse::payload::Payload,
};

/// A value of a shared type in a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Plain<T>(pub T);

/// A type that both sides read alike.
///
/// # Safety
/// It is an integer, or a `repr(C)` structure of integers without padding, as its size that `layout` or
/// `event` asserts says.
pub unsafe trait Shared: Copy + 'static {}

// SAFETY: what is shared is plain.
unsafe impl<T: Shared> aya::Pod for Plain<T> {}

macro_rules! shared {
    ($($name:ty),+ $(,)?) => { $(
        // SAFETY: as the trait has it.
        unsafe impl Shared for $name {}
    )+ };
}

shared!(
    Active, AnswerKey, Answers, FileId, Header, Identity, Listener, NameText, Offsets, PathText,
    Payload, ProcessKey, Text, u64,
);
