//! Leases that the partner has to hear of, in the order of their changes.

use std::collections::VecDeque;

use gemel_lease::{Lease, LeaseTable, Record};

/// A bounded queue; what it cannot take is found again by a search through the table.
#[derive(Debug)]
pub(super) struct Queue {
    leases: VecDeque<Waiting>,
    limit: usize,
    /// What has been begun but belongs into the next message.
    carry: Option<Record>,
    /// The same, from an earlier call: it may have changed since.
    stale: Option<Waiting>,
    /// Leases that have been taken out or dropped.
    gone: u64,
}

/// A lease, and the stamp up to which its changes are stored.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    lease: Lease,
    stamp: u64,
}

impl Waiting {
    fn begin(self, begun: bool, table: &LeaseTable) -> Option<Record> {
        // What has changed again comes again.
        table.begin_update(self.lease, self.stamp.saturating_add(1), begun).update()
    }
}

/// Leases in the queue of a relationship: two thirds of a second at 100,000 updates per second.
pub(super) const LIMIT: usize = 65_536;

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { leases: VecDeque::new(), limit, carry: None, stale: None, gone: 0 }
    }

    /// A lease whose changes up to `stamp` are stored, or on their way there in a batch that
    /// updates wait for. False if the queue was full: it is empty now, and the table has to be
    /// searched.
    pub(super) fn push(&mut self, lease: Lease, stamp: u64) -> bool {
        if self.leases.len() >= self.limit {
            self.clear();
            return false;
        }
        self.leases.push_back(Waiting { lease, stamp });
        true
    }

    pub(super) fn clear(&mut self) {
        self.gone += self.leases.len() as u64;
        self.leases.clear();
    }

    /// Forgets what has been begun, too: the connection is gone.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.carry = None;
        self.stale = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty() && !self.has_begun()
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len() + usize::from(self.has_begun())
    }

    /// The next update to be sent. Leases of which the partner has heard meanwhile are passed over,
    /// and those that have changed once more: they come again when that is stored. Each costs one of
    /// `budget`.
    pub(super) fn next(&mut self, table: &LeaseTable, budget: &mut usize) -> Option<Record> {
        if self.carry.is_some() {
            return self.carry.take();
        }
        if let Some(record) = self.stale.take().and_then(|waiting| waiting.begin(true, table)) {
            return Some(record);
        }
        while *budget > 0 {
            let waiting = self.leases.pop_front()?;
            self.gone += 1;
            *budget -= 1;
            if let Some(record) = waiting.begin(false, table) {
                return Some(record);
            }
        }
        None
    }

    /// Puts the update back that [`Queue::next`] gave last.
    pub(super) fn carry(&mut self, record: Record) {
        self.carry = Some(record);
    }

    /// The partner's messages come next: what has been begun may be out of date after that, and must
    /// then not be sent.
    pub(super) fn pause(&mut self) {
        if let Some(Record { binding, stamp }) = self.carry.take() {
            self.stale = Some(Waiting { lease: binding.lease, stamp });
        }
    }

    fn has_begun(&self) -> bool {
        self.carry.is_some() || self.stale.is_some()
    }

    /// A point in the order of leases: all that are in the queue.
    pub(super) fn mark(&self) -> u64 {
        self.gone + self.leases.len() as u64
    }

    /// Whether all leases before the mark have been taken out and their updates sent.
    pub(super) fn has_passed(&self, mark: u64) -> bool {
        self.gone >= mark && (!self.has_begun() || self.gone > mark)
    }
}
