//! What the partner has to hear of leases that have no record, because they are free.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::RangeInclusive,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use crate::{
    AbsoluteTime, Binding, BindingStatus, IaKind, Lease, Ownership, UpdateSink, pool::Pool,
};

/// The free updates of a table. An entry counts as long as its lease has no record; an entry of a
/// lease that has one is out of date and is dropped by whoever comes across it. Entries are made and
/// taken out while the lease's name is locked.
#[derive(Debug)]
pub(super) struct FreeUpdates {
    /// So that nobody takes the lock where there are none: nearly always.
    count: AtomicUsize,
    map: Mutex<BTreeMap<Lease, FreeUpdate>>,
}

/// One lease of which the partner has to hear that it is free, and whose.
#[derive(Clone, Debug)]
pub(super) struct FreeUpdate {
    /// Of status [`BindingStatus::Free`] or [`BindingStatus::FreeBackup`], and pending.
    pub(super) binding: Binding,
    pub(super) stamp: u64,
    pub(super) sent: bool,
    pub(super) course: Course,
    stored: bool,
}

/// What happens to a lease until the partner has acknowledged a free update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Course {
    /// Nothing: it is what it is.
    Settled,
    /// It is the secondary's already, as far as the primary is concerned.
    Given,
    /// It is still the secondary's, and the primary asks for it.
    Reclaimed,
}

impl FreeUpdate {
    pub(super) fn new(
        lease: Lease,
        status: BindingStatus,
        now: AbsoluteTime,
        stamp: u64,
        course: Course,
    ) -> Self {
        let kind = if lease.prefix_len == 128 { IaKind::Na } else { IaKind::Pd };
        let start_time_of_state = now;
        let binding = Binding {
            lease,
            kind,
            status,
            start_time_of_state,
            update_pending: true,
            ..Binding::EMPTY
        };
        Self { binding, stamp, sent: false, course, stored: true }
    }

    /// Keeps in mind who had the lease last: the RFC has no form for an address of nobody's.
    pub(super) fn of_client(mut self, last: &Binding) -> Self {
        self.binding.duid = last.duid.clone();
        (self.binding.kind, self.binding.iaid) = (last.kind, last.iaid);
        self
    }

    /// From what [`FreeUpdate::push`] pushed.
    pub(super) fn restored(binding: Binding, stamp: u64, pool: &Pool) -> Self {
        let given = binding.status == BindingStatus::FreeBackup
            && pool.ownership() == Ownership::Primary
            && pool.has_backup();
        let course = if given { Course::Given } else { Course::Settled };
        Self { binding, stamp, sent: false, course, stored: true }
    }

    /// Hands the update to the store.
    ///
    /// A prefix that the primary asks for is stored as given to the secondary: after a restart
    /// nobody knows whether the secondary has agreed, and being told again that the prefix is its
    /// own is right in both cases.
    pub(super) fn push(&self, sink: &mut impl UpdateSink) {
        if self.is_reclaim() {
            let status = BindingStatus::FreeBackup;
            sink.push(&Binding { status, ..self.binding.clone() }, self.stamp);
        } else {
            sink.push(&self.binding, self.stamp);
        }
    }

    /// Not unless [`LeaseTable::mark_unstored`](super::LeaseTable::mark_unstored) noted it.
    pub(super) fn is_stored(&self) -> bool {
        self.stored
    }

    /// Whether it asks for a prefix of the secondary's.
    pub(super) fn is_reclaim(&self) -> bool {
        self.course == Course::Reclaimed
    }

    fn is_moving(&self) -> bool {
        self.course != Course::Settled
    }
}

impl FreeUpdates {
    pub(super) fn new() -> Self {
        Self { count: AtomicUsize::new(0), map: Mutex::new(BTreeMap::new()) }
    }

    /// Number of entries, those that are out of date included.
    pub(super) fn len(&self) -> usize {
        // Whoever made an entry for a lease had the lock of its name, as the reader has; so no
        // entry of that lease is overlooked.
        self.count.load(Ordering::SeqCst)
    }

    /// Makes the entry of a lease of this pool, in place of any other.
    pub(super) fn insert(&self, lease: Lease, update: FreeUpdate, pool: &Pool) {
        let moving = update.is_moving();
        let before = {
            let mut map = self.map.lock();
            let before = map.insert(lease, update);
            if before.is_none() {
                self.count.fetch_add(1, Ordering::SeqCst);
            }
            before
        };
        count_moving(pool, before.is_some_and(|update| update.is_moving()), moving);
    }

    /// Takes the entry of a lease of this pool out.
    pub(super) fn remove(&self, lease: Lease, pool: &Pool) -> Option<FreeUpdate> {
        if self.len() == 0 {
            return None;
        }
        let mut map = self.map.lock();
        let update = map.remove(&lease)?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        drop(map);
        count_moving(pool, update.is_moving(), false);
        Some(update)
    }

    /// Shows the entry of a lease.
    pub(super) fn with<T>(&self, lease: Lease, f: impl FnOnce(&mut FreeUpdate) -> T) -> Option<T> {
        if self.len() == 0 {
            return None;
        }
        match self.map.lock().entry(lease) {
            Entry::Occupied(mut entry) => Some(f(entry.get_mut())),
            Entry::Vacant(_) => None,
        }
    }

    /// The leases of a range that have an entry.
    pub(super) fn leases(&self, range: RangeInclusive<Lease>, out: &mut Vec<Lease>) {
        if self.len() > 0 {
            out.extend(self.map.lock().range(range).map(|(lease, _)| *lease));
        }
    }

    pub(super) fn mark_unstored(&self, lease: Lease) {
        self.with(lease, |update| update.stored = false);
    }

    pub(super) fn push_unstored(&self, sink: &mut impl UpdateSink) {
        if self.len() > 0 {
            self.map.lock().values().filter(|update| !update.stored).for_each(|u| u.push(sink));
        }
    }

    pub(super) fn clear_unstored(&self) {
        if self.len() > 0 {
            self.map.lock().values_mut().for_each(|update| update.stored = true);
        }
    }
}

fn count_moving(pool: &Pool, before: bool, now: bool) {
    if before != now {
        pool.count_moving(now);
    }
}
