//! The endpoint of a DHCPv6 failover relationship (RFC 8156): everything but the sockets, the disk
//! and the clock.
//!
//! An [`Endpoint`] is one server's end of one relationship. Its driver feeds it with what happens,
//! each time with an [`Env`] (the lease table, the time, the open batch of updates), and then takes
//! out what is to be done. In this order:
//!
//! 1. one of the inputs: [`Endpoint::connected`], [`Endpoint::received`], [`Endpoint::committed`],
//!    [`Endpoint::stored`], [`Endpoint::persisted`], [`Endpoint::timeout`], ...
//! 2. [`Endpoint::poll`], which sends what has become due: binding updates, replies, pool balance;
//! 3. [`Endpoint::output`] until it is `None`, and the octets of [`Endpoint::outgoing`];
//! 4. the batch of [`Env::updates`] to the store, if it is not empty; its fate comes back as
//!    [`Endpoint::stored`];
//! 5. the next input, at the latest at [`Endpoint::next_timeout`].
//!
//! A connection is made, or taken, while [`Endpoint::wants_connection`] says so. After an
//! [`Output::Close`] the driver sends what is in [`Endpoint::outgoing`], closes the connection and
//! calls [`Endpoint::disconnected`], as it does when the connection breaks. Of several connections
//! the one of the last [`Endpoint::connected`] counts; for those before it nothing is called any
//! more.
//!
//! What must be durable before it is told is held back here: a BNDREPLY until the batch with its
//! update is stored (section 7.5.2), a STATE message until the state is (section 8.1).
#![forbid(unsafe_code)]

mod balance;
pub mod broken;
mod config;
mod conflict;
mod connection;
mod endpoint;
mod env;
mod flow;
mod machine;
mod outbox;
mod rules;
mod state;
mod status;
#[cfg(test)]
mod testing;
mod timer;
mod update;

pub use config::{Config, Role};
pub use endpoint::{Command, CommandError, Endpoint, Output};
pub use env::{Env, Now};
pub use flow::{FlowCounters, ResyncProgress, StatusCounts};
pub use state::{PairHistory, ServerState, StoredState};
pub use status::Status;
