//! What the partner tells of a lease is taken.

use std::thread;

use super::{Verdict, free_binding};
use crate::{
    Binding, BindingStatus, Lease, Ownership, UpdateSink,
    index::Place,
    pool::Pool,
    striped::StripeGuard,
    table::{LeaseTable, stripe::Stripe},
};

impl LeaseTable {
    /// Takes what the partner tells of a lease. `decide` sees the binding as it is, or one of
    /// status Free or FreeBackup with the placeholders of [`Binding::EMPTY`] (or what the free
    /// update says) where there is none; it is called with the lease locked, and again if the lease
    /// had to be let go of in between, so it must not have side effects that may not be repeated,
    /// nor call the table.
    ///
    /// What is stored gets a new stamp and is pushed. It counts as known to the partner: a lease
    /// that has ended is not given to its former client any more. True if something was stored; not
    /// for a lease that is in no pool of a pair or that is of another kind than its pool, and not
    /// when a free prefix is to change its owner that is just being granted here.
    pub fn apply(
        &self,
        lease: Lease,
        mut decide: impl FnMut(&Binding) -> Verdict,
        sink: &mut impl UpdateSink,
    ) -> bool {
        let Some(told) = self.told(lease) else { return false };
        let name = self.name(&lease);
        loop {
            match self.index.find(name) {
                // Another thread is about to finish.
                Some(Place::MOVING) => thread::yield_now(),
                Some(place) => {
                    let stripe = self.lock_stripe(place.stripe);
                    let slot = stripe.arena.get(place.slot);
                    if slot.is_some_and(|slot| slot.binding.lease == lease) {
                        return self.apply_to_record(&told, stripe, place, &mut decide, sink);
                    }
                    if self.index.find(name) == Some(place) {
                        // Another lease of the same name, once in the lifetimes of many servers.
                        return false;
                    }
                }
                None => {
                    if let Some(done) = self.apply_to_free(&told, &mut decide, sink) {
                        return done;
                    }
                    thread::yield_now();
                }
            }
        }
    }

