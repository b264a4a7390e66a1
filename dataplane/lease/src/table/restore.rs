//! Bringing back what the store remembers.

use std::sync::atomic::Ordering;

use super::{LeaseTable, free_updates::FreeUpdate};
use crate::{
    Binding, BindingStatus, Ownership, Record,
    arena::STAMP_MAX,
    index::{LeaseName, Place},
};

impl LeaseTable {
    /// Takes a stored record. Several threads may do so at once, and in any order: of the records
    /// of one lease the one with the largest stamp stays. Restore everything, then call
    /// [`LeaseTable::finish_restore`], before a lease is given to anybody or ends.
    ///
    /// Meanwhile a client may extend a lease whose record has been restored: the older record that
    /// is restored once more changes nothing. To free a lease meanwhile would be wrong, for its older
    /// record would bring it back.
    ///
    /// A binding whose lease is in no pool is kept until it ends. So is an active one that is
    /// over; the sweep ends it. A record of a free lease frees it, and says whose it is; if it has
    /// [`Binding::update_pending`], the partner has yet to hear that.
    pub fn restore(&self, record: Record) {
        let Record { binding, stamp } = record;
        // What no table ever wrote; the order among such records is lost, nothing else.
        let stamp = stamp.clamp(1, STAMP_MAX);
        self.stamp.fetch_max(stamp, Ordering::Relaxed);
        if matches!(binding.status, BindingStatus::Free | BindingStatus::FreeBackup) {
            self.restore_free(&binding, stamp);
        } else {
            self.restore_taken(binding, stamp);
        }
    }

    /// Sees to it that new stamps are larger than `stamp`. For a table that serves clients while it is
    /// being restored: see [`LeaseTable::restore`].
    pub fn raise_stamp(&self, stamp: u64) {
        self.stamp.fetch_max(stamp.min(STAMP_MAX), Ordering::Relaxed);
    }

    /// Ends the restore: forgets which leases were freed when.
    pub fn finish_restore(&self) {
        self.index.forget_freed();
    }

    fn restore_taken(&self, binding: Binding, stamp: u64) {
        let lease = binding.lease;
        let name = self.name(&lease);
        let hash = self.hashes.client(&binding.client_key()).h1;
        let number = self.stripe_of(hash);
        let due = self.due(&binding);
        let in_pool = self.pools.locate(lease);
        loop {
            let mut stripe = self.lock_stripe(number);
            let mut strays = in_pool.is_none().then(|| self.strays.lock());
            let mut entry = self.index.lock(name);
            let slot = match entry.find() {
                Some(holder) if holder.stripe != number => {
                    drop((entry, strays, stripe));
                    if !self.displace(name, holder, &binding, stamp) {
                        return;
                    }
                    continue;
                }
                Some(holder) => {
                    let slot = stripe.arena.slot(holder.slot);
                    assert_eq!(slot.binding.lease, lease, "two leases of one name");
                    if slot.stamp() >= stamp {
                        return;
                    }
                    if slot.binding.client_key() == binding.client_key() {
                        stripe.overwrite(holder.slot, binding, stamp);
                        holder.slot
                    } else {
                        stripe.remove(holder.slot, |key| self.hashes.client(&key).h1);
                        let slot = stripe.insert(hash, binding, stamp);
                        entry.replace(Place { stripe: number, slot });
                        slot
                    }
                }
                None => {
                    if entry.freed().is_some_and(|freed| freed >= stamp) {
                        return;
                    }
                    let slot = stripe.insert(hash, binding, stamp);
                    entry.insert(Place { stripe: number, slot });
                    if let Some((pool, index)) = in_pool {
                        // What was to be said of the free lease is out of date.
                        self.free_updates.remove(lease, pool);
                        pool.set_bound(index);
                        pool.count_in_use(true);
                        pool.take_out(index);
                    } else if let Some(strays) = &mut strays {
                        drop(entry);
                        self.block(lease, strays);
                    }
                    slot
                }
            };
            // Nobody knows any more what the partner has been told of the end of a lease.
            stripe.arena.at(slot).set_told();
            stripe.enqueue(slot, due);
            return;
        }
    }

    fn restore_free(&self, binding: &Binding, stamp: u64) {
        let lease = binding.lease;
        let name = self.name(&lease);
        loop {
            let strays = self.strays.lock();
            let mut entry = self.index.lock(name);
            if entry.freed().is_some_and(|freed| freed >= stamp) {
                return;
            }
            if let Some(holder) = entry.find() {
                drop((entry, strays));
                if !self.displace(name, holder, binding, stamp) {
                    return;
                }
                continue;
            }
            entry.set_freed(stamp);
            let Some((pool, index)) = self.pools.locate(lease) else { return };
            if pool.ownership() != Ownership::Sole {
                if binding.update_pending {
                    let update = FreeUpdate::restored(binding.clone(), stamp, pool);
                    self.free_updates.insert(lease, update, pool);
                } else {
                    self.free_updates.remove(lease, pool);
                }
            }
            if pool.has_backup() {
                pool.claim(index);
                pool.set_backup(index, binding.status == BindingStatus::FreeBackup);
                if !strays.overlap(lease) {
                    pool.put_back(index);
                }
            }
            return;
        }
    }

    /// Removes the lease's older record at `holder` in favour of a newer one. False if it is not
    /// older. True does not say that anything was done: look again.
    fn displace(&self, name: LeaseName, holder: Place, newer: &Binding, stamp: u64) -> bool {
        let mut stripe = self.lock_stripe(holder.stripe);
        let strays = self.strays.lock();
        let entry = self.index.lock(name);
        if entry.find() != Some(holder) {
            return true;
        }
        let slot = stripe.arena.slot(holder.slot);
        assert_eq!(slot.binding.lease, newer.lease, "two leases of one name");
        if slot.stamp() >= stamp {
            return false;
        }
        stripe.remove(holder.slot, |key| self.hashes.client(&key).h1);
        self.give_back(newer.lease, holder, entry, Some(strays), false, None);
        true
    }
}
