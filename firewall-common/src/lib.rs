//! What the kernel programs and user space share: wire types, packet parsers and the one matcher.
//!
//! Everything here is `no_std`, allocates nothing and runs the same in the kernel, in
//! `firewall explain` and in the tests.
#![cfg_attr(not(test), no_std)]

pub mod answers;
pub mod app;
pub mod evaluate;
pub mod event;
pub mod flow;
pub mod forget;
pub mod layout;
pub mod name;
pub mod name_table;
pub mod parse;
pub mod verdict;
