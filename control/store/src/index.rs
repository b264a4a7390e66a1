//! A hash index of leases, made for one job: taking millions of updates in a hurry.
//!
//! It holds numbers of slots by a hash of the lease, in open addressing with linear probing. The place
//! of an entry is the upper bits of its hash, so that growing goes through old and new entries from
//! front to back, without looking at the slots, and [`Index::touch`] brings the place into the
//! processor's cache before it is needed: while one lease's place is on its way, so are the next ones.

use std::hash::{BuildHasher, RandomState};

use crate::{pending::Key, priority};

/// Places at least; a power of two.
const PLACES_MIN: usize = 1024;
/// Places that an emptied index keeps at most: zeroing many takes long.
const PLACES_KEPT: usize = 1 << 20;

/// Slot numbers by lease.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// The hash in the upper half, the slot's number plus one in the lower; 0 is free.
    places: Vec<u64>,
    len: usize,
    /// So that nobody can choose leases that collide.
    seeds: [u64; 2],
}

/// The hash of a lease.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Hash(u32);

impl Default for Index {
    fn default() -> Self {
        let state = RandomState::new();
        Self { places: Vec::new(), len: 0, seeds: [state.hash_one(1), state.hash_one(2)] }
    }
}

impl Index {
    /// The hash of a key.
    pub(crate) fn hash(&self, key: &Key) -> Hash {
        let first = fold(word(&key[..8]) ^ self.seeds[0], word(&key[8..16]) ^ self.seeds[1]);
        let both = fold(first ^ self.seeds[1], u64::from(key[16]) ^ 0x9e37_79b9_7f4a_7c15);
        Hash(upper(both))
    }

    /// Brings the place of a hash into the cache.
    pub(crate) fn touch(&self, hash: Hash) {
        if !self.places.is_empty() {
            std::hint::black_box(self.places[self.home(hash)]);
        }
    }

    /// The slot under a hash for which `is` holds.
    pub(crate) fn find(&self, hash: Hash, mut is: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let place = self.places[at];
            if place == 0 {
                return None;
            }
            if upper(place) == hash.0 {
                let slot = lower(place) as usize - 1;
                if is(slot) {
                    return Some(slot);
                }
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    /// Puts in a slot that is not there yet.
    ///
    /// # Panics
    /// With more than 2^32 - 1 slots.
    pub(crate) fn insert(&mut self, hash: Hash, slot: usize) {
        if (self.len + 1) * 4 > self.places.len() * 3 {
            self.grow((self.places.len() * 2).max(PLACES_MIN));
        }
        let number = u32::try_from(slot + 1).expect("no journal holds so many leases");
        self.put(u64::from(hash.0) << 32 | u64::from(number));
        self.len += 1;
    }

    /// Makes room for so many slots in all.
    pub(crate) fn reserve(&mut self, slots: usize) {
        let places = (slots * 4 / 3 + 1).next_power_of_two();
        if places > self.places.len() {
            self.grow(places.max(PLACES_MIN));
        }
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        if self.places.len() > PLACES_KEPT {
            self.places = Vec::new();
        }
        self.places.fill(0);
        self.len = 0;
    }

    fn grow(&mut self, places: usize) {
        let old = std::mem::replace(&mut self.places, vec![0; places]);
        priority::prefer_huge_pages(&self.places);
        for place in old.into_iter().filter(|&place| place != 0) {
            self.put(place);
        }
    }

    fn put(&mut self, entry: u64) {
        let mut at = self.home(Hash(upper(entry)));
        while self.places[at] != 0 {
            at = (at + 1) & (self.places.len() - 1);
        }
        self.places[at] = entry;
    }

    /// Where the search begins: the upper bits of the hash. There has to be a place.
    fn home(&self, hash: Hash) -> usize {
        let bits = self.places.len().trailing_zeros();
        upper(u64::from(hash.0) << bits) as usize
    }
}

/// Mixes two words: the two halves of their product.
fn fold(a: u64, b: u64) -> u64 {
    let product = (u128::from(a) * u128::from(b)).to_le_bytes();
    let (low, high) = product.split_at(8);
    word(low) ^ word(high)
}

fn word(octets: &[u8]) -> u64 {
    octets.try_into().map_or(0, u64::from_le_bytes)
}

fn upper(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or(u32::MAX)
}

fn lower(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::Random;

    fn key(number: u64) -> Key {
        let mut key = [0; 17];
        key[8..16].copy_from_slice(&number.to_be_bytes());
        key[16] = 128;
        key
    }

    #[test]
    fn it_finds_what_a_map_finds() {
        let mut random = Random::new(5);
        for reserved in [None, Some(1), Some(3000)] {
            let (mut index, mut model) = (Index::default(), HashMap::new());
            if let Some(slots) = reserved {
                index.reserve(slots);
            }
            let mut keys: Vec<Key> = Vec::new();
            for _ in 0..9000 {
                let key = key(random.below(5000));
                let hash = index.hash(&key);
                index.touch(hash);
                let found = index.find(hash, |slot| keys[slot] == key);
                assert_eq!(found, model.get(&key).copied());
                if found.is_none() {
                    index.insert(hash, keys.len());
                    model.insert(key, keys.len());
                    keys.push(key);
                }
            }
            let hash = index.hash(&keys[7]);
            index.clear();
            assert_eq!(index.find(hash, |_| true), None);
        }
    }

    #[test]
    fn keys_that_hash_alike_are_told_apart() {
        let mut index = Index::default();
        for slot in 0..2000 {
            index.insert(Hash(u32::MAX), slot);
        }
        assert_eq!(index.find(Hash(u32::MAX), |slot| slot == 1999), Some(1999));
        assert_eq!(index.find(Hash(u32::MAX - 1), |_| true), None);
    }

    #[test]
    fn neighbours_are_spread() {
        let index = Index::default();
        let upper: std::collections::HashSet<u32> =
            (0..4096).map(|number| index.hash(&key(number)).0 >> 16).collect();
        // 4096 of 65536 at random meet some 125 times.
        assert!(upper.len() > 3800, "{}", upper.len());
    }
}
