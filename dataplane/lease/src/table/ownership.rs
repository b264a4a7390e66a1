//! Which server of a pair may give out a free prefix (RFC 8156 section 4.2.2).

use super::LeaseTable;
use crate::{AbsoluteTime, Binding, BindingStatus, IaKind, Lease, UpdateSink};

impl LeaseTable {
    /// Makes a free prefix the secondary's, [`BindingStatus::FreeBackup`], and pushes that: on the
    /// primary to give it, on the secondary when the primary has given it.
    ///
    /// Whether the prefix is the secondary's now; nothing is pushed if it was before. False if it
    /// has a binding, is just being granted, overlaps a binding that has left the pools, or is not
    /// of a prefix pool of a pair.
    pub fn give(&self, lease: Lease, now: AbsoluteTime, sink: &mut impl UpdateSink) -> bool {
        self.set_owner(lease, BindingStatus::FreeBackup, now, sink)
    }

    /// Makes a free prefix the primary's, [`BindingStatus::Free`]; else as [`LeaseTable::give`].
    pub fn take(&self, lease: Lease, now: AbsoluteTime, sink: &mut impl UpdateSink) -> bool {
        self.set_owner(lease, BindingStatus::Free, now, sink)
    }

    /// The status of a lease of any pool: that of its binding, else [`BindingStatus::Free`] or
    /// [`BindingStatus::FreeBackup`]. `None` if there is neither binding nor pool.
    #[must_use]
    pub fn status(&self, lease: Lease) -> Option<BindingStatus> {
        if let Some(status) =
            self.with_lease(lease, |stripe, place| stripe.arena.slot(place.slot).binding.status)
        {
            return Some(status);
        }
        let (pool, index) = self.pools.locate(lease)?;
        let free_backup = pool.is_backup(index);
        Some(if free_backup { BindingStatus::FreeBackup } else { BindingStatus::Free })
    }

    fn set_owner(
        &self,
        lease: Lease,
        status: BindingStatus,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> bool {
        let Some((pool, index)) = self.pools.locate(lease).filter(|(pool, _)| pool.has_backup())
        else {
            return false;
        };
        let to_secondary = status == BindingStatus::FreeBackup;
        let strays = self.strays.lock();
        // Locked throughout: neither another change of owner nor the end of a binding interferes.
        let entry = self.index.lock(self.name(&lease));
        if entry.find().is_some() || strays.overlap(lease) {
            return false;
        }
        if pool.is_backup(index) == to_secondary {
            return true;
        }
        if pool.is_mine(index) && !pool.claim(index) {
            return false;
        }
        pool.set_backup(index, to_secondary);
        let binding =
            Binding { lease, kind: IaKind::Pd, status, start_time_of_state: now, ..Binding::EMPTY };
        sink.push(&binding, self.next_stamp());
        pool.put_back(index);
        true
    }
}
