//! The sweep: what happens to a lease when its time is over.

use std::sync::atomic::Ordering;

use super::{LeaseTable, stripe::Stripe};
use crate::{AbsoluteTime, BindingStatus, UpdateSink, index::Place};

/// Queue entries that are looked at before a stripe is unlocked for its clients: some 20
/// microseconds.
const VISIT_MAX: usize = 64;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sweep {
    /// Number of bindings whose status ended.
    pub ended: usize,
    /// Whether work was left because the limit was reached.
    pub more: bool,
}

impl LeaseTable {
    /// Ends what is over at `now`, stripe by stripe, going on where the last sweep stopped.
    ///
    /// A lease of a server without partner becomes free: its record is dropped and a record with
    /// status [`BindingStatus::Free`] pushed. Of a pair, an active lease becomes
    /// [`BindingStatus::Expired`], an abandoned one [`BindingStatus::Reset`] (RFC 8156 section
    /// 7.2), and the partner has to agree before it is free.
    ///
    /// `limit` bounds the work: the number of queue entries looked at, renewed leases included. No
    /// stripe is locked for longer than 64 of them.
    pub fn expire(&self, now: AbsoluteTime, limit: usize, sink: &mut impl UpdateSink) -> Sweep {
        let mut sweep = Sweep::default();
        let mut left = limit;
        let mut finished_in_a_row = 0;
        while finished_in_a_row < self.stripes.len() {
            if left == 0 {
                sweep.more = true;
                return sweep;
            }
            let at = self.sweep_at.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_possible_truncation, reason = "masked to 16 bits")]
            let number = at as u16 & self.mask;
            let (looked_at, finished) =
                self.expire_stripe(number, now, left.min(VISIT_MAX), &mut sweep, sink);
            left -= looked_at;
            finished_in_a_row = if finished { finished_in_a_row + 1 } else { 0 };
        }
        sweep
    }

    /// How many entries of one stripe were looked at, and whether nothing more is due there.
    fn expire_stripe(
        &self,
        number: u16,
        now: AbsoluteTime,
        limit: usize,
        sweep: &mut Sweep,
        sink: &mut impl UpdateSink,
    ) -> (usize, bool) {
        let mut stripe = self.lock_stripe(number);
        for looked_at in 0..limit {
            let Some(entry) = stripe.pop_due(now) else { return (looked_at, true) };
            let Some(slot) = entry else { continue };
            let due = self.due(&stripe.arena.slot(slot).binding);
            if now < due {
                stripe.enqueue(slot, due);
            } else {
                self.end(&mut stripe, Place { stripe: number, slot }, now, sink);
                sweep.ended += 1;
            }
        }
        (limit, false)
    }

    /// Ends the status of a record that is due.
    fn end(
        &self,
        stripe: &mut Stripe,
        place: Place,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) {
        let slot = stripe.arena.slot(place.slot);
        let sole = self.is_sole(self.pools.find_lease(slot.binding.lease));
        let status = match slot.binding.status {
            _ if sole => BindingStatus::Free,
            BindingStatus::Abandoned => BindingStatus::Reset,
            _ => BindingStatus::Expired,
        };
        self.change_status(stripe, place, status, now, sink);
        if sole {
            self.free(stripe, place);
        }
    }

    /// Changes a record's status under a new stamp and pushes the update. In a pair the partner
    /// has to hear of it, unless it has: what is free there was agreed upon.
    pub(super) fn change_status(
        &self,
        stripe: &mut Stripe,
        place: Place,
        status: BindingStatus,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) {
        stripe.set_status(place.slot, status, now);
        let slot = stripe.arena.at(place.slot);
        if status != BindingStatus::Abandoned {
            slot.binding.state_expiration_time = AbsoluteTime::ZERO;
        }
        slot.binding.update_pending = status != BindingStatus::Free
            && !self.is_sole(self.pools.find_lease(slot.binding.lease));
        slot.set_stamp(self.next_stamp());
        sink.push(&slot.binding, slot.stamp());
    }
}
