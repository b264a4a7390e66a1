//! Leases that become free without the partner.

use super::has_ended;
use crate::{
    AbsoluteTime, Binding, BindingStatus, PoolId, UpdateSink,
    index::Place,
    table::{
        LeaseTable,
        free_updates::{Course, FreeUpdate},
    },
};

/// Leases that are freed before a stripe is unlocked for its clients.
const FREED_MAX: usize = 64;

impl LeaseTable {
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
        let may_free = |binding: &Binding| {
            let pool = self.pools.find_lease(binding.lease).filter(|id| pools(*id));
            has_ended(binding.status) && !self.is_sole(pool) && is_over(binding)
        };
        let number = u16::try_from(stripe).expect("a stripe of this table");
        let over: Vec<_> = {
            let records = self.lock_stripe(number);
            let over = records.arena.iter().filter(|(_, slot)| may_free(&slot.binding));
            over.map(|(slot, found)| (slot, found.stamp())).collect()
        };
        let mut freed = 0;
        for some in over.chunks(FREED_MAX) {
            let mut records = self.lock_stripe(number);
            for &(slot, stamp) in some {
                let found = records.arena.get(slot).filter(|found| found.stamp() == stamp);
                let Some(binding) = found.map(|f| &f.binding).filter(|b| may_free(b)) else {
                    continue;
                };
                let status = BindingStatus::Free;
                let stamp = self.next_stamp();
                let update = FreeUpdate::new(binding.lease, status, now, stamp, Course::Settled)
                    .of_client(binding);
                update.push(sink);
                self.free_for(&mut records, Place { stripe: number, slot }, false, Some(update));
                freed += 1;
            }
        }
        freed
    }
}
