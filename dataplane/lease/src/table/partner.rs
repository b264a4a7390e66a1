//! What the failover endpoint does with the table (RFC 8156 section 7): which leases the partner
//! has to hear of, what it has acknowledged, and what it tells.
//!
//! A lease whose [`Binding::update_pending`] is set has to be sent to the partner. Besides, a slot
//! remembers whether its *present* content has been sent; a change of the lease takes that back.
//! A lease that became free without the partner's consent, in PARTNER-DOWN state or by a move
//! between the pools of primary and secondary, has no slot; what the partner has to hear of it is
//! kept among the *free updates* until the partner acknowledges it or somebody gets the lease.

mod apply;
mod free;

use super::{LeaseTable, free_updates::FreeUpdate, stripe::Stripe};
use crate::{
    AbsoluteTime, Binding, BindingStatus, IaKind, Lease, Ownership, PoolId, Record, UpdateSink,
    index::Place,
    pool::{Pool, dense_index},
};

/// Which bindings [`LeaseTable::collect`] collects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Collect {
    /// Those with [`Binding::update_pending`]: the answer to UPDREQ.
    Pending,
    /// All: the answer to UPDREQALL. Includes free prefixes of the secondary's
    /// ([`BindingStatus::FreeBackup`]), which have no binding; those that are not pending have the
    /// stamp 0 and no times.
    All,
}

/// What is to become of a lease of which the partner has told; see [`LeaseTable::apply`].
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It becomes this: a binding of any status. [`BindingStatus::Free`] (and
    /// [`BindingStatus::PendingFree`], which is passed through at once) and
    /// [`BindingStatus::FreeBackup`] drop the record and say whose the lease is now; an address is
    /// given back by its parity in all cases.
    Store(Binding),
    /// It stays as it is.
    Keep,
}

/// What [`LeaseTable::begin_update`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Begun {
    /// This is to be sent.
    Update(Record),
    /// There is something to be sent, but it is not known to be stored.
    NotStored,
    /// There is nothing to be sent.
    Nothing,
}

impl Begun {
    /// What is to be sent.
    #[must_use]
    pub fn update(self) -> Option<Record> {
        match self {
            Self::Update(record) => Some(record),
            Self::NotStored | Self::Nothing => None,
        }
    }
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
    /// `pools` says which pools belong to the relationship. The free updates and the free-backup
    /// prefixes are spread over the stripes as they lie in their pools. Whether something was sent
    /// before makes no difference.
    pub fn collect(
        &self,
        stripe: usize,
        which: Collect,
        pools: impl Fn(PoolId) -> bool,
        out: &mut Vec<Record>,
    ) {
        {
            let records = self.stripes[stripe].lock(&self.waits);
            let slots = records.arena.iter().map(|(_, slot)| slot).filter(|slot| {
                (which == Collect::All || slot.binding.update_pending)
                    && self.pools.find_lease(slot.binding.lease).is_some_and(&pools)
            });
            out.extend(
                slots.map(|slot| Record { binding: slot.binding.clone(), stamp: slot.stamp() }),
            );
        }
        let mut leases = Vec::new();
        for pool in self.pools.ids().filter(|id| pools(*id)).map(|id| self.pools.pool(id)) {
            let Some((first, last)) = self.part(pool, stripe) else { continue };
            self.free_updates.leases(pool.lease(first)..=pool.lease(last), &mut leases);
            out.extend(leases.drain(..).filter_map(|lease| {
                self.with_free_update(lease, |update| Record {
                    binding: update.binding.clone(),
                    stamp: update.stamp,
                })
            }));
            if which == Collect::All && pool.has_backup() {
                self.collect_free_backup(pool, first, last, out);
            }
        }
    }

    /// The binding (or free update) of a lease as it is to be sent to the partner now, with its
    /// stamp; from here on it counts as sent. Nothing if nothing is pending, or if this very content
    /// has been sent before and `again` is not set.
    ///
    /// What the partner hears must not be lost: all changes with a stamp below `stored_before` are
    /// stored, and of later ones nobody knows yet. Nor is a binding sent that
    /// [`LeaseTable::mark_unstored`] noted.
    pub fn begin_update(&self, lease: Lease, stored_before: u64, again: bool) -> Begun {
        let of_binding = self.with_lease(lease, |stripe, place| {
            let slot = stripe.arena.at(place.slot);
            if !slot.binding.update_pending || (slot.is_sent() && !again) {
                return Begun::Nothing;
            }
            if slot.stamp() >= stored_before || !slot.is_stored() {
                return Begun::NotStored;
            }
            slot.set_sent();
            Begun::Update(Record { binding: slot.binding.clone(), stamp: slot.stamp() })
        });
        if let Some(begun) = of_binding {
            self.forget_outdated(lease);
            return begun;
        }
        let of_free = self.with_free_update(lease, |update| {
            if update.sent && !again {
                return Begun::Nothing;
            }
            if update.stamp >= stored_before || !update.is_stored() {
                return Begun::NotStored;
            }
            update.sent = true;
            Begun::Update(Record { binding: update.binding.clone(), stamp: update.stamp })
        });
        of_free.unwrap_or(Begun::Nothing)
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
        let of_binding = self.with_lease(lease, |stripe, place| {
            let raised = raise_acked(stripe, place, partner_lifetime);
            self.acknowledge_binding(stripe, place, stamp, raised, now, sink)
        });
        if let Some(acknowledged) = of_binding {
            return acknowledged;
        }
        self.acknowledge_free(lease, stamp, sink)
    }

