//! The DHCPv6 server rules: a message and the time in, a reply and binding updates out.
#![forbid(unsafe_code)]

mod outcome;

pub use outcome::{DropReason, Inbound, Outcome, ReplyInfo, Service};
