//! Policies: their model, and the way from TOML text to a generation.

mod model;

pub use model::*;