    /// Notes that the partner has to be told of the lease as it is (again): after it sent outdated
    /// information (section 7.5.4). False if there is no binding and no free update, or if the lease
    /// is not of a pair's pool.
    ///
    /// That it is to be sent anew does not undo that it was sent: the end of a lease that the
    /// partner may know of stays final.
    pub fn request_update(&self, lease: Lease, sink: &mut impl UpdateSink) -> bool {
        if self.is_sole(self.pools.find_lease(lease)) {
            return false;
        }
        let of_binding = self.with_lease(lease, |stripe, place| {
            let slot = stripe.arena.at(place.slot);
            slot.binding.update_pending = true;
            slot.renew_stamp(self.next_stamp());
            sink.push(&slot.binding, slot.stamp());
        });
        if of_binding.is_some() {
            return true;
        }
        let of_free = self.with_free_update(lease, |update| {
            update.stamp = self.next_stamp();
            update.sent = false;
            update.push(sink);
        });
        of_free.is_some()
    }

    /// The partner has rejected the update that was sent under `stamp`. The lease stays pending
    /// (the partner will say what it knows), but the request for a prefix of the secondary's is
    /// dropped.
    pub fn reject(&self, lease: Lease, stamp: u64, sink: &mut impl UpdateSink) {
        let Some((pool, _)) = self.pools.locate(lease) else { return };
        let entry = self.index.lock(self.name(&lease));
        let is_request = |update: &mut FreeUpdate| update.stamp == stamp && update.is_reclaim();
        if entry.find().is_none() && self.free_updates.with(lease, is_request) == Some(true) {
            self.free_updates.remove(lease, pool);
            let free_backup = free_binding(lease, BindingStatus::FreeBackup, pool);
            sink.push(&free_backup, self.next_stamp());
        }
    }

    /// Updates that the partner has not acknowledged, free updates included; counted over the
    /// pools of the relationship by walking over all stripes, for the operator.
    #[must_use]
    pub fn pending_updates(&self, pools: impl Fn(PoolId) -> bool) -> u64 {
        (0..self.stripe_count()).map(|stripe| self.pending_in(stripe, &pools)).sum()
    }

    /// Those of one stripe; the free updates are spread over the stripes as they lie in their pools.
    #[must_use]
    pub fn pending_in(&self, stripe: usize, pools: impl Fn(PoolId) -> bool) -> u64 {
        let is_pending = |binding: &Binding| {
            binding.update_pending && self.pools.find_lease(binding.lease).is_some_and(&pools)
        };
        let of_clients = {
            let records = self.stripes[stripe].lock(&self.waits);
            records.arena.iter().filter(|(_, slot)| is_pending(&slot.binding)).count()
        };
        let mut leases = Vec::new();
        if self.free_updates.len() > 0 {
            for pool in self.pools.ids().filter(|id| pools(*id)).map(|id| self.pools.pool(id)) {
                if let Some((first, last)) = self.part(pool, stripe) {
                    self.free_updates.leases(pool.lease(first)..=pool.lease(last), &mut leases);
                }
            }
        }
        let free =
            leases.into_iter().filter(|lease| self.with_free_update(*lease, |_| ()).is_some());
        (of_clients + free.count()) as u64
    }

