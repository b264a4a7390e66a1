//! The newest update of each lease that the checkpoint does not hold yet.

use std::collections::{BTreeMap, btree_map};

use gemel_lease::{Binding, BindingStatus, Lease, Record, RecordError};

use crate::{format, priority};

/// The key of a lease in the checkpoint: address and prefix length, so that keys sort by address.
pub(crate) type Key = [u8; 17];

/// The key of a lease.
pub(crate) fn key(lease: &Lease) -> Key {
    let mut key = [0; 17];
    key[..16].copy_from_slice(&lease.address.octets());
    key[16] = lease.prefix_len;
    key
}

/// The lease of a key.
pub(crate) fn lease(key: &[u8]) -> Option<Lease> {
    let (address, prefix_len) = key.split_first_chunk::<16>()?;
    let &[prefix_len] = prefix_len else { return None };
    Some(Lease { address: (*address).into(), prefix_len })
}

/// Records taken, and entries listed, between two moments of giving way: some 50 us of work.
const RECORDS_PER_TURN: u64 = 128;
const ENTRIES_PER_TURN: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Slot {
    stamp: u64,
    at: usize,
    len: u16,
    tombstone: bool,
}

/// One lease's newest update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Key,
    pub(crate) stamp: u64,
    pub(crate) record: &'a [u8],
    pub(crate) tombstone: bool,
}

/// Updates, the newest per lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// In the order of the keys, so that no long sort holds up the threads that answer clients.
    slots: BTreeMap<Key, Slot>,
    octets: Vec<u8>,
    pub(crate) stamp_max: u64,
    pub(crate) records: u64,
    pub(crate) bad_records: u64,
    pub(crate) first_bad: Option<String>,
}

/// Whether a record only says that a lease is free, and may be forgotten when it is old enough. One
/// that the partner still has to hear of may not.
pub(crate) fn is_tombstone(binding: &Binding) -> bool {
    binding.status == BindingStatus::Free && !binding.update_pending
}

impl Pending {
    /// Takes the updates of a batch.
    pub(crate) fn absorb(&mut self, sequence: u64, mut updates: &[u8]) {
        loop {
            match format::split_record(updates) {
                Ok(None) => return,
                Ok(Some((record, rest))) => {
                    if self.records.is_multiple_of(RECORDS_PER_TURN) {
                        priority::give_way();
                    }
                    match Record::decode(record) {
                        Ok(decoded) => self.take(&decoded, record),
                        Err(error) => self.bad(sequence, error),
                    }
                    updates = rest;
                }
                Err(left) => return self.bad(sequence, RecordError::Length(left.len())),
            }
        }
    }

    fn take(&mut self, decoded: &Record, record: &[u8]) {
        self.records += 1;
        self.stamp_max = self.stamp_max.max(decoded.stamp);
        let Ok(len) = u16::try_from(record.len()) else { return };
        let slot = Slot {
            stamp: decoded.stamp,
            at: self.octets.len(),
            len,
            tombstone: is_tombstone(&decoded.binding),
        };
        match self.slots.entry(key(&decoded.binding.lease)) {
            btree_map::Entry::Occupied(mut old) => {
                if old.get().stamp >= slot.stamp {
                    return;
                }
                let place = *old.get();
                if place.len == len {
                    // The same client again, as a rule: its place fits.
                    self.octets[place.at..place.at + usize::from(len)].copy_from_slice(record);
                    old.insert(Slot { at: place.at, ..slot });
                    return;
                }
                old.insert(slot);
            }
            btree_map::Entry::Vacant(free) => {
                free.insert(slot);
            }
        }
        self.octets.extend_from_slice(record);
    }

    fn bad(&mut self, sequence: u64, error: RecordError) {
        self.bad_records += 1;
        self.first_bad.get_or_insert_with(|| format!("journal sequence {sequence}: {error}"));
    }

    /// The newest update of one lease.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry<'_>> {
        self.slots.get(key).map(|slot| self.entry(*key, slot))
    }

    fn entry(&self, key: Key, slot: &Slot) -> Entry<'_> {
        let record = &self.octets[slot.at..slot.at + usize::from(slot.len)];
        Entry { key, stamp: slot.stamp, record, tombstone: slot.tombstone }
    }

    /// Leases in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Octets it holds, replaced updates included.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len()
    }

    /// All of it in the order of the keys.
    pub(crate) fn sorted(&self) -> Vec<Entry<'_>> {
        let mut entries = Vec::with_capacity(self.slots.len());
        for (index, (&key, slot)) in self.slots.iter().enumerate() {
            if index % ENTRIES_PER_TURN == 0 {
                priority::give_way();
            }
            entries.push(self.entry(key, slot));
        }
        entries
    }

    /// Empties it, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.octets.clear();
    }
}

#[cfg(test)]
mod tests {
    use gemel_lease::UpdateBatch;

    use super::*;
    use crate::testing::{self, binding};

    #[test]
    fn the_larger_stamp_wins_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2]] {
            let mut pending = Pending::default();
            for stamp in order {
                // Records of different length, so that the places differ.
                let len = 10 + usize::try_from(stamp).unwrap() % 2;
                pending.absorb(1, &testing::record(&binding(5, len), stamp));
                pending.absorb(1, &testing::record(&binding(6, 12), stamp));
            }
            let entries = pending.sorted();
            assert_eq!(entries.iter().map(|e| e.stamp).collect::<Vec<_>>(), [3, 3]);
            assert_eq!(entries[0].record, testing::record(&binding(5, 11), 3));
            assert_eq!((pending.len(), pending.stamp_max, pending.records), (2, 3, 6));
        }
    }

    #[test]
    fn a_bad_record_costs_itself_alone() {
        let mut octets = testing::record(&binding(1, 10), 1);
        let second = octets.len();
        octets.extend(testing::record(&binding(2, 10), 2));
        octets.extend(testing::record(&binding(3, 10), 3));
        octets[second + 2] = 99;
        let mut pending = Pending::default();
        pending.absorb(8, &octets);
        assert_eq!((pending.len(), pending.bad_records), (2, 1));
        assert!(
            pending.first_bad.unwrap().starts_with("journal sequence 8: binding record of version")
        );
        let empty = UpdateBatch::default();
        Pending::default().absorb(1, empty.as_bytes());
    }

    #[test]
    fn keys_and_leases() {
        let lease_ = binding(77, 4).lease;
        assert_eq!(lease(&key(&lease_)), Some(lease_));
        assert_eq!(lease(&[0; 16]), None);
        assert_eq!(lease(&[0; 18]), None);
    }
}
