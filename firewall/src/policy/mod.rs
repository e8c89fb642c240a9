//! Policies: their model, and the way from TOML text to a generation.

pub mod compile;
pub mod diagnostic;
pub mod domains;
pub mod explain;
mod model;
mod parse;
mod shipped;
pub mod source;

pub use domains::{Domain, DomainSet, Scope};
pub use model::*;
pub use parse::{SpecError, load, parse_spec};
pub use shipped::SHIPPED;
