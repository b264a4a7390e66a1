//! What a DHCPv6 server remembers: bindings, the pools that leases come from, and the lease table
//! that the workers share.
//!
//! No IO, no clock and no randomness live here: the caller passes `now`, and everything that looks
//! random is a keyed hash whose key the caller chose.
#![forbid(unsafe_code)]

mod binding;
mod client;
mod record;
mod time;

pub use binding::{Binding, BindingStatus, IaKind, Lease};
pub use client::{ClientDuid, ClientKey};
pub use record::{Record, RecordError, RecordIter, UpdateBatch, UpdateSink};
pub use time::AbsoluteTime;
