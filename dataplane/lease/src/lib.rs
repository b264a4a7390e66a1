//! What a DHCPv6 server remembers: bindings, the pools that leases come from, and the lease table
//! that the workers share.
//!
//! No IO, no clock and no randomness live here: the caller passes `now`, and everything that looks
//! random is a keyed hash whose key the caller chose.
// But for one file, which asks the processor for memory ahead of use.
#![deny(unsafe_code)]

mod alone;
mod arena;
mod binding;
mod bitmap;
mod client;
mod hash;
mod index;
mod ordered;
mod pair;
mod pool;
mod prefetch;
mod record;
mod reserved;
mod strays;
mod striped;
mod table;
mod time;

pub use binding::{Binding, BindingStatus, IaKind, Lease};
pub use client::{ClientDuid, ClientKey};
pub use pair::{PairPolicy, PairRules, Responsiveness};
pub use pool::{DENSE_LEASES_MAX, Ownership, PoolConfig, PoolError, PoolId, PoolRange, PoolSet};
pub use record::{Record, RecordError, RecordHead, RecordIter, UpdateBatch, UpdateSink};
pub use table::{
    Acknowledged, Begun, Bindings, ClientGuard, ClientHash, Collect, Counts, LeaseHash, LeaseTable,
    Sweep, TableConfig, Terms, Verdict,
};
pub use time::AbsoluteTime;
