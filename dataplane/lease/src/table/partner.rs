//! What the failover endpoint does with the table (RFC 8156 section 7): which leases the partner
//! has to hear of, what it has acknowledged, and what it tells.
//!
//! A lease whose [`Binding::update_pending`] is set has to be sent to the partner. Besides, a slot
//! remembers whether its *present* content has been sent; a change of the lease takes that back.
//! A lease that became free without the partner's consent, in PARTNER-DOWN state or by a move
//! between the pools of primary and secondary, has no slot; what the partner has to hear of it is
//! kept among the *free updates* until the partner acknowledges it or somebody gets the lease.

use super::LeaseTable;
use crate::{AbsoluteTime, Binding, Lease, PoolId, Record, UpdateSink};

/// Which bindings [`LeaseTable::collect`] collects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Collect {
    /// Those with [`Binding::update_pending`]: the answer to UPDREQ.
    Pending,
    /// All: the answer to UPDREQALL. Includes free prefixes of the secondary's
    /// ([`crate::BindingStatus::FreeBackup`]), which have no binding.
    All,
}

/// What is to become of a lease of which the partner has told; see [`LeaseTable::apply`].
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It becomes this: a binding of any status. [`crate::BindingStatus::Free`] and
    /// [`crate::BindingStatus::FreeBackup`] drop the record and say whose the lease is now; an
    /// address is given back by its parity in both cases.
    Store(Binding),
    /// It stays as it is.
    Keep,
}

/// What [`LeaseTable::acknowledge`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acknowledged {
    /// The binding as it is now is known to the partner.
    Current,
    /// The same, and the lease, which had ended, is free now (section 7.2, PENDING-FREE).
    Freed,
    /// The binding has changed since the update was sent: another update is pending.
    Changed,
    /// There is nothing about the lease that could be acknowledged any more.
    Unknown,
}

impl LeaseTable {
    /// Number of stripes for [`LeaseTable::collect`].
    #[must_use]
    pub fn stripe_count(&self) -> usize {
        self.stripes.len()
    }

    /// Copies the bindings of one stripe, at most some thousands, that the partner has to hear of;
    /// `pools` says which pools belong to the relationship. Stripe 0 also holds the free updates and
    /// free-backup prefixes. Whether something was sent before makes no difference.
    pub fn collect(
        &self,
        stripe: usize,
        which: Collect,
        pools: impl Fn(PoolId) -> bool,
        out: &mut Vec<Record>,
    ) {
        let _ = (stripe, which, pools, out);
        todo!()
    }

    /// The binding (or free update) of a lease as it is to be sent to the partner now, with its
    /// stamp; from here on it counts as sent. `None` if nothing is pending, or if this very content
    /// has been sent before and `again` is not set.
    pub fn begin_update(&self, lease: Lease, again: bool) -> Option<Record> {
        let _ = (lease, again);
        todo!()
    }

    /// The partner has acknowledged the update that was sent under `stamp`. `partner_lifetime` is
    /// the OPTION_F_PARTNER_LIFETIME_SENT of its BNDREPLY, if it had one (section 7.7).
    ///
    /// Of a binding that has not changed since: nothing is pending any more, `partner_lifetime` is
    /// zero, and a lease that is EXPIRED, RELEASED or RESET becomes free (section 4.2.2.1). The
    /// new state is pushed. Of one that has changed only `acked_partner_lifetime` is raised, in
    /// memory alone, which errs on the safe side.
    pub fn acknowledge(
        &self,
        lease: Lease,
        stamp: u64,
        partner_lifetime: Option<AbsoluteTime>,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> Acknowledged {
        let _ = (lease, stamp, partner_lifetime, now, sink);
        todo!()
    }

    /// Notes that the partner has to be told of the lease as it is (again): after it sent outdated
    /// information (section 7.5.4). False if there is no binding and no free update.
    pub fn request_update(&self, lease: Lease, sink: &mut impl UpdateSink) -> bool {
        let _ = (lease, sink);
        todo!()
    }

    /// Takes what the partner tells of a lease. `decide` sees the binding as it is, or one of
    /// status Free or FreeBackup with the placeholders of [`Binding::EMPTY`] (or what the free
    /// update says) where there is none; it is called with the lease locked, and again if the lease
    /// had to be let go of in between, so it must not have side effects that may not be repeated.
    ///
    /// What is stored gets a new stamp and is pushed. True if something was stored.
    pub fn apply(
        &self,
        lease: Lease,
        decide: impl FnMut(&Binding) -> Verdict,
        sink: &mut impl UpdateSink,
    ) -> bool {
        let _ = (lease, decide, sink);
        todo!()
    }

    /// In PARTNER-DOWN state: frees the EXPIRED, RELEASED and RESET leases of one stripe for which
    /// `is_over` says that the wait of section 8.4.1 has passed. Each becomes a free update, since
    /// the partner has not heard of it, and is pushed with [`Binding::update_pending`] set. Returns
    /// how many.
    pub fn free_after_wait(
        &self,
        stripe: usize,
        is_over: impl Fn(&Binding) -> bool,
        pools: impl Fn(PoolId) -> bool,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> usize {
        let _ = (stripe, is_over, pools, now, sink);
        todo!()
    }

    /// On the primary: moves up to `count` free prefixes of a pool to the secondary (section
    /// 4.2.2). They are not available here any more, each is pushed as FREE-BACKUP with
    /// [`Binding::update_pending`] set, and appended to `moved`. Returns how many.
    pub fn give_prefixes(
        &self,
        pool: PoolId,
        count: u64,
        now: AbsoluteTime,
        moved: &mut Vec<Lease>,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let _ = (pool, count, now, moved, sink);
        todo!()
    }

    /// On the primary: asks for up to `count` prefixes of the secondary's back. Each becomes a
    /// pending free update FREE, appended to `moved`; it stays the secondary's, and unavailable
    /// here, until [`LeaseTable::acknowledge`]. [`LeaseTable::reject`] takes it back.
    pub fn reclaim_prefixes(
        &self,
        pool: PoolId,
        count: u64,
        now: AbsoluteTime,
        moved: &mut Vec<Lease>,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let _ = (pool, count, now, moved, sink);
        todo!()
    }

    /// In PARTNER-DOWN state, the MCLT after its beginning: makes up to `count` free prefixes of
    /// the partner's this server's own (section 8.4.1). Pushed as pending free updates. Returns how
    /// many.
    pub fn take_over_prefixes(
        &self,
        pool: PoolId,
        count: u64,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let _ = (pool, count, now, sink);
        todo!()
    }

    /// The partner has rejected the update that was sent under `stamp`. The lease stays pending
    /// (the partner will say what it knows), but the request for a prefix of the secondary's is
    /// dropped.
    pub fn reject(&self, lease: Lease, stamp: u64, sink: &mut impl UpdateSink) {
        let _ = (lease, stamp, sink);
        todo!()
    }

    /// Free prefixes of a pool that are the primary's, and the secondary's, as far as this server
    /// knows: neither bound nor on their way from one to the other. (0, 0) for other pools.
    #[must_use]
    pub fn prefix_balance(&self, pool: PoolId) -> (u64, u64) {
        let _ = pool;
        todo!()
    }

    /// Updates that the partner has not acknowledged, free updates included; counted over the
    /// pools of the relationship by walking over all stripes, for the operator.
    #[must_use]
    pub fn pending_updates(&self, pools: impl Fn(PoolId) -> bool) -> u64 {
        let _ = pools;
        todo!()
    }
}
