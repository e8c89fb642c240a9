//! An egress firewall for Linux workstations.

pub mod api;
pub mod apps;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod encrypted_dns;
pub mod events;
pub mod explanation;
pub mod intel;
pub mod lists;
mod memory;
pub mod metrics;
pub mod policy;
pub mod quic;
mod regular;
pub mod remote;
mod replace;
pub mod replay;
pub mod report;
pub mod run;
pub mod set;
pub mod sink;
pub mod store;
pub mod surroundings;
mod tls;