    fn acknowledge_binding(
        &self,
        stripe: &mut Stripe,
        place: Place,
        stamp: u64,
        raised: bool,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> Acknowledged {
        let slot = stripe.arena.at(place.slot);
        let pending = slot.binding.update_pending;
        if slot.stamp() != stamp {
            return if pending { Acknowledged::Changed } else { Acknowledged::Current };
        }
        if has_ended(slot.binding.status) {
            // PENDING-FREE, and at once FREE.
            self.change_status(stripe, place, BindingStatus::Free, now, sink);
            self.free(stripe, place);
            return Acknowledged::Freed;
        }
        if pending || raised {
            slot.binding.update_pending = false;
            slot.binding.partner_lifetime = AbsoluteTime::ZERO;
            slot.renew_stamp(self.next_stamp());
            sink.push(&slot.binding, slot.stamp());
        }
        Acknowledged::Current
    }

    fn acknowledge_free(
        &self,
        lease: Lease,
        stamp: u64,
        sink: &mut impl UpdateSink,
    ) -> Acknowledged {
        let Some((pool, index)) = self.pools.locate(lease) else { return Acknowledged::Unknown };
        let strays = self.strays.lock_if_any();
        let entry = self.index.lock(self.name(&lease));
        let known = self.free_updates.with(lease, |update| update.stamp == stamp);
        match known {
            // Somebody got the lease this moment; what comes of it will be sent.
            _ if entry.find().is_some() => Acknowledged::Changed,
            None => Acknowledged::Unknown,
            Some(false) => Acknowledged::Changed,
            Some(true) => {
                let update = self.free_updates.remove(lease, pool).expect("it is there");
                let status = update.binding.status;
                if update.is_reclaim() {
                    pool.set_backup(index, false);
                    if !strays.is_some_and(|strays| strays.overlap(lease)) {
                        pool.put_back(index);
                    }
                }
                let start_time_of_state = update.binding.start_time_of_state;
                let free = Binding { start_time_of_state, ..free_binding(lease, status, pool) };
                sink.push(&free, self.next_stamp());
                Acknowledged::Current
            }
        }
    }

    /// Shows the free update of a lease, if that counts; else drops it.
    fn with_free_update<T>(&self, lease: Lease, f: impl FnOnce(&mut FreeUpdate) -> T) -> Option<T> {
        if self.free_updates.len() == 0 {
            return None;
        }
        let (pool, _) = self.pools.locate(lease)?;
        let entry = self.index.lock(self.name(&lease));
        if entry.find().is_some() {
            self.free_updates.remove(lease, pool);
            return None;
        }
        self.free_updates.with(lease, f)
    }

    /// Drops the free update of a lease that has a record.
    fn forget_outdated(&self, lease: Lease) {
        self.with_free_update(lease, |_| ());
    }

    /// The part of a pool whose free leases go with a stripe: first and last.
    fn part(&self, pool: &Pool, stripe: usize) -> Option<(u128, u128)> {
        if pool.ownership() == Ownership::Sole {
            return None;
        }
        let len = pool.size().div_ceil(self.stripes.len() as u128);
        let first = len * stripe as u128;
        (first < pool.size()).then(|| (first, (first + len).min(pool.size()) - 1))
    }

    /// The free prefixes of the secondary's from first to last, but for those with a free update.
    fn collect_free_backup(&self, pool: &Pool, first: u128, last: u128, out: &mut Vec<Record>) {
        let mut place = first;
        while let Some(index) = pool.next_owned(true, dense_index(place)).filter(|i| *i <= last) {
            place = index + 1;
            let lease = pool.lease(index);
            let entry = self.index.lock(self.name(&lease));
            let is_free = entry.find().is_none() && pool.is_backup(index);
            if is_free && self.free_updates.with(lease, |_| ()).is_none() {
                let binding = free_binding(lease, BindingStatus::FreeBackup, pool);
                out.push(Record { binding, stamp: 0 });
            }
        }
    }
}

/// Raises what the partner has acknowledged; whether it is more than before.
fn raise_acked(stripe: &mut Stripe, place: Place, to: Option<AbsoluteTime>) -> bool {
    let acked = &mut stripe.arena.at(place.slot).binding.acked_partner_lifetime;
    let raised = to.filter(|time| *acked < *time);
    *acked = raised.unwrap_or(*acked);
    raised.is_some()
}

/// Whether the partner has to agree before the lease is free.
fn has_ended(status: BindingStatus) -> bool {
    matches!(status, BindingStatus::Expired | BindingStatus::Released | BindingStatus::Reset)
}

/// What is stored of a free lease when the partner knows. Only prefixes can be the secondary's.
fn free_binding(lease: Lease, status: BindingStatus, pool: &Pool) -> Binding {
    let (kind, status) = match status {
        _ if lease.prefix_len == 128 => (IaKind::Na, BindingStatus::Free),
        BindingStatus::FreeBackup if pool.has_backup() => (IaKind::Pd, BindingStatus::FreeBackup),
        _ => (IaKind::Pd, BindingStatus::Free),
    };
    Binding { lease, kind, status, ..Binding::EMPTY }
}
