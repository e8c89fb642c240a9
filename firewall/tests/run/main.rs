//! What `firewall run` promises around its verdicts.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod ending;
mod log;
mod place;
mod rules;
