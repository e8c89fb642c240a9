//! The service.

pub mod control;
