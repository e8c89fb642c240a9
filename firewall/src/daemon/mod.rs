//! The service.

pub mod inputs;
