//! The newest update of each lease that the checkpoint does not hold yet.

use gemel_lease::{BindingStatus, Lease, RecordError};

use crate::{
    format,
    head::Head,
    index::{Hash, Index},
    priority, sort,
};

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
const RECORDS_PER_TURN: u64 = 256;
const ENTRIES_PER_TURN: usize = 1024;
/// Records whose places are brought into the cache together.
const GROUP: usize = 16;
/// Octets of updates that an emptied [`Pending`] keeps room for at most.
const OCTETS_KEPT: usize = 64 << 20;
/// Slots that it keeps room for at most.
const SLOTS_KEPT: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: Key,
    tombstone: bool,
    len: u16,
    stamp: u64,
    at: usize,
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
    /// One per lease, in the order in which they came.
    slots: Vec<Slot>,
    index: Index,
    octets: Vec<u8>,
    /// Works without giving way to other threads.
    pub(crate) in_a_hurry: bool,
    pub(crate) stamp_max: u64,
    /// Taken since it was empty, and those that could not be read.
    pub(crate) records: u64,
    pub(crate) bad_records: u64,
    pub(crate) first_bad: Option<String>,
}

/// Whether a record only says that a lease is free, and may be forgotten when it is old enough. One
/// that the partner still has to hear of may not.
pub(crate) fn is_tombstone(status: BindingStatus, update_pending: bool) -> bool {
    status == BindingStatus::Free && !update_pending
}

impl Pending {
    /// Makes room for so many updates of so many octets.
    pub(crate) fn reserve(&mut self, updates: usize, octets: usize) {
        self.index.reserve(self.slots.len() + updates);
        self.slots.reserve(updates);
        self.octets.reserve(octets);
        priority::prefer_huge_pages(self.slots.spare_capacity_mut());
        priority::prefer_huge_pages(self.octets.spare_capacity_mut());
    }

    /// Takes the updates of a batch.
    pub(crate) fn absorb(&mut self, sequence: u64, mut updates: &[u8]) {
        let mut group = [(Hash::default(), Slot::EMPTY, &updates[..0]); GROUP];
        while !updates.is_empty() {
            let count = self.look_at(sequence, &mut updates, &mut group);
            for &(hash, slot, record) in &group[..count] {
                self.take(hash, slot, record);
            }
        }
    }

    /// Splits up to a group of records off. Their places are on the way into the cache then.
    fn look_at<'a>(
        &mut self,
        sequence: u64,
        updates: &mut &'a [u8],
        group: &mut [(Hash, Slot, &'a [u8]); GROUP],
    ) -> usize {
        let mut count = 0;
        while count < GROUP {
            let (record, rest) = match format::split_record(updates) {
                Ok(Some(split)) => split,
                Ok(None) => break,
                Err(left) => {
                    self.bad(sequence, RecordError::Length(left.len()));
                    *updates = &[];
                    break;
                }
            };
            *updates = rest;
            match Head::read(record) {
                Ok(head) => {
                    let slot = Slot::new(&head, record);
                    group[count] = (self.index.hash(&slot.key), slot, record);
                    count += 1;
                }
                Err(error) => self.bad(sequence, error),
            }
        }
        // Close together, so that the processor fetches them side by side.
        for (hash, ..) in &group[..count] {
            self.index.touch(*hash);
        }
        count
    }

    fn take(&mut self, hash: Hash, slot: Slot, record: &[u8]) {
        if !self.in_a_hurry && self.records.is_multiple_of(RECORDS_PER_TURN) {
            priority::give_way();
        }
        self.records += 1;
        self.stamp_max = self.stamp_max.max(slot.stamp);
        let slots = &self.slots;
        let at = self.octets.len();
        match self.index.find(hash, |number| slots[number].key == slot.key) {
            Some(number) => {
                let old = &mut self.slots[number];
                if old.stamp >= slot.stamp {
                    return;
                }
                if old.len == slot.len {
                    // The same client again, as a rule: its place fits.
                    *old = Slot { at: old.at, ..slot };
                    let place = old.at..old.at + record.len();
                    self.octets[place].copy_from_slice(record);
                    return;
                }
                *old = Slot { at, ..slot };
            }
            None => {
                self.index.insert(hash, self.slots.len());
                self.slots.push(Slot { at, ..slot });
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
        let number = self.index.find(self.index.hash(key), |n| self.slots[n].key == *key)?;
        Some(self.entry(&self.slots[number]))
    }

    fn entry(&self, slot: &Slot) -> Entry<'_> {
        let record = &self.octets[slot.at..slot.at + usize::from(slot.len)];
        Entry { key: slot.key, stamp: slot.stamp, record, tombstone: slot.tombstone }
    }

    /// Records taken since it was empty, bad ones included.
    pub(crate) fn taken(&self) -> u64 {
        self.records + self.bad_records
    }

    /// Leases in it.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Octets it holds, replaced updates included.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len()
    }

    /// All of it in the order of the keys.
    pub(crate) fn sorted(&self) -> Vec<Entry<'_>> {
        let numbered = self.slots.iter().zip(0_u32..).map(|(slot, number)| {
            let (address, prefix_len) = slot.key.split_at(16);
            let address = address.try_into().map_or(0, u128::from_be_bytes);
            (address, prefix_len[0], number)
        });
        let order = sort::sort(numbered.collect(), self.in_a_hurry);
        let mut entries = Vec::with_capacity(order.len());
        for (index, (_, _, number)) in order.into_iter().enumerate() {
            if !self.in_a_hurry && index % ENTRIES_PER_TURN == 0 {
                priority::give_way();
            }
            entries.push(self.entry(&self.slots[number as usize]));
        }
        entries
    }

