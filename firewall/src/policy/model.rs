//! What a policy is once it has been parsed: no spans, no text, nothing left to check.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::intel::country::Country;

/// A named set of rules and the apps they hold for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Unique over all policies of a set.
    pub name: String,
    /// What it does, what it breaks, and what it cannot see.
    pub description: String,
    /// Whether its drops are carried out.
    pub mode: Mode,
    /// Lower runs first.
    pub priority: u32,
    /// What its apps get when no rule of any policy matched.
    pub default: Option<Default>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// Whether a policy's drops are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are recorded as they would have happened, and the flow passes.
    Observe,
}

/// What a flow gets that no rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// It passes.
    Allow,
    /// It is dropped.
    Drop,
}

/// Matchers and one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its policy.
    pub name: String,
    /// What it asks for.
    pub action: Action,
    /// Which destinations it matches; `None` is every destination.
    pub to: Option<Destinations>,
    /// Which protocols and ports it matches; empty is all of them.
    pub ports: Vec<Ports>,
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Let it pass and record it.
    Log,
    /// Stop it.
    Drop,
}

/// A destination matches if anything here does and nothing in `except` does.
#[derive(Clone, Debug, PartialEq, Eq, std::default::Default)]
pub struct Destinations {
    /// Countries an address is registered in.
    pub jurisdictions: Vec<Country>,
    /// Owners by name, each a set of AS numbers in [`crate::intel::organisations`].
    pub organisations: Vec<String>,
    /// Origin AS numbers.
    pub asns: Vec<u32>,
    /// Address ranges.
    pub networks: Vec<IpNet>,
    /// Taken out again.
    pub except: Option<Box<Destinations>>,
}

/// One entry of `ports`: a protocol, and of those that have ports, which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// IANA protocol number.
    pub protocol: u8,
    /// `0..=65535` for a protocol without ports.
    pub ports: RangeInclusive<u16>,
}
