//! Lists of domains and networks, in the formats in which they are published.

pub mod report;

pub use report::{Example, Format, Reason, Report, Skipped};
