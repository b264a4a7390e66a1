//! The Gemel DHCPv6 server.

pub mod config;
