//! Policy by app, with real processes.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod agent;
mod facts;
mod identity;
mod places;
mod selectors;
mod set;
mod storm;
mod world;
