//! A search through the table for what the partner has to hear of, stripe by stripe.

use gemel_lease::{Begun, BindingStatus, Collect, LeaseTable, PoolId, Record};
use gemel_wire::TransactionId;

/// Why the table is searched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// This server wants to know what it has not sent yet.
    Unsent,
    /// This server sends again what the partner has not acknowledged.
    Unacknowledged,
    /// The partner's UPDREQ or UPDREQALL.
    Request { all: bool, id: TransactionId },
}

/// One search and the updates that came of it.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) purpose: Purpose,
    /// On its messages in the window.
    pub(super) tag: u32,
    /// The next stripe.
    stripe: usize,
    /// How many there are; not known before the first step.
    stripes: Option<usize>,
    /// Everything has been looked at, and now what has changed meanwhile is. Who asks for everything
    /// may know nothing of who gives what: a lease that was free when its turn came, and another's
    /// when the turn of that client had passed already, it would take for its own.
    is_second: bool,
    /// What is left of the last stripe, in reverse.
    records: Vec<Record>,
    /// What has been begun but belongs into the next message.
    carry: Option<Record>,
    /// The same, from an earlier call: it may have changed since.
    stale: Option<Record>,
    /// What is not known to be stored yet; the partner hears of it after the rest.
    postponed: Vec<Record>,
    /// Nothing else is left, and nothing of it can be sent in this call.
    is_waiting: bool,
    /// Messages without an answer.
    pub(super) unanswered: u64,
    /// Leases sent.
    pub(super) sent: u64,
}

impl Walk {
    pub(super) fn new(purpose: Purpose, tag: u32) -> Self {
        Self {
            purpose,
            tag,
            stripe: 0,
            stripes: None,
            is_second: false,
            records: Vec::new(),
            carry: None,
            stale: None,
            postponed: Vec::new(),
            is_waiting: false,
            unanswered: 0,
            sent: 0,
        }
    }

    /// Whether everything has been sent.
    pub(super) fn is_sent(&self) -> bool {
        Some(self.stripe) == self.stripes
            && self.is_second == self.is_of_all()
            && self.records.is_empty()
            && self.carry.is_none()
            && self.stale.is_none()
            && self.postponed.is_empty()
    }

    fn is_of_all(&self) -> bool {
        matches!(self.purpose, Purpose::Request { all: true, .. })
    }

    /// Whether there is something that may be sent now.
    pub(super) fn has_next(&self) -> bool {
        !self.is_sent() && !self.is_waiting
    }

    /// Whether what is left waits for the store.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// A new call: more may have been stored.
    pub(super) fn resume(&mut self) {
        self.is_waiting = false;
    }

    /// Whether everything has been sent and answered.
    pub(super) fn is_done(&self) -> bool {
        self.is_sent() && self.unanswered == 0
    }

    /// The next update. A lease that need not be sent costs one of `budget`, and a stripe 16. All
    /// changes with a stamp below `stored_before` are stored.
    pub(super) fn next(
        &mut self,
        table: &LeaseTable,
        stored_before: u64,
        pools: impl Fn(PoolId) -> bool,
        budget: &mut usize,
    ) -> Option<Record> {
        if self.carry.is_some() {
            return self.carry.take();
        }
        if let Some(record) = self.stale.take()
            && let Some(record) = self.begin(record, true, table, stored_before)
        {
            return Some(record);
        }
        while *budget > 0 {
            if let Some(record) = self.records.pop() {
                *budget -= 1;
                if let Some(record) = self.begin(record, false, table, stored_before) {
                    return Some(record);
                }
                continue;
            }
            let looks_at_all = self.is_of_all() && !self.is_second;
            if self.stripe == *self.stripes.get_or_insert_with(|| table.stripe_count()) {
                if looks_at_all {
                    (self.is_second, self.stripe) = (true, 0);
                    continue;
                }
                return self.next_postponed(table, stored_before, budget);
            }
            let which = if looks_at_all { Collect::All } else { Collect::Pending };
            table.collect(self.stripe, which, &pools, &mut self.records);
            self.records.reverse();
            self.stripe += 1;
            *budget = budget.saturating_sub(16);
        }
        None
    }

    fn next_postponed(
        &mut self,
        table: &LeaseTable,
        stored_before: u64,
        budget: &mut usize,
    ) -> Option<Record> {
        let mut left = std::mem::take(&mut self.postponed);
        while *budget > 0
            && let Some(record) = left.pop()
        {
            *budget -= 1;
            // What has not been stored has not been sent; it may have been met in both rounds.
            if let Some(record) = self.begin(record, false, table, stored_before) {
                self.postponed.append(&mut left);
                return Some(record);
            }
        }
        // What has been looked at stands behind the rest.
        self.is_waiting = left.is_empty() && !self.postponed.is_empty();
        left.append(&mut self.postponed);
        self.postponed = left;
        None
    }

    /// Stripes done, and all. The second round is short.
    pub(super) fn progress(&self) -> (usize, usize) {
        let stripes = self.stripes.unwrap_or(0);
        (if self.is_second { stripes } else { self.stripe }, stripes)
    }

    /// Puts the update back that [`Walk::next`] gave last.
    pub(super) fn carry(&mut self, record: Record) {
        self.carry = Some(record);
    }

    /// The partner's messages come next: what has been begun may be out of date after that, and must
    /// then not be sent.
    pub(super) fn pause(&mut self) {
        if self.carry.is_some() {
            self.stale = self.carry.take();
        }
    }

    /// The lease as it is now, if it still has to be sent; it is postponed if that is not known to be
    /// stored. `again`: also if it counts as sent already.
    fn begin(
        &mut self,
        record: Record,
        again: bool,
        table: &LeaseTable,
        stored_before: u64,
    ) -> Option<Record> {
        let again = again || (self.purpose != Purpose::Unsent && !self.is_second);
        match table.begin_update(record.binding.lease, stored_before, again) {
            Begun::Update(record) => Some(record),
            Begun::NotStored => {
                self.postponed.push(record);
                None
            }
            Begun::Nothing if again && self.is_of_all() => as_it_is(record, table),
            Begun::Nothing => None,
        }
    }
}

/// What a partner that asks for everything is told of a lease that is not pending: as it was when it
/// was copied, or as it is now. What has changed it may have been an update of the partner's, which
/// does not say what that has forgotten.
fn as_it_is(record: Record, table: &LeaseTable) -> Option<Record> {
    let copied = &record.binding;
    let is_free = |status| matches!(status, BindingStatus::Free | BindingStatus::FreeBackup);
    if is_free(copied.status) {
        return (table.status(copied.lease) == Some(copied.status)).then_some(record);
    }
    let binding = table.binding(copied.lease)?;
    Some(Record { binding, ..record })
}
