//! A hash table whose entries stand in the order of their hashes, with gaps: linear probing with one
//! rule more, that nobody stands before somebody of a smaller hash.
//!
//! Why not a common one: the place of an entry follows from its hash alone, so that it can be fetched
//! into the cache before it is needed ([`Ahead`]); there is one line to fetch and not two, since
//! there are no tags beside the entries; whoever looks for what is not there stops at the first larger
//! hash; and to grow it needs nothing but the entries themselves, so that a stripe is locked for a
//! pass over an array and not for a visit to each of its records.
//!
//! The order of two entries of one hash is open.

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use crate::prefetch::{LINE, prefetch};

/// What a table holds.
pub(crate) trait Entry: Copy {
    /// A gap.
    const GAP: Self;

    fn is_gap(&self) -> bool;

    /// The hash; the upper half decides where the entry stands.
    fn hash(&self) -> u64;
}

/// The table.
#[repr(C)]
pub(crate) struct Ordered<E> {
    /// `homes` places where an entry may want to stand, and some more for those who cannot.
    entries: Vec<E>,
    len: usize,
    homes: u32,
}

/// Where a table of a locked stripe has its entries, for those who have not locked it. They may be told
/// of what was: good enough to fetch from, and for nothing else.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    base: AtomicUsize,
    homes: AtomicU32,
}

/// Of eight places, seven may be taken.
const LOAD: (usize, usize) = (7, 8);
const HOMES_MIN: usize = 8;
/// Places after the last home: in a small table, and in a large one. A full table needs more of them
/// once in 10^7 times, and then gets them.
const REST_MIN: usize = 8;
const REST_MAX: usize = 64;

impl<E: Entry> Ordered<E> {
    /// With room for so many entries.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        if capacity == 0 {
            return Self { entries: Vec::new(), len: 0, homes: 0 };
        }
        Self::with_homes((capacity * LOAD.1).div_ceil(LOAD.0))
    }

    fn with_homes(homes: usize) -> Self {
        let homes = homes.max(HOMES_MIN);
        let rest = REST_MIN + (homes / 8).min(REST_MAX - REST_MIN);
        let entries = vec![E::GAP; homes + rest];
        let homes = u32::try_from(homes).expect("a table of fewer than 2^32 entries");
        Self { entries, len: 0, homes }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entry of this hash for which `is` holds.
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(&E) -> bool) -> Option<&E> {
        self.position(hash, is).map(|at| &self.entries[at])
    }

    /// As [`Ordered::find`]. The hash must stay what it is.
    pub(crate) fn find_mut(&mut self, hash: u64, is: impl FnMut(&E) -> bool) -> Option<&mut E> {
        self.position(hash, is).map(|at| &mut self.entries[at])
    }

    /// Puts in an entry that is not there yet.
    pub(crate) fn insert(&mut self, entry: E) {
        if self.len * LOAD.1 >= self.homes as usize * LOAD.0 {
            self.grow();
        }
        self.put(entry);
    }

    /// Takes out the entry of this hash for which `is` holds.
    pub(crate) fn remove(&mut self, hash: u64, is: impl FnMut(&E) -> bool) -> Option<E> {
        let at = self.position(hash, is)?;
        let removed = self.entries[at];
        // Those behind who stand where they do for want of a better place move up.
        let behind = self.entries[at + 1..].iter().zip(at..);
        let stays = |(entry, gap): (&E, usize)| entry.is_gap() || self.home(entry.hash()) > gap;
        let last = at + behind.take_while(|pair| !stays(*pair)).count();
        self.entries.copy_within(at + 1..=last, at);
        self.entries[last] = E::GAP;
        self.len -= 1;
        Some(removed)
    }

    /// Lets others know where the entries are, if they have moved.
    #[inline]
    pub(crate) fn publish(&self, ahead: &Ahead) {
        let base = self.entries.as_ptr().addr();
        if ahead.base.load(Ordering::Relaxed) != base
            || ahead.homes.load(Ordering::Relaxed) != self.homes
        {
            ahead.base.store(base, Ordering::Relaxed);
            ahead.homes.store(self.homes, Ordering::Relaxed);
        }
    }

    fn position(&self, hash: u64, mut is: impl FnMut(&E) -> bool) -> Option<usize> {
        let home = self.home(hash);
        for (at, entry) in (home..).zip(self.entries.get(home..)?) {
            if entry.is_gap() || entry.hash() > hash {
                return None;
            }
            if entry.hash() == hash && is(entry) {
                return Some(at);
            }
        }
        None
    }

    fn put(&mut self, entry: E) {
        let home = self.home(entry.hash());
        let before = |other: &E| !other.is_gap() && other.hash() <= entry.hash();
        let at = home + self.entries[home..].iter().take_while(|other| before(other)).count();
        let gap = self.entries[at..].iter().position(E::is_gap);
        let gap = gap.map_or(self.entries.len(), |distance| at + distance);
        if gap == self.entries.len() {
            // Nothing is left behind the last home.
            self.entries.resize(gap + REST_MIN, E::GAP);
        }
        self.entries.copy_within(at..gap, at + 1);
        self.entries[at] = entry;
        self.len += 1;
    }

    /// Makes room for half as many again.
    /// Makes room for so many entries in all.
    pub(crate) fn make_room(&mut self, capacity: usize) {
        let homes = (capacity * LOAD.1).div_ceil(LOAD.0);
        if homes > self.homes as usize {
            self.grow_to(homes);
        }
    }

    fn grow(&mut self) {
        let homes = self.homes as usize;
        self.grow_to(homes + homes / 2);
    }

    fn grow_to(&mut self, homes: usize) {
        let mut larger = Self::with_homes(homes);
        // They come in order, so that each of them finds its place at the end.
        self.entries.iter().filter(|entry| !entry.is_gap()).for_each(|entry| larger.put(*entry));
        *self = larger;
    }

    /// Where an entry of this hash would like to stand: larger hashes never before smaller ones.
    fn home(&self, hash: u64) -> usize {
        home(hash, self.homes)
    }
}

