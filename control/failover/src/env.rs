use std::{fmt, time::Duration};

use gemel_lease::{AbsoluteTime, LeaseTable, UpdateBatch};

/// The two clocks of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Wall clock: for leases and for what is said to the partner.
    pub wall: AbsoluteTime,
    /// Time since some fixed moment: for timers.
    pub monotonic: Duration,
}

/// What an input is handled with.
pub struct Env<'a> {
    /// The lease table that the server rules work on.
    pub table: &'a LeaseTable,
    /// The time.
    pub now: Now,
    /// All changes of the table with a stamp below this are on stable storage, but for those that
    /// the endpoint itself has made, which it knows, and those noted as unstored in the table.
    pub stored_before: u64,
    /// The open batch: takes every change of a binding that the endpoint makes.
    pub updates: &'a mut UpdateBatch,
    /// Number of the open batch, as [`Endpoint::stored`](crate::Endpoint::stored) will give it.
    pub sequence: u64,
}

impl fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("now", &self.now).finish_non_exhaustive()
    }
}