    /// Empties it, keeps room for what is usual.
    pub(crate) fn clear(&mut self) {
        (self.records, self.bad_records) = (0, 0);
        self.slots.clear();
        self.slots.shrink_to(SLOTS_KEPT);
        self.index.clear();
        self.octets.clear();
        self.octets.shrink_to(OCTETS_KEPT);
    }
}

impl Slot {
    const EMPTY: Self = Self { key: [0; 17], tombstone: false, len: 0, stamp: 0, at: 0 };

    /// Without its place yet.
    fn new(head: &Head, record: &[u8]) -> Self {
        Self {
            key: head.key,
            tombstone: head.tombstone,
            len: u16::try_from(record.len()).expect("a record that can be decoded is short"),
            stamp: head.stamp,
            at: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gemel_lease::{Record, UpdateBatch};

    use super::*;
    use crate::testing::{self, Random, binding};

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

    /// Octets that are mostly records, of few leases so that they meet.
    fn some_updates(random: &mut Random) -> Vec<u8> {
        let mut octets = Vec::new();
        for _ in 0..random.below(40) {
            let len = if random.chance(4) { 9 } else { 14 };
            let number = u32::try_from(random.below(200)).unwrap();
            let mut binding = binding(number, len);
            if random.chance(5) {
                binding.status = BindingStatus::Free;
            }
            let begin = octets.len();
            octets.extend(testing::record(&binding, random.below(5000)));
            if random.chance(30) {
                octets[begin + 2] = 99;
            }
        }
        if random.chance(10) {
            octets.truncate(octets.len().saturating_sub(3));
        }
        octets
    }

    /// Each record decoded whole, one after the other, into a map.
    #[test]
    fn whatever_comes_is_taken_as_one_by_one() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut pending = Pending { in_a_hurry: random.chance(2), ..Pending::default() };
            if random.chance(2) {
                pending.reserve(100, 10_000);
            }
            let mut model: BTreeMap<Key, (u64, Vec<u8>, bool)> = BTreeMap::new();
            let (mut records, mut bad, mut stamp_max) = (0, 0, 0);
            for sequence in 1..60 {
                let updates = some_updates(&mut random);
                pending.absorb(sequence, &updates);
                let mut rest = &updates[..];
                while let Ok(Some((octets, later))) = format::split_record(rest) {
                    rest = later;
                    let Ok(record) = Record::decode(octets) else {
                        bad += 1;
                        continue;
                    };
                    records += 1;
                    stamp_max = record.stamp.max(stamp_max);
                    let lease = key(&record.binding.lease);
                    if model.get(&lease).is_none_or(|(stamp, ..)| *stamp < record.stamp) {
                        let tombstone =
                            is_tombstone(record.binding.status, record.binding.update_pending);
                        model.insert(lease, (record.stamp, octets.to_vec(), tombstone));
                    }
                }
                bad += u64::from(!rest.is_empty());
            }
            let entries = pending.sorted();
            let taken = entries.iter().map(|e| (e.key, (e.stamp, e.record.to_vec(), e.tombstone)));
            assert_eq!(taken.collect::<BTreeMap<_, _>>(), model, "seed {seed}");
            assert!(entries.windows(2).all(|w| w[0].key < w[1].key), "seed {seed}");
            for (lease, (stamp, ..)) in &model {
                assert_eq!(pending.get(lease).unwrap().stamp, *stamp);
            }
            assert_eq!((pending.records, pending.bad_records), (records, bad), "seed {seed}");
            assert_eq!(pending.stamp_max, stamp_max, "seed {seed}");
            assert_eq!(pending.taken(), records + bad, "seed {seed}");
            pending.clear();
            assert!(pending.sorted().is_empty() && pending.taken() == 0);
            assert!(model.keys().all(|lease| pending.get(lease).is_none()));
        }
    }

    #[test]
    fn keys_and_leases() {
        let lease_ = binding(77, 4).lease;
        assert_eq!(lease(&key(&lease_)), Some(lease_));
        assert_eq!(lease(&[0; 16]), None);
        assert_eq!(lease(&[0; 18]), None);
    }
}