    fn told(&self, lease: Lease) -> Option<Told<'_>> {
        let (pool, index) = self.pools.locate(lease)?;
        (pool.ownership() != Ownership::Sole).then_some(Told { lease, pool, index })
    }

    /// The lease has a record, whose stripe is locked.
    fn apply_to_record(
        &self,
        told: &Told<'_>,
        mut stripe: StripeGuard<'_, Stripe>,
        place: Place,
        decide: &mut impl FnMut(&Binding) -> Verdict,
        sink: &mut impl UpdateSink,
    ) -> bool {
        let before = &stripe.arena.slot(place.slot).binding;
        let Verdict::Store(binding) = decide(before) else { return false };
        if is_free(binding.status) {
            sink.push(&told.free(&binding), self.next_stamp());
            let to_secondary = binding.status == BindingStatus::FreeBackup;
            self.free_for(&mut stripe, place, to_secondary, None);
            return true;
        }
        if self.pools.find(told.lease, binding.kind).is_none() {
            return false;
        }
        let binding = Binding { lease: told.lease, ..binding };
        if before.client_key() == binding.client_key() {
            stripe.overwrite(place.slot, binding, self.next_stamp());
            self.enter(&mut stripe, place, sink);
            return true;
        }
        stripe.remove(place.slot, |key| self.hashes.client(&key).h1);
        self.index.lock(self.name(&told.lease)).replace(Place::MOVING);
        drop(stripe);
        self.settle(binding, sink);
        true
    }

    /// The lease had no record a moment ago. `None`: look again.
    fn apply_to_free(
        &self,
        told: &Told<'_>,
        decide: &mut impl FnMut(&Binding) -> Verdict,
        sink: &mut impl UpdateSink,
    ) -> Option<bool> {
        let Told { lease, pool, index } = *told;
        let strays = self.strays.lock_if_any();
        let mut entry = self.index.lock(self.name(&lease));
        if entry.find().is_some() {
            return None;
        }
        let free = self.free_updates.with(lease, |update| update.binding.clone());
        let Verdict::Store(binding) = decide(&free.unwrap_or_else(|| told.as_it_is())) else {
            return Some(false);
        };
        let blocked = strays.as_ref().is_some_and(|strays| strays.overlap(lease));
        if is_free(binding.status) {
            let to_secondary = binding.status == BindingStatus::FreeBackup;
            if !set_owner(pool, index, to_secondary, blocked) {
                return Some(false);
            }
            self.free_updates.remove(lease, pool);
            sink.push(&told.free(&binding), self.next_stamp());
            return Some(true);
        }
        if self.pools.find(lease, binding.kind).is_none() {
            return Some(false);
        }
        if !pool.is_dense() {
            pool.take_out(index);
        } else if pool.is_mine(index) && !blocked && !pool.claim(index) {
            // A worker has claimed the lease and is about to enter it.
            return None;
        }
        let entered = entry.insert(Place::MOVING);
        assert!(entered, "an available lease was in the index: {lease}");
        pool.set_bound(index);
        pool.count_in_use(true);
        self.free_updates.remove(lease, pool);
        drop((entry, strays));
        self.settle(Binding { lease, ..binding }, sink);
        Some(true)
    }

    /// Makes the record of a lease that is on its way ([`Place::MOVING`]).
    fn settle(&self, binding: Binding, sink: &mut impl UpdateSink) {
        let lease = binding.lease;
        let hash = self.hashes.client(&binding.client_key()).h1;
        let number = self.stripe_of(hash);
        let mut stripe = self.lock_stripe(number);
        let slot = stripe.insert(hash, binding, self.next_stamp());
        let place = Place { stripe: number, slot };
        self.enter(&mut stripe, place, sink);
        self.index.lock(self.name(&lease)).replace(place);
    }

    /// Pushes a record that has just been told by the partner.
    fn enter(&self, stripe: &mut Stripe, place: Place, sink: &mut impl UpdateSink) {
        let slot = stripe.arena.at(place.slot);
        slot.set_told();
        sink.push(&slot.binding, slot.stamp());
        let due = self.due(&slot.binding);
        stripe.enqueue(place.slot, due);
    }

    /// Changes the owner of a prefix that has no record; whether it could be done. Nothing is done
    /// while it is being granted or overlaps a binding that has left the pools, or if it is the
    /// owner's already.
    pub(in crate::table) fn change_owner(
        &self,
        pool: &Pool,
        index: u128,
        to_secondary: bool,
        then: impl FnOnce(Lease),
    ) -> bool {
        let lease = pool.lease(index);
        let strays = self.strays.lock_if_any();
        // Locked throughout: neither another change of owner nor the end of a binding interferes.
        let entry = self.index.lock(self.name(&lease));
        let blocked = strays.is_some_and(|strays| strays.overlap(lease));
        if entry.find().is_some() || blocked || pool.is_backup(index) == to_secondary {
            return false;
        }
        let done = set_owner(pool, index, to_secondary, false);
        if done {
            then(lease);
        }
        done
    }
}

/// A lease of which the partner has told.
struct Told<'t> {
    lease: Lease,
    pool: &'t Pool,
    index: u128,
}

impl Told<'_> {
    /// What is stored when it is free now.
    fn free(&self, told: &Binding) -> Binding {
        let start_time_of_state = told.start_time_of_state;
        Binding { start_time_of_state, ..free_binding(self.lease, told.status, self.pool) }
    }

    /// What there is of a lease without record.
    fn as_it_is(&self) -> Binding {
        let backup = self.pool.is_backup(self.index);
        let status = if backup { BindingStatus::FreeBackup } else { BindingStatus::Free };
        free_binding(self.lease, status, self.pool)
    }
}

fn is_free(status: BindingStatus) -> bool {
    matches!(status, BindingStatus::Free | BindingStatus::FreeBackup | BindingStatus::PendingFree)
}

/// Says whose a free lease is, whose name is locked; false if it is just being granted. Addresses
/// stay whose they are. `blocked`: nobody can claim it now, and it does not become available.
fn set_owner(pool: &Pool, index: u128, to_secondary: bool, blocked: bool) -> bool {
    if !pool.has_backup() || pool.is_backup(index) == to_secondary {
        return true;
    }
    if pool.is_mine(index) && !blocked && !pool.claim(index) {
        return false;
    }
    pool.set_backup(index, to_secondary);
    if !blocked {
        pool.put_back(index);
    }
    true
}
