//! The Gemel DHCPv6 server as a library: the binary calls [`cli::main`], tests call the parts.
#![deny(unsafe_code)] // but for one system call in `slice`

pub mod ca;
pub mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod dataplane;
pub mod histogram;
pub mod http;
pub mod interfaces;
pub mod leases;
pub mod overload;
pub mod pair;
pub mod serve;
pub mod slice;
pub mod stages;
pub mod status;
pub mod tune;
pub mod warm;
