//! DHCPv6 wire format: views over received bytes, emitters into a caller's buffer.
//!
//! Reading happens in two steps. A view ([`Packet`], [`Options`], [`Ia`], ...) checks every length
//! of its own level once, when it is made; after that its accessors cannot fail. Nested levels are
//! checked when they are entered, so bytes that nobody looks at cost nothing.
//!
//! Writing goes through an [`Emitter`], which appends to a borrowed buffer, remembers an overflow
//! and reports it once, at the end. Nothing in this crate allocates, reads a clock or does IO.
//!
//! The messages between failover partners (RFC 8156) are in [`failover`].
//!
//! The formats are those of RFC 8415 (kept by RFC 9915) unless an item names another source.
#![forbid(unsafe_code)]

mod code;
mod duid;
mod emit;
mod error;
pub mod failover;
mod message;
mod option;

pub use code::{IaId, MessageType, OptionCode, StatusCode, TransactionId};
pub use duid::{DUID_LEN_MAX, Duid};
pub use emit::{Emitter, OptionMark};
pub use error::WireError;
pub use message::{HOP_COUNT_LIMIT, Message, Packet, RelayMessage};
pub use option::{
    Ia, IaAddr, IaPrefix, IaTa, OptionRequest, Options, OptionsIter, RawOption, Status,
};

/// UDP port on which clients listen (RFC 8415 section 7.2).
pub const CLIENT_PORT: u16 = 546;
/// UDP port on which servers and relay agents listen (RFC 8415 section 7.2).
pub const SERVER_PORT: u16 = 547;
/// `All_DHCP_Relay_Agents_and_Servers`, `ff02::1:2` (RFC 8415 section 7.1).
pub const ALL_RELAY_AGENTS_AND_SERVERS: std::net::Ipv6Addr =
    std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// `All_DHCP_Servers`, `ff05::1:3` (RFC 8415 section 7.1).
pub const ALL_SERVERS: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
/// The lifetime value that means infinity (RFC 8415 section 7.7).
pub const INFINITY: u32 = u32::MAX;
