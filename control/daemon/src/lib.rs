//! The Gemel DHCPv6 server as a library: the binary calls [`cli::main`], tests call the parts.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod dataplane;
pub mod http;
pub mod interfaces;
pub mod leases;
pub mod serve;
pub mod status;
