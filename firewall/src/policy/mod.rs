//! Policies: their model, and the way from TOML text to a generation.

pub mod compile;
mod model;

pub use model::*;
