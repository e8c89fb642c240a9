//! What `firewall run` promises around its verdicts.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/mod.rs"]
mod support;
#[path = "../names/world.rs"]
#[allow(dead_code, reason = "the names tests use all of it")]
mod world;

mod data;
mod ending;
mod log;
mod nested;
mod place;
mod report;
mod rules;
mod unprivileged;
