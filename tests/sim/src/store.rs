//! What is on a server's stable storage, and what is on its way there.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use gemel_failover::StoredState;
use gemel_lease::{AbsoluteTime, Lease, Record, UpdateBatch};

use crate::check::Owner;
use crate::clock::Micros;
use crate::rng::Rng;

/// Stable storage: the last record of each lease, and the state of the endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) records: BTreeMap<Lease, Record>,
    pub(crate) state: Option<StoredState>,
}

impl Store {
    /// Stores records.
    pub(crate) fn apply(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match self.records.entry(record.binding.lease) {
                Entry::Vacant(entry) => _ = entry.insert(record),
                Entry::Occupied(mut entry) if entry.get().stamp < record.stamp => {
                    *entry.get_mut() = record;
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// The stamp of what is stored of a lease; 0 if nothing is.
    #[cfg(test)]
    fn stamp(&self, lease: Lease) -> u64 {
        self.records.get(&lease).map_or(0, |record| record.stamp)
    }
}

/// A reply that must not leave before what it says is stored.
#[derive(Debug)]
pub(crate) struct HeldReply {
    pub(crate) client: usize,
    pub(crate) octets: Vec<u8>,
    /// When the server made it.
    pub(crate) made: Micros,
    /// What it gives, to whom, and until when by the server's clock.
    pub(crate) grants: Vec<(Lease, Owner, AbsoluteTime)>,
}

/// Who wants to have something stored.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The server rules, or the sweep.
    Rules(Option<HeldReply>),
    /// The endpoint, with the number of its batch.
    Endpoint(u64),
}

/// Updates on their way to the store.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) octets: Vec<u8>,
    pub(crate) records: Vec<Record>,
    pub(crate) origin: Origin,
}

impl Batch {
    pub(crate) fn new(batch: &UpdateBatch, origin: Origin) -> Self {
        let records = batch.iter().map(|record| record.expect("made by a table")).collect();
        Self { octets: batch.as_bytes().to_vec(), records, origin }
    }
}

/// The control thread's queue: what waits, and how much of it is being written in one group.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    queue: VecDeque<Batch>,
    writing: usize,
}

impl Commits {
    /// The least stamp of what the rules and the sweep have changed and is not stored.
    pub(crate) fn unstored_from(&self) -> Option<u64> {
        let of_rules = self.queue.iter().filter(|it| matches!(it.origin, Origin::Rules(_)));
        of_rules.flat_map(|batch| &batch.records).map(|record| record.stamp).min()
    }

    /// Takes a batch; true if writing has to begin.
    pub(crate) fn push(&mut self, batch: Batch) -> bool {
        self.queue.push_back(batch);
        self.begin()
    }

    /// Begins to write all that waits, unless something is being written already.
    pub(crate) fn begin(&mut self) -> bool {
        if self.writing > 0 || self.queue.is_empty() {
            return false;
        }
        self.writing = self.queue.len();
        true
    }

    /// What was being written is stored.
    pub(crate) fn done(&mut self, store: &mut Store) -> Vec<Batch> {
        let mut group: Vec<_> = self.queue.drain(..self.writing).collect();
        self.writing = 0;
        group.iter_mut().for_each(|batch| store.apply(batch.records.drain(..)));
        group
    }

    /// The server dies: some of what was being written has reached the store, in order.
    pub(crate) fn crash(mut self, store: &mut Store, rng: &mut Rng) {
        let reached = rng.index(self.writing + 1);
        self.queue.drain(..reached).for_each(|batch| store.apply(batch.records));
        if let Some(batch) = self.queue.front_mut().filter(|_| reached < self.writing) {
            let part = rng.index(batch.records.len() + 1);
            store.apply(batch.records.drain(..part));
        }
    }
}

#[cfg(test)]
mod tests {
    use gemel_lease::{Binding, BindingStatus, UpdateSink};

    use super::*;

    fn batch(stamps: &[u64]) -> Batch {
        let mut batch = UpdateBatch::default();
        for stamp in stamps {
            let lease = Lease::address((u128::from(*stamp) % 10).into());
            let binding = Binding { lease, status: BindingStatus::Active, ..Binding::EMPTY };
            batch.push(&binding, *stamp);
        }
        Batch::new(&batch, Origin::Rules(None))
    }

    #[test]
    fn groups_are_written_in_order() {
        let (mut commits, mut store) = (Commits::default(), Store::default());
        assert!(commits.push(batch(&[1, 2])) && !commits.push(batch(&[12])));
        assert_eq!(commits.done(&mut store).len(), 1);
        assert_eq!(store.stamp(Lease::address(2.into())), 2);
        assert!(commits.begin() && !commits.begin());
        assert_eq!(commits.done(&mut store).len(), 1);
        store.apply(batch(&[2]).records);
        assert_eq!(store.stamp(Lease::address(2.into())), 12, "the later one stays");
    }

    #[test]
    fn a_crash_keeps_a_beginning() {
        let mut seen = [false; 4];
        for seed in 0..50 {
            let (mut commits, mut store) = (Commits::default(), Store::default());
            commits.push(batch(&[1, 2, 3]));
            commits.push(batch(&[4]));
            commits.crash(&mut store, &mut Rng::new(seed));
            seen[store.records.len()] = true;
            assert!((1..).zip(store.records.values()).all(|(n, record)| record.stamp == n));
        }
        assert_eq!(seen, [true; 4]);
    }
}
