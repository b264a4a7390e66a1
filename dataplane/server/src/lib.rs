//! The DHCPv6 server rules: a message and the time in, a reply and binding updates out.
//!
//! The law is RFC 8415, sections 16 (which messages to discard), 18.3 (what to answer) and 19.3
//! (relays), with what RFC 9915 took away: temporary addresses are not assigned, and neither the
//! Server Unicast option nor the UseMulticast status is sent.
//!
//! No IO, no clock and no allocation per message live here. [`Server::handle`] reads the datagram
//! where it lies, works on the shared [`gemel_lease::LeaseTable`], writes the reply into the
//! caller's buffer and hands every change of a binding to the caller's sink. Whoever calls it
//! keeps back a reply that reports such a change ([`ReplyInfo::held`]) until the change is stored.
#![forbid(unsafe_code)]

mod ahead;
mod assign;
mod bounded;
mod config;
mod link;
mod outcome;
mod relay;
mod reply;
mod request;
mod server;
mod warming;

pub use config::{ConfigError, LinkConfig, OptionConfig, Prefix, ServerConfig};
pub use outcome::{DropReason, Inbound, Outcome, ReplyInfo, Service};
pub use server::Server;
pub use warming::Recall;
