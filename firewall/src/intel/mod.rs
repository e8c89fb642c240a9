//! What is known of addresses: country, origin AS, and the organisations that own them.

pub mod country;
pub mod organisations;