fn home(hash: u64, homes: u32) -> usize {
    (((hash >> 32) * u64::from(homes)) >> 32) as usize
}

impl Ahead {
    /// Fetches the place of a hash into the cache.
    #[inline]
    pub(crate) fn fetch<E: Entry>(&self, hash: u64) {
        let homes = self.homes.load(Ordering::Relaxed);
        if homes == 0 {
            return;
        }
        let place = home(hash, homes) * size_of::<E>();
        let address = self.base.load(Ordering::Relaxed).wrapping_add(place);
        prefetch(address);
        // Most are found in the first half of a line from there.
        if address % LINE > LINE / 2 {
            prefetch(address.wrapping_add(LINE / 2));
        }
    }
}

impl<E> fmt::Debug for Ordered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Hash and number; number 0 is a gap.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    struct Pair(u64, u32);

    impl Entry for Pair {
        const GAP: Self = Self(0, 0);

        fn is_gap(&self) -> bool {
            self.1 == 0
        }

        fn hash(&self) -> u64 {
            self.0
        }
    }

    fn check(table: &Ordered<Pair>) {
        let taken: Vec<_> =
            table.entries.iter().enumerate().filter(|(_, entry)| !entry.is_gap()).collect();
        assert_eq!(taken.len(), table.len());
        assert!(taken.windows(2).all(|pair| pair[0].1.hash() <= pair[1].1.hash()), "in order");
        for (at, entry) in taken {
            let home = table.home(entry.hash());
            assert!(home <= at, "nobody stands before the own place");
            assert!(table.entries[home..at].iter().all(|entry| !entry.is_gap()), "no gap between");
        }
    }

    /// Hashes that meet, that stand side by side, at both ends, and anywhere.
    fn hashes() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => any::<u64>(),
            2 => (0..4_u64).prop_map(|n| n << 32),
            2 => (0..20_u64).prop_map(|n| u64::MAX - (n << 29)),
            1 => (0..3_u64).prop_map(|n| (1 << 63) + n),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            capacity in prop_oneof![Just(0_usize), 1..200_usize],
            steps in prop::collection::vec((hashes(), 1..5_u32, 0..5_u8), 1..500),
        ) {
            let mut table = Ordered::<Pair>::with_capacity(capacity);
            let mut map = HashMap::new();
            let mut known = Vec::new();
            for (mut hash, number, step) in steps {
                // One of those that came before, half of the time.
                if hash % 2 == 0 && !known.is_empty() {
                    hash = known[(hash >> 1) as usize % known.len()];
                }
                known.push(hash);
                let key = (hash, number);
                let found = table.find(hash, |pair| pair.1 == number).map(|pair| (pair.0, pair.1));
                prop_assert_eq!(found, map.get(&key).copied());
                if step == 0 {
                    let removed = table.remove(hash, |pair| pair.1 == number);
                    prop_assert_eq!(removed.map(|pair| (pair.0, pair.1)), map.remove(&key));
                } else if found.is_none() {
                    table.insert(Pair(hash, number));
                    map.insert(key, key);
                }
                check(&table);
            }
            for (hash, number) in map.into_keys() {
                prop_assert!(table.find_mut(hash, |pair| pair.1 == number).is_some());
            }
        }
    }

    #[test]
    fn room_that_was_made_suffices() {
        for capacity in [1, 10, 1000, 100_000] {
            let mut table = Ordered::<Pair>::with_capacity(capacity);
            let mut hash = 1_u64;
            for number in 1..=capacity {
                hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let base = table.entries.as_ptr();
                table.insert(Pair(hash, u32::try_from(number).unwrap()));
                assert_eq!(table.entries.as_ptr(), base, "entry {number} of {capacity}");
            }
            check(&table);
        }
    }

    #[test]
    fn entries_of_one_hash_all_have_a_place() {
        let mut table = Ordered::with_capacity(0);
        (1..300).for_each(|number| table.insert(Pair(u64::MAX, number)));
        check(&table);
        for number in (1..300).rev() {
            assert_eq!(
                table.remove(u64::MAX, |pair| pair.1 == number),
                Some(Pair(u64::MAX, number))
            );
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn what_is_published_is_where_the_entries_are() {
        let mut table = Ordered::<Pair>::with_capacity(0);
        let ahead = Ahead::default();
        ahead.fetch::<Pair>(7);
        for number in 1..1000 {
            table.insert(Pair(u64::from(number) << 50, number));
            table.publish(&ahead);
            assert_eq!(ahead.base.load(Ordering::Relaxed), table.entries.as_ptr().addr());
            assert_eq!(ahead.homes.load(Ordering::Relaxed), table.homes);
        }
        for hash in [0, 1 << 40, u64::MAX] {
            ahead.fetch::<Pair>(hash);
        }
    }
}
