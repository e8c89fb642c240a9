//! What user space knows of an app beside what the kernel says of it.
//!
//! All of it is for people: no verdict rests on it. What cannot be read is absent and never guessed,
//! and everything that is read is bounded.

pub mod cgroup;
pub mod containers;
pub mod digest;
pub mod packages;
pub mod process;
