//! An egress firewall for Linux workstations.

pub mod cli;
pub mod datapath;
pub mod intel;
pub mod policy;
