//! Policies: their model, and the way from TOML text to a generation.

pub mod compile;
pub mod diagnostic;
mod model;
mod parse;
mod shipped;
pub mod source;

pub use model::*;
pub use parse::{SpecError, load, parse_spec};
pub use shipped::SHIPPED;
