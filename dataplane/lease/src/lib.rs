//! What a DHCPv6 server remembers: bindings, the pools that leases come from, and the lease table
//! that the workers share.
//!
//! No IO, no clock and no randomness live here: the caller passes `now`, and everything that looks
//! random is a keyed hash whose key the caller chose.
#![forbid(unsafe_code)]

mod arena;
mod binding;
mod bitmap;
mod client;
mod hash;
mod index;
mod pair;
mod pool;
mod record;
mod reserved;
mod strays;
mod table;
mod time;

pub use binding::{Binding, BindingStatus, IaKind, Lease};
pub use client::{ClientDuid, ClientKey};
pub use pair::{PairPolicy, PairRules, Responsiveness};
pub use pool::{DENSE_LEASES_MAX, Ownership, PoolConfig, PoolError, PoolId, PoolRange, PoolSet};
pub use record::{Record, RecordError, RecordIter, UpdateBatch, UpdateSink};
pub use table::{
    Acknowledged, Begun, Bindings, ClientGuard, Collect, Counts, LeaseTable, Sweep, TableConfig,
    Terms, Verdict,
};
pub use time::AbsoluteTime;
